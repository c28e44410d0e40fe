"""All studies side by side, all curves at once, and when each trial ran."""

import json
import re

import pytest

from redsm5.engine import paths
from redsm5.engine.records import Event
from tests.tui.pilots import notices, pressed, settled, shown, until
from tui import app as app_module
from tui.app import TerminalApp
from tui.panels import many as panels
from tui.panels.chart import draw
from tui.read.look import Looker, Wanted
from tui.read.many import ManyReader
from tui.read.reader import Reader
from tui.screens.studies import StudiesScreen


@pytest.fixture(autouse=True)
def _on_demand(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)


@pytest.fixture
def three(folder):
    """Studies of one metric, and one of another."""
    folder.study("first", created=900, states=("completed",) * 3, state="completed", wanted=3)
    other = folder.study("loss", created=800, states=("completed",), state="stopped", wanted=9)
    folder.rewrite(paths.study_dir(folder.root, other) / paths.STUDY, metric="val_loss")
    folder.study(states=("completed", "pruned", "running"))
    return folder


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_the_list_says_how_each_study_stands_and_enter_opens_one(three, size):
    app = TerminalApp(three.root)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pressed(pilot, "9")
        assert isinstance(app.screen, StudiesScreen)
        lines = {name: line for line in shown(app).split("\n") for name in ("first", "loss", "night-search")
                 if re.search(rf"│ .* {name} .*B", line)}  # fmt: skip
        for part in ("✔ completed", "/3", "1.3 GB"):
            assert part in lines["first"]
        for part in ("■ stopped", "/9", "438 MB"):
            assert part in lines["loss"]
        for part in ("● running", "/20", "▸"):
            assert part in lines["night-search"]
        assert "● night-search, ■ first" in shown(app)
        assert "without 1 of other metrics" in shown(app)
        await pressed(pilot, "end", "enter")
        assert app.current_mode == "overview"
        assert "first (1 of 3)" in shown(app)


@pytest.mark.asyncio
async def test_the_palette_opens_a_study(three):
    app = TerminalApp(three.root)
    async with app.run_test(size=(100, 40)) as pilot:
        await settled(pilot)
        await pilot.press("ctrl+p")
        await pilot.press(*"study first", "enter")
        await until(pilot, lambda: "first (1 of 3)" in shown(app))


@pytest.mark.asyncio
async def test_a_study_that_starts_is_told_of_once(three):
    app = TerminalApp(three.root)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        assert "has started" not in notices(app)
        three.study("later", created=0, states=("running",))
        await settled(pilot)
        await settled(pilot)
        assert notices(app).count("later has started: 9 lists the studies.") == 1


def test_the_best_so_far_of_each_study_is_a_staircase_that_ends_with_its_last_trial(three):
    looker = Looker(three.root)
    assert all(line.bytes is None for line in looker.look(Wanted(needs="studies")).studies), "read in the first look"
    view = looker.look(Wanted(needs="studies"))
    shown = panels.drawn(view.studies, view)
    assert [line.record.name for line in shown] == ["night-search", "first"]
    chart = panels.best_so_far(shown, "val_f1_macro")
    assert [line.xs[-1] for line in chart.lines if line.kind == "line"] == [2, 2]
    assert {line.marker for line in chart.lines if line.kind == "points"} == {"●", "■"}
    assert "■" in draw(chart, 60, 12).plain


# ---------------------------------------------------------------------------------------------------------------------
# all trials at once


def test_all_curves_are_drawn_faint_where_the_trial_was_ended_and_the_best_on_top(sample):
    snapshot = Reader(sample).read()
    many = ManyReader(sample).look(snapshot.study.study_id, "val_f1_macro", snapshot.trials, 10)
    assert many.pending == 0
    with_scores = [t for t in snapshot.trials if t.best]
    assert {i for i, series in many.curves.items() if series.values} == {t.trial_id for t in with_scores}
    chart = panels.curves(many, snapshot.trials, "val_f1_macro")
    styles = [line.style for line in chart.lines]
    ended = [t for t in with_scores if t.state in ("pruned", "interrupted", "paused")]
    assert styles.count("bright_black") == len(ended)
    assert styles[: len(ended)] == ["bright_black"] * len(ended)
    assert styles[-1] == "bold green"
    assert chart.within == (0.0, 1.0)


def test_curves_are_read_step_by_step_and_go_on_where_a_trial_writes(sample, folder):
    snapshot = Reader(sample).read()
    reader, study = ManyReader(sample), snapshot.study.study_id
    assert reader.look(study, "val_f1_macro", snapshot.trials, -1).pending == 8
    before = reader.look(study, "val_f1_macro", snapshot.trials, 10)
    running = folder.of(7)
    count = len(before.curves[running].values)
    with (paths.trial_dir(sample, running) / paths.METRICS).open("a") as file:
        row = {"trial_id": running, "metric": "val_f1_macro", "step": 999, "epoch": 9, "value": 0.5,
               "timestamp": folder.ago(0)}  # fmt: skip
        file.write(json.dumps(row) + "\n")
    after = reader.look(study, "val_f1_macro", snapshot.trials, 10)
    assert len(after.curves[running].values) == count + 1
    assert after.version > before.version


def test_the_timeline_shows_when_a_trial_ran_and_that_it_waited(folder):
    study = folder.study(states=("completed", "running"), index=False)
    events = [
        Event(timestamp=folder.ago(ago), trial_id=folder.of(n), number=n, state=state)
        for ago, n, state in (
            (60, 0, "preparing"), (59, 0, "running"), (40, 0, "interrupted"), (20, 0, "running"), (10, 0, "completed"),
            (10, 1, "running"),
        )
    ]  # fmt: skip
    folder.lines(paths.study_dir(folder.root, study) / paths.EVENTS, events)
    looker = Looker(folder.root)
    looker.look(Wanted())
    view = looker.look(Wanted(needs="many"))
    page = panels.timeline(view.many, view, 70, 10).plain.split("\n")
    first, second = (line.split(maxsplit=2) for line in page[:2])
    assert (first[0], second[0]) == ("#0", "#1")
    assert re.fullmatch("━{18,24}┄{17,23}━{8,14}", first[2].strip())
    assert re.fullmatch(r"━{8,14}", second[2].strip())
    assert len(page) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_v_shows_the_curves_and_then_the_timeline(sample, size):
    app = TerminalApp(sample)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pressed(pilot, "v")
        assert "val_f1_macro by epoch: 8 trials" in shown(app)
        await pressed(pilot, "v")
        assert "timeline: ━ runs ┄ waits" in shown(app)
        assert "#7 ●" in shown(app)
        await pressed(pilot, "v")
        assert "val_f1_macro over the trials" in shown(app)
