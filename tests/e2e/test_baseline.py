"""The baseline is trained on the same splits and leaves the same report."""

import json
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.reports import EvaluationReport
from tests.e2e.conftest import run


def report_in(experiments: Path) -> EvaluationReport:
    (folder,) = experiments.glob("baseline_*")
    report = load(folder / paths.REPORT, EvaluationReport)
    assert report is not None
    assert (folder / paths.REPORT_PAGE).stat().st_mode & 0o077 == 0
    return report


def test_the_baseline_learns_reports_alike_and_is_the_same_each_time(uninterrupted: Path, tmp_path: Path) -> None:
    words = ["data.posts=90", f"experiments={tmp_path}"]
    assert "F1 macro" in run("baseline.py", *words)
    first = report_in(tmp_path)
    run("baseline.py", *words)
    second = report_in(tmp_path)
    assert second.test_metrics == first.test_metrics
    trial = json.loads(next(uninterrupted.glob("trial_*/evaluation_report.json")).read_bytes())
    assert first.data_fingerprint == trial["data_fingerprint"], "the same posts in the same splits"
    pr_auc = first.test_metrics.criteria_matching.macro_pr_auc
    assert pr_auc is not None
    assert pr_auc > 0.4, "guessing reaches the share of posts with a symptom, about a tenth"
    assert first.test_metrics.evidence_binding.f1 > 0.3
    assert first.confidence_intervals.keys() == trial["confidence_intervals"].keys()
