"""A real study whose MLflow is behind TLS and asks who comes: nothing is lost meanwhile, and no secret is left."""

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5.doctor import services
from redsm5.engine import files, paths
from redsm5.engine.installed import command
from tests.e2e.conftest import ROOT, SMALL, environment, records
from tests.mlflow_server import FaultProxy, MlflowServer, check_arrived

TOKEN = "t0ken-of-the-night-shift"
WRONG = "t0ken-of-yesterday-evening"
PASSWORD = "pa55word-of-the-night"
BASIC = base64.b64encode(f"someone:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate that nobody has signed but itself, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path / "tls.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mlflow"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "key"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "key").read_bytes())
    return path


@pytest.fixture
def gate(server: MlflowServer, certificate: Path) -> Iterator[FaultProxy]:
    proxy = FaultProxy(server.port, certificate, (f"Bearer {TOKEN}", f"Basic {BASIC}"))
    yield proxy
    proxy.close()


def run(script: str, *words: object, **access: str) -> tuple[int, str]:
    """The exit code and all that was printed, with access to MLflow as these variables say."""
    env = environment() | {f"MLFLOW_TRACKING_{name}": value for name, value in access.items()}
    command = [sys.executable, f"scripts/{script}", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_study_that_mlflow_does_not_let_in_loses_nothing_and_gives_nothing_away(
    server: MlflowServer, gate: FaultProxy, certificate: Path, tmp_path: Path
) -> None:
    experiments = tmp_path / "e"
    words = [*SMALL, "study.trials=1", "train.epochs=1", f"experiments={experiments}", f"study.tracking_uri={gate.url}"]
    trusted = {"SERVER_CERT_PATH": str(certificate)}
    printed = []

    code, output = run("hpo.py", *words, TOKEN=WRONG, **trusted)
    printed.append(output)
    assert code == 0, output
    assert "set MLFLOW_TRACKING_TOKEN" in output
    assert f"`{command('sync', experiments=experiments)}` ships them" in output
    (record,) = records(experiments)
    folder = experiments / f"trial_{record['trial_id']}"
    assert record["state"] == "completed"
    assert files.read_lines(folder / paths.METRICS)

    code, output = run("sync.py", "--experiments", experiments, TOKEN=TOKEN)
    printed.append(output)
    assert code == 2, output
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in output
    assert not server.run_ids(record["trial_id"])

    code, output = run("sync.py", "--experiments", experiments, TOKEN=TOKEN, **trusted)
    printed.append(output)
    assert code == 0, output
    check_arrived(server, folder)

    with_password = gate.url.replace("//", f"//someone:{PASSWORD}@")
    code, output = run("sync.py", "--experiments", experiments, "--tracking-uri", with_password, **trusted)
    printed.append(output)
    assert code == 0, output
    check_arrived(server, folder)

    kept = {path: path.read_bytes() for path in experiments.rglob("*") if path.is_file()}
    for secret in (TOKEN, WRONG, PASSWORD, BASIC):
        assert not [path for path, content in kept.items() if secret.encode() in content], secret
        assert secret not in "".join(printed)


def test_the_doctor_says_what_access_lacks(
    server: MlflowServer, gate: FaultProxy, certificate: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cases = [
        ({"TOKEN": TOKEN}, "ok", "answers: MLflow 3"),
        ({"USERNAME": "someone", "PASSWORD": PASSWORD}, "ok", "answers: MLflow 3"),
        ({"TOKEN": WRONG}, "fail", "refuses access (401)"),
        ({}, "fail", "refuses access (401)"),
        ({"TOKEN": TOKEN, "SERVER_CERT_PATH": ""}, "fail", "is not trusted"),
        ({"TOKEN": TOKEN, "SERVER_CERT_PATH": "/not/there"}, "fail", "is not trusted"),
        ({"TOKEN": TOKEN, "SERVER_CERT_PATH": "", "INSECURE_TLS": "true"}, "ok", "answers: MLflow 3"),
    ]
    for access, state, words in cases:
        with monkeypatch.context() as patch:
            for name, value in ({"SERVER_CERT_PATH": str(certificate)} | access).items():
                patch.setenv(f"MLFLOW_TRACKING_{name}", value)
            found = services.check_mlflow(tmp_path, gate.url)
        assert (found.state, words in found.detail) == (state, True), (access, found)
