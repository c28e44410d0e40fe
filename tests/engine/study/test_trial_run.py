"""A trial in the process that trains it: one at a time, and whatever ends it becomes its outcome."""

import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redsm5.config import Config, compose
from redsm5.engine import files, paths
from redsm5.engine.errors import (
    BudgetMismatchError,
    DiskError,
    IncompatibleCheckpointError,
    InputError,
    Interrupted,
    LockedError,
    NotFiniteError,
)
from redsm5.engine.records import TrialRecord
from redsm5.engine.storage import disk as disk_module
from redsm5.engine.study import trial_run
from redsm5.engine.study.failures import failed_at_start
from redsm5.engine.study.faults import classify
from redsm5.engine.study.trial import create_trial, open_store, read_record
from redsm5.engine.study.trial_run import TrialRun

HOLD = """
import pathlib, sys, time
from redsm5.engine import files
assert files.Lock(pathlib.Path(sys.argv[1])).acquire()
print("held", end="", flush=True)
time.sleep(60)
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return compose([f"experiments={tmp_path / 'e'}", "data.posts=60"])


def folder_of(config: Config, record: TrialRecord) -> Path:
    return paths.trial_dir(Path(config.experiments), record.trial_id)


def test_a_second_process_at_the_same_trial_is_refused(config: Config) -> None:
    record = create_trial(config)
    opened = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder_of(config, record) / paths.LOCK)], stdout=-1)
    assert holder.stdout is not None
    assert holder.stdout.read(4) == b"held"
    with pytest.raises(LockedError, match="another process"):
        TrialRun.open(opened)
    holder.kill()
    holder.communicate()
    assert TrialRun.open(opened).record.state == "preparing"


@pytest.mark.parametrize(
    ("error", "state", "code", "kind"),
    [
        (NotFiniteError("the loss is nan at step 3"), "failed", 2, "not_finite"),
        (Interrupted("stopped at step 3"), "interrupted", 75, "interrupted"),
        (OSError(28, "No space left on device"), "interrupted", 3, "disk"),
        (OSError(5, "Input/output error"), "interrupted", 3, "disk"),
        (DiskError("no room"), "interrupted", 3, "disk"),
        (BudgetMismatchError("another budget"), "interrupted", 1, "budget"),
        (LockedError("budget.lock is held"), "interrupted", 1, "locked"),
        (IncompatibleCheckpointError("other data"), "interrupted", 1, "incompatible_checkpoint"),
        (MemoryError(), "failed", 2, "out_of_memory"),
        (InputError("no such model"), "failed", 1, "input"),
        (KeyError("labels"), "failed", 2, "KeyError"),
    ],
)
def test_whatever_ends_a_trial_becomes_its_outcome(
    config: Config, error: Exception, state: str, code: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = create_trial(config)
    opened = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
    run = TrialRun.open(opened)
    with pytest.raises(SystemExit) as exited, run.outcome():
        raise error
    outcome = read_record(run.folder)
    assert outcome is not None
    assert outcome.error is not None
    assert (exited.value.code, outcome.state, outcome.exit_code, outcome.error.kind) == (code, state, code, kind)
    assert classify(error)[0] == kind
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("stepped", [False, True])
def test_before_its_first_step_a_failure_of_a_study_s_trial_is_not_settled(config: Config, stepped: bool) -> None:
    study = str(uuid.uuid4())
    files.make_dir(paths.study_dir(Path(config.experiments), study))
    record = create_trial(config, study_id=study, number=0)
    run = TrialRun.open(config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})}))
    run.stepped = stepped
    with pytest.raises(SystemExit) as exited, run.outcome():
        raise InputError("no such model")
    outcome = read_record(run.folder)
    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == ("failed" if stepped else "interrupted", exited.value.code)
    assert failed_at_start(outcome) is not stepped
    assert not failed_at_start(outcome.model_copy(update={"state": "interrupted", "error": None}))


def test_the_time_that_a_trial_ran_adds_up_over_its_starts_without_the_pauses(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(trial_run, "running_time", lambda: clock.now)
    opened = config.model_copy(update={"trial": config.trial.model_copy(update={"id": create_trial(config).trial_id})})
    for begins, ends, total in ((100.0, 107.5, 7.5), (5000.0, 5002.0, 9.5)):
        clock.now = begins
        run = TrialRun.open(opened)
        clock.now = ends
        run.update(state="interrupted")
        record = read_record(run.folder)
        assert record is not None
        assert record.active_seconds == total
        run._lock.release()


def log_lines(run: TrialRun, message: str) -> list[dict[str, Any]]:
    lines = files.read_lines(run.folder / paths.LOGS / "log.jsonl")
    return [line["context"] for line in lines if line["message"] == message]


def test_the_disk_is_watched_for_the_length_of_a_trial(config: Config) -> None:
    record = create_trial(config)
    run = TrialRun.open(config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})}))

    def wait_for_a_line() -> None:
        deadline = time.monotonic() + 20
        while not log_lines(run, "disk") + log_lines(run, "low disk space"):
            assert time.monotonic() < deadline, "nothing was said of the disk"
            time.sleep(0.01)

    with pytest.raises(SystemExit), run.outcome():
        wait_for_a_line()
    assert run.disk._ended.is_set()
    assert log_lines(run, "trial failed: AssertionError") == []


def test_the_disk_is_looked_at_before_each_save(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    record = create_trial(config)
    run = TrialRun.open(config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})}))
    store = open_store(run.folder, run.config, log=run.log.info)
    run.reserve_storage(store, full=1000, weights=300)
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda path: type("full", (), {"total": 10**6, "free": 0}))
    with pytest.raises(DiskError):
        store.make_room(1000)
    assert [facts["percent"] for facts in log_lines(run, "low disk space")] == [0.0]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"trial_id": "x"}'])
def test_a_damaged_record_is_named_and_not_overwritten(config: Config, content: bytes) -> None:
    record = create_trial(config)
    path = folder_of(config, record) / paths.TRIAL
    path.write_bytes(content)
    opened = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
    with pytest.raises(InputError, match=r"trial\.json: the file is damaged"):
        TrialRun.open(opened)
    assert path.read_bytes() == content


def test_a_finished_trial_stays_finished_whatever_its_clean_up_meets(config: Config) -> None:
    record = create_trial(config)
    run = TrialRun.open(config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})}))
    run.end("completed", 0)
    with pytest.raises(SystemExit) as exited, run.outcome():
        raise OSError(5, "Input/output error")
    assert exited.value.code == 0
    after = read_record(run.folder)
    assert after is not None
    assert (after.state, after.error) == ("completed", None)
