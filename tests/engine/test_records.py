"""The documents on disk: strict JSON, no unknown keys, times and numbers that come back as they were, and schemas."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import redsm5
from redsm5 import reports
from redsm5.engine import documents, records
from redsm5.engine.jsonio import from_json_number, to_json_number
from redsm5.engine.records import Best, Manifest, MetricRow, RetentionRow, Shipped, StudyIndex, StudyRecord, TrialRecord

SCHEMA_DIR = Path(redsm5.__file__).parent / "schemas"
TIME = "2026-01-31T12:00:00.000Z"


def trial(**changes: Any) -> TrialRecord:
    fields = {"trial_id": "t", "study_id": "s", "number": 0, "state": "queued", "created_at": TIME, "epochs": 3}
    return TrialRecord.model_validate(fields | changes)


def a_study() -> StudyRecord:
    trials, best = {"wanted": 4}, {"trial_id": "t", "number": 0, "value": "NaN"}
    return StudyRecord.model_validate(
        {
            "study_id": "s",
            "name": "demo",
            "state": "running",
            "created_at": TIME,
            "metric": "val_f1_macro",
            "trials": trials,
            "best": best,
            "config": {"train": {"epochs": 3}},
        }
    )


def a_report() -> reports.EvaluationReport:
    row = {"id": "DEPRESSED_MOOD", "f1": 0.5, "precision": 0.5, "recall": 0.5, "pr_auc": None, "support": 3}
    row |= {"confusion_matrix": [[1, 2], [3, 4]], "undefined": {"pr_auc": "no positive"}}
    names = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "macro_pr_auc")
    criteria = dict.fromkeys(names, 0.5) | {"per_criterion": [row]}
    names = ("exact_match", "f1", "char_f1", "char_precision", "char_recall", "null_span_accuracy")
    test_metrics = {"criteria_matching": criteria, "evidence_binding": dict.fromkeys(names)}
    evaluated = {"checkpoint_id": "epoch-0003", "path": "p", "epoch": 3, "val_metric": 0.5, "co_best": False}
    return reports.EvaluationReport.model_validate(
        {
            "report_id": "r",
            "trial_id": "t",
            "study_id": None,
            "generated_at": TIME,
            "split": "test",
            "config": {},
            "optimization_metric_name": "val_f1_macro",
            "best_validation_score": 0.5,
            "evaluated_checkpoints": [evaluated | {"test_metrics": test_metrics}],
            "test_metrics": test_metrics,
            "data_fingerprint": "ab",
            "data_counts": {"train": 1},
            "code_version": "0.1.0",
            "seed": 42,
        }
    )


def a_summary() -> reports.StudySummary:
    row = {"trial_id": "t", "number": 0, "state": "completed", "value": "NaN", "test_f1_macro": None, "epoch": 3}
    row |= {"seconds": None, "bytes": 5, "resumes": 0, "duplicate_of": None, "error": None, "parameters": {}}
    best = {"trial_id": "t", "number": 0, "value": 0.5, "test_metrics": None, "report": None}
    return reports.StudySummary.model_validate(
        {
            "generated_at": TIME,
            "study_id": "s",
            "name": "demo",
            "state": "running",
            "metric": "val_f1_macro",
            "note": "chosen by validation",
            "trials_wanted": 4,
            "counts": {"completed": 1},
            "best": best,
            "trials": [row | {"report": None}],
            "parameter_importance": {"train.x": {"share": None, "trials": 1, "conditional": False, "reason": "few"}},
            "storage": {"now": 5, "highest": 9, "written": 9, "keep_all": 9, "budget": None},
            "problems": [],
        }
    )


def examples() -> dict[str, list[documents.Record]]:
    """Some of each document, with the values that are hardest to hold."""
    manifest = Manifest(
        format_version=1,
        code_version="0.1.0",
        trial_id="t",
        architecture="bert",
        head_config={"max_length": 64},
        epoch=1,
        batches_done=0,
        step=10,
        score=None,
        metrics={"val_loss": math.inf, "val_f1_macro": math.nan},
        data_fingerprint="ab",
        seed=42,
        created_at=TIME,
    )
    retention = RetentionRow(
        timestamp=TIME, action="strip", checkpoint="epoch-0001", epoch=1, step=10, score=None, bytes=5, reason="best 1"
    )
    metric = MetricRow(trial_id="t", metric="val_loss", step=1, epoch=0, value=0.5, timestamp=TIME)
    ended = trial(
        state="failed",
        started_at=TIME,
        finished_at=TIME,
        best=Best(epoch=2, value=math.nan),
        exit_code=2,
        error={"kind": "not_finite", "message": "the loss is nan"},
        parameters={"train.learning_rate": 1e-3, "train.schedule": "linear"},
    )
    more: dict[str, Any] = {
        "confidence_intervals": {"criteria_matching.f1_macro": [0.25, 0.75]},
        "pr_curves": {"DEPRESSED_MOOD": [[0.0, 1.0], [1.0, 0.5]]},
        "hard_negatives": reports.HardNegativeMetrics(pairs=3, criteria_specificity=0.5, evidence_specificity=None),
        "decision_thresholds": {"DEPRESSED_MOOD": 0.5},
    }
    limits = reports.Thresholds(criteria={"FATIGUE": 0.4}, evidence_null_threshold=-1.5, min_span_score=0.2)
    thresholds = reports.TrialThresholds(
        trial_id="t", scope="per_class", metric="val_f1_macro", checkpoints={"epoch-0001": limits}
    )
    predictions = reports.PredictionsRecord(
        trial_id="t",
        checkpoint="epoch-0001",
        split="test",
        symptoms=["FATIGUE"],
        post_ids=["p"],
        probabilities=[[0.25]],
    )
    return {
        "trial": [trial(), ended],
        "study": [a_study()],
        "index": [StudyIndex(study_id="s", updated_at=TIME, trials=[trial(), ended])],
        "event": [records.Event(timestamp=TIME, trial_id="t", number=0, state="running")],
        "metric": [metric, *(metric.model_copy(update={"value": v}) for v in (math.nan, math.inf, -math.inf))],
        "decision": [
            records.Decision(epoch=1, prune=True, reason="below the median"),
            records.Decision(epoch=3, prune=False, rung=1),
        ],
        "rung": [
            records.RungRow(timestamp=TIME, action="draw", number=0, bracket=0),
            records.RungRow(timestamp=TIME, action="pause", number=0, bracket=0, rung=1, epoch=3, value=math.nan),
            records.RungRow(timestamp=TIME, action="promote", number=0, bracket=0, rung=1, rank=1, of=3, closing=True),
            records.RungRow(timestamp=TIME, action="end", number=0, bracket=0, state="completed"),
        ],
        "retention": [retention, retention.model_copy(update={"score": math.nan})],
        "budget": [
            records.BudgetLedger(max_total_size=10, entries={"t": records.BudgetEntry(reserved=7, bytes=5)}),
            records.BudgetLedger(max_total_size=10, austere=True),
        ],
        "shipped": [Shipped(tracking_uri="sqlite:///x", run_id="r")],
        "manifest": [manifest],
        "evaluation_report": [a_report(), a_report().model_copy(update=more)],
        "thresholds": [thresholds],
        "predictions": [predictions],
        "study_summary": [a_summary()],
    }


# ---------------------------------------------------------------------------------------------------------------------
# schemas


@pytest.mark.parametrize("name", sorted(reports.SCHEMAS))
def test_the_committed_schema_is_the_one_made_from_the_code(name: str) -> None:
    assert (SCHEMA_DIR / f"{name}.json").read_text() == reports.schema(name)


def test_no_schema_is_of_a_document_that_is_gone() -> None:
    assert {p.stem for p in SCHEMA_DIR.glob("*.json")} == set(reports.SCHEMAS)


@pytest.mark.parametrize("name", sorted(reports.SCHEMAS))
def test_what_we_write_satisfies_its_schema_and_comes_back_the_same(name: str) -> None:
    schema = json.loads(reports.schema(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    for record in examples()[name]:
        assert type(record) is reports.SCHEMAS[name]
        for text in (record.to_json(), record.model_dump_json().encode()):
            document = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
            jsonschema.validate(document, schema)
            again = reports.SCHEMAS[name].model_validate_json(text)
            assert again.to_json() == record.to_json()
            assert reports.SCHEMAS[name].model_validate(document).to_json() == record.to_json()


@pytest.mark.parametrize("name", sorted(reports.SCHEMAS))
def test_an_unknown_key_is_refused_by_the_code_and_by_the_schema(name: str) -> None:
    document = json.loads(examples()[name][0].to_json()) | {"surprise": 1}
    with pytest.raises(ValidationError, match="surprise"):
        reports.SCHEMAS[name].model_validate(document)
    with pytest.raises(jsonschema.ValidationError, match="surprise"):
        jsonschema.validate(document, json.loads(reports.schema(name)))


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValidationError, match="state"):
        trial(state="sleeping")


# ---------------------------------------------------------------------------------------------------------------------
# numbers and times


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_float_comes_back_as_it_was(value: float) -> None:
    row = MetricRow(trial_id="t", metric="val_loss", step=1, epoch=0, value=value, timestamp=TIME)
    for text in (row.to_json(), row.to_line()):
        assert repr(MetricRow.model_validate_json(text).value) == repr(value)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_what_is_not_finite_is_a_word(value: float, word: str) -> None:
    row = MetricRow(trial_id="t", metric="val_loss", step=1, epoch=0, value=value, timestamp=TIME)
    assert json.loads(row.to_json())["value"] == json.loads(row.to_line())["value"] == word
    assert to_json_number(value) == word
    assert repr(from_json_number(word)) == repr(value)


def test_other_words_are_no_numbers() -> None:
    with pytest.raises(ValidationError):
        Best.model_validate({"epoch": 1, "value": "much"})


def test_a_time_is_utc_with_milliseconds_wherever_it_was_read() -> None:
    berlin = datetime(2026, 1, 31, 13, 0, 0, 5999, tzinfo=timezone(timedelta(hours=1)))
    assert documents.timestamp(berlin) == "2026-01-31T12:00:00.005Z"
    assert documents.timestamp(datetime(2026, 1, 31, 12, tzinfo=UTC)) == TIME
    assert len(documents.now()) == len(TIME)
    assert abs(documents.milliseconds(documents.now()) / 1000 - datetime.now(UTC).timestamp()) < 5


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_undo_a_timestamp(milliseconds: int) -> None:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)
    assert documents.milliseconds(documents.timestamp(moment)) == milliseconds


def test_a_record_is_never_changed_in_place() -> None:
    with pytest.raises(ValidationError):
        trial().state = "running"  # type: ignore[misc]
