"""What README.md, CONTRIBUTING.md and docs/ say of settings, commands and files is true of the repository."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOL = SETTINGS["tool"]
FEWEST_COMMANDS = 20


def figures(pattern: str, *names: str) -> set[str]:
    """What the pattern's group is in these files; each must have it."""
    found = [re.findall(pattern, (ROOT / name).read_text()) for name in names]
    assert all(found), f"{pattern} is missing in {names}"
    return {figure for per_file in found for figure in per_file}


def test_the_figures_of_contributing_are_those_of_the_settings() -> None:
    assert figures(r"at\s+least (\d+) %\s+coverage", "CONTRIBUTING.md") == {
        str(TOOL["coverage"]["report"]["fail_under"])
    }
    assert figures(r"at most (\d+) characters", "CONTRIBUTING.md") == {str(TOOL["ruff"]["line-length"])}
    assert figures(r"A test may take (\d+) seconds", "CONTRIBUTING.md") == {
        str(TOOL["pytest"]["ini_options"]["timeout"])
    }
    assert TOOL["black"]["line-length"] == TOOL["ruff"]["line-length"]


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = SETTINGS["project"]["requires-python"].removeprefix(">=").split(",")[0]
    assert figures(r"Python (3\.\d+) or newer", "README.md", "CONTRIBUTING.md", "justfile") == {oldest}
    short = "py" + oldest.replace(".", "")
    assert (TOOL["ruff"]["target-version"], TOOL["black"]["target-version"]) == (short, [short])
    assert TOOL["mypy"]["python_version"] == oldest


def test_every_command_that_is_named_is_a_recipe() -> None:
    recipes = set(re.findall(r"^([a-z][a-z-]*)(?: [^:\n]*)?:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE))
    sources = [*PAGES, *(path for folder in ("redsm5", "tui", "scripts") for path in (ROOT / folder).rglob("*.py"))]
    named = {
        (word, path.name) for path in sources for word in re.findall(r"[`\"]just ([a-z][a-z-]*)", path.read_text())
    }
    assert len({word for word, _ in named}) >= FEWEST_COMMANDS
    assert {(word, where) for word, where in named if word not in recipes} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
