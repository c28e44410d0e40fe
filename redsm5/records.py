"""The JSON documents of trials and studies, as pydantic models; those of evaluations are in `redsm5/reports.py`.

It imports no numerical library, so that the terminal app starts fast.
"""

from typing import Any, Literal

from pydantic import ConfigDict

from redsm5.documents import Document, Number, Record, milliseconds

TrialState = Literal["queued", "preparing", "running", "finishing", "completed", "failed", "pruned", "interrupted"]
StudyState = Literal["running", "paused", "stopped", "completed"]
RetentionAction = Literal["keep", "strip", "delete", "set_aside"]
FINISHED: frozenset[str] = frozenset({"completed", "failed", "pruned"})


class Best(Record):
    epoch: int
    value: Number


class ErrorRecord(Record):
    kind: str
    message: str


class TrialRecord(Document):
    """trial.json: where a trial stands. No outcome and no live lock means that it was killed.

    Attributes:
        active_seconds: how long it was at work, over all its starts; the pauses between them do not count.
        duplicate_of: the trial whose parameters it has, whose outcome it takes over instead of being trained.
        checkpoints_at: where its checkpoints lie, if `checkpoints` was a link as it started for the first time.
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
    checkpoints_at: str | None = None
    exit_code: int | None = None
    error: ErrorRecord | None = None
    parameters: dict[str, Any] = {}

    @property
    def seconds(self) -> float | None:
        """From the trial's first start to its end; None before that, or where a time is none."""
        if not (self.started_at and self.finished_at):
            return None
        try:
            return max(milliseconds(self.finished_at) - milliseconds(self.started_at), 0) / 1000
        except ValueError:
            return None


class TrialCounts(Record):
    wanted: int
    finished: int = 0
    running: int = 0


class StudyBest(Record):
    trial_id: str
    number: int
    value: Number


class StudyRecord(Document):
    """study.json: the study as it stands, and the configuration that it was made with.

    Attributes:
        enqueued: the parameter sets of study.enqueue, as they were when the study was made.
        left_out: augmentation methods that its space does not propose: their data was missing when the study was made.
    """

    study_id: str
    name: str
    state: StudyState
    created_at: str
    metric: str
    trials: TrialCounts
    best: StudyBest | None = None
    data_fingerprint: str | None = None
    enqueued: list[dict[str, Any]] = []
    left_out: list[str] = []
    config: dict[str, Any]


class StudyIndex(Document):
    """index.json: all trials of a study in one file, so that a reader need not open a folder for each."""

    study_id: str
    updated_at: str
    trials: list[TrialRecord]


class Event(Document):
    """One line of events.jsonl: a trial of the study changed its state."""

    timestamp: str
    trial_id: str
    number: int
    state: TrialState
    message: str | None = None


class MetricRow(Document):
    """One line of metrics.jsonl. `step` counts optimizer steps over the whole trial, `epoch` the epochs done."""

    trial_id: str
    metric: str
    step: int
    epoch: int
    value: Number
    timestamp: str


class Decision(Document):
    """One line of decisions.jsonl: whether the driver's pruner ends the trial after this epoch."""

    epoch: int
    prune: bool
    reason: str | None = None


class RetentionRow(Document):
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


class BudgetLedger(Document):
    """budget.json: by trial_id, what of the study's byte budget is taken. `austere` stands once the disk was low."""

    model_config = ConfigDict(frozen=False)

    max_total_size: int
    austere: bool = False
    entries: dict[str, BudgetEntry] = {}


class Shipped(Document):
    """shipped.json: how much of a trial MLflow has confirmed. `bytes` is the journal's length up to these rows.

    Attributes:
        tracking_uri: MLflow's address; a database in the experiments folder relative to it: sqlite:///mlflow.db.
        report: whether MLflow has the report, where there is one; before this was noted, it had it with the state.
    """

    tracking_uri: str
    run_id: str
    rows: int = 0
    bytes: int = 0
    params: bool = False
    state: str | None = None
    finished_at: str | None = None
    report: bool | None = None


class Manifest(Document):
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
