"""The life of a trial, as its files tell it."""

import hashlib
import json
from pathlib import Path

import pytest

from redsm5.config import Config, compose
from redsm5.engine import files, paths
from redsm5.engine.records import TrialRecord
from redsm5.engine.spec import snapshot_of
from redsm5.engine.storage.store import sums
from redsm5.engine.study.outcomes import finish_leftovers, note_killed
from redsm5.engine.study.trial import create_trial, read_record, write_record
from tests.engine.storage.saver import manifest_of


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
