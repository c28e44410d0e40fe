"""System metrics of a trial's process, in its journal as `system_*`, next to losses and scores.

A sample is taken at the end of an optimizer step, at least SAMPLE_S after the last one, and at each epoch's end. It
takes 0.15 ms without a GPU; a step without a sample reads the clock once. Rates refer to the time since the last
sample, or since training started. These values depend on the clock and the machine, and nothing depends on them.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from redsm5.engine.tracking.journal import Journal

if TYPE_CHECKING:
    import torch

SAMPLE_S = 5.0


@dataclass(frozen=True)
class Usage:
    """What the process uses, by metric.

    Attributes:
        totals: what it has taken since it began, of which the metric is the growth in a second.
        levels: what it holds now.
    """

    totals: dict[str, float]
    levels: dict[str, float]


class SystemMetrics:
    """Writes samples to the journal; they are durable after its next `commit`.

    `system_steps_per_second` counts the steps since the last sample over the time between the ends of consecutive steps
    of an epoch, less what saves took of it. So validation, augmentation and the time between two starts of the trial
    do not count, and neither does an epoch's first step, before which no other's end says when it began.
    `system_save_stall_seconds` is how long the training waited in the last save; each save's is written once.

    Args:
        journal: the trial's.
        measure: what the process uses now, as from `meter`.
        clock: seconds.
    """

    def __init__(
        self, journal: Journal, measure: Callable[[], Usage], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal, self._measure, self._clock = journal, measure, clock
        self._usage, self._sampled_at = measure(), clock()
        self._steps, self._steps_s = 0, 0.0
        self._step_ended_at: float | None = None  # None until the epoch's first step has ended
        self._stall_s: float | None = None

    def end_of_step(self, step: int, epochs_done: int) -> None:
        """An optimizer step has ended: a sample, if one is due."""
        now = self._clock()
        if self._step_ended_at is not None:
            self._steps += 1
            self._steps_s += now - self._step_ended_at
        self._step_ended_at = now
        if now - self._sampled_at >= SAMPLE_S:
            self._sample(now, step, epochs_done)

    def end_of_epoch(self, step: int, epochs_done: int) -> None:
        """The epoch has been trained, validated and saved: a sample."""
        self._sample(self._clock(), step, epochs_done)
        self._step_ended_at = None

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save: the time in here is its stall."""
        begin = self._clock()
        yield
        self._stall_s = self._clock() - begin
        if self._step_ended_at is not None:
            self._step_ended_at += self._stall_s

    def _sample(self, now: float, step: int, epochs_done: int) -> None:
        usage, seconds = self._measure(), now - self._sampled_at
        values = dict(usage.levels)
        if self._steps and self._steps_s > 0:
            values["system_steps_per_second"] = self._steps / self._steps_s
        if self._stall_s is not None:
            values["system_save_stall_seconds"] = self._stall_s
        if seconds > 0:
            before = self._usage.totals
            values |= {k: max(0.0, v - before[k]) / seconds for k, v in usage.totals.items() if k in before}
        for metric, value in values.items():
            self._journal.add(metric, value, step=step, epoch=epochs_done)
        self._usage, self._sampled_at = usage, now
        self._steps, self._steps_s, self._stall_s = 0, 0.0, None


def meter(device: "torch.device") -> Callable[[], Usage]:
    """What measures this process, and on a GPU this device; what the machine does not tell is left out."""
    process = psutil.Process()

    def measure() -> Usage:
        with process.oneshot():
            totals = {"system_cpu_percent": 100 * _cpu_seconds(process)}
            levels = {"system_memory_bytes": float(process.memory_info().rss)}
            # macOS has no such counters, and a container may forbid them
            with suppress(AttributeError, OSError, RuntimeError, ValueError, psutil.Error):
                io = process.io_counters()
                totals["system_disk_read_bytes_per_second"] = io.read_bytes
                totals["system_disk_write_bytes_per_second"] = io.write_bytes
        return Usage(totals, levels | (_gpu(device) if device.type == "cuda" else {}))

    return measure


def _cpu_seconds(process: psutil.Process) -> float:
    """Of this process, its children that have ended, and those of multiprocessing that live: data loaders' workers.

    Looking for any other child would read all of /proc, which takes milliseconds.
    """
    times = process.cpu_times()
    seconds: float = times.user + times.system + times.children_user + times.children_system
    for child in multiprocessing.active_children():
        with suppress(psutil.Error):
            times = psutil.Process(child.pid).cpu_times()
            seconds += times.user + times.system
    return seconds


def _gpu(device: "torch.device") -> dict[str, float]:
    """The memory that PyTorch holds for this process, its cache included, and how busy all processes keep the GPU."""
    from torch import cuda

    levels: dict[str, float] = {"system_gpu_memory_bytes": cuda.memory_reserved(device)}
    with suppress(Exception):  # nvidia-ml-py may be missing, and NVML fails in many ways; training continues
        levels["system_gpu_utilization_percent"] = cuda.utilization(device)
    return levels
