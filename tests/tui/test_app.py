"""The screens show the folder, follow it, and stay where the reader left them."""

import asyncio
import json

import pytest
from textual.widgets import DataTable, Static

from redsm5 import paths
from tui import app as app_module
from tui.app import TerminalApp

SIZES = [(80, 24), (100, 30), (160, 50)]


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 0.02)


async def until(pilot, condition):
    """Wait for what the next readings of the folder bring."""
    for _ in range(200):
        await pilot.pause(0.02)
        if condition():
            return
    pytest.fail("it never came")


async def opened(app, pilot):
    await until(pilot, lambda: app.snapshot is not None)
    await pilot.pause()


def screen_text(app):
    """Everything that stands on the screen, line by line."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES)
async def test_the_overview_fits(sample, size):
    app = TerminalApp(sample)
    async with app.run_test(size=size) as pilot:
        await opened(app, pilot)
        shown = screen_text(app)
        for part in (
            "night-search",
            "● running",
            "trial 8 of 20",
            "val_f1_macro over the trials",
            "best 0.487 · #6",
            "3.1 GB of checkpoints, 7 trials",
            "4 ✔   1 ✂   1 ✗   1 ⏸",
            "● #7  running  epoch 4 of 10",
            "1 Overview",
            "2 Trials",
            "? Help",
            "q Quit",
        ):
            assert part in shown
        for name in ("chart", "now", "storage", "pace", "lately"):
            region = app.screen.query_one(f"#{name}").region
            assert region.height >= 4 if name != "pace" else region.height >= 3
            assert region.right <= size[0]
            assert region.bottom <= size[1] - 1


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES)
async def test_the_trials_with_a_symbol_for_each_state(sample, size):
    app = TerminalApp(sample)
    async with app.run_test(size=size) as pilot:
        await opened(app, pilot)
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query_one(DataTable).row_count == 8)
        await pilot.pause()
        shown = screen_text(app)
        for part in ("8 of 20 trials", "✔ completed", "✂ pruned", "✗ failed", "⏸ interrupted", "● running", "★"):
            assert part in shown
        await pilot.press("down", "down", "down")
        await pilot.pause()
        assert "not_finite: loss is NaN at [red]step[/red] 212" in screen_text(app)
        await pilot.press("1")
        await pilot.pause()
        assert "lately" in screen_text(app)


@pytest.mark.asyncio
async def test_what_changes_in_the_folder_changes_on_the_screen_and_the_cursor_stays(sample, folder):
    app = TerminalApp(sample)
    async with app.run_test(size=(80, 16)) as pilot:
        await opened(app, pilot)
        await pilot.press("2")
        table = app.screen.query_one(DataTable)
        await until(pilot, lambda: table.row_count == 8)
        await pilot.press("down", "down", "down", "down", "down")
        await pilot.pause()
        before = (table.cursor_row, table.scroll_y)

        study_id = folder.id("night-search")
        own = paths.trial_dir(sample, folder.id(study_id, 7)) / paths.TRIAL
        own.write_text(json.dumps(json.loads(own.read_text()) | {"epoch": 9}))
        index = paths.study_dir(sample, study_id) / paths.INDEX
        table_of_trials = json.loads(index.read_text())
        added = folder.trial(study_id, 8, "queued")
        table_of_trials["trials"].append(added.model_dump(mode="json"))
        index.write_text(json.dumps(table_of_trials))

        await until(pilot, lambda: table.row_count == 9)
        assert str(table.get_cell_at((7, 4))) == "9/10"
        assert (table.cursor_row, table.scroll_y) == before


@pytest.mark.asyncio
async def test_a_new_parameter_makes_a_column_and_the_cursor_stays(sample, folder):
    app = TerminalApp(sample)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(app, pilot)
        await pilot.press("2")
        table = app.screen.query_one(DataTable)
        await until(pilot, lambda: table.row_count == 8)
        await pilot.press("down", "down")
        own = paths.trial_dir(sample, folder.id(folder.id("night-search"), 7)) / paths.TRIAL
        trial = json.loads(own.read_text())
        trial["parameters"]["train.warmup_ratio"] = 0.1
        own.write_text(json.dumps(trial))
        await until(pilot, lambda: len(table.columns) == 12)
        await pilot.pause()
        assert table.cursor_row == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("exists", [True, False])
async def test_an_empty_folder_says_what_to_do_and_fills_by_itself(tmp_path, folder, exists):
    folder.root = tmp_path / "later"
    if exists:
        folder.root.mkdir()
    app = TerminalApp(folder.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        assert "yet: run `just hpo`" in " ".join(screen_text(app).split())  # a long path breaks the line
        await pilot.press("2")
        await pilot.pause()
        assert "yet: run `just hpo`" in " ".join(screen_text(app).split())  # a long path breaks the line
        folder.study()
        await until(pilot, lambda: app.screen.query_one(DataTable).row_count == 8)
        await pilot.press("1")
        await until(pilot, lambda: "night-search" in screen_text(app) and "lately" in screen_text(app))


@pytest.mark.asyncio
async def test_s_goes_through_the_studies(folder):
    folder.study("old", created=500, states=("completed",))
    folder.study("new", created=5, states=("completed", "pruned"))
    app = TerminalApp(folder.root)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(app, pilot)
        assert "new (2 of 2)" in screen_text(app)
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query_one(DataTable).row_count == 2)
        await pilot.press("s")
        await until(pilot, lambda: "old (1 of 2)" in screen_text(app))
        assert app.screen.query_one(DataTable).row_count == 1
        await pilot.press("s")
        await until(pilot, lambda: "new (2 of 2)" in screen_text(app))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "states", [(), ("queued",), ("failed",), ("completed",), ("running",) * 6, ("completed",) * 300]
)
async def test_any_study_can_be_drawn(folder, states):
    folder.study(states=states)
    app = TerminalApp(folder.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        assert "night-search" in screen_text(app)
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query_one(DataTable).row_count == len(states))


@pytest.mark.asyncio
async def test_scores_that_are_not_finite_can_be_drawn(sample):
    for path in sample.glob("trial_*/trial.json"):
        trial = json.loads(path.read_text())
        if trial["number"] == 7:
            path.write_text(json.dumps(trial | {"best": {"epoch": 1, "value": "NaN"}}))
    app = TerminalApp(sample)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        assert "best 0.487" in screen_text(app)


@pytest.mark.asyncio
async def test_help_opens_and_closes_and_q_quits(sample):
    app = TerminalApp(sample)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert "✂ pruned" in screen_text(app)
        assert "quit; the search goes on" in screen_text(app)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, app_module.HelpScreen)
        await pilot.press("question_mark")
        await pilot.press("q")
        await pilot.pause()
        assert app.is_running
        await pilot.press("q")
        await asyncio.sleep(0.05)
    assert app.return_code == 0


@pytest.mark.asyncio
async def test_it_survives_a_terminal_that_changes_its_size(sample):
    app = TerminalApp(sample)
    async with app.run_test(size=(160, 50)) as pilot:
        await opened(app, pilot)
        assert app.screen.query_one("#best", Static).region.width > 0
        await pilot.resize_terminal(80, 24)
        await pilot.pause(0.2)
        assert app.screen.query_one("#best", Static).region.width == 0
        assert "● #7  running  epoch 4 of 10" in screen_text(app)
        await pilot.resize_terminal(20, 5)
        await pilot.pause(0.2)
        assert app.is_running
