"""Signals as requests, and a clock that stands still while a process is stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5.engine.study import signals
from redsm5.engine.study.signals import RunningClock, StopRequest, wait_while_driver_is_stopped
from tests.e2e.conftest import wait_for

SLEEPS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals are handled as before, afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has launched this one, as far as that knows."""
    process = subprocess.Popen(SLEEPS)
    monkeypatch.setenv(signals.DRIVER, str(process.pid))
    yield process
    process.kill()
    process.wait()


def stop_and_see(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "T")


def test_a_hangup_asks_for_a_stop_however_often_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = StopRequest()
    monkeypatch.setattr(stop, "end_at_once", lambda: pytest.fail("the trial could not save"))
    monkeypatch.setattr(signals, "GRACE_S", 0.0)
    for _ in range(3):
        signal.raise_signal(signal.SIGHUP)
        assert stop.requested


def test_a_hangup_that_nohup_has_ignored_asks_for_nothing() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    signal.raise_signal(signal.SIGHUP)
    assert not stop.requested


def test_the_clock_stands_still_while_its_process_is_stopped() -> None:
    code = """import time
from redsm5.engine.study.signals import running_time
began, last = running_time(), time.monotonic()
print("ready", flush=True)
while time.monotonic() - last < 1.0:  # until it has been stopped for so long
    last = time.monotonic(); running_time(); time.sleep(0.01)
print(running_time() - began, flush=True)"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    began = time.monotonic()
    stop_and_see(process)  # type: ignore[arg-type]
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    ran = float(process.communicate(timeout=30)[0])
    assert 0 <= ran <= time.monotonic() - began - 1.4


def test_who_waits_for_a_stopped_driver_goes_on_with_it(driver: "subprocess.Popen[bytes]") -> None:
    stop, said = StopRequest(), list[str]()
    wait_while_driver_is_stopped(stop, said.append)
    assert said == []
    stop_and_see(driver)
    threading.Timer(0.5, driver.send_signal, (signal.SIGCONT,)).start()
    before, ran = time.monotonic(), signals.running_time()
    wait_while_driver_is_stopped(stop, said.append)
    assert time.monotonic() - before >= 0.4
    assert signals.running_time() - ran < 0.4
    assert said == ["the driver is suspended (Ctrl-Z): the trial waits for it", "the trial continues"]


def test_who_waits_for_a_stopped_driver_hears_a_request_to_stop(driver: "subprocess.Popen[bytes]") -> None:
    stop = StopRequest()
    stop_and_see(driver)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    wait_while_driver_is_stopped(stop, lambda _: None)
    assert stop.requested


def test_who_has_no_driver_or_one_that_is_gone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "1", "no number", "999999999"):
        if value is None:
            monkeypatch.delenv(signals.DRIVER, raising=False)
        else:
            monkeypatch.setenv(signals.DRIVER, value)
        wait_while_driver_is_stopped(StopRequest(), lambda _: pytest.fail("it waited"))


def test_only_time_that_passed_is_left_out() -> None:
    clock = RunningClock()
    readings = [clock() for _ in range(3)]
    clock.leave_out()
    assert sorted(readings) == readings
    assert clock() >= readings[-1]
