"""Orders by file, each given to a study at work: it obeys, and what is not pruned ends as if there had been none."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.e2e.conftest import (
    SMALL,
    all_metrics,
    processes_of,
    records,
    start,
    trial_at,
    wait_for,
    weights,
)


def test_a_study_is_paused_stopped_and_pruned_by_files_and_ends_as_if_it_had_not_been(
    uninterrupted: Path, tmp_path: Path
) -> None:
    experiments = tmp_path / "e"
    arguments = [*SMALL, "study.trials=3", f"experiments={experiments}"]

    def order(name: str) -> Path:
        (folder,) = experiments.glob("study_*")
        (folder / "control" / name).touch()
        return folder / "control" / name

    def study() -> dict[str, Any]:
        (folder,) = experiments.glob("study_*")
        document = json.loads((folder / "study.json").read_bytes())
        return {"state": document["state"], "orders": [p.name for p in (folder / "control").iterdir()]}

    def order_during(number: int, name: str) -> Path:
        """Give an order after a trial's first epoch, and hold the trial until the driver must have seen it."""
        trial = wait_for(lambda: trial_at(experiments, number=number, epoch=1))
        held = processes_of(trial.name.removeprefix("trial_"))
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        given = order(name.format(trial.name.removeprefix("trial_")))
        time.sleep(1.0)
        for pid in held:
            os.kill(pid, signal.SIGCONT)
        return given

    driver = start("hpo.py", *arguments)
    pause = order_during(0, "pause")
    wait_for(lambda: study()["state"] == "paused")
    (trial,) = records(experiments)
    assert trial["state"] == "interrupted"
    wait_for(lambda: not processes_of(trial["trial_id"]), timeout_s=30)
    assert list(experiments.glob("trial_*/checkpoints/step-*")), "a checkpoint in mid-epoch"
    pause.unlink()
    wait_for(lambda: study()["state"] == "running" and records(experiments)[0]["state"] == "running")
    order("stop")
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, output
    assert [t["state"] for t in records(experiments)] == ["completed"]
    assert study() == {"state": "stopped", "orders": []}

    driver = start("hpo.py", *arguments)
    order_during(1, "stop-now")
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 75, output
    assert "Traceback" not in output
    assert [t["state"] for t in records(experiments)] == ["completed", "interrupted"]
    assert study() == {"state": "stopped", "orders": []}

    driver = start("hpo.py", *arguments)
    pruned = order_during(2, "prune-{}").name.removeprefix("prune-")
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, output
    assert "3 of 3 done" in output
    assert study() == {"state": "completed", "orders": []}
    trials = records(experiments)
    assert [(t["state"], t["resumes"]) for t in trials] == [("completed", 1), ("completed", 1), ("pruned", 0)]
    assert not list(experiments.glob(f"trial_{pruned}/checkpoints/*/training_state*"))
    assert all_metrics(experiments)[:2] == all_metrics(uninterrupted)
    assert weights(experiments)[:2] == weights(uninterrupted)
