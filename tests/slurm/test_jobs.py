"""The job files of containers/slurm, as they stand, on a real Slurm: together, interrupted, back again."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.container.test_apptainer import CACHE, SANDBOX, folder, image
from tests.e2e.conftest import ROOT, SMALL, all_metrics, mlflow_rows, records, reports, run, trial_at, wait_for, weights
from tests.slurm.conftest import ENDED, TINY, Cluster

__all__ = ["folder", "image"]  # fixtures of the tests here, too
CONTRACT = ROOT.parent / "shared" / "tools" / "check-contract"
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def same(experiments: Path, undisturbed: Path) -> None:
    """Metrics, weights and reports are bit for bit those of the study that nothing interrupted."""
    assert all_metrics(experiments) == all_metrics(undisturbed)
    assert weights(experiments) == weights(undisturbed)
    assert reports(experiments) == reports(undisturbed)


def test_an_array_of_two_workers_finishes_a_study_together(cluster: Cluster, tmp_path: Path) -> None:
    """Ten trials, none twice, both workers at it, the budget kept, and the folder as its contract says."""
    experiments = tmp_path / "e"
    overrides = [*TINY, "train.epochs=1", "study.trials=10", "study.sampler=random", f"experiments={experiments}"]
    job = cluster.submit("array.sbatch", tmp_path / "%a.log", *overrides, "retention.max_total_size=100MB")
    assert cluster.wait(f"{job}_0") == cluster.wait(f"{job}_1") == "COMPLETED"
    logs = [(tmp_path / f"{n}.log").read_text() for n in (0, 1)]
    started = [int(number) for log in logs for number in re.findall(r"starting trial (\d+)", log)]
    trials = records(experiments)
    assert [trial["number"] for trial in trials] == list(range(10))
    assert {trial["state"] for trial in trials} == {"completed"}
    assert sorted(started) == [trial["number"] for trial in trials if not trial["duplicate_of"]], "each once"
    assert all("starting trial" in log for log in logs), "one worker did it all"
    held = sum(p.stat().st_size for p in experiments.glob("trial_*/checkpoints/**/*") if p.is_file())
    assert 0 < held <= 100_000_000
    if CONTRACT.exists():
        checked = subprocess.run([CONTRACT, experiments], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("how", ["requeue", "term"])
def test_a_job_that_is_interrupted_in_mid_trial_comes_back_and_loses_nothing(
    cluster: Cluster, uninterrupted: Path, tmp_path: Path, how: str
) -> None:
    """`scontrol requeue`, as a preemption does, and the signal that comes before the time limit."""
    experiments, log = tmp_path / "e", tmp_path / "log"
    job = cluster.submit("worker.sbatch", log, *SMALL, f"experiments={experiments}")
    wait_for(lambda: trial_at(experiments, number=0, epoch=2))
    if how == "requeue":
        cluster.say("scontrol", "requeue", job)
    else:
        cluster.say("scancel", "--signal=TERM", "--batch", job)
    cluster.start_again(job)
    assert cluster.wait(job) == "COMPLETED", log.read_text()
    assert cluster.field(job, "Restarts") == "1"
    assert "resuming trial 0" in log.read_text()
    assert records(experiments)[0]["resumes"] == 1
    same(experiments, uninterrupted)


def test_the_time_limit_itself_brings_the_job_back(cluster: Cluster, uninterrupted: Path, tmp_path: Path) -> None:
    """Slurm's own signal, some seconds before a limit of one minute."""
    experiments, log = tmp_path / "e", tmp_path / "log"
    flags = ("--time=1", "--signal=B:TERM@40")
    long = [word for word in SMALL if not word.startswith("study.trials")] + ["study.trials=3"]
    job = cluster.submit("worker.sbatch", log, *long, f"experiments={experiments}", flags=flags)
    wait_for(lambda: cluster.state(job) != "PENDING")
    starts = 1
    while wait_for(lambda: (s := cluster.state(job)) in ("PENDING", *ENDED) and s, timeout_s=200) == "PENDING":
        cluster.start_again(job)
        starts += 1
        wait_for(lambda: cluster.state(job) != "PENDING")
    assert cluster.state(job) == "COMPLETED", log.read_text()
    assert starts >= 2, "it was done before its time was over"
    assert [trial["state"] for trial in records(experiments)] == ["completed"] * 3
    assert all_metrics(experiments)[:2] == all_metrics(uninterrupted)


def test_a_job_that_is_cancelled_stays_so_and_can_be_submitted_again(
    cluster: Cluster, uninterrupted: Path, tmp_path: Path
) -> None:
    experiments, log = tmp_path / "e", tmp_path / "log"
    job = cluster.submit("worker.sbatch", log, *SMALL, f"experiments={experiments}")
    wait_for(lambda: trial_at(experiments, number=0, epoch=1))
    cluster.say("scancel", job)
    assert cluster.wait(job) == "CANCELLED"
    assert records(experiments)[0]["state"] == "interrupted"
    again = cluster.submit("worker.sbatch", log, *SMALL, f"experiments={experiments}")
    assert cluster.wait(again) == "COMPLETED"
    same(experiments, uninterrupted)


def test_a_study_that_is_refused_ends_the_job_and_does_not_come_back(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("worker.sbatch", tmp_path / "log", "train.epochs=0", f"experiments={tmp_path / 'e'}")
    assert cluster.wait(job) == "FAILED"
    assert cluster.field(job, "ExitCode") == "1:0"
    assert cluster.field(job, "Restarts") == "0"


def test_the_job_for_several_nodes_trains_one_trial_by_two_tasks_and_comes_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Slurm's signal goes to the training and not to the script here, which looks at the trial and comes back."""
    one, experiments, log = [*TINY, "train.epochs=6"], tmp_path / "e", tmp_path / "log"
    run("launch.py", *one, "launch=multi_cpu", f"experiments={tmp_path / 'alone'}")
    flags = ("--nodes=1", "--ntasks=2", "--ntasks-per-node=2")
    words = [*one, "launch=multi_node_cpu", f"experiments={experiments}"]
    job = cluster.submit("multi.sbatch", log, *words, flags=flags)
    wait_for(lambda: [record for record in records(experiments) if record["epoch"] >= 1])
    cluster.say("scancel", "--signal=TERM", job)
    cluster.start_again(job)
    assert cluster.wait(job) == "COMPLETED", log.read_text()
    (record,) = records(experiments)
    assert (record["state"], record["resumes"]) == ("completed", 1)
    assert all_metrics(experiments) == all_metrics(tmp_path / "alone")
    assert weights(experiments) == weights(tmp_path / "alone")
    assert len(mlflow_rows(experiments)) == 1
    assert (experiments / f"trial_{record['trial_id']}" / "evaluation_report.html").exists()
    if CONTRACT.exists():
        checked = subprocess.run([CONTRACT, experiments], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout


# The sandbox's own processes stand between Slurm and the Apptainer that it would start by itself on a cluster.
APPTAINER = """#!/bin/bash
{sandbox} {cache} bash -c 'cd ~/{folder} && echo $$ >pid && exec apptainer run --unsquash "$@"' - "${{@:2}}" &
trap 'kill -TERM "$(cat {folder_here}/pid)"' TERM
while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
exit $code
"""


@pytest.mark.container
@pytest.mark.skipif(not os.access(SANDBOX, os.X_OK), reason=f"there is no {SANDBOX}: set APPTAINER_SANDBOX")
def test_a_worker_in_apptainers_image_comes_back_and_loses_nothing(
    cluster: Cluster, image: str, folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "bin" / "apptainer"
    script.parent.mkdir()
    names = {"sandbox": SANDBOX, "cache": CACHE, "folder": folder.name, "folder_here": folder}
    script.write_text(APPTAINER.format(**names))
    script.chmod(0o755)
    log, path = tmp_path / "log", f"{script.parent}:{os.environ['PATH']}"
    job = cluster.submit("worker.sbatch", log, *SMALL, "experiments=experiments", REDSM5_SIF=image, PATH=path)
    wait_for(lambda: trial_at(folder / "experiments", number=0, epoch=2), timeout_s=300)
    cluster.say("scancel", "--signal=TERM", "--batch", job)
    cluster.start_again(job)
    assert cluster.wait(job) == "COMPLETED", log.read_text()
    assert [trial["state"] for trial in records(folder / "experiments")] == ["completed", "completed"]
    assert records(folder / "experiments")[0]["resumes"] == 1
