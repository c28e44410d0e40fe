"""A real study whose database and MLflow have passwords from the environment: they are used, and left nowhere."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5.engine.records import FINISHED
from tests.e2e import postgresql
from tests.e2e.conftest import ROOT, SMALL, environment, records
from tests.mlflow_server import MlflowServer, check_arrived

TRACKING_PASSWORD = 'of the "night"<shift>'
WRITTEN = (TRACKING_PASSWORD, TRACKING_PASSWORD.replace('"', '\\"'), "of%20the%20", "night&#34;", "night&quot;")


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[MlflowServer]:
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def database() -> Iterator[postgresql.Server]:
    if postgresql.MISSING:
        pytest.skip(postgresql.MISSING)
    server = postgresql.Server()
    yield server
    server.remove()


def command_lines() -> bytes:
    """Those of all processes, as `ps` shows them to everybody."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    return b"\n".join(lines)


def test_passwords_from_the_environment_are_in_no_file_and_on_no_command_line(
    mlflow: MlflowServer, database: postgresql.Server, tmp_path: Path
) -> None:
    experiments = tmp_path / "e"
    storage = database.url().replace(postgresql.USER, f"{postgresql.USER}:${{oc.env:STORAGE_PASSWORD}}", 1)
    uri = mlflow.url.replace("//", "//someone:${oc.env:TRACKING_PASSWORD}@")
    words = [*SMALL, "study.trials=1", "train.epochs=1", "study.name=20261130", f"experiments={experiments}"]
    words += [f"study.storage={storage}", f"study.tracking_uri={uri}"]
    env = environment() | {"STORAGE_PASSWORD": postgresql.PASSWORD, "TRACKING_PASSWORD": TRACKING_PASSWORD}
    secrets = [secret.encode() for secret in (postgresql.PASSWORD, *WRITTEN)]

    output = tmp_path / "output"
    with output.open("wb") as sink:
        study = subprocess.Popen(
            [sys.executable, "scripts/hpo.py", *words], cwd=ROOT, env=env, stdout=sink, stderr=sink
        )
        while study.poll() is None:
            lines = command_lines()
            assert not [secret for secret in secrets if secret in lines]
            try:
                study.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
    printed = output.read_bytes()
    assert study.returncode == 0, printed.decode()

    (record,) = records(experiments)
    assert record["state"] in FINISHED
    check_arrived(mlflow, experiments / f"trial_{record['trial_id']}")
    kept = {path: path.read_bytes() for path in [*experiments.rglob("*"), *mlflow.folder.rglob("*")] if path.is_file()}
    dump = "\n".join(map(str, mlflow.query("SELECT key, value FROM params UNION SELECT key, value FROM tags")))
    assert "://someone:[redacted]@" in dump
    assert any(b"://redsm5:[redacted]@" in content for path, content in kept.items() if path.name == "config.json")
    for secret in secrets:
        assert not [path for path, content in kept.items() if secret in content], secret
        assert secret not in printed + dump.encode()
