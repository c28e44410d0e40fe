"""What an older version left is opened, listed, resumed, evaluated, shipped, summarized, shown and cleaned up.

The folders are packed beside this file, made by the version in their names (make.py).
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import Config
from redsm5.engine import owned, paths
from redsm5.engine.storage.cleanup import cleanup
from redsm5.engine.storage.history import checkpoint_history
from redsm5.engine.study.ids import find_study
from redsm5.engine.study.registry import list_studies, read_studies
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.trial import read_record
from redsm5.evaluation.summary import write_summary
from tui.read.reader import Reader

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "scripts"
ARCHIVES = sorted(HERE.glob("*.tar.xz"))
STUDIES = {
    "completed": ("night", ["completed"]),
    "csv": ("csv", ["completed"]),
    "failed": ("whole", ["completed"]),
    "interrupted": ("stopped", ["completed", "interrupted"]),
    "pruned": ("pruned", ["completed", "pruned"]),
    "workers": ("shared", ["completed", "completed"]),
}


def unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "experiments"


def scenario(archive: Path) -> str:
    return archive.name.removesuffix(".tar.xz").partition("-")[2]


def named(name: str) -> list[Path]:
    return [archive for archive in ARCHIVES if scenario(archive) == name]


def run(experiments: Path, script: str, *arguments: str, expect: int = 0) -> str:
    """Run a script in the folder in which the experiments lie, as the older version was run."""
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=experiments.parent, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def records(experiments: Path) -> list[dict[str, Any]]:
    found = [json.loads((folder / paths.TRIAL).read_bytes()) for folder in paths.trial_dirs(experiments)]
    return sorted((r for r in found if r["study_id"]), key=lambda r: (r["created_at"], r["number"]))


def test_each_scenario_is_there_and_small() -> None:
    assert {scenario(archive) for archive in ARCHIVES} == STUDIES.keys()
    assert max(archive.stat().st_size for archive in ARCHIVES) < 1_000_000


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
def test_an_older_folder_is_listed_summarized_shown_and_has_nothing_to_clean_up(archive: Path, tmp_path: Path) -> None:
    experiments = unpacked(archive, tmp_path)
    name, states = STUDIES[scenario(archive)]
    assert read_studies(experiments)[1] == []
    assert list_studies(experiments)[-1][0].name == name
    folders = paths.trial_dirs(experiments)
    assert [owned.strangers(folder) for folder in folders + paths.study_dirs(experiments)] == [[]] * (
        len(folders) + len(paths.study_dirs(experiments))
    )
    study = find_study(experiments, name)
    assert [r["state"] for r in records(experiments) if r["study_id"] == study.study_id] == states
    for folder in folders:
        record = read_record(folder)
        assert record is not None
        config = trial_config(Config, [f"trial.id={record.trial_id}", f"experiments={experiments}"])
        saved = json.loads((folder / paths.CONFIG).read_bytes())["data"]
        assert config.data.group_duplicates is saved.get("group_duplicates", False)
        assert checkpoint_history(folder) or record.state in ("failed", "pruned")
    summary = write_summary(experiments, study)
    assert summary.problems == []
    assert [row.state for row in sorted(summary.trials, key=lambda row: row.number)] == states
    view = Reader(experiments).read(study.study_id)
    assert (view.unreadable, [trial.state for trial in view.trials]) == ((), states)
    found = cleanup(experiments)
    assert [item for item in found.items if item.kind != "evictable"] == []
    assert found.skipped == []


@pytest.mark.parametrize("archive", named("interrupted"), ids=lambda archive: archive.name)
def test_an_older_study_goes_on_by_its_name_alone(archive: Path, tmp_path: Path) -> None:
    experiments = unpacked(archive, tmp_path)
    before = records(experiments)
    output = run(experiments, "hpo.py", "study.name=stopped", "experiments=experiments")
    assert "resuming trial 1" in output
    after = records(experiments)
    assert [r["state"] for r in after] == ["completed", "completed"]
    assert (after[1]["trial_id"], after[1]["resumes"]) == (before[1]["trial_id"], 1)
    assert after[1]["epoch"] == before[1]["epochs"]
    assert "every metric is in MLflow" in run(experiments, "sync.py")


@pytest.mark.parametrize("archive", named("csv"), ids=lambda archive: archive.name)
def test_an_older_study_of_csv_data_is_given_another_trial_and_its_first_is_evaluated_again(
    archive: Path, tmp_path: Path
) -> None:
    experiments = unpacked(archive, tmp_path)
    (first,) = records(experiments)
    report = json.loads((paths.trial_dir(experiments, first["trial_id"]) / paths.REPORT).read_bytes())
    run(experiments, "hpo.py", "study.name=csv", "study.trials=2", "experiments=experiments")
    assert [r["state"] for r in records(experiments)] == ["completed", "completed"]
    run(experiments, "evaluate.py", "--trial-id", first["trial_id"], "--experiments", "experiments")
    again = json.loads((paths.trial_dir(experiments, first["trial_id"]) / paths.REPORT).read_bytes())
    assert again["test_metrics"] == report["test_metrics"]
    assert again["data_fingerprint"] == report["data_fingerprint"]


@pytest.mark.parametrize("archive", named("completed"), ids=lambda archive: archive.name)
def test_an_older_trial_that_kept_its_state_is_given_more_epochs(archive: Path, tmp_path: Path) -> None:
    experiments = unpacked(archive, tmp_path)
    singles = [read_record(folder) for folder in paths.trial_dirs(experiments)]
    (single,) = [record for record in singles if record and record.study_id is None]
    run(experiments, "launch.py", f"trial.id={single.trial_id}", "train.epochs=3", "experiments=experiments")
    after = read_record(paths.trial_dir(experiments, single.trial_id))
    assert after is not None
    assert (after.state, after.epoch, after.resumes) == ("completed", 3, 1)
