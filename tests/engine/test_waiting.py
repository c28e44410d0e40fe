"""`wait_until`: the first look counts whatever else is, and nothing is looked at after a stop or the timeout."""

import signal
from collections.abc import Iterator

import pytest

from redsm5.engine import waiting
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.waiting import wait_until


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


class Stopping:
    """Asks for a stop from its `n`th reading on."""

    def __init__(self, n: int) -> None:
        self.left = n

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_looks_at_intervals_until_the_condition_is_true_and_returns_what_that_said(clock: Clock) -> None:
    answers = iter(["", None, "found", "later"])
    assert wait_until(lambda: next(answers), every=2.0) == "found"
    assert clock.slept == [2.0, 2.0]


def test_what_is_true_at_once_counts_in_spite_of_a_stop_and_of_no_time(clock: Clock) -> None:
    assert wait_until(lambda: "there", Stopping(1), 0.0) == "there"
    assert clock.slept == []


def test_a_stop_ends_the_wait_after_the_look_and_before_the_next_interval(clock: Clock) -> None:
    looks: list[int] = []
    assert wait_until(lambda: looks.append(1), Stopping(3), 100.0, every=1.0) is None
    assert (len(looks), clock.slept) == (3, [1.0, 1.0])


def test_the_timeout_ends_the_wait_with_a_last_look_and_no_interval_exceeds_it(clock: Clock) -> None:
    looked_at: list[float] = []
    assert not wait_until(lambda: looked_at.append(clock.seconds), timeout=2.5, every=1.0)
    assert looked_at == [0.0, 1.0, 2.0, 2.5]
    looked_at.clear()
    assert not wait_until(lambda: looked_at.append(clock.seconds), timeout=0.0)
    assert looked_at == [2.5]


def test_another_clock_measures_the_timeout(clock: Clock) -> None:
    """As that of a trial does, which stands still while the driver is stopped."""
    running = iter([0.0, 0.0, 0.0, 1.0])
    assert not wait_until(lambda: False, timeout=1.0, every=50.0, clock=lambda: next(running))
    assert len(clock.slept) == 2


def test_an_error_of_the_condition_ends_the_wait(clock: Clock) -> None:
    answers = iter([False, False])
    with pytest.raises(StopIteration):
        wait_until(lambda: next(answers))
    assert len(clock.slept) == 2


@pytest.mark.usefixtures("handlers")
def test_a_signal_ends_a_wait_that_nothing_else_ends() -> None:
    stop = StopRequest()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        assert not wait_until(lambda: False, stop, every=0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert stop.requested
