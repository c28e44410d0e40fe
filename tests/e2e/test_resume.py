"""What a trial may be given on a resume, and what goes on without checkpoints, or without room on the disk."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from redsm5.config import compose
from redsm5.engine import paths
from redsm5.engine.study.trial import create_trial, read_record, write_record
from tests.e2e.conftest import SMALL, all_metrics, metrics, records, reports, run, start, trial_at, wait_for, weights

ONE = ["data.posts=90", "model.max_length=64", "train.epochs=2"]


def test_a_finished_trial_whose_state_was_kept_is_given_more_epochs(tmp_path: Path) -> None:
    experiments = f"experiments={tmp_path / 'e'}"
    run("launch.py", *ONE, "retention.keep_training_state=true", experiments)
    (before,) = records(tmp_path / "e")
    folder = tmp_path / "e" / f"trial_{before['trial_id']}"
    assert (folder / "checkpoints" / "epoch-0002" / "training_state.json").exists()
    journal = metrics(folder)
    run("launch.py", f"trial.id={before['trial_id']}", "train.epochs=3", experiments)
    (after,) = records(tmp_path / "e")
    assert (after["state"], after["epoch"], after["epochs"], after["resumes"]) == ("completed", 3, 3, 1)
    assert after["step"] == before["step"] * 3 // 2
    assert journal.items() <= metrics(folder).items(), "what was trained is not trained again"
    (report,) = reports(tmp_path / "e")
    assert report["config"]["train"]["epochs"] == 3


def test_a_finished_trial_whose_state_is_gone_is_refused_more_epochs(uninterrupted: Path) -> None:
    before = records(uninterrupted)
    trial = f"trial.id={before[0]['trial_id']}"
    output = run("launch.py", trial, "train.epochs=9", f"experiments={uninterrupted}", expect=1)
    assert "its training state was not kept" in output
    assert "retention.keep_training_state=true" in output
    output = run("launch.py", trial, "train.epochs=3", f"experiments={uninterrupted}", expect=1)
    assert "train.epochs: 4 when the trial started, 3 now" in output
    assert records(uninterrupted) == before


def test_checkpoints_may_lie_elsewhere_from_the_first_start_on_and_not_from_later(tmp_path: Path) -> None:
    experiments, scratch = tmp_path / "e", tmp_path / "scratch"
    scratch.mkdir()
    record = create_trial(compose([*ONE, "train.epochs=1", f"experiments={experiments}"]))
    folder = paths.trial_dir(experiments, record.trial_id)
    (folder / paths.CHECKPOINTS).symlink_to(scratch)
    again = [f"trial.id={record.trial_id}", f"experiments={experiments}"]
    run("launch.py", *again)
    (after,) = records(experiments)
    assert (after["state"], after["checkpoints_at"]) == ("completed", str(scratch))
    assert [path.name for path in scratch.iterdir()] == ["epoch-0001"]
    (folder / paths.CHECKPOINTS).unlink()
    (tmp_path / "other").mkdir()
    (folder / paths.CHECKPOINTS).symlink_to(tmp_path / "other")
    write_record(folder, read_record(folder).model_copy(update={"state": "interrupted"}))
    output = run("launch.py", *again, expect=1)
    assert f"{folder / paths.CHECKPOINTS}: it is a symbolic link to {tmp_path / 'other'}" in output
    assert "Traceback" not in output


def test_a_dry_run_leaves_nothing_but_its_log(tmp_path: Path) -> None:
    output = run("hpo.py", *SMALL, "dry_run=true", f"experiments={tmp_path / 'e'}")
    assert "epoch 1 of 1" in output
    assert [p.name for p in (tmp_path / "e").iterdir()] == ["logs"]
    left = [p for p in (tmp_path / "e").rglob("*") if p.is_file()]
    assert left
    assert all(p.name.endswith("log.jsonl") for p in left)


def test_without_checkpoints_a_study_has_the_same_metrics_and_writes_none(uninterrupted: Path, tmp_path: Path) -> None:
    run("hpo.py", *SMALL, "study.trials=1", "retention.enabled=false", f"experiments={tmp_path / 'e'}")
    assert not list(tmp_path.rglob("checkpoints/*"))
    assert all_metrics(tmp_path / "e") == all_metrics(uninterrupted)[:1]
    (report,) = reports(tmp_path / "e")
    assert report["test_metrics"] == reports(uninterrupted)[0]["test_metrics"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_in_mid_study_costs_nothing(uninterrupted: Path, small_disk: Path, tmp_path: Path) -> None:
    """The disk fills up while a trial runs: exit code 3. Once there is room, the study ends as if nothing had been."""
    arguments = [*SMALL, "retention.min_free_disk_percent=0", f"experiments={small_disk / 'e'}"]
    arguments.append(f"study.tracking_uri=sqlite:///{tmp_path / 'mlflow.db'}")
    study = start("hpo.py", *arguments)
    wait_for(lambda: trial_at(small_disk / "e", number=0, epoch=1))
    fill(small_disk / "filler", leave=150_000)
    output, _ = study.communicate(timeout=120)
    assert study.returncode == 3, output
    assert "Traceback" not in output
    (small_disk / "filler").unlink()
    run("hpo.py", *arguments)
    assert all_metrics(small_disk / "e") == all_metrics(uninterrupted)
    assert weights(small_disk / "e") == weights(uninterrupted)
    tests = [report["test_metrics"] for report in reports(small_disk / "e")]
    assert tests == [report["test_metrics"] for report in reports(uninterrupted)]


def fill(path: Path, *, leave: int) -> None:
    """Take the file system's free bytes but for `leave`; what others write meanwhile makes it look again."""
    with path.open("wb") as file:

        def filled() -> bool:
            size = os.fstat(file.fileno()).st_size
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, size + shutil.disk_usage(path.parent).free - leave)
            return shutil.disk_usage(path.parent).free <= leave

        wait_for(filled, timeout_s=10)


def test_a_trial_stopped_in_mid_epoch_between_many_saves_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint every step and a signal in between: the newest on disk is the one at which the trial stopped, and
    from it go on accumulated gradients, the schedule and the rest, bit for bit; with a cache or without.
    """
    two = [*ONE, "train.accumulation_steps=2", "train.mixed_precision=bf16", "train.batch_size=4"]
    two += ["train.max_tokens=128"]  # so that most batches come in parts
    with monkeypatch.context() as without:
        without.setenv("REDSM5_CACHE", "/dev/null/there-is-no-such-folder")
        run("launch.py", *two, f"experiments={tmp_path / 'alone'}")
    experiments = f"experiments={tmp_path / 'e'}"
    trial = start("launch.py", *two, "train.checkpoint_every_steps=1", experiments)
    wait_for(lambda: list((tmp_path / "e").glob("trial_*/checkpoints/step-*")))
    os.kill(trial.pid, signal.SIGTERM)
    output, _ = trial.communicate(timeout=120)
    assert trial.returncode == 75, output
    (record,) = records(tmp_path / "e")
    checkpoints = [p.name for p in (tmp_path / "e").glob("trial_*/checkpoints/*")]
    assert f"step-{record['step']:08d}" in checkpoints, "the record names the step that the checkpoint has"
    assert not [name for name in checkpoints if name.startswith(".")]
    run("launch.py", f"trial.id={record['trial_id']}", experiments)
    assert all_metrics(tmp_path / "e") == all_metrics(tmp_path / "alone")
    assert weights(tmp_path / "e") == weights(tmp_path / "alone")
