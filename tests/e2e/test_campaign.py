"""A study that is killed with SIGKILL at random moments, again and again, ends as one that was left alone."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import SMALL, all_metrics, journal, mlflow_rows, records, reports, run, start, weights

WHOM = ("all", "driver", "trial")


def processes_at(experiments: Path) -> dict[int, list[bytes]]:
    """The processes that have this folder on their command line, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(str(experiments).encode() in word for word in words):
                found[int(entry.name)] = words
    return found


def kill(experiments: Path, whom: str) -> int:
    """SIGKILL for all processes of the study, for the driver alone, or for all but the driver; how many it were."""
    victims = processes_at(experiments)
    if whom != "all":
        victims = {pid: words for pid, words in victims.items() if (b"scripts/hpo.py" in words) == (whom == "driver")}
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(victims)


def wait_for_moment(study: "subprocess.Popen[str]", experiments: Path, dice: random.Random) -> None:
    """Half of the moments are anywhere; the others lie in the training, which takes less time than starting does."""
    if dice.random() < 0.5:
        until = time.monotonic() + dice.uniform(0, 8)
        while study.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        return
    begin = time.time()
    while study.poll() is None:
        for record in records(experiments):
            path = experiments / f"trial_{record['trial_id']}" / "trial.json"
            if record["state"] in ("running", "finishing") and path.stat().st_mtime > begin:
                time.sleep(dice.uniform(0, 2))
                return
        time.sleep(0.05)


def campaign(folder: Path, uninterrupted: Path, *, kills: int, seed: int, words: list[str] = SMALL) -> int:
    """Kill studies `kills` times in all, a new one whenever one has come to its end; how many studies it took."""
    dice = random.Random(seed)
    done = studies = 0
    while done < kills:
        studies += 1
        experiments = folder / f"study-{studies}"
        arguments = [*words, f"experiments={experiments}"]
        over = False
        while done < kills and not over:
            study = start("hpo.py", *arguments)
            wait_for_moment(study, experiments, dice)
            over = study.poll() is not None
            whom = dice.choice(WHOM)
            if not over and kill(experiments, whom):
                done += 1
                if whom == "trial":  # the driver takes the trial up again by itself
                    until = time.monotonic() + dice.uniform(0, 5)
                    while study.poll() is None and time.monotonic() < until:
                        time.sleep(0.05)
                    kill(experiments, "all")
            study.communicate()
            if over:
                assert study.returncode == 0
            while processes_at(experiments):  # a trial that the driver left behind saves and stops
                time.sleep(0.05)
        run("hpo.py", *arguments)
        assert [r["state"] for r in records(experiments)] == [r["state"] for r in records(uninterrupted)]
        assert reports(experiments) == reports(uninterrupted)
        assert all_metrics(experiments) == all_metrics(uninterrupted)
        assert weights(experiments) == weights(uninterrupted)
        for record in records(experiments):
            rows = mlflow_rows(experiments)[record["trial_id"]]
            assert len({row[:2] for row in rows}) == len(rows), "a (metric, step) is in MLflow twice"
            assert len(rows) == len(journal(experiments / f"trial_{record['trial_id']}")), "MLflow lacks a row"
    return studies


def test_five_kills_change_no_result(uninterrupted: Path, tmp_path: Path) -> None:
    assert campaign(tmp_path, uninterrupted, kills=5, seed=4) >= 1


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_fifty_kills_change_no_result(uninterrupted: Path, tmp_path: Path) -> None:
    assert campaign(tmp_path, uninterrupted, kills=50, seed=5) >= 1
