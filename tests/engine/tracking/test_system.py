"""What a trial's journal says of the machine: which names, how often, and that rates are of the time they name."""

import multiprocessing
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from redsm5.engine.records import MetricRow
from redsm5.engine.tracking.journal import Journal, read_metrics
from redsm5.engine.tracking.system import SAMPLE_S, SystemMetrics, Usage, meter

STEPS, STALL, CPU = "system_steps_per_second", "system_save_stall_seconds", "system_cpu_percent"
MEMORY = "system_memory_bytes"


class Machine:
    """A clock that the test moves, and what the process has taken when it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seconds, self.asked = folder, 1000.0, 0
        self.usage = Usage(totals={CPU: 0.0}, levels={MEMORY: 7.0})
        self.journal = Journal(folder, "trial-1", log=lambda *_, **__: None)
        self.system = SystemMetrics(self.journal, self.measure, clock=lambda: self.seconds)

    def measure(self) -> Usage:
        self.asked += 1
        return self.usage

    def step(self, step: int, *, takes: float, epochs_done: int = 0) -> None:
        self.seconds += takes
        self.system.end_of_step(step, epochs_done)

    @property
    def rows(self) -> list[MetricRow]:
        self.journal.commit()
        return read_metrics(self.folder)

    def series(self, metric: str) -> dict[int, float]:
        """A metric's values by step."""
        return {row.step: row.value for row in self.rows if row.metric == metric}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_between_samples_a_step_measures_nothing_and_writes_nothing(machine: Machine) -> None:
    before = machine.asked
    for step in range(1, 40):
        machine.step(step, takes=SAMPLE_S / 40)
    assert machine.asked == before
    assert machine.rows == []
    machine.step(40, takes=SAMPLE_S / 40)
    assert machine.asked == before + 1
    assert {row.metric for row in machine.rows} == {STEPS, CPU, MEMORY}


def test_a_row_carries_the_step_and_the_epochs_done(machine: Machine) -> None:
    machine.step(11, takes=SAMPLE_S, epochs_done=2)
    machine.seconds += 1
    machine.system.end_of_epoch(12, 3)
    assert {(row.step, row.epoch) for row in machine.rows} == {(11, 2), (12, 3)}


def test_samples_are_at_least_five_seconds_apart_and_one_ends_each_epoch(machine: Machine) -> None:
    for step in range(1, 8):
        machine.step(step, takes=2.0)
    assert list(machine.series(MEMORY)) == [3, 6]
    machine.system.end_of_epoch(7, 1)
    machine.step(8, takes=4.0)
    machine.step(9, takes=4.0)
    assert list(machine.series(MEMORY)) == [3, 6, 7, 9]


def test_a_total_becomes_a_rate_over_the_time_since_the_last_sample(machine: Machine) -> None:
    machine.usage = Usage(totals={CPU: 800.0}, levels={})
    machine.step(1, takes=8.0)
    machine.usage = Usage(totals={CPU: 2800.0}, levels={})
    machine.step(2, takes=10.0)
    assert machine.series(CPU) == {1: 100.0, 2: 200.0}


def test_a_total_that_went_back_is_no_negative_rate(machine: Machine) -> None:
    """A child that ends between two looks may be missed by one of them."""
    machine.usage = Usage(totals={CPU: -3.0}, levels={})
    machine.step(1, takes=8.0)
    assert machine.series(CPU) == {1: 0.0}


def test_a_total_that_was_not_there_before_gives_no_rate(machine: Machine) -> None:
    machine.usage = Usage(totals={"system_disk_read_bytes_per_second": 5.0}, levels={})
    machine.step(1, takes=8.0)
    assert machine.rows == []


def test_steps_per_second_count_neither_validation_nor_saves_nor_what_comes_before_the_first_step(
    machine: Machine,
) -> None:
    machine.step(1, takes=100.0)  # imports, data, and no step before it from whose end it could be timed
    for step in range(2, 12):
        machine.step(step, takes=0.25)
    with machine.system.saving():
        machine.seconds += 60.0
    for step in range(12, 22):
        machine.step(step, takes=0.25)
    machine.seconds += 300.0  # validation
    machine.system.end_of_epoch(21, 1)
    assert machine.series(STEPS) == {12: 4.0, 21: 4.0}
    machine.step(22, takes=50.0, epochs_done=1)  # the next epoch's first
    for step in range(23, 33):
        machine.step(step, takes=0.5, epochs_done=1)
    machine.system.end_of_epoch(32, 2)
    assert machine.series(STEPS) == {12: 4.0, 21: 4.0, 32: 2.0}


def test_an_epoch_of_one_step_has_no_rate(machine: Machine) -> None:
    machine.step(1, takes=0.5)
    machine.seconds += 1
    machine.system.end_of_epoch(1, 1)
    assert STEPS not in {row.metric for row in machine.rows}


def test_each_save_s_stall_is_written_once_with_the_next_sample(machine: Machine) -> None:
    machine.step(1, takes=0.5)
    with machine.system.saving():
        machine.seconds += 0.25
    machine.step(2, takes=SAMPLE_S)
    machine.step(3, takes=SAMPLE_S)
    with machine.system.saving():
        machine.seconds += 0.5
    machine.system.end_of_epoch(3, 1)
    assert machine.series(STALL) == {2: 0.25, 3: 0.5}, "also where the epoch's last step was sampled already"


def test_a_trial_that_goes_on_keeps_what_it_wrote(tmp_path: Path) -> None:
    for memory in (7.0, 8.0):
        machine = Machine(tmp_path)
        machine.usage = Usage(totals={}, levels={MEMORY: memory})
        machine.step(1, takes=8.0)
        assert machine.series(MEMORY) == {1: 7.0}


# ---------------------------------------------------------------------------------------------------------------------
# what is measured

CPU_DEVICE = torch.device("cpu")


def test_this_process_is_measured_by_the_names_that_apply_to_it() -> None:
    usage = meter(CPU_DEVICE)()
    totals = {CPU, "system_disk_read_bytes_per_second", "system_disk_write_bytes_per_second"}
    assert usage.totals.keys() == (totals if hasattr(psutil.Process, "io_counters") else {CPU})
    assert usage.levels.keys() == {MEMORY}
    assert usage.levels[MEMORY] > 10_000_000


@pytest.mark.parametrize("error", [AttributeError(), psutil.AccessDenied(), PermissionError(), RuntimeError()])
def test_where_disk_counters_are_unavailable_they_are_left_out(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(process: psutil.Process) -> None:
        raise error

    monkeypatch.setattr(psutil.Process, "io_counters", refuse, raising=False)
    assert meter(CPU_DEVICE)().totals.keys() == {CPU}


def burn(seconds: float, done: Any, end: Any) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    done.set()
    end.wait()


def test_a_child_s_work_counts_while_it_lives_and_after_it_has_ended() -> None:
    measure = meter(CPU_DEVICE)
    context = multiprocessing.get_context("fork")
    done, end = context.Event(), context.Event()
    before = measure().totals[CPU]
    child = context.Process(target=burn, args=(0.5, done, end))
    child.start()
    done.wait()
    alive = measure().totals[CPU]
    end.set()
    child.join()
    after = measure().totals[CPU]
    assert alive - before > 40, "100 a second of one core"
    assert after - before > 40


class TestGpu:
    """Where there is none, with what PyTorch would say."""

    CUDA = torch.device("cuda")

    def test_memory_and_utilization(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5_000_000)
        monkeypatch.setattr(torch.cuda, "utilization", lambda device: 87)
        levels = meter(self.CUDA)().levels
        assert levels["system_gpu_memory_bytes"] == 5_000_000
        assert levels["system_gpu_utilization_percent"] == 87

    @pytest.mark.parametrize("error", [ModuleNotFoundError("nvidia-ml-py"), RuntimeError("driver"), OSError()])
    def test_without_nvml_the_utilization_is_left_out(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def fail(device: torch.device) -> int:
            raise error

        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5_000_000)
        monkeypatch.setattr(torch.cuda, "utilization", fail)
        assert meter(self.CUDA)().levels.keys() == {MEMORY, "system_gpu_memory_bytes"}
