"""SIGTERM and SIGINT as a request, looked at where the work can stop; and no process without its parent."""

import ctypes
import os
import signal
import time
from types import FrameType
from typing import Protocol

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec it is too late to load anything
GRACE_S = 1.0  # one request often arrives as several signals: to the group, and again as the parent dies


class Stop(Protocol):
    """Who can be asked whether to stop: a signal's handler, or one that looks for orders too."""

    @property
    def requested(self) -> bool: ...


class StopRequest:
    """Whether a signal asked this process to stop. A second one, at least a second later, ends it at once."""

    def __init__(self) -> None:
        self._first: float | None = None
        self.impatient = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @property
    def requested(self) -> bool:
        return self._first is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif now - self._first >= GRACE_S:
            self.impatient = True
            self.end_at_once()

    def end_at_once(self) -> None:
        os._exit(75)


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends, so that no orphan trains on (Linux)."""
    parent = os.getppid()
    LIBC.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent or (parent == 1 and os.environ.get("REDSM5_LAUNCHED")):
        os.kill(os.getpid(), number)  # it ended before we asked
