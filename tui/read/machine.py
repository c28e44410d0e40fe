"""Samples the CPU, memory, disk and GPUs of the machine that the app runs on.

Separate from redsm5/engine/tracking/system.py, which samples a trial's own process into its journal. A sample takes 0.2
ms without a GPU. psutil and NVML are imported at the first sample, in the reading thread.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redsm5.engine import paths

KEPT_S = 300.0
SELDOM_S = 5.0  # between two samples while the screen is not shown
SEEN_S = 0.9  # minimum between two samples while it is shown
MOST_GPUS = 16
LOCKS = Path("/proc/locks")


@dataclass(frozen=True)
class Gpu:
    """A GPU's figures; None if the driver does not report one. `busy` is in per cent, `temperature` in
    degrees Celsius.
    """

    name: str
    busy: float | None = None
    used: int | None = None
    total: int | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Sample:
    """The machine at one moment.

    Attributes:
        at: seconds of a monotonic clock.
        cpu: per cent of all cores; 100 is all of them.
        memory: bytes in use, that is not available.
        load: the load averages over 1, 5 and 15 minutes; empty if the system has none.
        read, written: bytes per second since the last sample; None if unknown.
    """

    at: float
    cpu: float
    memory: int
    load: tuple[float, ...] = ()
    read: float | None = None
    written: float | None = None
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class MachineView:
    """The samples of the last minutes, oldest first. `disk`: the device whose bytes are counted; `here`: the trials
    that run on this machine, None if the system does not tell.
    """

    samples: tuple[Sample, ...] = ()
    host: str = ""
    cores: int = 0
    memory_total: int = 0
    disk: str = ""
    here: frozenset[str] | None = None


class Machine:
    """Samples the machine on which the app runs."""

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments
        self._samples: deque[Sample] = deque()
        self._last = 0.0
        self._moved: tuple[float, int, int] | None = None  # time, and the total bytes read and written by then
        self._host, self._cores, self._total, self._disk = "", 0, 0, ""
        self._nvml: Any = None
        self._gpus: list[tuple[Any, str]] = []

    def look(self, seen: bool, at_work: Iterable[str] = ()) -> MachineView:
        """The last minutes, with a new sample if one is due.

        Args:
            seen: whether the screen is shown, so that a sample is due each second.
            at_work: ids of the active trials, of which those on this machine are found.
        """
        now = time.monotonic()
        if not self._cores:
            self._begin()
            self._last = now  # CPU and disk figures need a time span between two looks
        if now - self._last >= (SEEN_S if seen else SELDOM_S):
            self._last = now
            self._samples.append(self._sample(now))
            while now - self._samples[0].at > KEPT_S:
                self._samples.popleft()
        return MachineView(
            samples=tuple(self._samples),
            host=self._host,
            cores=self._cores,
            memory_total=self._total,
            disk=self._disk,
            here=running_here(self._experiments, at_work) if seen else None,
        )

    def _begin(self) -> None:
        """Read what does not change: names, sizes, and the GPUs."""
        import psutil

        self._host, self._cores = socket.gethostname(), psutil.cpu_count() or 1
        self._total = psutil.virtual_memory().total
        psutil.cpu_percent()  # it measures from its previous call on
        self._disk = device_of(self._experiments)
        self._disk_rates(time.monotonic())
        with suppress(Exception):  # NVML fails in many ways: no package, no driver, no GPU; nothing else depends on it
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            for n in range(min(pynvml.nvmlDeviceGetCount(), MOST_GPUS)):
                handle = pynvml.nvmlDeviceGetHandleByIndex(n)
                name = pynvml.nvmlDeviceGetName(handle)
                self._gpus.append((handle, name if isinstance(name, str) else name.decode(errors="replace")))

    def _sample(self, now: float) -> Sample:
        import psutil

        memory = psutil.virtual_memory()
        load: tuple[float, ...] = ()
        with suppress(AttributeError, OSError):
            load = tuple(psutil.getloadavg())
        read, written = self._disk_rates(now)
        return Sample(
            at=now,
            cpu=psutil.cpu_percent(),
            memory=memory.total - memory.available,
            load=load,
            read=read,
            written=written,
            gpus=tuple(self._gpu(handle, name) for handle, name in self._gpus),
        )

    def _disk_rates(self, now: float) -> tuple[float | None, float | None]:
        import psutil

        try:
            counters = psutil.disk_io_counters(perdisk=bool(self._disk), nowrap=False)
        except (OSError, RuntimeError, ValueError, NotImplementedError):
            counters = None
        if self._disk and counters:
            counters = counters.get(self._disk)
        before, self._moved = self._moved, (now, counters.read_bytes, counters.write_bytes) if counters else None
        if before is None or self._moved is None or now <= before[0]:
            return None, None
        seconds = now - before[0]
        return tuple(max(self._moved[n] - before[n], 0) / seconds for n in (1, 2))  # type: ignore[return-value]

    def _gpu(self, handle: Any, name: str) -> Gpu:
        """The figures of one GPU; for a MIG slice the driver reports fewer."""
        nvml, told = self._nvml, {}
        asks: dict[str, Callable[[], Any]] = {
            "busy": lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "used": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "total": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            "temperature": lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        }
        for key, ask in asks.items():
            with suppress(Exception):
                told[key] = ask()
        return Gpu(name, **told)


def device_of(path: Path) -> str:
    """The name of the block device of the nearest existing folder; empty if there is none, as on NFS."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        number = path.stat().st_dev
        return Path(os.readlink(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")).name
    except OSError:
        return ""


def running_here(experiments: Path, trial_ids: Iterable[str]) -> frozenset[str] | None:
    """The trials whose lock a process of this machine holds; None if the system does not list its locks."""
    try:
        lines = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return None
    held = {fields[5].split(":")[-1] for fields in lines if len(fields) > 5 and fields[1] == "FLOCK"}
    found = set()
    for trial_id in trial_ids:
        with suppress(OSError, ValueError):
            if str((paths.trial_dir(experiments, trial_id) / paths.LOCK).stat().st_ino) in held:
                found.add(trial_id)
    return frozenset(found)
