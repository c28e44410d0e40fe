"""Every JSON document that the system writes, as pydantic models; `redsm5/schemas/` holds the schemas made from them.

Reads nothing but JSON and imports no numerical library, so that the terminal app opens at once. Times are ISO 8601 in
UTC with milliseconds. A value that is not finite is one of the strings "NaN", "Infinity", "-Infinity".
"""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from redsm5.errors import InputError

TrialState = Literal["queued", "preparing", "running", "finishing", "completed", "failed", "pruned", "interrupted"]
RetentionAction = Literal["keep", "strip", "delete", "set_aside"]
FINISHED: frozenset[str] = frozenset({"completed", "failed", "pruned"})

TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"


def now() -> str:
    """The time as it stands in every file: 2026-01-31T12:00:00.000Z."""
    return timestamp(datetime.now(UTC))


def timestamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(time: str) -> int:
    """A time as it stands in our files, in milliseconds since 1970."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def to_json_number(value: float | None) -> float | str | None:
    """A float as it stands in JSON: what is not finite becomes a string, since JSON has no word for it."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def from_json_number(value: Any) -> Any:
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


Number = Annotated[
    float, BeforeValidator(from_json_number), PlainSerializer(to_json_number, return_type=float | str, when_used="json")
]


class Record(BaseModel):
    """A document that we own: a key that we do not know is an error, so that files and code cannot drift apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_json(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


Document = TypeVar("Document", bound=Record)


def load(path: Path, kind: type[Document]) -> Document | None:
    """A document from its file; None where there is no such file.

    Raises:
        InputError: it is damaged, or of a version that this code does not read.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise InputError(
            "the file is damaged, or of another version of this code",
            where=str(path),
            remedy="Restore it from a copy, or move its folder out of the experiments folder.",
        ) from None


class Best(Record):
    epoch: int
    value: Number


class ErrorRecord(Record):
    kind: str
    message: str


class TrialRecord(Record):
    """trial.json: where a trial stands. No outcome and no live lock means that it was killed.

    Attributes:
        active_seconds: how long its processes ran, over all its starts; the pauses between them do not count.
        duplicate_of: the trial whose parameters it has, whose outcome it takes over instead of being trained.
        parameters: those alone that were drawn or set for it; a parameter whose condition does not hold is not there.
    """

    trial_id: str
    study_id: str | None
    number: int | None
    state: TrialState
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    epoch: int = 0
    epochs: int
    step: int = 0
    best: Best | None = None
    bytes: int = 0
    resumes: int = 0
    active_seconds: float = 0.0
    duplicate_of: str | None = None
    exit_code: int | None = None
    error: ErrorRecord | None = None
    parameters: dict[str, Any] = {}


class TrialCounts(Record):
    wanted: int
    finished: int = 0
    running: int = 0


class StudyBest(Record):
    trial_id: str
    number: int
    value: Number


class StudyRecord(Record):
    """study.json: the study as it stands, and the configuration that it was made with.

    Attributes:
        enqueued: the parameter sets of study.enqueue, as they were when the study was made.
        left_out: augmentation methods that its space does not propose: their data was missing when the study was made.
    """

    study_id: str
    name: str
    state: Literal["running", "paused", "stopped", "completed"]
    created_at: str
    metric: str
    trials: TrialCounts
    best: StudyBest | None = None
    enqueued: list[dict[str, Any]] = []
    left_out: list[str] = []
    config: dict[str, Any]


class StudyIndex(Record):
    """index.json: all trials of a study in one file, so that a reader need not open a folder for each."""

    study_id: str
    updated_at: str
    trials: list[TrialRecord]


class Event(Record):
    """One line of events.jsonl: a trial of the study changed its state."""

    timestamp: str
    trial_id: str
    number: int
    state: TrialState
    message: str | None = None


class MetricRow(Record):
    """One line of metrics.jsonl. `step` counts optimizer steps over the whole trial, `epoch` the epochs done."""

    trial_id: str
    metric: str
    step: int
    epoch: int
    value: Number
    timestamp: str


class Decision(Record):
    """One line of decisions.jsonl: whether the driver's pruner ends the trial after this epoch."""

    epoch: int
    prune: bool
    reason: str | None = None


class RetentionRow(Record):
    """One line of retention.jsonl: what became of a checkpoint, the bytes that it holds now or gave back, and why."""

    timestamp: str
    action: RetentionAction
    checkpoint: str
    epoch: int
    step: int
    score: Number | None
    bytes: int
    reason: str


class BudgetEntry(Record):
    """What a trial has reserved and what it held when it was last measured, in bytes."""

    reserved: int = 0
    bytes: int = 0


class BudgetLedger(Record):
    """budget.json: by trial_id, what of the study's byte budget is taken. `austere` stands once the disk was low."""

    model_config = ConfigDict(frozen=False)

    max_total_size: int
    austere: bool = False
    entries: dict[str, BudgetEntry] = {}


class Shipped(Record):
    """shipped.json: how much of a trial MLflow has confirmed. `bytes` is the journal's length up to these rows."""

    tracking_uri: str
    run_id: str
    rows: int = 0
    bytes: int = 0
    params: bool = False
    state: str | None = None
    finished_at: str | None = None


class Manifest(Record):
    """manifest.json: what a checkpoint is of, so that nothing else is ever loaded into its place."""

    format_version: int
    code_version: str
    trial_id: str
    architecture: str
    head_config: dict[str, Any]
    epoch: int
    batches_done: int
    step: int
    score: Number | None
    metrics: dict[str, Number]
    data_fingerprint: str
    seed: int
    created_at: str


class CriterionMetrics(Record):
    """One symptom's row. What is undefined is null, and `undefined` says why, field by field."""

    id: str
    f1: float | None
    precision: float | None
    recall: float | None
    pr_auc: float | None
    support: int
    confusion_matrix: list[list[int]]
    undefined: dict[str, str] = {}


class CriteriaMetrics(Record):
    accuracy: float | None
    f1_macro: float | None
    f1_micro: float | None
    f1_weighted: float | None
    precision_macro: float | None
    recall_macro: float | None
    macro_pr_auc: float | None
    per_criterion: list[CriterionMetrics]
    undefined: dict[str, str] = {}


class EvidenceMetrics(Record):
    exact_match: float | None
    f1: float | None
    char_f1: float | None
    char_precision: float | None
    char_recall: float | None
    null_span_accuracy: float | None
    undefined: dict[str, str] = {}


class TestMetrics(Record):
    __test__ = False

    criteria_matching: CriteriaMetrics
    evidence_binding: EvidenceMetrics


class EvaluatedCheckpoint(Record):
    """`path` is relative to the experiments folder; null where checkpoints were turned off."""

    checkpoint_id: str
    path: str | None
    epoch: int
    val_metric: Number | None
    co_best: bool
    test_metrics: TestMetrics


class EvaluationReport(Record):
    """evaluation_report.json. `test_metrics` are those of the first best checkpoint, on the split named in `split`."""

    report_id: str
    trial_id: str
    study_id: str | None
    generated_at: str
    split: Literal["validation", "test"]
    config: dict[str, Any]
    optimization_metric_name: str
    best_validation_score: Number | None
    evaluated_checkpoints: list[EvaluatedCheckpoint]
    decision_thresholds: dict[str, float] | None = None
    test_metrics: TestMetrics
    data_fingerprint: str
    data_counts: dict[str, int]
    code_version: str
    seed: int


# The documents that stand alone on disk, and the names of their schemas in redsm5/schemas/.
SCHEMAS: dict[str, type[Record]] = {
    "trial": TrialRecord,
    "study": StudyRecord,
    "index": StudyIndex,
    "event": Event,
    "metric": MetricRow,
    "decision": Decision,
    "retention": RetentionRow,
    "budget": BudgetLedger,
    "shipped": Shipped,
    "manifest": Manifest,
    "evaluation_report": EvaluationReport,
}


def schema(name: str) -> str:
    """The JSON Schema of one of our documents, as text."""
    body = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | SCHEMAS[name].model_json_schema(
        mode="serialization"
    )
    return json.dumps(body, indent=2) + "\n"
