"""What the tests of the driver share."""

import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from redsm5.engine.study import driver as driver_module
from redsm5.engine.study import outcomes
from redsm5.engine.study.access import CheckedData


@pytest.fixture
def no_posts_and_no_mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The driver's own work alone; signals are handled as before, afterwards."""
    shipper = SimpleNamespace(start=int, watch=id, name_winner=id, close=lambda hurried: 0, failing=False)
    monkeypatch.setattr(driver_module, "check_data", lambda task, config, stop: CheckedData({}, "ab" * 32, ()))
    monkeypatch.setattr(outcomes, "draw_report", lambda folder, log: None)
    monkeypatch.setattr(driver_module, "Shipper", lambda *_: shipper)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
