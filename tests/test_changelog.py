"""The version stands in pyproject.toml alone, and the changelog begins with it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_begins_with_the_version_of_the_project_and_has_the_kinds_of_keep_a_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert headings[0][0] == version
    assert len(headings) == text.count("\n## "), "a heading is none of a version"
    assert [when for _, when in headings[1:] if when == "Unreleased"] == []
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= KINDS
