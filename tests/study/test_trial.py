"""The life of a trial, as its files tell it."""

import hashlib
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redsm5 import files, paths
from redsm5.config import Config, compose, snapshot_of
from redsm5.errors import (
    BudgetMismatchError,
    ConfigError,
    DiskError,
    IncompatibleCheckpointError,
    InputError,
    Interrupted,
    LockedError,
    NotFiniteError,
)
from redsm5.overrides import quoted
from redsm5.records import TrialRecord
from redsm5.storage import disk as disk_module
from redsm5.storage.store import sums
from redsm5.study import trial as trial_module
from redsm5.study.failures import failed_at_start
from redsm5.study.outcomes import finish_leftovers, note_killed
from redsm5.study.trial import (
    TrialRun,
    classify,
    create_trial,
    open_store,
    read_record,
    trial_config,
    write_record,
)
from tests.storage.saver import manifest_of

HOLD = """
import pathlib, sys, time
from redsm5 import files
assert files.Lock(pathlib.Path(sys.argv[1])).acquire()
print("held", end="", flush=True)
time.sleep(60)
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return compose([f"experiments={tmp_path / 'e'}", "data.posts=60"])


def folder_of(config: Config, record: TrialRecord) -> Path:
    return paths.trial_dir(Path(config.experiments), record.trial_id)


def test_no_password_of_an_address_is_saved(config: Config, tmp_path: Path) -> None:
    secret = compose([f"experiments={tmp_path / 'e'}", "study.storage='postgresql://me:hunter22@host/db'"])
    assert "hunter22" not in json.dumps(snapshot_of(secret))
    record = create_trial(secret)
    assert "hunter22" not in (folder_of(secret, record) / "config.json").read_text()


def test_a_saved_trial_comes_back_with_its_own_configuration(config: Config) -> None:
    record = create_trial(config)
    loaded = trial_config([f"trial.id={record.trial_id}", f"experiments={config.experiments}"])
    assert loaded.data.posts == 60
    assert loaded.trial.id == record.trial_id


def test_a_trial_is_not_resumed_with_another_configuration(config: Config) -> None:
    record = create_trial(config)
    with pytest.raises(ConfigError, match=r"train\.learning_rate: 0\.004 when the trial started, 0\.1 now"):
        trial_config([f"trial.id={record.trial_id}", f"experiments={config.experiments}", "train.learning_rate=0.1"])


def test_a_trial_that_an_older_version_began_goes_on_with_its_own_splits(config: Config) -> None:
    record = create_trial(config)
    path = folder_of(config, record) / paths.CONFIG
    saved = json.loads(path.read_bytes())
    del saved["data"]["group_duplicates"]  # as it was written before there was the key
    path.write_text(json.dumps(saved))
    words = [f"trial.id={record.trial_id}", f"experiments={config.experiments}"]
    for more in ([], ["train.epochs=9"], ["data=synthetic", "data.posts=60"], ["data.group_duplicates=false"]):
        assert trial_config([*words, *more]).data.group_duplicates is False
    with pytest.raises(ConfigError, match=r"data\.group_duplicates: False when the trial started, True now"):
        trial_config([*words, "data.group_duplicates=true"])


@pytest.mark.parametrize(
    "words",
    [
        ["retention.max_total_size=5000000", "retention.min_free_disk_percent=2"],
        ["train.epochs=9", "launch=gpu"],
        ["train.epochs=2"],
        ["train.epochs=0"],
        ["train.epoch=9"],
        ["train.adversarial_epsilon=1e-3", "study.tracking_uri=null", "model.activation='relu'"],
        ["launch=nowhere"],
        ["train.epochs"],
        ["study.tracking_uri=a b, c"],
        ["model=bert_base"],
        ["model=nothing"],
    ],
)
def test_words_mean_the_same_to_a_trial_whether_they_are_composed_or_not(
    config: Config, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_trial(config)

    def said() -> Any:
        try:
            return trial_config([f"trial.id={record.trial_id}", f"experiments={quoted(config.experiments)}", *words])
        except ConfigError as error:
            return error.message()

    plain = said()
    monkeypatch.setattr(trial_module, "plain_values", lambda words: None)
    assert plain == said()


def test_a_trial_that_is_not_there_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="no such trial"):
        trial_config(["trial.id=00000000-0000-4000-8000-000000000000", f"experiments={config.experiments}"])


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


def test_no_outcome_and_no_lock_means_killed(config: Config) -> None:
    record = create_trial(config).model_copy(update={"state": "running"})
    folder = folder_of(config, record)
    write_record(folder, record)
    killed = note_killed(folder, record)
    assert (killed.state, killed.exit_code) == ("interrupted", 75)
    assert killed.error is not None
    assert killed.error.kind == "killed"
    assert read_record(folder) == killed
    assert note_killed(folder, killed) == killed


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
    monkeypatch.setattr(trial_module, "running_time", lambda: clock.now)
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


@pytest.mark.parametrize("left", [paths.STATE_JSON, paths.STATE_TENSORS])
def test_a_finished_trial_killed_in_the_middle_of_its_strip_is_stripped_by_the_next_run(
    config: Config, left: str
) -> None:
    record = create_trial(config)
    folder = folder_of(config, record)
    write_record(folder, record.model_copy(update={"state": "completed", "finished_at": record.created_at}))
    checkpoint = folder / paths.CHECKPOINTS / "epoch-0001"
    files.make_dir(checkpoint)
    manifest = manifest_of(record.trial_id, 1, 0.5).to_json()
    contents = {paths.WEIGHTS: b"weights", paths.MANIFEST: manifest}
    for name, content in {**contents, left: b"state"}.items():
        (checkpoint / name).write_bytes(content)
    (checkpoint / paths.SUMS).write_bytes(sums({n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}))
    finish_leftovers(folder, config)
    assert {path.name for path in checkpoint.iterdir()} == {*contents, paths.SUMS}
