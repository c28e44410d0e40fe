"""`just studies` and `just checkpoints` tell a person and a program what is there, and say so where nothing is."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from redsm5.engine import files, paths
from redsm5.engine.records import Best, StudyBest, StudyRecord, TrialCounts
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from tests.engine.storage.saver import contents, manifest_of, record_of
from tests.scripts.conftest import ROOT, Run

STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
TRIAL = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """A study with a completed trial of two epochs, whose second is the best."""
    folder = paths.trial_dir(tmp_path, TRIAL)
    store = CheckpointStore(folder, Policy(), log=lambda *_, **__: None)
    for epoch in (1, 2):
        store.commit(manifest_of(TRIAL, epoch, score=epoch / 4), contents(epoch))
    store.finish()
    best = Best(epoch=2, value=0.5)
    files.write_atomic(folder / paths.TRIAL, record_of(TRIAL, STUDY, state="completed", best=best).to_json())
    study = StudyRecord(
        study_id=STUDY,
        name="night",
        state="completed",
        created_at="2026-01-31T12:00:00.000Z",
        metric="val_f1_macro",
        trials=TrialCounts(wanted=1, finished=1),
        best=StudyBest(trial_id=TRIAL, number=0, value=0.5),
        config={},
    )
    files.make_dir(paths.study_dir(tmp_path, STUDY))
    (paths.study_dir(tmp_path, STUDY) / paths.STUDY).write_bytes(study.to_json())
    return tmp_path


def test_studies_are_listed_with_their_best_and_what_they_take_on_disk(script: Run, experiments: Path) -> None:
    size = files.tree_bytes(paths.trial_dir(experiments, TRIAL) / paths.CHECKPOINTS)
    for folder in (paths.trial_dir(experiments, TRIAL), paths.study_dir(experiments, STUDY)):
        files.make_dir(folder / paths.LOGS)
        (folder / paths.LOGS / "log.jsonl").write_bytes(bytes(1234))
    done = script("studies.py", "--experiments", experiments, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [
        {
            "name": "night",
            "study_id": STUDY,
            "state": "completed",
            "finished": 1,
            "wanted": 1,
            "best": 0.5,
            "best_trial": TRIAL,
            "bytes": size,
            "logs": 2468,
            "seconds_left": 0.0,
            "seconds_left_low": 0.0,
            "seconds_left_high": 0.0,
            "created_at": "2026-01-31T12:00:00.000Z",
        }
    ]
    assert size > 0
    table = script("studies.py", "--experiments", experiments).stdout.splitlines()
    assert table[0].split()[-5:] == ["logs", "seconds", "left", "created", "at"]
    assert table[1].split()[-4:-1] == ["2,468", "0", "s"]
    (row,) = csv.DictReader(io.StringIO(script("studies.py", "--experiments", experiments, "--format", "csv").stdout))
    assert row["logs"] == "2468"


def test_a_trial_s_checkpoints_are_listed_kept_and_gone(script: Run, experiments: Path) -> None:
    done = script("checkpoints.py", TRIAL, "--experiments", experiments, "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(r["checkpoint"], r["on_disk"], r["action"]) for r in rows] == [
        ("epoch-0001", "gone", "delete"),
        ("epoch-0002", "weights", "strip"),
    ]


@pytest.mark.parametrize("arguments", [("studies.py",), ("checkpoints.py", TRIAL)])
def test_where_it_is_no_terminal_ids_and_names_stand_whole(
    script: Run, experiments: Path, arguments: tuple[str, ...]
) -> None:
    done = script(*arguments, "--experiments", experiments, COLUMNS="20", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert (STUDY in done.stdout and TRIAL in done.stdout) or "epoch-0002" in done.stdout


def test_an_unknown_trial_is_refused_in_one_message(script: Run, experiments: Path) -> None:
    for unknown in (NOWHERE, "../etc", "x"):
        done = script("checkpoints.py", unknown, "--experiments", experiments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: there is no trial {unknown} in {experiments}\n")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("studies.py",), ("checkpoints.py", TRIAL)])
def test_a_folder_that_is_not_there_is_refused_and_not_made(
    script: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = script(*arguments, REDSM5_EXPERIMENTS=str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: there is no folder {tmp_path / 'none'}\n")
    assert not (tmp_path / "none").exists()


def test_where_nothing_is_yet_they_say_what_comes_next(script: Run, tmp_path: Path) -> None:
    paths.trial_dir(tmp_path, TRIAL).mkdir()
    assert f"run `just hpo experiments={tmp_path}`" in script("studies.py", "--experiments", tmp_path).stdout
    assert "the first comes after an epoch" in script("checkpoints.py", TRIAL, "--experiments", tmp_path).stdout


def test_listing_writes_nothing(script: Run, experiments: Path) -> None:
    def there() -> list[tuple[Path, int]]:
        return sorted((p, p.stat().st_mtime_ns) for p in experiments.rglob("*"))

    before = there()
    script("studies.py", "--experiments", experiments)
    script("checkpoints.py", TRIAL, "--experiments", experiments)
    assert there() == before


@pytest.mark.parametrize("name", ["studies", "checkpoints"])
def test_nothing_heavy_is_imported(name: str) -> None:
    """Run with an unknown flag, after its imports."""
    code = (
        f"import runpy, sys\nsys.argv = ['{name}', '--nonsense']\n"
        f"try: runpy.run_path('{ROOT}/scripts/{name}.py', run_name='__main__')\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "mlflow", "accelerate", "optuna"}
    assert "redsm5.engine.tables" in done.stdout
