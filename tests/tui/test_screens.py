"""The screens show the folder, follow it, stay where the reader left them, and an empty one says what to do."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import time
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest

from redsm5.engine import paths
from tests.tui.pilots import pressed, settled, shown, until, words
from tui import app as app_module
from tui.app import TerminalApp
from tui.read.look import Wanted
from tui.widgets.table import Table
from tui.write import control

SIZES = [(80, 24), (100, 30), (200, 60)]
SCREENS = "12345678"


@pytest.fixture(autouse=True)
def _on_demand(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)
    monkeypatch.setattr(control, "cleanup", lambda experiments, *flags: {"items": [], "totals": {}, "skipped": []})


def table(app):
    return app.screen.query_one(Table)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES)
async def test_the_overview_fits(night, size):
    app = TerminalApp(night)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await settled(pilot)
        for part in (
            "night-search",
            "● running",
            "trial 8 of 20",
            "val_f1_macro over the trials",
            "best 0.487 · #6",
            "5.7 GB of 10.0 GB",
            "reserved 2.2 GB",
            "91.5% less",
            "4 ✔   1 ✂   1 ✗   1 ⊘",
            "last save stalled 0.14 s",
            "● #7  running  epoch 4 of 10",
            "1 Over",
            "6 Comp",
            "8 Mach",
            "?",
        ):
            assert part in shown(app)
        for name in ("objective", "now", "storage", "pace", "lately"):
            region = app.screen.query_one(f"#{name}").region
            assert region.height >= 4
            assert region.right <= size[0]
            assert region.bottom <= size[1] - 1


@pytest.mark.asyncio
@pytest.mark.parametrize("key", SCREENS)
async def test_every_screen_survives_every_size_of_the_terminal(frozen, key):
    frozen.whole()
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(200, 60)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await pressed(pilot, "home", "m", "down", "m")
        await pressed(pilot, key)
        whole = shown(app)
        for size in ((80, 24), (60, 10), (20, 5), (200, 60)):
            await pilot.resize_terminal(*size)
            await settled(pilot)
            assert app.is_running
        await until(pilot, lambda: app.hurry() or shown(app) == whole, "what was there before")


@pytest.mark.asyncio
async def test_the_edge_of_the_right_column_is_dragged_with_the_mouse(night):
    app = TerminalApp(night)
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        storage = app.screen.query_one("#storage")
        before = storage.region.x
        await pilot.mouse_down(offset=(before, 5))
        await pilot.hover(offset=(before - 10, 9))
        await pilot.mouse_up(offset=(before - 10, 9))
        await pilot.hover(offset=(before + 20, 9))  # the button is up: nothing is dragged
        await until(pilot, lambda: storage.region.x == before - 10, "the wider column")


@pytest.mark.asyncio
async def test_help_and_questions_survive_a_small_terminal(night):
    app = TerminalApp(night)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for key in ("question_mark", "p"):
            await pilot.resize_terminal(20, 5)
            await pilot.press(key)
            await pilot.resize_terminal(80, 24)
            await settled(pilot)
            await pilot.press("escape")
        assert app.is_running


@pytest.mark.asyncio
async def test_what_changes_in_the_folder_changes_on_the_screen_and_the_cursor_stays(night, folder):
    app = TerminalApp(night)
    async with app.run_test(size=(80, 16)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await pressed(pilot, "home", "down", "down", "down", "down", "down")
        before = (table(app).cursor, table(app).scroll_offset)
        folder.rewrite(paths.trial_dir(night, folder.of(7)) / paths.TRIAL, epoch=9)
        added = folder.trial(folder.id("night-search"), 8, "queued")
        events = paths.study_dir(night, folder.id("night-search")) / paths.EVENTS
        told = f'{{"timestamp":"{folder.ago(0)}","trial_id":"{added.trial_id}","number":8,"state":"queued"}}\n'
        events.write_text(events.read_text() + told)
        await settled(pilot)
        assert "9 of 20 trials" in shown(app)
        assert "9/10" in shown(app)
        assert (table(app).cursor, table(app).scroll_offset) == before


@pytest.mark.asyncio
async def test_a_new_parameter_makes_a_column_and_the_cursor_stays(night, folder):
    app = TerminalApp(night)
    async with app.run_test(size=(160, 30)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await pressed(pilot, "home", "down", "down")
        assert "warmup_ratio" not in shown(app)
        folder.rewrite(
            paths.trial_dir(night, folder.of(7)) / paths.TRIAL, parameters={"train.warmup_ratio": 0.1}, epoch=5
        )
        await settled(pilot)
        assert "warmup_ratio" in shown(app)
        assert table(app).cursor == 2


@pytest.mark.asyncio
async def test_a_look_that_began_before_the_last_key_does_not_move_the_cursor_back(night, folder):
    app = TerminalApp(night)
    async with app.run_test(size=(160, 30)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await pressed(pilot, "home", "down")
        folder.rewrite(paths.trial_dir(night, folder.of(7)) / paths.TRIAL, epoch=9)
        app.view = app._look(Wanted(selected=folder.of(7)))  # as asked for before those keys
        await pilot.pause()
        assert table(app).cursor == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("exists", [True, False])
async def test_an_empty_folder_says_what_to_do_on_every_screen_and_fills_by_itself(tmp_path, folder, exists):
    folder.root = tmp_path / "later"
    if exists:
        folder.root.mkdir()
    app = TerminalApp(folder.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for key in SCREENS:
            await pressed(pilot, key)
            assert "yet: run `just hpo" in words(app)
        folder.whole()
        for key in SCREENS if exists else "16":
            await pressed(pilot, key)
            assert "yet: run `just hpo" not in words(app)
        await pressed(pilot, "6")
        assert "0 marked. Mark 2 to 8 trials: m in Trials (2)" in words(app)


@pytest.mark.asyncio
async def test_a_folder_that_cannot_be_read_says_so_on_every_screen(night, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tui.read.reader.os.scandir", refuse)
    os.utime(night)
    app = TerminalApp(night)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for key in SCREENS:
            await pressed(pilot, key)
            assert "cannot be read: Permission denied. Fix its permissions" in words(app)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("number", "says"),
    [
        (0, "✔ completed"),
        (2, "✂ 0.318 under the median 0.402 at epoch 3"),
        (3, "✗ not_finite: loss is NaN at [red]step[/red] 212 → lower train.learning_rate"),
        (5, "resumed 1 times"),
    ],
)
async def test_a_trial_says_how_it_ended_and_what_to_do(night, folder, number, says):
    app = TerminalApp(night)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        app.select(folder.of(number))
        await pressed(pilot, "3")
        assert says in words(app)
        await pressed(pilot, "4")
        reports = {0: "[0.451, 0.520]", 2: "was pruned", 3: "3 shows why", 5: "once it has trained all 10 epochs"}
        assert reports[number] in words(app)


@pytest.mark.asyncio
async def test_checkpoints_say_what_is_there_and_why(night, folder):
    app = TerminalApp(night)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "3")
        assert "checkpoints: 2 kept, 2 gone" in shown(app)
        assert "★ epoch-0003" in shown(app)
        assert "438 MB weights" in shown(app)
        assert "1.3 GB full" in shown(app)


@pytest.mark.asyncio
@pytest.mark.parametrize("states", [(), ("queued",), ("running",) * 6, ("failed", "completed") * 150])
async def test_any_study_can_be_drawn(folder, states):
    folder.study(states=states)
    app = TerminalApp(folder.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for key in "123":
            await pressed(pilot, key)
            assert "night-search" in shown(app)


@pytest.mark.asyncio
async def test_scores_that_are_not_finite_can_be_drawn(night, folder):
    folder.rewrite(paths.trial_dir(night, folder.of(7)) / paths.TRIAL, best={"epoch": 1, "value": "NaN"})
    app = TerminalApp(night)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "best 0.487" in shown(app)
        await pressed(pilot, "2")
        assert "nan" in shown(app)


# ---------------------------------------------------------------------------------------------------------------------
# colours


@pytest.mark.asyncio
@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark"])
async def test_every_screen_can_be_read_in_every_theme(night, theme):
    """No text has the colour of what is behind it."""
    app = TerminalApp(night)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        app.theme = theme
        for key in SCREENS:
            await pressed(pilot, key)
            for strip in app.screen._compositor.render_strips():
                for text, style, _ in strip:
                    if text.strip(" █▏▎▍▌▋▊▉▁▂▃▄▅▆▇▔") and style and style.color and not style.color.is_default:
                        assert style.color != style.bgcolor, text


def test_without_colour_the_terminal_gets_none_and_the_symbols_tell(night):
    """In a real terminal, where NO_COLOR is set."""
    main, other = pty.openpty()
    ioctl(other, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "tui", "--experiments", str(night)],
        stdin=other,
        stdout=other,
        stderr=other,
        env=os.environ | {"NO_COLOR": "1", "TERM": "xterm-256color", "COLORTERM": ""},
        start_new_session=True,
    )
    os.close(other)
    written = bytearray()
    try:
        until_s = time.monotonic() + 30
        while time.monotonic() < until_s and "✗".encode() not in written:
            if select.select([main], [], [], 0.5)[0]:
                written += os.read(main, 1 << 16)
        os.write(main, b"q")
        with suppress(OSError):  # it has closed the terminal
            while time.monotonic() < until_s:
                written += os.read(main, 1 << 16)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)
    for symbol in "●✔✂✗⊘":
        assert symbol.encode() in written
    grey = {colour for colour in _colours(bytes(written)) if len(set(colour)) > 1}
    assert grey == set(), "what is left are shades of grey"


def _colours(written):
    """The (red, green, blue) of every 24-bit colour that is set."""
    for found in re.finditer(rb"[34]8;2;(\d+);(\d+);(\d+)", written):
        yield tuple(int(part) for part in found.groups())


def test_panels_hold_no_markup_of_the_files():
    """A Static of the app never parses what it is given."""
    for path in (Path(app_module.__file__).parent / "screens").glob("*.py"):
        for line in path.read_text().splitlines():
            if "Static(" in line and "query_one" not in line:
                assert "markup=False" in line, f"{path.name}: {line.strip()}"


@pytest.mark.asyncio
async def test_the_clock_ticks_and_what_runs_grows_older(night, monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 0.05)
    app = TerminalApp(night)
    async with app.run_test(size=(100, 30)) as pilot:
        first = app.view
        await until(pilot, lambda: app.view is not None and app.view is not first)
        second = app.view
        await until(pilot, lambda: app.view is not second)
