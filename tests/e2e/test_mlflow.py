"""A real study whose MLflow is killed, away, or silent: it trains on, and in the end everything is in MLflow once."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from redsm5.config import compose
from redsm5.engine.documents import milliseconds
from redsm5.engine.installed import command
from redsm5.engine.study.registry import Scoreboard, open_study
from redsm5.engine.study.trial import create_trial
from redsm5.task import ReDSM5
from tests.e2e.conftest import SMALL, records, run, start, trial_at, wait_for
from tests.mlflow_server import MlflowServer, check_arrived


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    """Not started yet."""
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    yield server
    server.kill()


def arguments(experiments: Path, uri: str) -> list[str]:
    return [*SMALL, f"experiments={experiments}", f"study.tracking_uri={uri}"]


def check_study(experiments: Path, server: MlflowServer) -> None:
    """Both trials completed, and all that they left is in MLflow."""
    assert [trial["state"] for trial in records(experiments)] == ["completed", "completed"]
    for trial in records(experiments):
        folder = experiments / f"trial_{trial['trial_id']}"
        check_arrived(server, folder)
        [run_id] = server.run_ids(trial["trial_id"])
        [report] = server.folder.glob(f"artifacts/*/{run_id}/artifacts/evaluation_report.json")
        assert report.read_bytes() == (folder / "evaluation_report.json").read_bytes()


def step_milliseconds(experiments: Path) -> list[int]:
    """What each epoch but the first took, over all trials, as the journals have it; shortest first."""
    gaps = []
    for trial in records(experiments):
        lines = (experiments / f"trial_{trial['trial_id']}" / "metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if row["metric"] == "val_loss"]
        times = [milliseconds(row["timestamp"]) for row in rows]
        gaps += [after - before for before, after in pairwise(times)]
    return sorted(gaps)


@pytest.mark.long
def test_mlflow_killed_and_restarted_in_mid_study(server: MlflowServer, tmp_path: Path) -> None:
    server.start()
    experiments = tmp_path / "e"
    driver = start("hpo.py", *arguments(experiments, server.url))
    first = wait_for(lambda: trial_at(experiments, number=0, epoch=1))
    wait_for(lambda: server.rows(first.name.removeprefix("trial_")))
    server.kill()
    wait_for(lambda: trial_at(experiments, number=1, epoch=1))
    server.start()
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert output.count("metrics cannot be sent to MLflow") == 1
    assert output.count("metrics reach MLflow again") == 1
    assert "just sync" not in output
    check_study(experiments, server)
    print("ms an epoch, MLflow killed for a while:", step_milliseconds(experiments))


@pytest.mark.long
def test_mlflow_away_for_the_whole_study_and_sync_afterwards(server: MlflowServer, tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    output = run("hpo.py", *arguments(experiments, server.url))
    assert output.count("metrics cannot be sent to MLflow") == 1
    assert f"`{command('sync', experiments=experiments)}` ships them" in output
    assert "rows still wait" in run("sync.py", "--experiments", str(experiments), expect=2)
    server.start()
    assert "2 trials: every metric is in MLflow" in run("sync.py", "--experiments", str(experiments))
    check_study(experiments, server)
    print("ms an epoch, MLflow away:", step_milliseconds(experiments))
    run("sync.py", "--experiments", str(experiments))
    check_study(experiments, server)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_signal_ends_a_study_in_seconds_while_mlflow_hangs(silent: str, tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    driver = start("hpo.py", *arguments(experiments, silent), "train.epochs=50")
    wait_for(lambda: trial_at(experiments, number=0, epoch=1))
    before = time.monotonic()
    os.kill(driver.pid, signal.SIGTERM)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 75, output
    assert f"`{command('sync', experiments=experiments)}` ships them" in output
    assert time.monotonic() - before < 15
    assert records(experiments)[0]["state"] == "interrupted"


@pytest.mark.long
def test_a_study_whose_mlflow_hangs_ends_completed_and_in_bounded_time(silent: str, tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    driver = start("hpo.py", *arguments(experiments, silent))
    wait_for(lambda: [t["state"] for t in records(experiments)] == ["completed"] * 2)
    before = time.monotonic()
    output, _ = driver.communicate(timeout=90)
    assert driver.returncode == 0, output
    assert f"`{command('sync', experiments=experiments)}` ships them" in output
    assert time.monotonic() - before < 45


def test_sync_of_a_study_whose_address_had_a_password_asks_for_it(tmp_path: Path, silent: str) -> None:
    uri = silent.replace("//", "//me:hunter2@")
    create_trial(compose([f"experiments={tmp_path}", f"study.tracking_uri={uri}"]))
    output = run("sync.py", "--experiments", str(tmp_path), expect=1)
    assert "--tracking-uri" in output
    assert "hunter2" not in output


@pytest.mark.long
def test_sync_ships_to_where_the_last_run_of_the_study_did(tmp_path: Path) -> None:
    """The trial's own configuration still names the address that it began with."""
    before = compose([f"experiments={tmp_path}", "study.name=moved"])
    study = open_study(before, ReDSM5())
    Scoreboard(tmp_path, study).write()
    create_trial(before, study_id=study.study_id, number=0)
    after = compose(
        [f"experiments={tmp_path}", "study.name=moved", f"study.tracking_uri=sqlite:///{tmp_path}/other.db"]
    )
    Scoreboard(tmp_path, open_study(after, ReDSM5())).write()
    run("sync.py", "--experiments", str(tmp_path))
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "mlflow.db").exists()
