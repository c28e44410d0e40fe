"""Orders reach the driver as files, after a yes and never without one; where none can be given, that is said."""

import os
import signal
import subprocess
import time

import pytest

from redsm5.engine import paths
from redsm5.engine.records import TrialRecord
from tests.tui.pilots import notices, pressed, settled, shown, until, words
from tui import app as app_module
from tui.app import TerminalApp
from tui.read.reader import Reader
from tui.screens.confirm import ConfirmScreen
from tui.write import control


@pytest.fixture(autouse=True)
def _on_demand(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)


def orders(folder, name="night-search"):
    there = paths.study_dir(folder.root, folder.id(name)) / paths.CONTROL
    return sorted(path.name for path in there.iterdir()) if there.exists() else []


@pytest.mark.asyncio
@pytest.mark.parametrize("key", ["p", "e", "E", "x"])
async def test_an_order_is_a_file_once_it_is_confirmed(sample, folder, key):
    order = {"p": "pause", "e": "stop", "E": "stop-now", "x": f"prune-{folder.of(7)}"}[key]
    said = {"p": "pausing", "e": "stops after this trial", "E": "stopping now", "x": "pruning"}[key]
    app = TerminalApp(sample)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press(key)
        assert isinstance(app.screen, ConfirmScreen)
        await pilot.press("n")
        assert not isinstance(app.screen, ConfirmScreen)
        assert orders(folder) == []
        await pilot.press(key, "y")
        await until(pilot, lambda: orders(folder) == [order])
        await until(pilot, lambda: "Requested: " in notices(app))
        await settled(pilot)
        assert f"● running · {said}" in shown(app)
    place = paths.study_dir(sample, folder.id("night-search")) / paths.CONTROL
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / order).read_bytes() == b""


@pytest.mark.asyncio
async def test_a_click_on_yes_orders_and_a_click_on_no_does_not(sample, folder):
    app = TerminalApp(sample)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("e")
        await pilot.click("#no")
        assert not isinstance(app.screen, ConfirmScreen)
        assert orders(folder) == []
        await pilot.press("e")
        await pilot.click("#yes")
        await until(pilot, lambda: orders(folder) == ["stop"])


@pytest.mark.asyncio
async def test_p_again_takes_the_pause_back(sample, folder):
    app = TerminalApp(sample)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("p", "y")
        await until(pilot, lambda: orders(folder) == ["pause"])
        folder.rewrite(paths.study_dir(sample, folder.id("night-search")) / paths.STUDY, state="paused")
        folder.rewrite(paths.trial_dir(sample, folder.of(7)) / paths.TRIAL, state="interrupted")
        await settled(pilot)
        assert "⏸ paused · as requested" in shown(app)
        assert "Paused as requested: p resumes it." in shown(app)
        await pressed(pilot, "p")
        assert "Resume night-search?" in words(app)
        await pilot.press("n")
        assert orders(folder) == ["pause"]
        await pilot.press("p", "y")
        await until(pilot, lambda: orders(folder) == [])


@pytest.mark.asyncio
async def test_of_several_at_work_the_selected_one_is_pruned(folder):
    folder.study(states=("running",) * 3)
    app = TerminalApp(folder.root)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pressed(pilot, "2")
        await pressed(pilot, "home", "down")
        await pilot.press("x")
        assert "Prune the running trial #1?" in words(app)
        await pilot.press("y")
        await until(pilot, lambda: orders(folder) == [f"prune-{folder.of(1)}"])


@pytest.mark.asyncio
async def test_cleanup_deletes_what_is_left_over_and_says_how_much(folder):
    folder.study(states=("completed", "running"))
    left = paths.trial_dir(folder.root, folder.of(0)) / paths.CHECKPOINTS / ".tmp-epoch-0001"
    left.mkdir(parents=True)
    (left / paths.WEIGHTS).write_bytes(bytes(123_000))
    app = TerminalApp(folder.root)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        for _ in range(120):  # it is a process of its own
            await pilot.pause(0.5)
            if "cleanup would free 123 kB" in shown(app):
                break
        assert "trial #0 .tmp-epoch-0001" in shown(app)
        await pilot.press("K", "n")
        assert left.exists()
        await pilot.press("K", "y")
        for _ in range(120):
            await pilot.pause(0.5)
            if "Cleaned up: 123 kB freed, 0 skipped." in notices(app):
                break
        assert not left.exists()
        assert "Cleaned up: 123 kB freed, 0 skipped." in notices(app)
        for _ in range(20):
            await pilot.pause(0.5)
            if "nothing to reclaim" in shown(app):
                break
        assert "nothing to reclaim" in shown(app)


@pytest.mark.asyncio
async def test_read_only_gives_no_orders(sample, folder):
    app = TerminalApp(sample, read_only=True)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("p", "e", "E", "x", "K")
        assert not isinstance(app.screen, ConfirmScreen)
        assert notices(app).count("Control is disabled: the app was started with --read-only.") == 5
    assert orders(folder) == []


@pytest.mark.asyncio
async def test_a_folder_that_cannot_be_written_to_takes_no_orders(sample, folder, monkeypatch):
    access = os.access
    study = f"study_{folder.id('night-search')}"
    monkeypatch.setattr(os, "access", lambda path, mode, **more: study not in str(path) and access(path, mode, **more))
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    app = TerminalApp(sample)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("p")
        assert not isinstance(app.screen, ConfirmScreen)
        assert "Control is disabled: the study's folder cannot be written to." in notices(app)
    assert orders(folder) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("states", "state", "keys", "says"),
    [
        (("completed",), "completed", "peE", "The study is done: nothing is running."),
        (("interrupted",), "stopped", "eEx", "Nothing runs night-search, so nothing would obey."),
        (("completed", "queued"), "running", "x", "No running trial to prune."),
    ],
)
async def test_where_nothing_runs_there_is_nothing_to_order(folder, states, state, keys, says):
    folder.study(states=states, state=state)
    app = TerminalApp(folder.root)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press(*keys)
        assert not isinstance(app.screen, ConfirmScreen)
        assert notices(app).count(says) == len(keys)
    assert orders(folder) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("states", [("completed", "running"), ("completed", "interrupted")])
async def test_of_a_killed_driver_p_copies_the_command_that_resumes_the_study(folder, monkeypatch, states):
    study = folder.study(states=states)
    app = TerminalApp(folder.root)
    command = f"just hpo study.name=night-search experiments={folder.root}"
    async with app.run_test() as pilot:
        await settled(pilot)
        assert "● running" in shown(app)
        folder.leave()
        await settled(pilot)
        assert "■ no driver" in shown(app)
        assert "Nothing is running. 1 interrupted. To resume it:" in words(app)
        await pilot.press("e", "E", "x")
        assert not isinstance(app.screen, ConfirmScreen)
        assert notices(app).count("Nothing runs night-search, so nothing would obey.") == 3
        assert "p Resume" in shown(app)
        await pressed(pilot, "p")
        assert "Nothing runs night-search. Copy the command that resumes it?" in app.screen._question
        await pilot.press("n")
        assert app.clipboard == ""
        await pilot.press("p", "y")
        assert app.clipboard == command
        assert orders(folder) == []
        folder.drive(study)
        await settled(pilot)
        assert "p Pause" in shown(app)
        await pilot.press("p", "y")
        await until(pilot, lambda: orders(folder) == ["pause"])
        await settled(pilot)
        assert "p Resume" in shown(app)


@pytest.mark.asyncio
async def test_a_pause_that_nobody_ends_is_taken_back_with_the_copy_of_the_command(folder):
    study = folder.study(states=("completed", "interrupted"), state="paused")
    control.give(folder.root, study, paths.PAUSE)
    app = TerminalApp(folder.root)
    async with app.run_test() as pilot:
        await settled(pilot)
        assert "⏸ paused · a pause is ordered" in shown(app)
        await pressed(pilot, "p")
        assert "A pause is still ordered, and the search would wait: it is taken back." in app.screen._question
        await pilot.press("y")
        assert app.clipboard.startswith("just hpo study.name=night-search")
        await until(pilot, lambda: orders(folder) == [])


@pytest.mark.asyncio
async def test_read_only_the_command_is_copied_too_and_a_pause_stays(folder):
    study = folder.study(states=("completed", "interrupted"), state="paused")
    control.give(folder.root, study, paths.PAUSE)
    app = TerminalApp(folder.root, read_only=True)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pressed(pilot, "p")
        assert "remove control/pause in the study's folder first" in app.screen._question
        await pilot.press("y")
        assert app.clipboard.startswith("just hpo study.name=night-search")
    assert orders(folder) == ["pause"]


@pytest.mark.asyncio
async def test_between_the_end_of_a_pause_and_the_trial_nobody_is_invited_to_start_a_driver(folder):
    folder.study(states=("completed", "interrupted"), state="paused", driven=True)
    app = TerminalApp(folder.root)
    async with app.run_test() as pilot:
        await settled(pilot)
        assert "Trial #1 is starting." in shown(app)
        assert "just hpo" not in shown(app)


def test_a_driver_is_a_process_that_holds_the_lock_of_the_workers(folder):
    """Real processes: an exclusive lock would make `flock` fail at once."""
    study = folder.study(driven=False)
    lock = paths.study_dir(folder.root, study) / paths.CLAIMS / paths.WORKERS_LOCK
    lock.parent.mkdir()
    lock.touch()
    assert not Reader(folder.root).read().driven
    with subprocess.Popen(["flock", "--shared", lock, "sleep", "60"], start_new_session=True) as worker:
        try:
            deadline = time.monotonic() + 20
            while not (told := Reader(folder.root).read().driven) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert told
            subprocess.run(["flock", "--shared", "--nonblock", lock, "true"], check=True, timeout=20)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20  # its child, which has the lock too, may outlive it for a moment
    while (told := Reader(folder.root).read().driven) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not told
    subprocess.run(["flock", "--nonblock", lock, "true"], check=True, timeout=20)


@pytest.mark.asyncio
async def test_without_a_study_there_is_nothing_to_order(folder):
    app = TerminalApp(folder.root)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("p", "K")
        assert notices(app).count("There is no study to control.") == 2


@pytest.mark.asyncio
async def test_an_order_that_cannot_be_written_is_told_of(sample, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(control, "give", full)
    app = TerminalApp(sample)
    async with app.run_test() as pilot:
        await settled(pilot)
        await pilot.press("p", "y")
        await until(pilot, lambda: "Failed: No space left on device" in notices(app))


def test_cleanup_that_refuses_is_told_of(folder, tmp_path):
    with pytest.raises(OSError, match=r"there is no folder .* Name the experiments folder"):
        control.cleanup(tmp_path / "none")


def test_the_orders_are_those_that_the_record_of_a_trial_can_name(sample, folder):
    trial = TrialRecord.model_validate_json((paths.trial_dir(sample, folder.of(7)) / paths.TRIAL).read_bytes())
    control.give(sample, folder.id("night-search"), f"{paths.PRUNE}{trial.trial_id}")
    control.take_back(sample, folder.id("night-search"), f"{paths.PRUNE}{trial.trial_id}")
    control.take_back(sample, folder.id("night-search"), paths.STOP)
    assert orders(folder) == []
