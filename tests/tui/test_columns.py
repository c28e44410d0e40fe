"""The columns of the table of trials: what varies comes first, and what the user chose stays."""

import re

import pytest
from textual.widgets import Input

from redsm5.engine import paths
from tests.tui.pilots import notices, pressed, rows, settled, shown, until, words
from tests.tui.searched import searched
from tui import app as app_module
from tui.app import TerminalApp
from tui.panels.trials import columns, starred, tags, with_star_changed
from tui.read.reader import Reader
from tui.screens.columns import ColumnsScreen
from tui.widgets.table import Table


@pytest.fixture(autouse=True)
def _on_demand(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)


def labels(app):
    return [column.label for column in app.screen.query_one(Table).columns]


async def toggle(pilot, *names):
    """Show or hide these columns in the dialog."""
    await pressed(pilot, "L")
    screen = pilot.app.screen
    assert isinstance(screen, ColumnsScreen)
    table = screen.query_one(Table)
    for name in names:
        table.put_cursor(name)
        await pilot.press("space")
    await pressed(pilot, "enter")


@pytest.mark.asyncio
async def test_at_80_columns_the_parameters_that_vary_come_before_the_bytes(folder):
    searched(folder)
    app = TerminalApp(folder.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        seen = shown(app).split("\n")[2]
        assert "dropout" in seen
        assert "head" in seen
        assert "bytes" not in seen
        assert labels(app).index("bytes") > labels(app).index("loss")


def test_what_is_the_same_in_all_trials_comes_after_the_bytes(sample):
    found = [column.label for column in columns(Reader(sample).read().trials, "f1", {})]
    assert found.index("lr") < found.index("bytes") < found.index("batch")


@pytest.mark.asyncio
async def test_the_chosen_columns_are_shown_and_kept_for_the_next_start(night, folder):
    app = TerminalApp(night)
    async with app.run_test(size=(200, 60)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "home")
        before = labels(app)
        assert not {"★", "tags", "test F1!", "started"} & set(before)
        await toggle(pilot, "test", "started", "tags", "star", "bytes", "train.batch_size")
        await settled(pilot)
        assert set(labels(app)) - set(before) == {"★", "tags", "test F1!", "started"}
        assert set(before) - set(labels(app)) == {"bytes", "batch"}
        assert "test F1: never choose by this" in shown(app)
        app.memory.note(folder.of(0), "look #later #odd")
        await pressed(pilot, "asterisk")
        await settled(pilot)
        first = shown(app).split("\n")[3]
        assert "#later #odd" in first
        assert first.count("★") == 1
        report = app.view.tests[folder.of(0)]
        assert f"{report:.3f}" in first
        kept = labels(app)
    app = TerminalApp(night)
    async with app.run_test(size=(200, 60)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await settled(pilot)
        assert labels(app) == kept


@pytest.mark.asyncio
async def test_no_trial_is_chosen_by_its_test_score(night):
    """Neither the keys nor a click on the header sort by it."""
    app = TerminalApp(night)
    async with app.run_test(size=(200, 60)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await toggle(pilot, "test")
        for _ in labels(app):
            await pressed(pilot, "o")
            assert "sorted by test" not in shown(app)
        before = rows(app)
        app.screen.post_message(Table.Headed("test"))
        await settled(pilot)
        assert rows(app) == before
        assert "Trials are not sorted by their test score: never choose by this." in notices(app)


@pytest.mark.asyncio
async def test_a_report_that_is_of_validation_is_no_test_score(night, folder):
    path = paths.trial_dir(folder.root, folder.of(0)) / paths.REPORT
    folder.rewrite(path, split="validation")
    app = TerminalApp(night)
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await toggle(pilot, "test")
        await settled(pilot)
        assert folder.of(0) not in app.view.tests
        assert folder.of(1) in app.view.tests


@pytest.mark.asyncio
async def test_the_filter_finds_stars_and_tags(night, folder):
    app = TerminalApp(night)
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        app.memory.note(folder.of(2), "★ #odd one")
        await pressed(pilot, "2", "slash")
        app.screen.query_one(Input).value = "star=★ tags~odd"
        await until(pilot, lambda: rows(app) == [2])
        assert "odd" in words(app)


@pytest.mark.parametrize("note", ["", "words", "★", "★ words #tag"])
def test_a_star_twice_is_none(note):
    assert starred(with_star_changed(note)) != starred(note)
    assert with_star_changed(with_star_changed(note)) == note
    assert tags(note) == ("#tag" if "#tag" in note else "")


@pytest.mark.asyncio
@pytest.mark.parametrize("keys", [("2", "home", "4"), ("2", "home", "m", "down", "m", "6")])
async def test_at_200_by_60_report_and_compare_fill_the_screen(night, keys):
    """Nearly all columns are in use, and most of the lines."""
    app = TerminalApp(night)
    async with app.run_test(size=(200, 60)) as pilot:
        await settled(pilot)
        for key in keys:
            await pressed(pilot, key)
        lines = [re.sub("[╭╮╰╯─│]", " ", line) for line in shown(app).split("\n")[1:-1]]
        assert max(len(line.rstrip()) for line in lines) >= 175
        assert sum(bool(line.strip()) for line in lines) >= 0.6 * len(lines)
