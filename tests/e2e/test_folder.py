"""The experiments folder as people treat it: moved in the middle of a study, read-only, with damaged files in it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.documents import now
from redsm5.engine.records import MetricRow, TrialRecord
from redsm5.engine.study.registry import Scoreboard, open_study
from redsm5.engine.study.trial import create_trial, read_record, write_record
from redsm5.task import ReDSM5
from tests.e2e.conftest import (
    ROOT,
    SMALL,
    all_metrics,
    environment,
    mlflow_rows,
    records,
    run,
    start,
    trial_at,
    wait_for,
)


@pytest.mark.long
def test_a_study_whose_folder_moves_ends_as_if_it_had_not(uninterrupted: Path, tmp_path: Path) -> None:
    before, there = tmp_path / "before", tmp_path / "there"
    before.mkdir()
    words = [*SMALL, "train.checkpoint_every_steps=2"]
    driver = start("hpo.py", *words, f"experiments={before}", f"study.storage=sqlite:///{before}/optuna.db")
    wait_for(lambda: trial_at(before, number=1, epoch=1))
    os.kill(driver.pid, signal.SIGTERM)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 75, output
    before.rename(there)
    run("hpo.py", *words, f"experiments={there}", f"study.storage=sqlite:///{there}/optuna.db")
    assert all_metrics(there) == all_metrics(uninterrupted)
    for record in records(there):
        assert len(mlflow_rows(there)[record["trial_id"]]) == len(
            files.read_lines(paths.trial_dir(there, record["trial_id"]) / paths.METRICS)
        )
    assert len(list(there.glob(f"{paths.MLFLOW_ARTIFACTS}/*/artifacts/{paths.REPORT}"))) == 2
    first = records(there)[0]["trial_id"]
    for script, *flags in (
        ["evaluate.py", "--trial-id", first],
        ["checkpoints.py", first],
        ["summarize.py"],
        ["sync.py"],
    ):
        run(script, *flags, "--experiments", str(there))
    assert not before.exists()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """An experiments folder with a study of two trials, one of them completed, made without training."""
    experiments = tmp_path / "e"
    experiments.mkdir()
    config = compose([f"experiments={experiments}", "study.name=quick"])
    opened = open_study(config, ReDSM5())
    board = Scoreboard(experiments, opened)
    board.write()
    for number in range(2):
        trial_id = create_trial(config, study_id=opened.study_id, number=number).trial_id
        folder = paths.trial_dir(experiments, trial_id)
        add_row(folder, 1)
        if number == 0:
            record = read_record(folder)
            assert record is not None
            changes = {"state": "completed", "exit_code": 0, "finished_at": now()}
            write_record(folder, TrialRecord.model_validate(record.model_copy(update=changes).model_dump()))
            (folder / paths.REPORT).write_text("{}\n")
    board.write()
    return experiments


def add_row(folder: Path, step: int) -> None:
    trial_id = folder.name.removeprefix("trial_")
    row = MetricRow(trial_id=trial_id, metric="train_loss", step=step, epoch=0, value=0.5, timestamp=now())
    files.append_durable(folder / paths.METRICS, row.model_dump_json().encode() + b"\n")


def test_sync_names_what_it_cannot_read_or_send_and_ships_the_rest(study: Path) -> None:
    [completed] = [record["trial_id"] for record in records(study) if record["state"] == "completed"]
    whole, journal, foreign = (add_trial(study) for _ in range(3))
    with (journal / paths.METRICS).open("ab") as file:
        file.write(b'{"metric": 3}\n')
    (foreign / paths.TRIAL).write_text('{"of": "another program"}\n')
    (foreign / paths.CONFIG).write_text("[]")
    (study / paths.MLFLOW_ARTIFACTS).write_text("not a folder")
    output = run("sync.py", "--experiments", str(study), expect=2)
    assert "Traceback" not in output
    assert "1 row still waits" in output
    assert f"{journal / paths.METRICS}: line 2 is damaged" in output
    assert str(foreign / paths.TRIAL) in output
    assert "1 report not sent" in output
    assert f"trial_{completed}/{paths.REPORT}" in output
    assert f"run `just sync --experiments {study}` again" in output
    arrived = mlflow_rows(study)
    assert all(len(arrived[folder.name.removeprefix("trial_")]) == 1 for folder in (whole, journal))

    (journal / paths.METRICS).write_bytes((journal / paths.METRICS).read_bytes().replace(b'{"metric": 3}\n', b""))
    output = run("sync.py", "--experiments", str(study), expect=2)
    assert "row" not in output
    assert "1 report not sent" in output
    (study / paths.MLFLOW_ARTIFACTS).unlink()
    output = run("sync.py", "--experiments", str(study), expect=1)
    assert "1 of the trials cannot be read" in output
    assert list(study.glob(f"{paths.MLFLOW_ARTIFACTS}/*/artifacts/{paths.REPORT}"))


def add_trial(experiments: Path) -> Path:
    config = compose([f"experiments={experiments}", "study.name=quick"])
    folder = paths.trial_dir(experiments, create_trial(config).trial_id)
    add_row(folder, 1)
    return folder


def as_a_person_without_rights(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to which the permissions of files apply, also where the tests are root's."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.geteuid() == 0 else []
    words = [*drop, sys.executable, *command]
    return subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200, check=False)


def test_a_read_only_folder_can_be_looked_at(study: Path) -> None:
    trial = next(iter(paths.trial_dirs(study))).name.removeprefix("trial_")
    for folder in paths.trial_dirs(study):
        (folder / paths.LOCK).touch()  # as a trial that was at work leaves it
    kept = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    subprocess.run(["chmod", "-R", "a-w", str(study)], check=True)
    try:
        for command in (
            ["scripts/studies.py"],
            ["scripts/checkpoints.py", trial],
            ["scripts/cleanup.py"],
            ["scripts/summarize.py", "--json"],
            ["-m", "tui", "--once"],
        ):
            done = as_a_person_without_rights(*command, "--experiments", str(study))
            assert (done.returncode, done.stderr) == (0, ""), command
            assert done.stdout
        for command, words in (
            (["scripts/summarize.py"], "just summary"),
            (["scripts/sync.py"], "Permission denied"),
        ):
            done = as_a_person_without_rights(*command, "--experiments", str(study))
            assert done.returncode in (1, 2), command
            assert words in done.stderr
            assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(study)], check=True)
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == kept
