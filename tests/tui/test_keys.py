"""Every key does what the help says of it; a key without a step here fails the last test."""

import json

import pytest
from textual.binding import Binding
from textual.widgets import Input, Tabs

from redsm5.engine import paths
from tests.tui.pilots import (
    asked,
    at,
    beneath,
    charts,
    chosen,
    cursor,
    log_title,
    marked,
    notices,
    pressed,
    rows,
    settled,
    shown,
    until,
    words,
)
from tests.tui.searched import importance
from tui import app as app_module
from tui.app import TerminalApp
from tui.screens.base import FolderScreen
from tui.screens.charts import ChartsScreen
from tui.screens.columns import ColumnsScreen
from tui.screens.compare import CompareScreen
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import HelpScreen
from tui.screens.line import LineScreen
from tui.screens.machine import MachineScreen
from tui.screens.note import NoteScreen
from tui.screens.overview import OverviewScreen
from tui.screens.parameters import ParametersScreen
from tui.screens.report import ReportScreen
from tui.screens.storage import StorageScreen
from tui.screens.studies import StudiesScreen
from tui.screens.trial import TrialScreen
from tui.screens.trials import TrialsScreen
from tui.widgets.table import Table
from tui.write import control


@pytest.fixture(autouse=True)
def _quickly(monkeypatch, tmp_path):
    monkeypatch.setattr(app_module, "POLL_S", 600)  # what is pressed asks for a look by itself
    monkeypatch.setattr(control, "cleanup", lambda experiments, *flags: {"items": [], "totals": {}, "skipped": []})
    monkeypatch.setattr(control, "importance", lambda experiments, study: importance(study))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two(frozen):
    """Two studies, the newer one whole."""
    earlier = frozen.study("earlier", created=900, states=("completed",), state="completed", index=False)
    record = paths.trial_dir(frozen.root, frozen.id(earlier, 0)) / paths.TRIAL
    frozen.rewrite(record, parameters={f"train.key_{n:02}": n for n in range(12)})
    frozen.whole()
    return frozen


# ---------------------------------------------------------------------------------------------------------------------
# by the class that binds them: how to get there, and then each key with what follows from it


def side(app):
    """How wide the right column is."""
    return app.screen.query_one("#right").region.width


def header(app):
    """The line above the table's rows."""
    return shown(app).split("\n")[2]


def written(app):
    """The numbers of the trials in the file that was written."""
    (path,) = app.experiments.parent.glob("redsm5-trials-night-search-*.csv")
    return [line.split(",")[0] for line in path.read_text().split("\n")[1:-1]]


STEPS = {
    TerminalApp: (
        [],
        [
            *((str(n), lambda app, mode=mode: app.current_mode == mode) for n, mode in enumerate(TerminalApp.MODES, 1)),
            ("t", lambda app: app.theme == "textual-light"),
            ("t", lambda app: app.theme == "textual-dark"),
            ("c", lambda app: app.clipboard == app.view.selected),
            ("C", lambda app: app.clipboard.endswith(f"experiments/trial_{app.view.selected}")),
            ("S", lambda app: len([*app.experiments.parent.glob("redsm5-studies-*.svg")]) == 1),
            ("1", lambda app: side(app) == 52),
            ("less_than_sign", lambda app: side(app) == 56),
            ("greater_than_sign", lambda app: side(app) == 52),
            ("greater_than_sign", lambda app: side(app) == 48),
            ("0", lambda app: side(app) == 52),
            ("2", lambda app: "8 of 20 trials" in shown(app)),
            ("P", lambda app: app.view.pinned == app.view.selected and rows(app)[0] == 7 and "◆" in shown(app)),
            ("P", lambda app: app.view.pinned is None and rows(app)[0] == 0),
            ("m", lambda app: marked(app) == [7]),
            ("M", lambda app: marked(app) == []),
            ("p", lambda app: "Pause night-search?" in asked(app)),
            ("n", lambda app: not asked(app)),
            ("e", lambda app: "End night-search after the running trial?" in asked(app)),
            ("n", lambda app: not asked(app)),
            ("E", lambda app: "Stop night-search now?" in asked(app)),
            ("n", lambda app: not asked(app)),
            ("x", lambda app: "Prune the running trial #7" in asked(app)),
            ("n", lambda app: not asked(app)),
            ("K", lambda app: "Run cleanup?" in asked(app)),
            ("n", lambda app: not asked(app)),
            ("s", lambda app: "earlier (1 of 2)" in shown(app) and rows(app) == [0]),
            ("s", lambda app: "night-search (2 of 2)" in shown(app) and len(rows(app)) == 8),
            ("question_mark", lambda app: isinstance(app.screen, HelpScreen)),
            ("escape", lambda app: app.current_mode == "trials" and not isinstance(app.screen, HelpScreen)),
            ("q", lambda app: app.return_code == 0),
        ],
    ),
    OverviewScreen: (
        [],
        [
            ("a", lambda app: "val_f1_macro over time" in shown(app)),
            ("a", lambda app: "val_f1_macro over head" in shown(app) and "mlp_residual" in shown(app)),
            ("A", lambda app: "val_f1_macro over time" in shown(app)),
            ("A", lambda app: "val_f1_macro over the trials" in shown(app)),
            ("v", lambda app: "val_f1_macro by epoch" in shown(app)),
            ("v", lambda app: "timeline" in shown(app)),
            ("v", lambda app: "val_f1_macro over the trials" in shown(app)),
            ("enter", lambda app: "lately" not in shown(app)),
            ("escape", lambda app: "lately" in shown(app)),
            ("p", lambda app: "Pause" in asked(app)),
        ],
    ),
    TrialsScreen: (
        ["2", "home"],
        [
            ("o", lambda app: "sorted by state ▲" in shown(app) and rows(app) == [0, 1, 4, 6, 3, 5, 2, 7]),
            ("o", lambda app: "sorted by val_f1 ▼" in shown(app) and rows(app) == [6, 7, 4, 5, 1, 2, 0, 3]),
            ("i", lambda app: "sorted by val_f1 ▲" in shown(app) and rows(app) == [0, 2, 1, 5, 4, 7, 6, 3]),
            ("O", lambda app: "sorted by state ▲" in shown(app)),
            ("O", lambda app: "sorted by # ▲" in shown(app) and rows(app) == [*range(8)]),
            ("m", lambda app: marked(app) == [0] and "1 marked" in shown(app)),
            ("m", lambda app: marked(app) == []),
            ("slash", lambda app: app.screen.query_one(Input).has_focus),
            (("!", "c", "o", "m", "p"), lambda app: rows(app) == [2, 3, 5, 7] and "4 of 8 trials" in shown(app)),
            ("enter", lambda app: app.screen.query_one(Table).has_focus and rows(app) == [2, 3, 5, 7]),
            ("W", lambda app: written(app) == ["2", "3", "5", "7"] and "redsm5-trials-night-search" in notices(app)),
            ("escape", lambda app: len(rows(app)) == 8 and not app.screen.query_one(Input).display),
            ("home", lambda app: cursor(app) == 0),
            ("asterisk", lambda app: app.memory.notes[app.view.selected] == "★"),
            ("asterisk", lambda app: not app.memory.notes),
            ("L", lambda app: isinstance(app.screen, ColumnsScreen)),
            ("escape", lambda app: app.screen.query_one(Table).has_focus and rows(app)),
            ("N", lambda app: "note on trial #0" in shown(app)),
            (("g", "o", "enter"), lambda app: "note" in header(app) and "go" in shown(app).split("\n")[3]),
            ("slash", lambda app: app.screen.query_one(Input).has_focus),
            ([*"note~^g"], lambda app: rows(app) == [0]),
        ],
    ),
    Table: (
        ["2"],
        [
            ("home", lambda app: cursor(app) == 0 and at(app) == 0),
            ("down", lambda app: cursor(app) == 1 and at(app) == 1),
            ("j", lambda app: cursor(app) == 2),
            ("up", lambda app: cursor(app) == 1),
            ("k", lambda app: cursor(app) == 0),
            ("end", lambda app: cursor(app) == 7),
            ("g", lambda app: cursor(app) == 0),
            ("G", lambda app: cursor(app) == 7),
            ("pageup", lambda app: cursor(app) == 0),
            ("pagedown", lambda app: cursor(app) == 7),
            ("right", lambda app: "error" in shown(app) or app.screen.query_one(Table).scroll_offset.x == 8),
            ("left", lambda app: app.screen.query_one(Table).scroll_offset.x == 0),
            ("enter", lambda app: app.current_mode == "trial" and "trial #7" in shown(app)),
        ],
    ),
    TrialScreen: (
        ["2", "home", "3"],
        [
            ("right_square_bracket", lambda app: at(app) == 1 and "trial #1" in shown(app)),
            ("left_square_bracket", lambda app: at(app) == 0 and "trial #0" in shown(app)),
            ("m", lambda app: marked(app) == [0] and "• marked" in shown(app)),
            ("n", lambda app: "val_f1_macro" not in charts(app) and "page 2 of 2" in shown(app)),
            ("b", lambda app: charts(app)[0] == "val_f1_macro" and "page 1 of 2" in shown(app)),
            ("pagedown", lambda app: "page 2 of 2" in shown(app)),
            ("pageup", lambda app: "page 1 of 2" in shown(app) and chosen(app) == ["val_f1_macro"]),
            ("down", lambda app: chosen(app) == ["val_loss"]),
            ("right", lambda app: chosen(app) == ["train_loss"]),
            ("left", lambda app: chosen(app) == ["val_loss"]),
            ("up", lambda app: chosen(app) == ["val_f1_macro"]),
            ("v", lambda app: log_title(app) == "v: info and above" and "DEBUG" not in shown(app)),
            ("v", lambda app: log_title(app) == "v: warning and above" and "INFO" not in shown(app)),
            ("v", lambda app: log_title(app) == "v: error and above" and "nothing at this severity" in shown(app)),
            ("v", lambda app: log_title(app) == "v: debug and above" and "DEBUG" in shown(app)),
            ("enter", lambda app: charts(app) == ["val_f1_macro"]),
            ("left", lambda app: beneath(app) == "0.283 at step 300, epoch 10"),
            ("left", lambda app: beneath(app) == "0.300 at step 270, epoch 9"),
            ("right", lambda app: beneath(app) == "0.283 at step 300, epoch 10"),
            ("w", lambda app: charts(app) == ["val_f1_macro (smoothed)"]),
            ("l", lambda app: charts(app) == ["val_f1_macro (smoothed, log)"]),
            ("a", lambda app: "epoch 10" in shown(app) and "step 30 " not in shown(app)),
            ("plus", lambda app: charts(app) == ["val_f1_macro (smoothed, log, epoch 5.5 to 10)"]),
            ("equals_sign", lambda app: charts(app) == ["val_f1_macro (smoothed, log, epoch 7.75 to 10)"]),
            ("minus", lambda app: charts(app) == ["val_f1_macro (smoothed, log, epoch 5.5 to 10)"]),
            ("z", lambda app: charts(app) == ["val_f1_macro (smoothed, log)"]),
            ("escape", lambda app: len(charts(app)) > 1),
            ("slash", lambda app: app.screen.query_one(Input).has_focus),
            (
                ("l", "o", "s", "s"),
                lambda app: charts(app) == ["val_loss (smoothed, log)", "train_loss (smoothed, log)"],
            ),
            ("enter", lambda app: not app.screen.query_one(Input).has_focus and len(charts(app)) == 2),
            ("escape", lambda app: len(charts(app)) == 9 and not app.screen.query_one(Input).display),
            ("r", lambda app: "behind it" not in shown(app)),
            ("r", lambda app: "behind it: #6" in shown(app)),
            ("f", lambda app: app.screen.query_one(Input).has_focus),
            (("z", "z"), lambda app: "log: 0 of" in shown(app) and len(charts(app)) == 9),
            ("escape", lambda app: "log: 0 of" not in shown(app)),
            ("N", lambda app: "note on trial #0" in shown(app)),
            (("o", "k", "enter"), lambda app: "✎ ok" in shown(app)),
            ("N", lambda app: isinstance(app.screen, NoteScreen)),
            (("backspace", "backspace", "enter"), lambda app: "✎" not in shown(app) and not app.memory.notes),
            ("backslash", lambda app: app.screen.wrapped),
            ("tab", lambda app: app.screen.query_one(Tabs).active == "tab-configuration"),
            ("escape", lambda app: app.current_mode == "trials"),
        ],
    ),
    ReportScreen: (
        ["2", "home", "4"],
        [
            ("right_square_bracket", lambda app: "trial #1: completed" in shown(app)),
            ("right_square_bracket", lambda app: "pruned trials have no report" in shown(app)),
            ("left_square_bracket", lambda app: "DEPRESSED_MOOD" in shown(app)),
            ("m", lambda app: marked(app) == [1]),
            ("N", lambda app: "note on trial #1" in shown(app)),
            (("o", "k", "enter"), lambda app: "trial #1: completed ✎ ok" in words(app)),
            ("escape", lambda app: app.current_mode == "trial"),
        ],
    ),
    StorageScreen: (
        ["5"],
        [
            ("u", lambda app: "nothing to reclaim" in shown(app)),
            ("K", lambda app: "Run cleanup?" in asked(app)),
        ],
    ),
    CompareScreen: (
        ["2", "home", "m", "down", "m", "6"],
        [
            ("n", lambda app: "val_f1_macro" not in charts(app) and "page 2 of 3" in shown(app)),
            ("b", lambda app: charts(app)[:3] == ["val_f1_macro", "val_loss", "train_loss"] and len(charts(app)) == 6),
            ("pageup", lambda app: "page 3 of 3" in shown(app)),
            ("pagedown", lambda app: "page 1 of 3" in shown(app)),
            ("down", lambda app: chosen(app) == ["val_loss"]),
            ("up", lambda app: chosen(app) == ["val_f1_macro"]),
            ("left", lambda app: beneath(app) == "● 0.283 ■ 0.352" and "page 1" not in shown(app)),
            ("z", lambda app: "page 1" in shown(app)),
            ("right", lambda app: beneath(app) == "● 0.112 ■ 0.140"),
            ("right", lambda app: beneath(app) == "● 0.180 ■ 0.224" and shown(app).count("epoch 2 ") == 6),
            ("enter", lambda app: beneath(app) == "● #0 0.180 ■ #1 0.224  at epoch 2"),
            ("plus", lambda app: charts(app) == ["val_f1_macro (epoch 1.5 to 6)"]),
            ("equals_sign", lambda app: charts(app) == ["val_f1_macro (epoch 1.75 to 4)"]),
            ("minus", lambda app: charts(app) == ["val_f1_macro (epoch 1.5 to 6)"]),
            ("a", lambda app: charts(app) == ["val_f1_macro (after 48.0 s to 2:24)"]),
            ("a", lambda app: charts(app) == ["val_f1_macro (step 60 to 180)"]),
            ("a", lambda app: charts(app) == ["val_f1_macro (epoch 2 to 6)"]),
            ("w", lambda app: charts(app) == ["val_f1_macro (smoothed, epoch 2 to 6)"]),
            ("l", lambda app: charts(app) == ["val_f1_macro (smoothed, log, epoch 2 to 6)"]),
            ("z", lambda app: charts(app) == ["val_f1_macro (smoothed, log)"]),
            ("a", lambda app: "after 4:00" in shown(app)),
            ("escape", lambda app: len(charts(app)) == 6),
            ("slash", lambda app: app.screen.query_one(Input).has_focus),
            (("e", "v", "i"), lambda app: charts(app) == ["val_evidence_f1 (smoothed, log)"]),
            ("escape", lambda app: len(charts(app)) == 6 and not app.screen.query_one(Input).display),
            ("M", lambda app: "0 marked. Mark 2 to 8 trials" in shown(app)),
            ("escape", lambda app: app.current_mode == "trials"),
        ],
    ),
    ParametersScreen: (
        ["s", "7"],  # the earlier study, whose trial has twelve parameters
        [
            ("n", lambda app: "parameters 2 of 2" in shown(app) and "key_11" in shown(app)),
            ("b", lambda app: "parameters 1 of 2" in shown(app) and "key_11" not in shown(app)),
            ("i", lambda app: "of 35 of 1 trial" in shown(app) and "43.1%" in shown(app)),
            ("enter", lambda app: "importance" not in shown(app)),
            ("escape", lambda app: "importance" in shown(app)),
        ],
    ),
    MachineScreen: (["8"], []),
    StudiesScreen: (["9"], [("escape", lambda app: app.current_mode == "overview")]),
    HelpScreen: (
        [],
        [
            step
            for key in ("escape", "question_mark", "q")
            for step in (
                ("question_mark", lambda app: "the search keeps running" in shown(app)),
                (key, lambda app: not isinstance(app.screen, HelpScreen) and app.is_running),
            )
        ],
    ),
    LineScreen: (
        ["2", "home", "3", "tab", "tab", "tab", "enter"],
        [
            step
            for key in ("escape", "enter", "q")
            for step in (
                (key, lambda app: not isinstance(app.screen, LineScreen) and app.is_running),
                ("enter", lambda app: "a line of the log" in shown(app)),
            )
        ],
    ),
    ColumnsScreen: (
        ["2", "L"],
        [
            ("space", lambda app: "[ ] epoch" in words(app)),
            ("escape", lambda app: "epoch" in header(app)),
        ],
    ),
    NoteScreen: (
        ["2", "N"],
        [
            (("o", "k"), lambda app: app.screen.query_one(Input).value == "ok"),
            ("escape", lambda app: not isinstance(app.screen, NoteScreen) and app.memory.notes == {}),
        ],
    ),
    ConfirmScreen: (
        ["p"],
        [
            ("n", lambda app: not asked(app) and not app.view.snapshot.orders),
            ("p", asked),
            ("escape", lambda app: not asked(app) and not app.view.snapshot.orders),
            ("p", asked),
            ("q", lambda app: not asked(app) and app.is_running and not app.view.snapshot.orders),
            ("p", asked),
            ("enter", lambda app: not asked(app) and not app.view.snapshot.orders),
            ("p", asked),
            ("y", lambda app: not asked(app) and app.view.snapshot.orders == {"pause"}),
        ],
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("binder", STEPS, ids=lambda binder: binder.__name__)
async def test_each_key(two, binder):
    there, steps = STEPS[binder]
    app = TerminalApp(two.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        for key in there:
            await pressed(pilot, key)
        for number, (keys, then) in enumerate(steps):
            await pilot.press(*([keys] if isinstance(keys, str) else keys))
            app.hurry()
            await until(pilot, lambda then=then: then(app), f"step {number} of {binder.__name__}: {keys}")


def bound(binder):
    for binding in binder.BINDINGS:
        keys = binding.key if isinstance(binding, Binding) else binding[0]
        yield from keys.split(",")


def test_no_key_is_without_a_step():
    screens = {*FolderScreen.__subclasses__(), *ChartsScreen.__subclasses__()} - {ChartsScreen}
    binders = {TerminalApp, Table, HelpScreen, ColumnsScreen, ConfirmScreen, LineScreen, NoteScreen, *screens}
    assert binders == set(STEPS)
    tested = {binder: {key for key, _ in STEPS[binder][1] if isinstance(key, str)} for binder in binders}
    assert [(b.__name__, key) for b in binders for key in bound(b) if key not in tested[b]] == []


def test_the_help_names_every_key():
    from tui.screens.help import KEYS

    told = " ".join(f"{key} {what}" for keys in KEYS.values() for key, what in keys.items())
    names = {"left_square_bracket": "[", "right_square_bracket": "]", "slash": "/", "question_mark": "?"}
    names |= {"less_than_sign": "<", "greater_than_sign": ">", "plus": "+", "minus": "-", "equals_sign": "="}
    names |= {
        "escape": "Esc",
        "enter": "Enter",
        "tab": "Tab",
        "backslash": "\\",
        "asterisk": "*",
        "space": "Space",
        "pagedown": "n",
        "pageup": "b",
    }
    names |= dict.fromkeys(("left", "right", "up", "down"), "arrows") | {str(n): "1 to 6" for n in range(1, 7)}
    binders = [binder for binder in STEPS if binder not in (Table, ConfirmScreen, NoteScreen)]
    assert [key for b in binders for key in bound(b) if names.get(key, key) not in told] == []


@pytest.mark.asyncio
async def test_the_palette_has_every_screen_and_every_order(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(100, 40)) as pilot:
        await settled(pilot)
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert titles >= {mode.capitalize() for mode in app.MODES}
        assert titles >= {title for title, _ in app_module.ORDERS.values()}
        assert titles >= {"Copy trial id", "Copy trial folder", "Theme", "Screenshot", "Quit"}
        await pilot.press("ctrl+p")
        await pilot.press(*"prune", "enter")
        await until(pilot, lambda: "Prune the running trial #7" in asked(app))


@pytest.mark.asyncio
async def test_a_pattern_that_is_none_yet_is_said_in_the_line_of_the_filter(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "slash", *"head~[a")
        await until(pilot, lambda: "[a is not a regex" in shown(app).split("\n")[2] and rows(app) == [])
        await pilot.press(*"-p]")
        await until(pilot, lambda: "not a regex" not in shown(app) and len(rows(app)) == 8)
        await pilot.press("escape")
        await until(pilot, lambda: not app.screen.query_one("#filter-line").region.height)


@pytest.mark.asyncio
async def test_the_log_and_the_metrics_are_found_by_patterns_too(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        for key in ("2", "home", "3", "slash"):
            await pressed(pilot, key)
        await pressed(pilot, *"~^val_f1", "enter")
        assert charts(app) == ["val_f1_macro", "val_f1_micro"]
        await pressed(pilot, "f", *"~^the", "enter")
        assert "log: 1 of" in shown(app)


@pytest.mark.asyncio
async def test_what_is_copied_goes_to_the_terminal_as_osc_52(two):
    app = TerminalApp(two.root)
    async with app.run_test() as pilot:
        await settled(pilot)
        written = []
        app._driver.write = written.append
        await pilot.press("c")
        assert any(text.startswith("\x1b]52;c;") for text in written)


@pytest.mark.asyncio
async def test_quick_keys_are_all_counted(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        for key in ("2", "home", "3"):
            await pressed(pilot, key)
        for _ in range(3):  # before any look at the folder
            app.action_neighbour(1)
        app.action_copy("id")
        assert app.clipboard == two.of(3)
        await settled(pilot)
        assert at(app) == 3


@pytest.mark.asyncio
async def test_nine_trials_are_too_many_to_compare(two):
    two.study("many", created=1, states=("completed",) * 9)
    app = TerminalApp(two.root)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await pressed(pilot, "home", *["m", "down"] * 9)
        assert marked(app) == [*range(8)]
        assert "8 trials are marked: M clears the marks" in notices(app)


# ---------------------------------------------------------------------------------------------------------------------
# the mouse


@pytest.mark.asyncio
async def test_a_click_on_a_header_sorts_and_on_a_row_selects_and_then_opens(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        header = shown(app).split("\n")[2]
        await pilot.click(Table, offset=(header.index("val_f1") + 1, 0))
        await until(pilot, lambda: rows(app) == [6, 7, 4, 5, 1, 2, 0, 3])
        await pilot.click(Table, offset=(header.index("val_f1") + 1, 0))
        await until(pilot, lambda: rows(app) == [0, 2, 1, 5, 4, 7, 6, 3])
        await pilot.click(Table, offset=(10, 3))
        await until(pilot, lambda: cursor(app) == 2 and at(app) == 1)
        assert app.current_mode == "trials"
        await pilot.click(Table, offset=(10, 3))
        await until(pilot, lambda: app.current_mode == "trial" and "trial #1" in shown(app))


@pytest.mark.asyncio
async def test_a_click_below_the_rows_does_nothing(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await pilot.click(Table, offset=(10, 15))
        await settled(pilot)
        assert (app.current_mode, cursor(app)) == ("trials", 7)


# ---------------------------------------------------------------------------------------------------------------------
# panels


@pytest.mark.asyncio
async def test_tab_goes_through_the_panels_where_one_is_in_sight(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for key in ("2", "home", "3"):
            await pressed(pilot, key)
        for part in ("mental-bert", "neither last nor best", "tokenizer loaded", "train_lr"):
            assert part not in shown(app)
            await pressed(pilot, "tab")
            assert part in shown(app)


@pytest.mark.asyncio
async def test_the_arrows_scroll_the_panel_that_tab_chose(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(80, 14)) as pilot:
        await settled(pilot)
        for key in ("2", "home", "3", "tab"):
            await pressed(pilot, key)
        panel = app.screen.query_one("#configuration")
        assert panel.scroll_offset.y == 0
        await pressed(pilot, "down", "down")
        await until(pilot, lambda: panel.scroll_offset.y == 2)
        await pressed(pilot, "tab", "tab", "tab", "down")
        assert chosen(app) == ["val_loss"]


def long_line(folder, trial):
    """A line of the log that no terminal shows in one line."""
    path = paths.trial_dir(folder.root, trial) / paths.LOGS / "log.jsonl"
    context = {"bytes": 461500, "reason": "neither last nor best " * 20 + "the end"}
    line = {"timestamp": folder.ago(0), "severity": "ERROR", "message": "checkpoint: delete", "context": context}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 60)])
async def test_enter_opens_a_line_of_the_log_whole_and_the_backslash_wraps_it(night, folder, size):
    long_line(folder, folder.of(0))
    app = TerminalApp(night)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "home", "3", "tab", "tab", "tab")
        assert "checkpoint: delete" in shown(app), shown(app)
        assert "the end" not in shown(app)
        await pressed(pilot, "enter")
        assert isinstance(app.screen, LineScreen)
        assert "bytes  462 kB  (461500)" in shown(app)
        assert "the end" in shown(app)
        await pressed(pilot, "escape")
        await pressed(pilot, "backslash")
        assert "the end" in shown(app)
        await pressed(pilot, "enter")
        assert isinstance(app.screen, LineScreen)
        await pressed(pilot, "escape", "backslash")
        assert "the end" not in shown(app)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("keys", "chart"),
    [
        ((), "#objective"),
        (("2", "home", "3"), "#plot-0"),
        (("2", "m", "up", "m", "6"), "#plot-0"),
        (("7",), "#parallel"),
    ],
)
async def test_enter_on_a_chart_fills_the_screen_and_escape_brings_the_rest_back(night, keys, chart):
    app = TerminalApp(night)
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        for key in keys:
            await pressed(pilot, key)
        before = app.screen.query_one(chart).region
        await pressed(pilot, "enter")
        large = app.screen.query_one(chart).region
        assert large.width == 120
        assert large.height >= 36 - 5
        await pressed(pilot, "escape")
        assert app.screen.query_one(chart).region == before


@pytest.mark.asyncio
async def test_the_x_axis_is_the_step_the_epoch_or_the_time_since_the_trial_began(night):
    app = TerminalApp(night)
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "home", "3", "enter")
        seen = []
        for _ in range(4):
            seen.append(next(word for word in ("step ", "epoch ", "after ") if word in shown(app).split("\n")[-3]))
            await pressed(pilot, "a")
        assert seen == ["step ", "epoch ", "after ", "step "]


@pytest.mark.asyncio
async def test_the_best_trial_differs_from_nothing_and_the_others_from_it(night):
    app = TerminalApp(night)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "home", "3")
        assert "configuration · * differs from #6" in shown(app)
        app.select(app.view.snapshot.trials.best.trial_id)
        await settled(pilot)
        assert "configuration of the best" in shown(app)
        assert "differ" not in shown(app)
        await pressed(pilot, "4")
        assert "subset accuracy" in words(app)


@pytest.mark.asyncio
async def test_the_arrows_scroll_the_report(two):
    app = TerminalApp(two.root)
    async with app.run_test(size=(80, 14)) as pilot:
        await settled(pilot)
        for key in ("2", "home", "4"):
            await pressed(pilot, key)
        assert "chosen by validation" not in shown(app)
        await pilot.press("end")
        await until(pilot, lambda: "chosen by validation" in shown(app))
