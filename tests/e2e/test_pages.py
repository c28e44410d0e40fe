"""The pages of a real study lead to each other, wherever its folder lies, and never to nothing."""

import shutil
from pathlib import Path

import pytest

from redsm5.engine import paths
from tests.e2e.conftest import records, run
from tests.evaluation.conftest import Page


def links(page: Path) -> list[Path]:
    """Where the links of a page lead; each is there."""
    found = [value for value in Page(page.read_text()).values("href") if not value.startswith("data:")]
    assert not [value for value in found if value.startswith("/") or ":" in value], "relative, so that they can move"
    leads = [(page.parent / value).resolve() for value in found]
    assert [path for path in leads if not path.is_file()] == [], page
    return leads


def reached(first: Path) -> set[Path]:
    """All pages that links lead to from this one."""
    seen, waiting = set[Path](), [first.resolve()]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            waiting += links(page) if page.suffix == ".html" else []
    return seen


def pages(experiments: Path) -> set[Path]:
    return {path.resolve() for path in experiments.glob("*/*.html")}


@pytest.fixture
def study(uninterrupted: Path, tmp_path: Path) -> Path:
    """A finished study with its summary and a baseline."""
    experiments = tmp_path / "experiments"
    shutil.copytree(uninterrupted, experiments)
    run("baseline.py", "data.posts=90", f"experiments={experiments}")
    run("summarize.py", "--experiments", str(experiments))
    return experiments


def test_before_there_is_a_summary_no_link_is_dead(uninterrupted: Path) -> None:
    assert len(pages(uninterrupted)) == 2
    for page in pages(uninterrupted):
        links(page)


def test_every_page_of_a_study_leads_to_every_other(study: Path, tmp_path: Path) -> None:
    assert len(pages(study)) == 4
    for page in pages(study):
        assert reached(page) == pages(study), page
    elsewhere = study.rename(tmp_path / "moved")
    for page in pages(elsewhere):
        assert reached(page) == pages(elsewhere), page


def test_neighbours_are_told_by_number(study: Path) -> None:
    first, second = (study / f"trial_{record['trial_id']}" / paths.REPORT_PAGE for record in records(study))
    assert "Trial 1 →" in first.read_text()
    assert "←" not in first.read_text()
    assert "← Trial 0" in second.read_text()
    assert "→" not in second.read_text()


def test_a_page_that_is_drawn_again_keeps_its_links(study: Path) -> None:
    first = study / f"trial_{records(study)[0]['trial_id']}" / paths.REPORT_PAGE
    before = links(first)
    run("evaluate.py", records(study)[0]["trial_id"], "--experiments", str(study))
    assert links(first) == before


def test_what_is_gone_is_linked_no_more_and_other_pages_are_not_written_again(study: Path) -> None:
    shutil.rmtree(next(study.glob("baseline_*")))
    run("summarize.py", "--experiments", str(study))
    assert len(pages(study)) == 3
    times = {page: page.stat().st_mtime_ns for page in study.glob("trial_*/*.html")}
    for page in pages(study):
        assert reached(page) == pages(study)
    run("summarize.py", "--experiments", str(study))
    assert {page: page.stat().st_mtime_ns for page in times} == times


def test_the_page_of_an_older_version_is_linked_too(study: Path) -> None:
    old = study / f"trial_{records(study)[0]['trial_id']}" / paths.REPORT_PAGE
    html = old.read_text()
    start, end = html.index("<!-- links -->"), html.index("<!-- /links -->\n") + len("<!-- /links -->\n")
    old.write_text(html[:start] + html[end:])
    assert links(old) == []
    run("summarize.py", "--experiments", str(study))
    assert old.read_text() == html
