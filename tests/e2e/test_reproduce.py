"""A trial counts as reproduced only where what must hold holds: each way of failing is noticed."""

import json
from typing import Any

import pytest

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.evaluation.reproduction import TOLERANCE, compare_predictions, compare_training, text, verdict
from redsm5.reports import EvaluationReport, PredictionsRecord
from tests.e2e.conftest import run

CHECKPOINT = {"compared": True, "checkpoint": "epoch-0002", "largest_difference": 0.0, "holds": True}


def predictions(*rows: list[float], checkpoint: str = "epoch-0002") -> PredictionsRecord:
    return PredictionsRecord(
        trial_id="t",
        checkpoint=checkpoint,
        split="test",
        symptoms=["A", "B"],
        post_ids=[f"p{i}" for i in range(len(rows))],
        probabilities=list(rows),
    )


@pytest.fixture
def pair(tmp_path, uninterrupted):
    """A completed trial's folder and a copy of it, as if it had been trained again."""
    original = next(p for p in sorted(uninterrupted.glob("trial_*")) if (p / paths.REPORT).exists())
    folders = []
    for name in ("before", "after"):
        folder = tmp_path / name
        folder.mkdir()
        for document in (paths.TRIAL, paths.METRICS, paths.REPORT):
            (folder / document).write_bytes((original / document).read_bytes())
        folders.append(folder)
    return folders


def report_of(folder) -> EvaluationReport:
    report = load(folder / paths.REPORT, EvaluationReport)
    assert report is not None
    return report


def change(path, edit) -> None:
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))


def change_metric(folder, n: int, by: float) -> str:
    """Change the n-th value of those that must be equal; its metric's name."""
    lines = [json.loads(line) for line in (folder / paths.METRICS).read_text().splitlines()]
    row = [line for line in lines if not line["metric"].startswith("system_")][n]
    row["value"] += by
    write_metrics(folder, lines)
    return row["metric"]


def write_metrics(folder, lines: list[dict[str, Any]]) -> None:
    (folder / paths.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def judged(before, after, checkpoint: dict[str, Any] | None = None) -> dict[str, Any]:
    report = report_of(before)
    return verdict(report.trial_id, report, checkpoint or CHECKPOINT, compare_training(before, report, after))


def test_probabilities_may_differ_by_the_tolerance_and_no_more() -> None:
    before = predictions([0.5, 0.1], [0.2, 0.9])
    near, far = predictions([0.5, 0.1], [0.2, 0.9 - TOLERANCE * 0.9]), predictions(
        [0.5, 0.1 + TOLERANCE * 2], [0.2, 0.9]
    )
    assert compare_predictions(before, before)["largest_difference"] == 0
    assert compare_predictions(before, near)["holds"]
    assert not compare_predictions(before, far)["holds"]
    assert not compare_predictions(before, predictions([0.5, 0.1]))["compared"]
    assert not compare_predictions(before, predictions([0.5, 0.1], [0.2, 0.9], checkpoint="epoch-0001"))["compared"]


def test_an_identical_training_is_reproduced(pair) -> None:
    told = judged(*pair)
    assert told["reproduced"]
    assert told["identical"]
    assert told["training"]["metrics"] > 30
    assert "verdict: reproduced, identical" in text(told)


def test_one_other_bit_in_one_metric_of_the_same_machine_is_no_reproduction(pair) -> None:
    before, after = pair
    name = change_metric(after, 3, by=1e-15)
    told = judged(before, after)
    assert told["training"]["metrics_different"] == 1
    assert not told["reproduced"]
    assert name in text(told)
    assert "NOT reproduced" in text(told)


def test_a_metric_that_is_missing_or_a_report_that_differs_is_no_reproduction(pair) -> None:
    before, after = pair
    lines = [json.loads(line) for line in (after / paths.METRICS).read_text().splitlines()]
    last = max(i for i, line in enumerate(lines) if line["metric"] == "val_loss")
    write_metrics(after, lines[:last] + lines[last + 1 :])
    assert not judged(before, after)["reproduced"]
    (after / paths.METRICS).write_bytes((before / paths.METRICS).read_bytes())
    change(after / paths.REPORT, lambda d: d["test_metrics"]["criteria_matching"].update(f1_macro=0.123))
    assert not judged(before, after)["reproduced"]


def test_on_another_machine_the_checkpoint_decides_and_the_training_is_told_apart(pair) -> None:
    before, after = pair
    change_metric(after, 0, by=0.01)
    change(after / paths.REPORT, lambda d: d["environment"].update(device="another CPU"))
    told = judged(before, after)
    assert told["reproduced"]
    assert not told["identical"]
    assert "different device" in text(told)
    assert "not judged" in text(told)
    assert not judged(before, after, CHECKPOINT | {"holds": False, "largest_difference": 0.1})["reproduced"]


def test_what_depends_on_the_clock_is_not_compared(pair) -> None:
    before, after = pair
    lines = [json.loads(line) for line in (after / paths.METRICS).read_text().splitlines()]
    measured = [line for line in lines if line["metric"].startswith("system_")]
    assert measured
    for line in measured:
        line["value"] += 1
    write_metrics(after, [*lines, measured[0] | {"step": 1}])
    assert judged(before, after)["identical"]


def test_a_training_that_failed_is_no_reproduction(pair) -> None:
    before, after = pair
    change(after / paths.TRIAL, lambda d: d.update(state="failed", error={"kind": "not_finite", "message": "NaN"}))
    told = judged(before, after)
    assert not told["reproduced"]
    assert "did not complete: NaN" in text(told)


def test_a_trial_is_trained_again_elsewhere_and_equals_itself_to_the_bit(uninterrupted, tmp_path) -> None:
    trial = next(p for p in sorted(uninterrupted.glob("trial_*")) if (p / paths.REPORT).exists())
    before = sorted((p.name, p.stat().st_mtime_ns) for p in trial.rglob("*.json*"))
    trial_id = trial.name.removeprefix("trial_")
    words = ["--experiments", str(uninterrupted), "--into", str(tmp_path), "--json"]
    told = json.loads(run("reproduce.py", trial_id, *words).partition("\n{")[2].join(["{", ""]))
    assert told["identical"]
    assert told["same_environment"], told["environment_differences"]
    assert told["checkpoint"]["largest_difference"] < TOLERANCE
    assert len(list(tmp_path.glob("trial_*/evaluation_report.html"))) == 1
    assert (
        sorted((p.name, p.stat().st_mtime_ns) for p in trial.rglob("*.json*")) == before
    ), "the record stays as it was"


@pytest.mark.parametrize("trial_id", ["00000000-0000-4000-8000-000000000000", "../x"])
def test_a_trial_that_is_not_there_is_refused(trial_id, tmp_path) -> None:
    assert "there is no trial" in run("reproduce.py", trial_id, "--experiments", str(tmp_path), expect=1)
