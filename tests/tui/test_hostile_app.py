"""The whole app, walked through on folders that were written to harm: it stays, and the terminal obeys none of it."""

import json
import shutil

import pytest

from redsm5.engine import paths
from tests.tui.hostile import NASTY, OF_STUDY, OF_TRIAL, complete, evaluation, harmful, leftovers, poison, summary
from tui import app as app_module
from tui.app import TerminalApp
from tui.write import control

# Through every screen and whatever opens on it.
WALK = (
    *("1", "question_mark", "escape", "2", "o", "O", "i", "m", "down", "m", "end", "right", "slash", "r", "e", "enter"),
    *("escape", "enter", "right", "enter", "left", "plus", "l", "w", "a", "z", "enter", "n", "b", "v", *["tab"] * 4),
    *("slash", "x", "enter", "escape", "escape", "3", "left_square_bracket", "right_square_bracket", "4", "5", "u"),
    *("7", "n", "b", "i", "8"),
    *("6", "n", "w", "l", "a", "b", "left", "plus", "enter", "minus", "escape", "M", "c", "C", "t", "x", "escape"),
    *("p", "escape", "s", "ctrl+p", "escape", "1"),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(app_module, "POLL_S", 60.0)  # `looked` asks for each look
    monkeypatch.setattr(control, "cleanup", lambda *args: leftovers("\x1b[31m[red]\u202e"))
    monkeypatch.setattr(control, "importance", lambda experiments, study: summary(study, "\x1b[31m[red]\u202e"))
    monkeypatch.chdir(tmp_path)


def on_screen(app):
    """Everything that stands on the screen, line by line."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def looked(app, pilot):
    """Wait for the next look at the folder."""
    before = app.view
    app.hurry()
    for _ in range(200):
        await pilot.pause(0.01)
        if app.view is not before:
            return
    pytest.fail("the folder is not looked at any more")


async def walk(app, pilot, keys=WALK):
    """Press the keys, one after the other; all that stood on the screen after each."""
    pages = []
    for key in keys:
        await pilot.press(key)
        await pilot.pause()
        pages.append(on_screen(app))
        assert not harmful(pages[-1]), key
        assert app.is_running
    await looked(app, pilot)
    return "\n".join(pages)


def hostile(folder):
    """Two studies, one of whose trials each says another of the nasty words, wherever it can say anything."""
    folder.study("[/] \x1b[2J\u202e", states=("completed",), created=500)
    study_id = folder.study(states=("completed", "running", "failed", "pruned", "interrupted", "completed"))
    word = " ".join(NASTY[:6])
    complete(folder, study_id, word)
    poison(folder, study_id, word)
    (folder.root / "study_x").touch()
    (folder.root / "trial_x").symlink_to("/dev/zero")
    return study_id


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_every_screen_of_a_hostile_folder(folder, size):
    hostile(folder)
    app = TerminalApp(folder.root)
    async with app.run_test(size=size) as pilot:
        await looked(app, pilot)
        assert len(app.snapshot.trials) == 6
        pages = await walk(app, pilot)
        assert pages.count("[red]bold[/red] [@click=app.quit]x[/]") > 3  # as it stands, and not as markup
        assert app.return_code is None


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308])
async def test_every_screen_where_every_number_is_extreme(folder, number):
    study_id = folder.study(states=("completed", "running", "interrupted"))
    complete(folder, study_id)
    for path in folder.root.glob("trial_*"):
        shown = number if isinstance(number, float) else None
        (path / paths.REPORT).write_bytes(
            evaluation("t", number=0.5).to_json().replace(b"0.5", json.dumps(shown).encode())
        )
        record = json.loads((path / paths.TRIAL).read_bytes())
        changes = {"active_seconds": number, "best": {"epoch": 1, "value": number}, "parameters": {"a": number}}
        for change in changes:
            if number is not None or change == "parameters":
                record[change] = changes[change]
        (path / paths.TRIAL).write_text(json.dumps(record))
        rows = [json.loads(line) | {"value": number} for line in (path / paths.METRICS).read_bytes().splitlines()]
        rows += [row | {"metric": f"system_{row['metric']}_bytes"} for row in rows]
        (path / paths.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    extreme = {"a": {"share": number, "trials": 10**400, "conditional": True}}
    told = json.loads(summary(study_id).to_json())
    told |= {"parameter_importance": extreme, "counts": {"completed": 10**400}}
    (paths.study_dir(folder.root, study_id) / paths.SUMMARY).write_text(json.dumps(told))
    app = TerminalApp(folder.root)
    keys = ("1", "2", "o", "o", "o", "m", "down", "m", "3", "l", "enter", "left", "4", "5", "6", "l", "7", "8")
    async with app.run_test(size=(100, 30)) as pilot:
        await looked(app, pilot)
        await walk(app, pilot, keys)


@pytest.mark.asyncio
async def test_files_that_change_go_and_come_while_it_is_looked_at(folder):
    study_id = folder.study(states=("completed", "running", "interrupted"))
    complete(folder, study_id)
    app = TerminalApp(folder.root)
    files = [p for name in OF_STUDY for p in folder.root.glob(f"study_*/{name}")]
    files += [p for name in OF_TRIAL for p in folder.root.glob(f"trial_*/{name}")]
    async with app.run_test(size=(100, 30)) as pilot:
        await looked(app, pilot)
        for screen in "12345678":
            await pilot.press(screen)
            for path in files[int(screen) :: 8]:
                path.write_bytes(path.read_bytes()[:-20])
            await looked(app, pilot)
            for path in files[int(screen) :: 8]:
                path.unlink()
            await looked(app, pilot)
            assert not harmful(on_screen(app))


@pytest.mark.asyncio
async def test_a_folder_that_is_removed_and_made_anew_is_shown_anew(folder):
    folder.study(states=("completed", "running"))
    app = TerminalApp(folder.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await looked(app, pilot)
        for screen in "12345678":
            await pilot.press(screen)
            shutil.rmtree(folder.root)
            await looked(app, pilot)
            await looked(app, pilot)
            assert app.snapshot.empty
            assert "run `just hpo" in " ".join(on_screen(app).split())
            folder.root.mkdir()
            folder.study(states=("completed", "running"))
            await looked(app, pilot)
            await looked(app, pilot)
            assert len(app.snapshot.trials) == 2
