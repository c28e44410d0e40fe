"""What tests of several parts share."""

import os
import threading
from collections.abc import Iterator

import pytest
import torch

# Several test processes share the machine: threads that wait for each other's turn take five times as long as one. For
# this process, and for those that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first: short ones are left for the end, which whoever is free then takes over."""
    items.sort(key=lambda item: item.path.parent.name not in ("e2e", "crash"))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of the tests' own, in the place of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDSM5_CACHE", str(tmp_path_factory.mktemp("cache") / "redsm5"))
        yield


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A trial's process makes zero of the smallest numbers; in tests that would outlast the test."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def no_shipper_left() -> Iterator[None]:
    """A shipper whose server hangs outlives its trial, and would write its warnings into the next test's output."""
    yield
    for thread in threading.enumerate():
        if thread.name == "mlflow-shipper":
            thread.join(timeout=60)
            assert not thread.is_alive(), "a test left a shipper at work"


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Algorithms whose results do not depend on the run, for the length of a test."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
