"""The JSON documents of trials and studies, as pydantic models; those of evaluations are in `redsm5/reports.py`.

It imports no numerical library, so that the terminal app starts fast.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from redsm5.engine.documents import Document, Number, Record, SecondForm, milliseconds
from redsm5.engine.installed import command, setting
from redsm5.engine.redaction import REDACTED

TrialState = Literal[
    "queued", "preparing", "running", "finishing", "completed", "failed", "pruned", "interrupted", "paused"
]
StudyState = Literal["running", "paused", "stopped", "completed"]
RungAction = Literal["draw", "pause", "promote", "end"]
RetentionAction = Literal["keep", "strip", "delete", "set_aside"]
FINISHED: frozenset[str] = frozenset({"completed", "failed", "pruned"})


class Best(Record):
    epoch: int
    value: Number


class ErrorRecord(Record):
    kind: str
    message: str


class Receipt(Record):
    """What a completed trial's weights were, and what must be the same to train them again (redsm5/engine/receipts.py).

    Attributes:
        weights_sha256: of its best checkpoint's weights; of several that are tied, the oldest's.
        seconds: that the training took.
        versions: of machine and libraries, by name.
        data_fingerprint: of its data; null if the task has none.
    """

    weights_sha256: str
    seconds: float
    versions: dict[str, str]
    data_fingerprint: str | None


class TrialRecord(SecondForm):
    """trial.json: the state of a trial. Without an outcome and without a held lock, it was killed.

    Attributes:
        active_seconds: how long it ran, over all its starts, without the pauses between them.
        duplicate_of: the earlier trial with the same parameters; this trial gets its outcome and is not trained.
        checkpoints_at: the folder of its checkpoints, if `checkpoints` was a link when it first started.
        rung: the last one at which it paused, from 0 (redsm5/engine/rungs.py).
        repeated_seconds: of `active_seconds`, what it trained before its checkpoint was evicted, and then again.
        parameters: only those drawn or set for it; a parameter whose condition does not hold is left out.
        confirms, repeat: of a trial that trains the configuration of an earlier one again (study.confirm): that one's
            trial_id, and which repeat it is, from 1. Its number is that trial's, too.
        receipt: of a completed one that kept its weights.
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
    rung: int | None = None
    repeated_seconds: float = 0.0
    exit_code: int | None = None
    error: ErrorRecord | None = None
    parameters: dict[str, Any] = {}
    confirms: str | None = None
    repeat: int | None = None
    receipt: Receipt | None = None

    @property
    def label(self) -> str:
        """Its number, for people; `7·2` is repeat 2 of trial 7. A trial without a study has none."""
        number = "–" if self.number is None else str(self.number)
        return number if self.repeat is None else f"{number}·{self.repeat}"

    @property
    def seconds(self) -> float | None:
        """From the trial's first start to its end; None before that, or if a time is invalid."""
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
    paused: int = 0


class StudyBest(Record):
    trial_id: str
    number: int
    value: Number


class SearchBest(Record):
    """The configuration that the search found best, and what its repeats say of it.

    Attributes:
        value: its score in the search. mean, sd: of its repeats' scores. low, high: the 95 % interval of that mean.
        repeats: the number of repeats with a score; with one, there is a mean only.
    """

    trial_id: str
    number: int
    value: Number
    mean: Number | None = None
    sd: Number | None = None
    low: Number | None = None
    high: Number | None = None
    repeats: int = 0


class Confirmed(Record):
    """The configuration that won the confirmation of a search (redsm5/engine/study/confirming.py).

    Attributes:
        trial_id, number: of the trial of the search.
        mean, sd: of the scores of its repeats. low, high: the 95 % interval of that mean.
        raw_best: what the search found best.
        shrinkage: by how much raw_best's score in the search is better than the mean of its repeats.
    """

    trial_id: str
    number: int
    mean: Number
    sd: Number
    low: Number
    high: Number
    repeats: int
    raw_best: SearchBest
    shrinkage: Number | None


class StudyRecord(SecondForm):
    """study.json: the study's state, and the configuration with which it was created.

    Attributes:
        confirmed: the winner of study.confirm, once its last repeat has ended.
        enqueued: the parameter sets of study.enqueue when the study was created.
        left_out: what the search space proposes but the machine lacked when the study was created, and is not tried.
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
    confirmed: Confirmed | None = None
    config: dict[str, Any]

    @property
    def maximize(self) -> bool:
        """Whether a higher value of the metric is better."""
        study = self.config.get("study")
        return not isinstance(study, dict) or study.get("direction") != "minimize"

    def resumed_by(self, experiments: Path) -> str:
        """The command that resumes the study. It continues with its own configuration, of which only passwords in
        addresses are not saved: for such an address ADDRESS stands.
        """
        study = self.config.get("study")
        addresses = study.items() if isinstance(study, dict) else ()
        lacking = [f"study.{key}=ADDRESS" for key, value in addresses if REDACTED in str(value)]
        return command("hpo", setting("study.name", self.name), *lacking, experiments=experiments)


class StudyIndex(SecondForm):
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
    """One line of metrics.jsonl. `step` counts optimizer steps over the whole trial, `epoch` completed epochs."""

    trial_id: str
    metric: str
    step: int
    epoch: int
    value: Number
    timestamp: str


class Decision(SecondForm):
    """One line of decisions.jsonl: whether the driver's pruner ends the trial after this epoch, or pauses it at a rung.
    Of several for an epoch the last counts: a paused trial that is promoted, or pruned in the end, gets another.
    """

    epoch: int
    prune: bool
    reason: str | None = None
    rung: int | None = None


class RungRow(Document):
    """One line of a study's rungs.jsonl: a trial was drawn, paused at a rung, promoted, or ended, and on what ground.

    Attributes:
        rung: from 0. epoch: after which it paused. value: its score there.
        rank, of: its place among the scores of its rung when it was promoted, or pruned as what is left.
        closing: it was promoted as the best of a bracket in which no trial had completed when all were drawn.
        state: with which it ended.
    """

    timestamp: str
    action: RungAction
    number: int
    bracket: int
    rung: int | None = None
    epoch: int | None = None
    value: Number | None = None
    rank: int | None = None
    of: int | None = None
    closing: bool = False
    state: TrialState | None = None


class RetentionRow(Document):
    """One line of retention.jsonl: an action on a checkpoint, the bytes that it now has or that were freed, and the
    reason.
    """

    timestamp: str
    action: RetentionAction
    checkpoint: str
    epoch: int
    step: int
    score: Number | None
    bytes: int
    reason: str


class BudgetEntry(Record):
    """A trial's reservation, and its size when it was last measured, in bytes."""

    reserved: int = 0
    bytes: int = 0


class BudgetLedger(Document):
    """budget.json: the use of the study's byte budget by trial_id. `austere` is true once the disk was low."""

    model_config = ConfigDict(frozen=False)

    max_total_size: int
    austere: bool = False
    entries: dict[str, BudgetEntry] = {}


class Shipped(Document):
    """shipped.json: what MLflow has confirmed of a trial. `bytes` is the journal's length up to the shipped rows.

    Attributes:
        tracking_uri: MLflow's address; a database in the experiments folder has a relative path: sqlite:///mlflow.db.
        report: whether MLflow has the trial's report; null in older files: then the report was shipped with the state.
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
    """manifest.json: identifies a checkpoint's trial, model and data, so that only a matching one is loaded."""

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
