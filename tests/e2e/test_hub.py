"""A study whose data and model come from the Hub, and whose token expires in the middle."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redsm5 import hub
from redsm5.data.synthesize import write_csvs
from tests.e2e.conftest import ROOT, records, wait_for
from tests.hub_server import HubServer

REDSM5, BERT, OLD, NEW = "irlab-udc/redsm5", "lab/bert", "hf_theOldToken", "hf_theNewToken"
STUDY = ["data=hub", "model=bert_base", f"model.model_id={BERT}", "model.max_length=64", "train.epochs=1"]


@pytest.fixture
def server(tmp_path: Path, local_bert: Path) -> Iterator[HubServer]:
    """A Hub with both repositories, gated, for OLD; whoever uses `tmp_path/home` has logged in with it."""
    server = HubServer()
    write_csvs(tmp_path, 90, 42)
    server.add("dataset", REDSM5, {name: (tmp_path / name).read_bytes() for name in hub.DATA_FILES}, gated=True)
    files = {path.name: path.read_bytes() for path in local_bert.iterdir() if path.is_file()}
    server.add("model", BERT, files, gated=True)
    server.tokens, server.granted = {OLD}, {OLD, NEW}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(OLD)
    yield server
    server.close()


def start(server: HubServer, tmp_path: Path, *overrides: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "scripts/hpo.py", *STUDY, f"experiments={tmp_path / 'e'}", *overrides],
        cwd=ROOT,
        env={**server.environment(tmp_path / "home"), "OMP_NUM_THREADS": "1", "REDSM5_HUB_POLL_S": "0.5"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def study(tmp_path: Path) -> dict[str, Any]:
    (path,) = (tmp_path / "e").glob("study_*/study.json")
    return dict(json.loads(path.read_bytes()))


def log_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs" / "log.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_a_token_that_expires_pauses_the_study_which_goes_on_by_itself(server: HubServer, tmp_path: Path) -> None:
    process = start(server, tmp_path, "study.trials=2")
    wait_for(lambda: [r for r in records(tmp_path / "e") if r["state"] == "completed"])
    server.tokens.clear()
    shutil.rmtree(tmp_path / "home" / "hub")
    wait_for(lambda: study(tmp_path)["state"] == "paused")
    first, second = records(tmp_path / "e")
    assert (first["state"], second["state"], second["error"]["kind"]) == ("completed", "interrupted", "hub_access")

    server.tokens = {NEW}
    (tmp_path / "home" / "token").write_text(NEW)  # `hf auth login`
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "WARNING   the study is paused; it resumes by itself" in output
    assert "the token is not valid, or has expired or been revoked" in output
    assert "hf auth login" in output
    assert "the Hub grants access: the study resumes" in output
    assert study(tmp_path)["state"] == "completed"
    assert [r["state"] for r in records(tmp_path / "e")] == ["completed"] * 2

    commits = {repo.refs["main"] for repo in server.repos.values()}
    for record in records(tmp_path / "e"):
        lines = log_lines(tmp_path / "e" / f"trial_{record['trial_id']}")
        noted = {line["message"]: line["context"]["commit"] for line in lines if "commit" in line["context"]}
        assert noted.keys() == {"data", "model"}
        assert set(noted.values()) == commits
    written = b"".join(p.read_bytes() for p in (tmp_path / "e").rglob("*") if p.is_file())
    for token in (OLD, NEW):
        assert token not in output
        assert token.encode() not in written


def test_without_access_a_study_is_refused_at_once(server: HubServer, tmp_path: Path) -> None:
    server.granted.clear()
    process = start(server, tmp_path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.startswith("error: model.model_id: model lab/bert at revision main: it is gated")
    assert f"accept its terms on {server.url}/{BERT}" in output
    assert not (tmp_path / "e").exists()
