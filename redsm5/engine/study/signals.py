"""SIGTERM, SIGINT and SIGHUP as requests, checked where work can stop; and processes that exit with their parent.

If the driver is suspended (Ctrl-Z, SIGSTOP), its trial waits. The trial checks for that between steps: it runs in a
session of its own, which the terminal does not suspend, and SIGSTOP cannot be caught.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from redsm5.engine.waiting import Stop, wait_until

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec it is too late to load anything
GRACE_S = 1.0  # one request often arrives as several signals: to the group, and again as the parent dies
DRIVER = "REDSM5_LAUNCHED"  # the number of the process that launched this one and waits for it


class StopRequest:
    """Whether a signal asked this process to stop. A second one, at least a second later, ends it at once.

    SIGHUP, from a terminal that closes, asks too, but never counts as the second one, since shell and kernel may both
    send it. Under nohup, which ignores it, it stays ignored.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self.impatient = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_signal)

    @property
    def requested(self) -> bool:
        return self._first is not None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
        elif now - self._first >= GRACE_S and number != signal.SIGHUP:
            self.impatient = True
            self.end_at_once()

    def end_at_once(self) -> None:
        os._exit(75)


class RunningClock:
    """time.monotonic, but standing still while this process is stopped, from its last reading to the SIGCONT, and while
    it waits for a driver that is.
    """

    def __init__(self) -> None:
        self._read, self._left_out, self._listens = time.monotonic(), 0.0, False

    def __call__(self) -> float:
        if not self._listens and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCONT, lambda *_: self.leave_out())
            self._listens = True
        self._read = time.monotonic()
        return self._read - self._left_out

    def leave_out(self) -> None:
        """The time since the last reading does not count."""
        now = time.monotonic()
        self._left_out += now - self._read
        self._read = now


running_time = RunningClock()


def wait_while_driver_is_stopped(stop: Stop, say: Callable[[str], object]) -> None:
    """Wait as long as the process that launched this one is stopped, unless a signal asks for our end."""
    if not _driver_is_stopped():
        running_time()  # from here on this process itself may be suspended
        return
    say("the driver is suspended (Ctrl-Z): the trial waits for it")
    running_time()
    wait_until(lambda: not _driver_is_stopped(), stop)
    running_time.leave_out()
    say("the trial continues")


def _driver_is_stopped() -> bool:
    """Whether its state is T, for stopped; t, for held by a debugger, is none of ours. Linux alone tells."""
    try:
        with open(f"/proc/{os.environ[DRIVER]}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] == b"T"
    except (KeyError, OSError):
        return False


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends, so that no orphan trains on (Linux)."""
    parent = os.getppid()
    LIBC.prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent or (parent == 1 and os.environ.get(DRIVER)):
        os.kill(os.getpid(), number)  # it ended before we asked
