"""docs/reference.md is the page that the code makes, and has every key of the configuration."""

import re

from redsm5.config import compose, known_keys
from tests.scripts.conftest import ROOT, Run

PAGE = ROOT / "docs" / "reference.md"


def test_the_committed_reference_is_the_one_made_from_the_code_in_any_environment(script: Run) -> None:
    done = script("reference.py", "--check", REDSM5_EXPERIMENTS="/elsewhere")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_key_of_the_configuration_has_one_row() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| .* \| .* \| .* \|$", PAGE.read_text().split("## Groups")[0], re.MULTILINE)
    keys = {re.sub(r"^symptoms\..*", "symptoms", key) for key in known_keys(compose([]))}
    assert sorted(row for row in rows if ".KEY." not in row) == sorted(keys)
