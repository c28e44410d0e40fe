"""Waiting for what nobody announces, such as a change of a file or of another process's lock: looking at intervals."""

import math
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Stop(Protocol):
    """Who can be asked whether to stop: a signal's handler, or one that looks for orders too."""

    @property
    def requested(self) -> bool: ...


def wait_until(
    condition: Callable[[], T],
    stop: Stop | None = None,
    timeout: float = math.inf,
    *,
    every: float = 0.1,
    clock: Callable[[], float] | None = None,
) -> T:
    """Look at `condition` until it is true, a stop is requested, or `timeout` has passed.

    It is looked at first, so that what is true already counts, whatever else is. An error that it raises ends the wait.

    Args:
        condition: looked at `every` so many seconds, and once more as the timeout ends.
        stop: asked after each look; None where nothing ends the wait early.
        timeout: seconds; 0 for a single look.
        clock: what measures the timeout, in seconds; time.monotonic without one.

    Returns:
        What `condition` returned last: false after a stop or a timeout, and the caller knows which by asking `stop`.
    """
    clock = clock or time.monotonic
    deadline = clock() + timeout
    while not (found := condition()):
        if stop and stop.requested:
            break
        if (left := deadline - clock()) <= 0:
            break
        time.sleep(min(every, left))
    return found
