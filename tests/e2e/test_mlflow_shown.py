"""What MLflow shows of a study: its test metrics, its winner, and a list that a browser sorts by them."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.records import StudyRecord
from redsm5.evaluation.thresholds import report_metrics
from redsm5.reports import EvaluationReport
from tests.e2e.conftest import ROOT, environment, mlflow_rows, records, run, wait_for
from tests.mlflow_server import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def reports_of(experiments: Path) -> dict[str, EvaluationReport]:
    found = {}
    for record in records(experiments):
        report = load(experiments / f"trial_{record['trial_id']}" / paths.REPORT, EvaluationReport)
        assert report
        found[record["trial_id"]] = report
    return found


def tags_of(experiments: Path) -> dict[str, dict[str, str]]:
    """The tags of each run, by trial_id."""
    with sqlite3.connect(experiments / paths.MLFLOW_DB) as database:
        rows = database.execute("SELECT run_uuid, key, value FROM tags").fetchall()
    runs: dict[str, dict[str, str]] = {}
    for run_id, key, value in rows:
        runs.setdefault(run_id, {})[key] = value
    return {tags["trial_id"]: tags for tags in runs.values()}


def test_the_report_s_test_metrics_are_metrics_of_the_run(uninterrupted: Path) -> None:
    rows = mlflow_rows(uninterrupted)
    for trial_id, report in reports_of(uninterrupted).items():
        shipped = {metric: value for metric, _, value, _ in rows[trial_id] if metric.startswith("test_")}
        assert shipped == pytest.approx(report_metrics(report.test_metrics))
        assert "test_f1_macro" in shipped
        assert "test_evidence_char_f1" in shipped


def test_runs_have_tags_of_study_state_and_winner(uninterrupted: Path) -> None:
    (path,) = uninterrupted.glob("study_*/study.json")
    study = load(path, StudyRecord)
    assert study
    assert study.best
    tags = tags_of(uninterrupted)
    assert {each["study"] for each in tags.values()} == {study.name}
    assert {each["state"] for each in tags.values()} == {"completed"}
    assert {trial_id: each.get("winner") for trial_id, each in tags.items() if "winner" in each} == {
        study.best.trial_id: "best"
    }


def test_sync_names_the_winner_anew(uninterrupted: Path, tmp_path: Path) -> None:
    """In the place of another one, as when the search went on, or a confirmation chose another."""
    experiments = shutil.copytree(uninterrupted, tmp_path / "e")
    (path,) = experiments.glob("study_*/study.json")
    document = json.loads(path.read_bytes())
    (other,) = {r["trial_id"] for r in records(experiments)} - {document["best"]["trial_id"]}
    document["best"]["trial_id"] = other
    path.write_text(json.dumps(document))
    for _ in range(2):
        run("sync.py", "--experiments", str(experiments))
        assert [trial_id for trial_id, each in tags_of(experiments).items() if "winner" in each] == [other]


@pytest.fixture
def shown(uninterrupted: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `just mlflow` on a copy of a study's folder."""
    experiments, port = shutil.copytree(uninterrupted, tmp_path / "moved"), free_port()
    variables = {**environment(), "REDSM5_EXPERIMENTS": str(experiments)}
    command = [sys.executable, "scripts/mlflow_ui.py", "--port", str(port)]
    with (tmp_path / "ui.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
        return False

    try:
        wait_for(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_the_runs_sorted_by_a_test_metric(uninterrupted: Path, shown: str, tmp_path: Path) -> None:
    labels = {record["trial_id"]: f"trial {record['number']}" for record in records(uninterrupted)}
    scores = {labels[t]: r.test_metrics.criteria_matching.f1_macro for t, r in reports_of(uninterrupted).items()}
    assert len(set(scores.values())) == len(scores), "else the order says nothing"
    assert CHROMIUM
    for ascending in ("false", "true"):
        page = f"{shown}/#/experiments/1/runs?orderByKey=metrics.%60test_f1_macro%60&orderByAsc={ascending}"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=60000",
            "--window-size=1600,1000",
        ]
        profile = f"--user-data-dir={tmp_path / ascending}"
        done = subprocess.run(
            [CHROMIUM, *options, profile, "--dump-dom", page], capture_output=True, text=True, timeout=200, check=True
        )
        listed = list(dict.fromkeys(re.findall(r"trial \d+", done.stdout)))
        assert listed == sorted(scores, key=lambda label: scores[label], reverse=ascending == "false")
