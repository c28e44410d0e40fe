"""Several workers on one GPU; what the GPU has free is a number here, since there may be none."""

import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import structlog

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.errors import Interrupted, TrainingError
from redsm5.engine.records import MetricRow, TrialRecord
from redsm5.engine.study import sharing
from redsm5.engine.study.outcomes import note_failed
from redsm5.engine.study.sharing import MEMORY, SHARED, SharedGpu
from redsm5.engine.waiting import wait_until
from tests.engine.study.test_driver import QuickDriver, complete, overrides, trials_of

LOG = structlog.get_logger()


class Requested:
    def __init__(self, requested: bool = False) -> None:
        self.requested = requested


def worker(study: Path) -> SharedGpu:
    (study / paths.CLAIMS).mkdir(exist_ok=True)
    return SharedGpu(study, LOG, {SHARED: "MIG-1/2"})


def needing(study: Path, size: int) -> SharedGpu:
    gpu = worker(study)
    row = MetricRow(trial_id="t", metric=MEMORY, step=1, epoch=0, value=size, timestamp="2026-01-31T12:00:00.000Z")
    files.write_atomic(study / paths.METRICS, row.to_line())
    gpu.note(study)
    return gpu


def test_a_worker_with_a_gpu_of_its_own_waits_for_nothing(tmp_path: Path) -> None:
    gpu = SharedGpu(tmp_path, LOG, {})
    with gpu.taken(Requested(True), alone=True):
        assert not list(tmp_path.iterdir())


def test_trials_are_beside_each_other_while_the_memory_suffices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "free_memory", lambda gpu: 10)
    with worker(tmp_path).taken(Requested(), alone=False), needing(tmp_path, 10).taken(Requested(), alone=False):
        pass
    with (
        worker(tmp_path).taken(Requested(), alone=False),
        pytest.raises(Interrupted),
        needing(tmp_path, 11).taken(Requested(True), alone=False),
    ):
        pass
    with needing(tmp_path, 11).taken(Requested(), alone=False):  # nobody else is there: it may be too large by itself
        pass


def test_a_trial_that_waits_for_memory_begins_when_another_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "free_memory", lambda gpu: 0)
    began = threading.Event()

    def second() -> None:
        with needing(tmp_path, 1).taken(Requested(), alone=False):
            began.set()

    thread = threading.Thread(target=second)
    with worker(tmp_path).taken(Requested(), alone=False):
        thread.start()
        assert not began.wait(0.3)
    thread.join(30)
    assert began.is_set()


def test_a_trial_that_is_to_be_alone_waits_for_all_and_none_overtakes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "free_memory", lambda gpu: 10)
    order: list[str] = []
    go = threading.Event()

    def alone() -> None:
        with worker(tmp_path).taken(Requested(), alone=True):
            order.append("alone")
            go.wait(10)
            order.append("alone ends")

    def beside() -> None:
        with worker(tmp_path).taken(Requested(), alone=False):
            order.append("beside")

    threads = [threading.Thread(target=alone), threading.Thread(target=beside)]
    with worker(tmp_path).taken(Requested(), alone=False):
        threads[0].start()
        turn = next(iter((tmp_path / paths.CLAIMS).glob("*turn.lock")))
        assert wait_until(lambda: not _is_free(turn), timeout=10)
        threads[1].start()
        assert order == []
    go.set()
    for thread in threads:
        thread.join(30)
    assert order == ["alone", "alone ends", "beside"]


def _is_free(path: Path) -> bool:
    with files.try_lock(path) as free:
        return free


class Crowded(QuickDriver):
    """Its trials run out of memory beside others on their GPU, and `fails` of them alone, too."""

    fails = 0

    def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> None:
        if len(self.trained) == 1 or self.fails:
            note_failed(folder, record, "out_of_memory", "CUDA out of memory")
        else:
            complete(folder, record)


@pytest.mark.usefixtures("no_posts_and_no_mlflow")
@pytest.mark.parametrize(("shared", "fails", "starts"), [(True, 0, 2), (True, 1, 2), (False, 0, 1)])
def test_a_trial_that_ran_out_of_memory_beside_others_is_tried_once_more_alone(
    shared: bool, fails: int, starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shared:
        monkeypatch.setenv(SHARED, "0")
    driver = Crowded(compose(overrides(tmp_path, "study.trials=1")))
    driver.fails = fails
    with nullcontext() if starts == 2 and not fails else pytest.raises(TrainingError, match="no trial completed"):
        driver.run()
    assert len(driver.trained) == starts
    (record,) = trials_of(driver)
    assert record.state == ("completed" if starts == 2 and not fails else "failed")
    assert (record.error is None) == (record.state == "completed")
