"""Every JSON document that the system writes, as pydantic models; `redsm5/schemas/` holds the schemas made from them.

Reads nothing but JSON and imports no numerical library, so that the terminal app opens at once. What they share
(`Record`, `Number`, `load`, times) is redsm5/documents.py's and is passed on from here.
"""

import json
from typing import Any, Literal

from pydantic import ConfigDict

from redsm5.documents import TIME_PATTERN as TIME_PATTERN
from redsm5.documents import Number as Number
from redsm5.documents import Record as Record
from redsm5.documents import from_json_number as from_json_number
from redsm5.documents import load as load
from redsm5.documents import milliseconds as milliseconds
from redsm5.documents import now as now
from redsm5.documents import timestamp as timestamp
from redsm5.documents import to_json_number as to_json_number

TrialState = Literal["queued", "preparing", "running", "finishing", "completed", "failed", "pruned", "interrupted"]
RetentionAction = Literal["keep", "strip", "delete", "set_aside"]
FINISHED: frozenset[str] = frozenset({"completed", "failed", "pruned"})


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


class Thresholds(Record):
    """Where a probability becomes a yes, by symptom, and a span becomes evidence."""

    criteria: dict[str, float]
    evidence_null_threshold: float
    min_span_score: float


class TrialThresholds(Record):
    """thresholds.json: what was chosen on the validation split, by checkpoint (`memory` where none is written)."""

    trial_id: str
    scope: Literal["fixed", "global", "per_class"]
    metric: str
    checkpoints: dict[str, Thresholds]


class HardNegativeMetrics(Record):
    """Of the pairs that annotators looked at and found absent: the shares in which the model says absent, and in which
    it chooses none of these sentences; null where there are no such pairs.
    """

    pairs: int
    criteria_specificity: float | None
    evidence_specificity: float | None


class PredictionsRecord(Record):
    """predictions.json: what the trial's first best checkpoint said of each post, to compare with on other machines.

    `probabilities` has a row for each post, and in it the nine symptoms in the order of `symptoms`.
    """

    trial_id: str
    checkpoint: str
    split: Literal["validation", "test"]
    symptoms: list[str]
    post_ids: list[str]
    probabilities: list[list[float]]


class EvaluatedCheckpoint(Record):
    """`path` is relative to the experiments folder; null where checkpoints were turned off."""

    checkpoint_id: str
    path: str | None
    epoch: int
    val_metric: Number | None
    co_best: bool
    test_metrics: TestMetrics


class EvaluationReport(Record):
    """evaluation_report.json. `test_metrics` are those of the first best checkpoint, on the split named in `split`.

    `confidence_intervals` are the 2.5 and 97.5 percentiles of a bootstrap over posts, by the metric's dotted name;
    `pr_curves` are (recall, precision) points by symptom; `environment` is what bits may depend on.
    """

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
    confidence_intervals: dict[str, list[float]] = {}
    pr_curves: dict[str, list[list[float]]] = {}
    hard_negatives: HardNegativeMetrics | None = None
    data_fingerprint: str
    data_counts: dict[str, int]
    environment: dict[str, str] = {}
    code_version: str
    seed: int


class SummaryTrial(Record):
    """A trial in its study's summary. `seconds`: first start to end. `bytes`: of checkpoints, on disk now."""

    trial_id: str
    number: int | None
    state: TrialState
    value: Number | None
    test_f1_macro: float | None
    epoch: int
    seconds: float | None
    bytes: int
    resumes: int
    duplicate_of: str | None
    error: str | None
    parameters: dict[str, Any]
    report: str | None


class SummaryBest(Record):
    trial_id: str
    number: int | None
    value: Number
    chosen_by: Literal["validation"] = "validation"
    test_metrics: TestMetrics | None
    report: str | None


class ParameterImportance(Record):
    """`share` of the variance of the value over `trials`; null with a `reason`. See redsm5/evaluation/importance.py."""

    share: float | None
    trials: int
    conditional: bool
    reason: str | None = None


class StorageSummary(Record):
    """Bytes of all checkpoints of a study: on disk `now`, the `highest` at any moment, all that was `written`, and what
    they would take had each been kept whole. `budget` is what they may take.
    """

    now: int
    highest: int
    written: int
    keep_all: int
    budget: int | None


class StudySummary(Record):
    """summary.json. `trials` by validation, best first. Paths are relative to the experiments folder; `problems` names
    what could not be read.
    """

    generated_at: str
    study_id: str
    name: str
    state: str
    metric: str
    note: str
    trials_wanted: int
    counts: dict[TrialState, int]
    best: SummaryBest | None
    trials: list[SummaryTrial]
    parameter_importance: dict[str, ParameterImportance]
    storage: StorageSummary
    problems: list[str]


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
    "thresholds": TrialThresholds,
    "predictions": PredictionsRecord,
    "study_summary": StudySummary,
}


def schema(name: str) -> str:
    """The JSON Schema of one of our documents, as text."""
    body = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | SCHEMAS[name].model_json_schema(
        mode="serialization"
    )
    return json.dumps(body, indent=2) + "\n"
