"""`just cleanup` says what it would delete, deletes only with --execute, and is one JSON object for a program."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.records import Best, StudyRecord, TrialCounts, TrialRecord
from redsm5.engine.spec import snapshot_of
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from tests.engine.storage.saver import STATE, contents, manifest_of, record_of
from tests.scripts.conftest import ROOT, Run

TRIAL = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """A failed trial of no study that did not come to drop its training state, with 1,000 bytes of litter."""
    folder = paths.trial_dir(tmp_path, TRIAL)
    CheckpointStore(folder, Policy(), lambda *_, **__: None).commit(manifest_of(TRIAL, 1, 0.5), contents(1))
    record = record_of(TRIAL, None, state="failed", best=Best(epoch=1, value=0.5))
    files.write_atomic(folder / paths.TRIAL, record.to_json())
    config = {**snapshot_of(compose([])), "retention": {"keep_last_n": 1}}
    (folder / paths.CONFIG).write_text(json.dumps(config))
    (folder / paths.CHECKPOINTS / ".tmp-epoch-0002").mkdir()
    (folder / paths.CHECKPOINTS / ".tmp-epoch-0002" / paths.WEIGHTS).write_bytes(bytes(1000))
    return tmp_path


def test_it_says_what_it_would_delete_and_how_and_deletes_nothing(script: Run, experiments: Path) -> None:
    before = sorted(experiments.rglob("*"))
    done = script("cleanup.py", "--experiments", experiments)
    assert (done.returncode, done.stderr) == (0, "")
    checkpoints = paths.trial_dir(experiments, TRIAL) / paths.CHECKPOINTS
    lines = done.stdout.splitlines()
    assert next(line.split() for line in lines if ".tmp-" in line) == [
        *("litter", "-", "-", "1,000", str(checkpoints / ".tmp-epoch-0002"), "half", "written")
    ]
    assert f"litter: 2 found, {STATE + 200 + 1000:,} bytes; 0 deleted" in lines
    assert (
        f"Nothing was deleted: `just cleanup --execute --experiments {experiments}` deletes litter and orphans."
        in lines
    )
    assert f"`just cleanup --execute --evict --experiments {experiments}` deletes them" in lines[-1]
    assert sorted(experiments.rglob("*")) == before


def test_json_is_one_object_with_each_item_and_the_totals(script: Run, experiments: Path) -> None:
    done = json.loads(script("cleanup.py", "--execute", "--format", "json", REDSM5_EXPERIMENTS=str(experiments)).stdout)
    assert (done["experiments"], done["executed"], done["evicted"]) == (str(experiments), True, False)
    assert [(i["kind"], i["order"], i["deleted"]) for i in done["items"]] == [
        ("litter", None, True),
        ("litter", None, True),
        ("evictable", 1, False),
    ]
    litter = STATE + 200 + 1000
    assert done["totals"]["litter"] == {"items": 2, "bytes": litter, "deleted_bytes": litter}
    assert done["totals"]["orphan"] == {"items": 0, "bytes": 0, "deleted_bytes": 0}
    assert done["totals"]["evictable"]["deleted_bytes"] == 0
    assert done["skipped"] == []
    again = json.loads(script("cleanup.py", "--execute", "--format", "json", "--experiments", experiments).stdout)
    assert [item["kind"] for item in again["items"]] == ["evictable"]


def test_each_place_in_an_order_is_of_a_named_study(script: Run, tmp_path: Path) -> None:
    """The order begins at 1 in each study, so two first places belong to two studies."""
    for name in ("day", "night"):
        study = StudyRecord(
            study_id=str(uuid4()), name=name, state="completed", created_at="2026-03-14T07:41:12.000Z", metric="f1",
            trials=TrialCounts(wanted=1, finished=1), config={},
        )  # fmt: skip
        paths.study_dir(tmp_path, study.study_id).mkdir()
        (paths.study_dir(tmp_path, study.study_id) / paths.STUDY).write_bytes(study.to_json())
        trial = TrialRecord(
            trial_id=str(uuid4()), study_id=study.study_id, number=0, state="pruned", epochs=3,
            created_at="2026-03-14T07:41:12.000Z",
        )  # fmt: skip
        folder = paths.trial_dir(tmp_path, trial.trial_id)
        CheckpointStore(folder, Policy(), lambda *_, **__: None).commit(
            manifest_of(trial.trial_id, 1, 0.5), contents(1)
        )
        files.write_atomic(folder / paths.TRIAL, trial.to_json())
        (folder / paths.CONFIG).write_text(json.dumps(snapshot_of(compose([]))))
    done = json.loads(script("cleanup.py", "--format", "json", "--experiments", tmp_path).stdout)
    evictable = [item for item in done["items"] if item["kind"] == "evictable"]
    assert sorted((item["study"], item["order"]) for item in evictable) == [("day", 1), ("night", 1)], done


def test_evict_takes_what_the_budget_would_take_and_then_there_is_nothing(script: Run, experiments: Path) -> None:
    done = script("cleanup.py", "--execute", "--evict", "--experiments", experiments)
    assert done.returncode == 0
    assert files.tree_bytes(paths.trial_dir(experiments, TRIAL) / paths.CHECKPOINTS) == 0
    assert "stays" not in done.stdout
    again = script("cleanup.py", "--execute", "--evict", "--experiments", experiments)
    assert again.stdout == f"Nothing to clean up in {experiments}.\n"


def test_what_is_passed_over_is_said(script: Run, experiments: Path) -> None:
    folder = paths.trial_dir(experiments, TRIAL)
    with files.try_lock(folder / paths.LOCK) as held:
        assert held
        done = script("cleanup.py", "--execute", "--experiments", experiments)
    assert done.returncode == 0
    assert f"skipped: {folder}: a process is using it" in done.stdout
    assert (folder / paths.CHECKPOINTS / ".tmp-epoch-0002").exists()


def test_a_folder_that_is_not_there_is_refused_and_not_made(script: Run, tmp_path: Path) -> None:
    done = script("cleanup.py", "--execute", "--experiments", tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: there is no folder {tmp_path / 'none'}\n")
    assert not (tmp_path / "none").exists()


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['cleanup', '--nonsense']\n"
        f"try: runpy.run_path('{ROOT}/scripts/cleanup.py', run_name='__main__')\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "redsm5.engine.storage.cleanup" in done.stdout
    assert not set(done.stdout.split()) & {"torch", "transformers", "mlflow", "accelerate", "optuna"}
