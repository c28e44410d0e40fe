"""`just summary` prints what a person needs and where the pages are, and refuses in one message."""

from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.records import StudyRecord, TrialCounts
from tests.engine.storage.saver import record_of
from tests.scripts.conftest import Run

STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
TRIAL = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"


def test_it_prints_the_best_the_trials_and_the_paths(script: Run, tmp_path: Path) -> None:
    record = record_of(TRIAL, STUDY, state="completed", best={"epoch": 2, "value": 0.5})
    files.make_dir(paths.trial_dir(tmp_path, TRIAL))
    (paths.trial_dir(tmp_path, TRIAL) / paths.TRIAL).write_bytes(record.to_json())
    (paths.trial_dir(tmp_path, TRIAL) / paths.REPORT).write_text("{")
    study = StudyRecord(
        study_id=STUDY,
        name="night",
        state="completed",
        created_at="2026-01-31T12:00:00.000Z",
        metric="val_f1_macro",
        trials=TrialCounts(wanted=1),
        config={},
    )
    folder = paths.study_dir(tmp_path, STUDY)
    files.make_dir(folder)
    (folder / paths.STUDY).write_bytes(study.to_json())

    done = script("summarize.py", "night", "--experiments", tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "study night · completed · 1 completed",
        "best val_f1_macro on validation: 0.5000, trial 0",
    ]
    assert lines[-2:] == [str(folder / "summary.html"), str(folder / "summary.json")]
    assert "never used to choose" in lines[-3]
    assert done.stderr.startswith(f"warning: trial_{TRIAL}/evaluation_report.json: the file is damaged")
    assert (folder / "summary.html").stat().st_mode & 0o077 == 0

    done = script("summarize.py", "dawn", "--experiments", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: there is no study dawn in {tmp_path}\n  The studies there: night.\n"


def test_a_folder_that_is_not_there_is_refused_and_not_made(script: Run, tmp_path: Path) -> None:
    done = script("summarize.py", REDSM5_EXPERIMENTS=str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: there is no folder {tmp_path / 'none'}\n")
    assert not (tmp_path / "none").exists()
