"""The machine is sampled when it is due, what it does not tell is left out, and the screen shows it as it is."""

import fcntl
import sys
from types import SimpleNamespace

import psutil
import pytest

from redsm5.engine import paths
from tests.tui.pilots import pressed, settled, shown, words
from tests.tui.searched import machine as looked_at
from tui import app as app_module
from tui.app import TerminalApp
from tui.panels import machine as panels
from tui.read import machine as module
from tui.read.machine import Machine, MachineView, Sample, device_of, running_here


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(monotonic=lambda: now.at, at=100.0)
    monkeypatch.setattr(module, "time", now)
    return now


@pytest.fixture
def one(monkeypatch, tmp_path, clock):
    """A machine whose disk moves 10 MB a second and that has no GPU."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(module, "device_of", lambda path: "vda")

    def moved(**_):
        return {"vda": SimpleNamespace(read_bytes=int(2e6 * clock.at), write_bytes=int(1e7 * clock.at))}

    monkeypatch.setattr(psutil, "disk_io_counters", moved)
    return Machine(tmp_path)


def times(view):
    return [sample.at for sample in view.samples]


def test_it_is_sampled_each_second_while_it_is_seen_and_each_five_else(one, clock):
    one.look(seen=False)
    for at, seen in ((101, True), (101.5, True), (102, True), (103, False), (106, False), (107, False), (112, False)):
        clock.at = at
        view = one.look(seen)
    assert times(view) == [101, 102, 107, 112]


def test_only_the_last_minutes_are_kept(one, clock):
    for at in range(100, 800, 5):
        clock.at = at
        view = one.look(seen=False)
    assert times(view)[0] == 495
    assert times(view)[-1] == 795


def test_bytes_are_those_of_a_second(one, clock):
    one.look(seen=True)
    clock.at += 4
    sample = one.look(seen=True).samples[-1]
    assert (sample.read, sample.written) == pytest.approx((2e6, 1e7))


def test_the_first_look_measures_nothing_yet_and_the_second_all(one, clock):
    assert one.look(seen=True).samples == ()
    clock.at += 1
    view = one.look(seen=True)
    assert view.cores == psutil.cpu_count()
    assert 0 < view.samples[0].memory <= view.memory_total
    assert 0 <= view.samples[0].cpu <= 100
    assert view.samples[0].gpus == ()


def test_where_the_system_tells_nothing_of_its_disks_there_is_nothing(one, clock, monkeypatch):
    monkeypatch.setattr(psutil, "disk_io_counters", lambda **_: None)
    one.look(seen=True)
    clock.at += 1
    view = one.look(seen=True)
    assert (view.samples[0].read, view.samples[0].written) == (None, None)
    assert "not available" in panels.disk(view, 40, 6)[0].plain


def nvml(**broken):
    """A driver with one GPU, of which some questions fail."""

    def ask(name, answer):
        def told(*args):
            if name in broken:
                raise RuntimeError("not supported")
            return answer

        return told

    return SimpleNamespace(
        nvmlInit=ask("init", None),
        nvmlDeviceGetCount=ask("count", 1),
        nvmlDeviceGetHandleByIndex=ask("handle", "h"),
        nvmlDeviceGetName=ask("name", b"NVIDIA T4"),
        nvmlDeviceGetUtilizationRates=ask("busy", SimpleNamespace(gpu=37)),
        nvmlDeviceGetMemoryInfo=ask("memory", SimpleNamespace(used=3_000_000_000, total=16_000_000_000)),
        nvmlDeviceGetTemperature=ask("temperature", 55),
        NVML_TEMPERATURE_GPU=0,
    )


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({}, "0 T4  37%  3.0 of 16.0 GB  55 °C"),
        ({"busy": 1}, "0 T4  3.0 of 16.0 GB  55 °C"),
        ({"memory": 1, "temperature": 1}, "0 T4  37%"),
        ({"init": 1}, "no NVIDIA GPU found"),
    ],
)
def test_of_a_gpu_is_shown_what_the_driver_tells(one, clock, monkeypatch, broken, told):
    monkeypatch.setitem(sys.modules, "pynvml", nvml(**broken))
    one.look(seen=True)
    clock.at += 1
    assert panels.gpus(one.look(seen=True), 60, 6)[0].plain.split("\n")[0].rstrip() == told


def test_the_device_is_that_of_the_nearest_folder_that_is_there(tmp_path):
    assert device_of(tmp_path / "a" / "b") == device_of(tmp_path)


@pytest.mark.skipif(not module.LOCKS.exists(), reason="only Linux lists its locks")
def test_a_trial_runs_here_while_a_process_here_holds_its_lock(folder):
    ids = [folder.trial(None, n, "running").trial_id for n in range(2)]
    for trial_id in ids:
        (paths.trial_dir(folder.root, trial_id) / paths.LOCK).touch()
    with (paths.trial_dir(folder.root, ids[1]) / paths.LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert running_here(folder.root, [*ids, "none"]) == {ids[1]}
    assert running_here(folder.root, ids) == frozenset()


def test_where_locks_are_not_listed_nobody_knows(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "LOCKS", tmp_path / "none")
    assert running_here(folder.root, ["x"]) is None


# ---------------------------------------------------------------------------------------------------------------------
# what is drawn


def test_each_part_of_the_time_has_its_highest_and_a_gap_stays_one():
    samples = [Sample(at, cpu, 0) for at, cpu in ((10.0, 50.0), (11.0, 90.0), (200.0, 20.0), (300.0, 100.0))]
    heights = panels.columns(samples, lambda s: s.cpu, 30)
    assert heights[:2] == [50.0, 90.0]  # a column is ten seconds
    assert heights[5] is None
    assert (heights[19], heights[-1]) == (20.0, 100.0)
    assert panels.area([100.0, 50.0, 0.0, None], 2, 100.0) == ["█   ", "██▁ "]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("here", "says", "not_said"),
    [
        ({7}, "trials running on this machine", "elsewhere"),
        (set(), "1 trial running elsewhere", "163%"),
        (None, "running trials", "on this machine"),
    ],
)
async def test_the_trials_at_work_here_are_shown_with_their_newest_metrics(frozen, monkeypatch, here, says, not_said):
    monkeypatch.setattr(app_module, "POLL_S", 600)
    frozen.whole()
    known = None if here is None else frozenset(frozen.of(n) for n in here)
    monkeypatch.setattr(Machine, "look", lambda self, seen, at_work=(): looked_at(known))
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "8")
        assert says in words(app)
        assert not_said not in words(app)
        assert "16 cores" in shown(app)
        assert ("6.194/s" in shown(app)) == (here != set())


@pytest.mark.asyncio
async def test_it_is_looked_at_only_after_the_first_look_at_the_folder_and_seldom_where_it_is_not_in_sight(
    frozen, monkeypatch
):
    monkeypatch.setattr(app_module, "POLL_S", 600)
    frozen.whole()
    asked = []
    monkeypatch.setattr(Machine, "look", lambda self, seen, at_work=(): asked.append(seen) or MachineView())
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        assert set(asked) == {False}
        await pressed(pilot, "8")
        assert asked[-1] is True
        assert "measuring…" in shown(app)
