"""A GPU that several workers of a study share (`workers_per_gpu`).

Before a trial is put beside others, the GPU's free memory is looked at: it must have what this worker's largest trial
took, or the trial waits until others have ended. A trial that runs out of memory beside others is tried once more
alone, since it may have been their memory that was missing.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.documents import load_lines
from redsm5.engine.errors import Interrupted
from redsm5.engine.records import MetricRow, TrialRecord
from redsm5.engine.waiting import Stop, wait_until

SHARED = "REDSM5_SHARED_GPU"  # the GPU that a worker shares with others: set by redsm5/engine/study/workers.py
MEMORY = "system_gpu_memory_bytes"


class SharedGpu:
    """A worker's place on its GPU.

    Args:
        study: the study's folder.
        log: gets a line where a trial waits.

    Attributes:
        shared: whether other workers of the study may be on it.
    """

    def __init__(self, study: Path, log: FilteringBoundLogger, environ: Mapping[str, str] = os.environ) -> None:
        self._gpu, self._log = environ.get(SHARED, ""), log
        self.shared = bool(self._gpu)
        name = re.sub(r"\W", "_", self._gpu)
        self._turn, self._place = (study / paths.CLAIMS / f"gpu_{name}{what}.lock" for what in ("_turn", ""))
        self._needed = 0

    @contextmanager
    def taken(self, stop: Stop, *, alone: bool) -> Iterator[None]:
        """Be on the GPU, `alone` or beside others, once there is room.

        Raises:
            Interrupted: a stop was requested meanwhile.
        """
        if not self.shared:
            yield
            return
        turn, place = files.Lock(self._turn), files.Lock(self._place, shared=not alone)
        try:
            # One at a time looks for room, so that whoever waits to be alone is not overtaken.
            there = wait_until(lambda: turn.acquire(timeout_s=1.0), stop, every=0.0) and self._has_room(stop, alone)
            if not (there and wait_until(lambda: place.acquire(timeout_s=1.0), stop, every=0.0)):
                raise Interrupted("stopped while waiting for room on the GPU")
        finally:
            turn.release()
        try:
            yield
        finally:
            place.release()

    def _has_room(self, stop: Stop, alone: bool) -> bool:
        """Wait until the GPU has the memory that a trial takes, or no other worker is on it; False if stopped."""
        if alone:
            return True

        def fits() -> bool:
            with files.try_lock(self._place) as nobody_else:
                return nobody_else or free_memory(self._gpu) >= self._needed

        if fits():
            return True
        self._log.info("waiting for GPU memory", gpu=self._gpu, needed=self._needed, free=free_memory(self._gpu))
        return bool(wait_until(fits, stop, every=1.0))

    def note(self, folder: Path) -> None:
        """Take in how much memory a trial of this worker took."""
        if self.shared:
            taken = [row.value for row in load_lines(folder / paths.METRICS, MetricRow) if row.metric == MEMORY]
            self._needed = max(self._needed, int(max(taken, default=0)))

    def was_crowded(self, record: TrialRecord) -> bool:
        """Whether a trial ran out of memory that others on the GPU may have had."""
        return self.shared and record.error is not None and record.error.kind == "out_of_memory"


def free_memory(gpu: str) -> int:
    """Bytes that are free on a GPU, by its index or the UUID of one or of a part of it."""
    import pynvml

    pynvml.nvmlInit()
    by_name = pynvml.nvmlDeviceGetHandleByIndex if gpu.isdecimal() else pynvml.nvmlDeviceGetHandleByUUID
    return int(pynvml.nvmlDeviceGetMemoryInfo(by_name(int(gpu) if gpu.isdecimal() else gpu.encode())).free)
