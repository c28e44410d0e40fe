"""docs/reference.md is the page that the code makes, and has every key of the configuration."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from redsm5.config import compose
from tests.scripts.conftest import ROOT, Run

PAGE = ROOT / "docs" / "reference.md"
ONE_KEY = ("symptoms", "search.space")  # mappings with any keys


def keys_of(tree: Any, name: str = "") -> Iterator[str]:
    """The dotted keys of a dumped configuration."""
    if isinstance(tree, Mapping) and name not in ONE_KEY:
        for key, value in tree.items():
            yield from keys_of(value, f"{name}.{key}" if name else key)
    else:
        yield name


def test_the_committed_reference_is_the_one_made_from_the_code_in_any_environment(script: Run) -> None:
    done = script("reference.py", "--check", REDSM5_EXPERIMENTS="/elsewhere")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_key_of_the_configuration_has_one_row() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| .* \| .* \| .* \|$", PAGE.read_text().split("## Groups")[0], re.MULTILINE)
    assert sorted(row for row in rows if ".KEY." not in row) == sorted(keys_of(compose([]).model_dump()))
