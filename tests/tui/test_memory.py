"""What is remembered comes back, the file is never trusted, and without it the app works as well."""

import json
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.widgets import Input

from tests.tui.hostile import NASTY, harmful
from tests.tui.pilots import at, marked, notices, pressed, rows, settled, shown, until
from tui import app as app_module
from tui.app import TerminalApp
from tui.screens.trial import TrialScreen
from tui.write import memory
from tui.write.memory import Content, Here, Memory, read, state_file, write


@pytest.fixture(autouse=True)
def _on_demand(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)
    monkeypatch.setattr(app_module, "SAVE_S", 600)  # at the exit alone, unless a test says otherwise


# ---------------------------------------------------------------------------------------------------------------------
# the file


def test_what_is_saved_is_read_by_the_next_one(tmp_path, state):
    one = Memory(tmp_path / "a")
    assert one.note("t1", "  good\n one ")
    one.save(Here(study="s", trial="t1", marked=("t1", "t2")))
    again = Memory(tmp_path / "a")
    assert again.here == Here(study="s", trial="t1", marked=("t1", "t2"))
    assert again.notes == {"t1": "good one"}
    assert not again.changed(again.here)
    assert Memory(tmp_path / "b").here == Here()
    assert Memory(tmp_path / "b").notes == {"t1": "good one"}
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert os.listdir(state.parent) == ["terminal.json"]


def test_two_at_once_keep_each_others_notes_and_the_last_one_has_the_folder(tmp_path):
    one, other = Memory(tmp_path), Memory(tmp_path)
    one.note("t1", "mine")
    one.save(Here(trial="t1"))
    other.note("t2", "theirs")
    other.save(Here(trial="t2"))
    assert Memory(tmp_path).notes == {"t1": "mine", "t2": "theirs"}
    assert Memory(tmp_path).here == Here(trial="t2")
    one.note("t1", "")
    one.save(Here(trial="t1"))
    assert Memory(tmp_path).notes == {"t2": "theirs"}


def test_at_most_so_many_folders_and_notes_are_kept_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MOST_FOLDERS", 3)
    monkeypatch.setattr(memory, "MOST_NOTES", 2)
    for name in "abcad":
        Memory(tmp_path / name).save(Here(trial=name))
    kept = [name for name in "abcd" if Memory(tmp_path / name).here.trial]
    assert kept == ["a", "c", "d"]
    one = Memory(tmp_path)
    assert one.note("1", "x" * 600)
    assert one.note("2", "b")
    assert not one.note("3", "c")
    assert one.note("2", "again")
    assert one.note("1", "")
    assert one.note("3", "c")
    assert one.notes == {"2": "again", "3": "c"}


def test_a_note_is_cut_at_its_length(tmp_path):
    one = Memory(tmp_path)
    one.note("1", "x" * 600)
    assert len(one.notes["1"]) == 500


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"notes": ' + b"[" * 100_000, b"1" * 10_000])
def test_a_file_that_cannot_be_read_is_put_aside_and_not_lost(tmp_path, state, content):
    state.parent.mkdir(parents=True)
    state.write_bytes(content)
    one = Memory(tmp_path)
    assert (one.here, one.layout, one.notes) == (Here(), {}, {})
    one.save(Here(trial="t"))
    assert Memory(tmp_path).here == Here(trial="t")
    assert state.with_name("terminal.json.unreadable").read_bytes() == content


def test_a_huge_file_and_what_is_no_file_are_not_read(tmp_path, state):
    state.parent.mkdir(parents=True)
    with state.open("wb") as file:
        file.truncate(1 << 36)
    assert read(state).unreadable
    state.unlink()
    os.mkfifo(state)
    assert read(state).unreadable
    state.unlink()
    state.mkdir()
    assert read(state).unreadable


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path, state, monkeypatch):
    one = Memory(tmp_path)
    one.save(Here(trial="t"))
    before = state.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    one.note("t", "later")
    with pytest.raises(OSError, match="No space"):
        one.save(Here(trial="u"))
    assert state.read_bytes() == before
    assert os.listdir(state.parent) == ["terminal.json"]
    monkeypatch.undo()
    monkeypatch.setattr(one, "path", state)
    assert one.changed(Here(trial="u"))
    one.save(Here(trial="u"))
    assert json.loads(state.read_text())["notes"] == {"t": "later"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
of_folder = st.dictionaries(st.sampled_from(["study", "trial", "pinned", "marked", "x"]), anything, max_size=4)
documents = st.fixed_dictionaries(
    {},
    optional={
        "folders": anything | st.dictionaries(st.text(max_size=8), of_folder | anything, max_size=3),
        "layout": anything | st.dictionaries(st.just("TrialScreen"), st.dictionaries(st.text(max_size=4), anything)),
        "notes": anything | st.dictionaries(st.text(max_size=8), anything, max_size=3),
        "x": anything,
    },
)


@settings(deadline=None, max_examples=100, derandomize=True, database=None)
@given(documents)
def test_of_any_file_only_what_is_right_is_taken_and_can_be_written_again(tmp_path_factory, document):
    path = tmp_path_factory.getbasetemp() / "any" / "terminal.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    content = read(path)
    assert not content.unreadable
    assert all(note and not harmful(note) and len(note) <= 500 for note in content.notes.values())
    for here in content.folders.values():
        assert all(i is None or isinstance(i, str) for i in (here.study, here.trial, here.pinned, *here.marked))
    assert all(type(v) in (bool, int, str) for kept in content.layout.values() for v in kept.values())
    write(path, content)
    assert read(path) == content


def test_the_file_stands_in_the_state_folder_of_its_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME")
    assert state_file() == tmp_path / ".local" / "state" / "redsm5" / "terminal.json"
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert state_file() == tmp_path / ".local" / "state" / "redsm5" / "terminal.json"
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert state_file() is None
    assert read(None) == Content()
    with pytest.raises(OSError, match="no home"):
        Memory(tmp_path).save(Here())


# ---------------------------------------------------------------------------------------------------------------------
# the app


@pytest.mark.asyncio
async def test_the_next_start_shows_what_the_last_one_left(frozen, state):
    frozen.whole()
    frozen.study("later", created=1, states=("completed",) * 3)  # the newest one, which is shown where none is chosen
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "less_than_sign", "t", "a", "s", "2", "home", "m", "down", "m", "P", "down")
        await pressed(pilot, "o", "i", "slash", *"!failed", "enter", "N", *"look", "enter")
        await pressed(pilot, "3", "w", "l", "r")
    assert not [path for path in frozen.root.rglob("*") if path.name.startswith((".terminal", "terminal"))]

    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        assert "night-search (1 of 2)" in shown(app)
        assert app.theme == "textual-light"
        assert app.screen.query_one("#right").region.width == 56
        assert "val_f1_macro over time" in shown(app)
        assert (at(app), marked(app)) == (0, [1, 0])
        assert app.view.pinned == frozen.of(1)
        await pressed(pilot, "2")
        await until(pilot, lambda: rows(app) == [1, 7, 2, 5, 0, 4, 6])
        assert app.screen.query_one(Input).value == "!failed"
        assert app.screen.query_one(Input).display
        assert "sorted by state ▼" in shown(app)
        assert "look" in shown(app)
        await pressed(pilot, "3")
        screen = app.screen
        assert isinstance(screen, TrialScreen)
        grid = screen.grid
        assert (grid.smooth, grid.log_axis, screen.beside, grid.axis) == (True, True, False, "step")
        assert "✎ look" in shown(app)


@pytest.mark.asyncio
async def test_what_changes_is_saved_while_the_app_runs(night, folder, state, monkeypatch):
    monkeypatch.setattr(app_module, "SAVE_S", 0.05)
    app = TerminalApp(night)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "home", "m")
        await until(pilot, lambda: state.exists() and folder.of(0) in state.read_text())


@pytest.mark.asyncio
async def test_a_place_that_cannot_be_written_to_is_told_once_and_the_notes_stay_for_now(night, tmp_path, monkeypatch):
    (tmp_path / "state").write_text("a file")
    monkeypatch.setattr(app_module, "SAVE_S", 0.02)
    app = TerminalApp(night, read_only=True)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "home", "N", *"here", "enter")
        await until(pilot, lambda: "The app's state cannot be saved" in notices(app))
        await pressed(pilot, "m", "down", "m")
        assert "here" in shown(app)
        assert notices(app).count("The app's state cannot be saved") == 1


@pytest.mark.asyncio
async def test_hostile_memory_is_neither_obeyed_nor_shown(night, folder, state):
    state.parent.mkdir(parents=True)
    bad = {"_sort": "\x1b[31m", "_query": "~(a+", "_falling": 3, "_wider": 400, "x": 1, "_view": 0, "theme": "none"}
    kinds = ("TerminalApp", "OverviewScreen", "TrialsScreen", "TrialScreen", "CompareScreen")
    folders = {str(night): {"study": "../..", "trial": "\x1b[31m", "pinned": "x", "marked": list(NASTY[:8])}}
    notes = {folder.of(0): "".join(NASTY), folder.of(1): "[red]bold[/red] \x1b[31m"}
    document = {"folders": folders, "layout": dict.fromkeys(kinds, bad), "notes": notes}
    state.write_text(json.dumps(document))
    app = TerminalApp(night)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        assert marked(app) == []
        for key in ("2", "escape", "home", "3", "4", "6", "1", "2", "c"):
            await pressed(pilot, key)
            assert not harmful(shown(app))
        assert app.clipboard == folder.of(0)
        await until(pilot, lambda: "[red]bold[/red]" in shown(app))


@pytest.mark.asyncio
async def test_marks_outlive_a_folder_that_is_away_for_a_while(night, folder):
    one = Memory(night)
    one.save(Here(marked=(folder.of(0), "gone")))
    night.rename(night.with_name("away"))
    app = TerminalApp(night)
    async with app.run_test() as pilot:
        await settled(pilot)
    assert Memory(night).here == Here(marked=(folder.of(0), "gone"))
    night.with_name("away").rename(night)
    app = TerminalApp(night)
    async with app.run_test() as pilot:
        await settled(pilot)
        assert marked(app) == [0]
    assert Memory(night).here == Here(marked=(folder.of(0),))
