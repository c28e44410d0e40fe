"""Checks whether a trial was reproduced: its checkpoint's probabilities, and every metric of a repeated training.

The probabilities of the same checkpoint may differ by at most TOLERANCE, on any machine. A repeated training must be
bit-identical if machine, libraries and code are those on record; elsewhere its differences are reported, but do not
fail the check.
"""

import math
from pathlib import Path
from typing import Any

from redsm5 import code_version
from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.records import TrialRecord
from redsm5.engine.storage.store import weights_sha256
from redsm5.engine.terminal import one_line
from redsm5.engine.tracking.journal import read_metrics
from redsm5.reports import EvaluationReport, PredictionsRecord

TOLERANCE = 1e-4
SHOWN = 10  # the most metrics to name that differ


def compare_predictions(before: PredictionsRecord, after: PredictionsRecord) -> dict[str, Any]:
    """Compare the probabilities of the same checkpoint on the same posts."""
    if (after.checkpoint, after.post_ids) != (before.checkpoint, before.post_ids):
        return {"compared": False, "reason": "the posts or the best checkpoint differ from those on record"}
    pairs = zip(before.probabilities, after.probabilities, strict=True)
    largest = max((abs(a - b) for x, y in pairs for a, b in zip(x, y, strict=True)), default=0.0)
    return {
        "compared": True,
        "checkpoint": before.checkpoint,
        "largest_difference": largest,
        "tolerance": TOLERANCE,
        "holds": largest <= TOLERANCE,
    }


def compare_training(folder: Path, report: EvaluationReport | None, again: Path) -> dict[str, Any]:
    """Compare every metric of the repeated trial, and its report if it has one, with those on record."""
    record = load(again / paths.TRIAL, TrialRecord)
    if record is None or record.state != "completed":
        reason = record.error.message if record and record.error else "it exited without recording an outcome"
        return {"completed": False, "reason": reason}
    before, after = metrics_of(folder), metrics_of(again)
    if not any(metric.startswith("test_") for metric, _ in before):  # older versions had them in the report alone
        after = {key: value for key, value in after.items() if not key[0].startswith("test_")}
    different = {key for key in before.keys() | after.keys() if not same(before.get(key), after.get(key))}
    by_name: dict[str, float] = {}
    for metric, step in different:
        a, b = before.get((metric, step)), after.get((metric, step))
        gap = math.inf if a is None or b is None else abs(a - b)
        by_name[metric] = max(by_name.get(metric, 0.0), gap if math.isfinite(gap) else math.inf)
    told = {
        "completed": True,
        "metrics": len(before),
        "metrics_different": len(different),
        "largest_differences": {name: by_name[name] for name in sorted(by_name)},
        "report_equal": True,
    }
    if report is None:
        return told | {"weights_equal": weights_of(folder) == weights_of(again)}
    report_again = load(again / paths.REPORT, EvaluationReport)
    assert report_again is not None
    return told | {
        "report_equal": report_again.test_metrics == report.test_metrics
        and report_again.decision_thresholds == report.decision_thresholds,
        "validation": [report.best_validation_score, report_again.best_validation_score],
        "test_f1_macro": [r.test_metrics.criteria_matching.f1_macro for r in (report, report_again)],
        "environment": report_again.environment,
    }


def weights_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of the weights of each checkpoint, by its name."""
    return {path.name: weights_sha256(path) for path in folder.glob(f"{paths.CHECKPOINTS}/epoch-*")}


def metrics_of(folder: Path) -> dict[tuple[str, int], float]:
    """Each metric by name and step, except those that depend on the clock or the machine."""
    return {(row.metric, row.step): row.value for row in read_metrics(folder) if not row.metric.startswith("system_")}


def same(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


def verdict(
    trial_id: str, report: EvaluationReport | None, checkpoint: dict[str, Any], training: dict[str, Any]
) -> dict[str, Any]:
    """Which comparisons hold, and whether the trial counts as reproduced. Without a report, no machine is on record:
    then the training must be identical here.
    """
    environment, recorded = training.get("environment", {}), report.environment if report else {}
    differing = {
        key: [recorded.get(key), environment.get(key)]
        for key in sorted(recorded.keys() | environment.keys())
        if recorded.get(key) != environment.get(key)
    }
    if report and report.code_version != code_version():
        differing["code_version"] = [report.code_version, code_version()]
    identical = training["completed"] and not training["metrics_different"] and training["report_equal"]
    identical = identical and training.get("weights_equal", True)
    must_be_identical = training["completed"] and not differing
    reproduced = training["completed"] and checkpoint.get("holds", True) and (identical or not must_be_identical)
    return {
        "trial_id": trial_id,
        "reproduced": bool(reproduced),
        "identical": bool(identical),
        "same_environment": not differing if training["completed"] else None,
        "environment_differences": differing if training["completed"] else {},
        "checkpoint": checkpoint,
        "training": training,
    }


def text(told: dict[str, Any]) -> str:
    """The verdict as text for display."""
    checkpoint, training = told["checkpoint"], told["training"]
    lines = [f"trial {told['trial_id']}"]
    if checkpoint["compared"]:
        lines.append(
            f"same checkpoint ({checkpoint['checkpoint']}): probabilities differ by at most "
            f"{checkpoint['largest_difference']:.2g}; allowed {TOLERANCE:g}: "
            f"{'holds' if checkpoint['holds'] else 'DOES NOT HOLD'}"
        )
    else:
        lines.append(f"same checkpoint: not compared, {one_line(checkpoint['reason'])}")
    if not training["completed"]:
        lines.append(f"trained again: it did not complete: {one_line(training['reason'])}")
    else:
        equal = training["metrics"] - training["metrics_different"]
        report = "equal" if training["report_equal"] else "different"
        lines.append(
            f"trained again: {equal} of {training['metrics']} metrics are bit-identical"
            + (f"; the report is {report}" if "validation" in training else "")
        )
        for name, gap in list(training["largest_differences"].items())[:SHOWN]:
            lines.append(f"  {one_line(name)}: differs by up to {gap:.3g}")
        if "weights_equal" in training:
            lines.append(f"the weights are {'bit-identical' if training['weights_equal'] else 'different'}")
        if "validation" in training:
            before, after = training["validation"]
            lines.append(f"best validation score: {before} on record, {after} here")
        for key, (before, after) in told["environment_differences"].items():
            lines.append(f"  different {one_line(key)}: {one_line(before)} on record, {one_line(after)} here")
    if told["identical"]:
        lines.append("verdict: reproduced, identical")
    elif told["reproduced"]:
        lines.append("verdict: reproduced within the tolerance across machines; the repeated training is not judged")
    else:
        lines.append("verdict: NOT reproduced")
    return "\n".join(lines)
