"""The disk is watched while a trial trains: said when it changes and then rarely, cheaply, and never in its way."""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import paths
from redsm5.engine.storage import disk as disk_module
from redsm5.engine.storage.disk import EVERY_S, DiskMonitor

TOTAL = 10**12


class Log:
    """Keeps (level, sentence, facts)."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda sentence, **facts: self.said.append((level, sentence, facts))

    def levels(self) -> list[str]:
        return [level for level, _, _ in self.said]


class World:
    """A monitor, its log, a clock that is set, and a disk that is as full as is said."""

    def __init__(self, trial_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.percent, self.log = 1000.0, 50.0, Log()
        self.checkpoints = trial_dir / paths.CHECKPOINTS
        self.monitor = DiskMonitor(self.checkpoints, self.log, clock=lambda: self.now)
        monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: self.usage())

    def usage(self) -> Any:
        free = int(TOTAL * self.percent / 100)
        return type("usage", (), {"total": TOTAL, "free": free, "used": TOTAL - free})

    def minutes(self, count: int) -> None:
        for _ in range(count):
            self.monitor.look()
            self.now += 60


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_line_says_what_is_free_and_what_the_trial_s_checkpoints_take(world: World) -> None:
    (world.checkpoints / "epoch-0001").mkdir(parents=True)
    (world.checkpoints / "epoch-0001" / paths.WEIGHTS).write_bytes(bytes(700))
    world.monitor.look()
    assert world.log.said == [("info", "disk", {"free": TOTAL // 2, "percent": 50.0, "checkpoints": 700})]


@pytest.mark.parametrize(
    ("percent", "level"),
    [
        (100, "info"),
        (10, "info"),
        (9.99, "warning"),
        (5, "warning"),
        (4.99, "error"),
        (1, "error"),
        (0.99, "critical"),
        (0, "critical"),
    ],
)
def test_the_less_is_free_the_louder(world: World, percent: float, level: str) -> None:
    world.percent = percent
    world.monitor.look()
    assert world.log.levels() == [level]


@pytest.mark.parametrize("percent", [50, 9, 4, 0.5])
def test_the_same_level_is_said_every_ten_minutes_at_the_most(world: World, percent: float) -> None:
    world.percent = percent
    world.minutes(31)
    assert len(world.log.said) == 4


def test_a_level_that_changes_is_said_at_once(world: World) -> None:
    for percent in (50, 9, 9, 4, 0.5, 50):
        world.percent = percent
        world.minutes(1)
    assert world.log.levels() == ["info", "warning", "error", "critical", "info"]


def test_before_the_first_checkpoint_there_is_a_line_too(tmp_path: Path) -> None:
    """And the disk that it tells of is the real one."""
    log = Log()
    DiskMonitor(tmp_path / "trial" / paths.CHECKPOINTS, log).look()
    assert log.said == [], "no folder, nothing to say"
    (tmp_path / "trial").mkdir()
    DiskMonitor(tmp_path / "trial" / paths.CHECKPOINTS, log).look()
    [(_, _, facts)] = log.said
    assert facts["free"] > 0
    assert 0 < facts["percent"] <= 100
    assert facts["checkpoints"] == 0


def test_a_disk_that_fails_never_reaches_the_training(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: object) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk_module.shutil, "disk_usage", failing)
    world.monitor.look()
    assert world.log.said == []
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: type("usage", (), {"total": 0, "free": 0}))
    world.monitor.look()
    assert world.log.said == []


def test_it_looks_by_itself_while_it_is_entered_and_not_after(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(disk_module, "EVERY_S", 0.01)
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: looks.append(time.monotonic()) or world.usage())
    with world.monitor:
        deadline = time.monotonic() + 20
        while len(looks) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    world.monitor._thread.join(20)
    count = len(looks)
    assert count >= 3
    time.sleep(0.05)
    assert len(looks) == count


def test_a_disk_that_does_not_answer_keeps_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the end of the training nor the end of the process waits for the thread that asked."""
    answer = threading.Event()
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: answer.wait(30) and world.usage())
    begin = time.monotonic()
    with world.monitor:
        pass
    assert time.monotonic() - begin < 5
    assert world.monitor._thread.daemon
    answer.set()
    world.monitor._thread.join(20)


def test_it_costs_less_than_a_hundredth_of_a_core(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if each look had something to say, with a hundred checkpoints there."""
    for n in range(100):
        folder = world.checkpoints / f"epoch-{n:04d}"
        folder.mkdir(parents=True)
        for name in (paths.WEIGHTS, paths.STATE_TENSORS, paths.STATE_JSON, paths.MANIFEST, paths.SUMS):
            (folder / name).touch()
    begin = time.thread_time()
    for _ in range(20):
        world.now += 600
        world.monitor.look()
    assert len(world.log.said) == 20
    assert (time.thread_time() - begin) / 20 < EVERY_S / 100

    def refused(folder: Path) -> int:
        raise AssertionError("where there is nothing to say, no folder is read")

    monkeypatch.setattr(disk_module, "suppress", lambda _: nullcontext())  # so that a failure is seen here
    monkeypatch.setattr(disk_module.files, "tree_bytes", refused)
    world.monitor.look()
