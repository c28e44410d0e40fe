"""The documents of evaluations and study summaries, as pydantic models, and the JSON Schemas of all documents."""

from typing import Any, Literal

from redsm5.engine.documents import Document, Number, Record, SecondForm
from redsm5.engine.jsonio import dumps
from redsm5.engine.records import (
    BudgetLedger,
    Decision,
    Event,
    Manifest,
    MetricRow,
    RetentionRow,
    RungRow,
    Shipped,
    StudyIndex,
    StudyRecord,
    TrialRecord,
    TrialState,
)
from redsm5.engine.tables import left_text
from redsm5.engine.timeline import TimeLeft

CHOSEN_BY_VALIDATION = "Trials are chosen by validation; test scores are shown, never used to choose."


class CriterionMetrics(Record):
    """One symptom's metrics. Undefined metrics are null, and `undefined` gives the reason by field."""

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
    """The decision thresholds: for each symptom's probability, and for evidence.

    `weights` is the SHA-256 of the weights for which they were chosen.
    """

    criteria: dict[str, float]
    evidence_null_threshold: float
    min_span_score: float
    weights: str | None = None


class CalibrationBin(Record):
    """The posts whose probability is in a bin: their number, mean probability, and share with the symptom."""

    count: int
    mean_probability: float | None
    share_positive: float | None


class SymptomCalibration(Record):
    id: str
    brier: float | None
    ece: float | None
    bins: list[CalibrationBin]
    undefined: dict[str, str] = {}


class Calibration(Record):
    """Brier score and expected calibration error: means over the symptoms, and each one's; `bins` pool all pairs of
    post and symptom. See redsm5/evaluation/calibration.py.
    """

    brier_macro: float | None
    ece_macro: float | None
    bins: list[CalibrationBin]
    per_criterion: list[SymptomCalibration]
    undefined: dict[str, str] = {}


class SymptomDiscrimination(Record):
    id: str
    roc_auc: float | None
    mcc: float | None
    undefined: dict[str, str] = {}


class Discrimination(Record):
    """How well probabilities and decisions tell posts with a symptom from those without: ROC AUC and Matthews
    correlation, means over the symptoms that define them and each one's. See redsm5/evaluation/discrimination.py.
    """

    roc_auc_macro: float | None
    mcc_macro: float | None
    per_criterion: list[SymptomDiscrimination]
    undefined: dict[str, str] = {}


class SymptomRanking(Record):
    """`posts`: how many have an evidence sentence for the symptom."""

    id: str
    posts: int
    average_precision: float | None
    ndcg_at_10: float | None
    undefined: dict[str, str] = {}


class SentenceRanking(Record):
    """How high a post's evidence sentences rank among its sentences: means over the posts that have any for the
    symptom, and means of these over the symptoms. See redsm5/evaluation/ranking.py.
    """

    average_precision_macro: float | None
    ndcg_at_10_macro: float | None
    per_criterion: list[SymptomRanking]
    undefined: dict[str, str] = {}


class TrialThresholds(Document):
    """thresholds.json: the thresholds chosen on the validation split, by checkpoint (`memory` if none is written)."""

    trial_id: str
    scope: Literal["fixed", "global", "per_class"]
    metric: str
    checkpoints: dict[str, Thresholds]


class HardNegativeMetrics(Record):
    """On pairs that annotators checked and found absent: the shares for which the model predicts absent, and for which
    it chooses none of these sentences; null if there are no such pairs.
    """

    pairs: int
    criteria_specificity: float | None
    evidence_specificity: float | None


class ScoreSamples(Record):
    """The study's metric on some posts, and how far other posts could change it.

    Attributes:
        posts: the SHA-256 of the post_ids, so that only scores of the same posts are compared.
        value: the score. low, high: its 95 % interval, as in the report.
        samples: the score for each of the bootstrap's samples, rounded to 1e-5; null where a sample leaves it
            undefined. Samples of the same posts are of the same draws, and can be paired (redsm5/engine/noise.py).
    """

    metric: str
    posts: str
    value: float
    low: float
    high: float
    samples: list[float | None]


class PredictionsRecord(SecondForm):
    """predictions.json: the predictions of the trial's first best checkpoint for each post, for comparison on other
    machines.

    `probabilities` has a row for each post, with the nine symptoms in the order of `symptoms`. `validation` is the
    metric as the trial was chosen by, with the thresholds that training has; `tested` is it on the posts of `split`
    with the report's. They are null in files of older versions, for folds, and for a metric without samples (a loss).
    """

    trial_id: str
    checkpoint: str
    split: Literal["validation", "test"]
    symptoms: list[str]
    post_ids: list[str]
    probabilities: list[list[float]]
    validation: ScoreSamples | None = None
    tested: ScoreSamples | None = None


class EvaluatedCheckpoint(Record):
    """`path` is relative to the experiments folder; null if checkpoints were turned off."""

    checkpoint_id: str
    path: str | None
    epoch: int
    val_metric: Number | None
    co_best: bool
    test_metrics: TestMetrics


class EvaluationReport(SecondForm):
    """evaluation_report.json. `test_metrics` are the first best checkpoint's, on the split named in `split`.

    `confidence_intervals` are 95 % intervals by a bootstrap over posts, by the metric's dotted name, of a symptom
    `by_symptom.SLEEP_ISSUES.f1`; `pr_curves` are (recall, precision) points by symptom;
    `calibration`, `discrimination` and `sentence_ranking` are null in reports of older versions; `environment` is what
    the last bits of the results may depend on.
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
    calibration: Calibration | None = None
    discrimination: Discrimination | None = None
    sentence_ranking: SentenceRanking | None = None
    data_fingerprint: str
    data_counts: dict[str, int]
    environment: dict[str, str] = {}
    code_version: str
    seed: int


class SummaryTrial(Record):
    """A trial in its study's summary.

    Attributes:
        low, high: the 95 % interval of `value`, by a bootstrap over the validation posts.
        within_noise: whether that of the difference to the best trial holds 0. All three are null beyond the first
            200 trials, and where a trial left no samples (`PredictionsRecord`).
        seconds: from its first start to its end. bytes: its checkpoints on disk now.
    """

    trial_id: str
    number: int | None
    state: TrialState
    value: Number | None
    low: float | None = None
    high: float | None = None
    within_noise: bool | None = None
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
    """The best trial by validation.

    Attributes:
        low, high: as its row's. test, test_low, test_high: the study's metric on the test posts, and its interval.
        gap: whether `test` is outside of the interval of `value`, on its worse side: other posts do not explain it
            alone; a search that tries much finds what fits the validation posts.
    """

    trial_id: str
    number: int | None
    value: Number
    chosen_by: Literal["validation"] = "validation"
    low: float | None = None
    high: float | None = None
    test: float | None = None
    test_low: float | None = None
    test_high: float | None = None
    gap: bool | None = None
    test_metrics: TestMetrics | None
    report: str | None


class SummaryBaseline(Record):
    """What `just baseline` reached on the same posts and splits, by the study's metric.

    Attributes:
        value: on the validation posts. test, test_low, test_high: on the test posts, with the 95 % interval.
        difference, low, high: the best trial's test score minus the baseline's, and the interval of that, by a paired
            bootstrap over the test posts; null where either left no samples.
        beaten: whether that interval is above 0; false if it is below 0; null if it holds 0, or is unknown.
    """

    report: str
    value: Number | None
    test_f1_macro: float | None
    test: float | None
    test_low: float | None
    test_high: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    beaten: bool | None = None


class ParameterImportance(Record):
    """`share`: the share of the value's variance over `trials` that the parameter explains; null with a `reason`. See
    redsm5/evaluation/importance.py.
    """

    share: float | None
    trials: int
    conditional: bool
    reason: str | None = None


class RepeatSummary(Record):
    """A repeat of a configuration, with its own seed and its own training and validation splits."""

    trial_id: str
    repeat: int
    state: TrialState
    value: Number | None
    test_f1_macro: float | None
    report: str | None


class ConfirmedConfiguration(Record):
    """A configuration of the search that was trained again.

    Attributes:
        trial_id, number, value: of the search's trial, and its score there.
        mean, sd, low, high: of the scores of its repeats, and the 95 % interval of the mean by Student's t.
        shrinkage: by how much the score in the search is better than that mean.
        repeats: how many scores that are.
        test_f1_macro, test_low, test_high: the mean over these repeats on the test split, and its 95 % interval; shown,
            never used to choose.
        left_after: the round after which it left the race: it was behind or, if `failed`, its repeat has no score.
    """

    trial_id: str
    number: int | None
    value: Number
    mean: Number | None
    sd: Number | None
    low: Number | None
    high: Number | None
    shrinkage: Number | None
    repeats: int
    test_f1_macro: float | None
    test_low: float | None
    test_high: float | None
    left_after: int | None
    failed: bool
    winner: bool
    trials: list[RepeatSummary]


class ConfirmationSummary(Record):
    """The confirmation of the best configurations (redsm5/engine/study/confirming.py), as the search ranked them.

    Attributes:
        rounds: how many of the rounds, of which there are `repeats`, are done.
        winner: the trial_id of the search's trial whose configuration won; null before the last round is done.
    """

    top: int
    repeats: int
    rounds: int
    winner: str | None
    configurations: list[ConfirmedConfiguration]


class StorageSummary(Record):
    """Bytes of all checkpoints of a study: on disk `now`, the `highest` at any moment, all that was `written`, and the
    bytes if each had been kept complete. `budget` is their limit.
    """

    now: int
    highest: int
    written: int
    keep_all: int
    budget: int | None


class SecondsLeft(Record):
    """The time that a study still takes, in seconds: an estimate, and the range that holds it nine of ten times."""

    seconds: float
    low: float
    high: float

    def __str__(self) -> str:
        return left_text(TimeLeft(self.seconds, self.low, self.high, None))


class StudySummary(SecondForm):
    """summary.json. `trials` are the search's, by validation, best first; those that repeat one are in `confirmation`.
    Paths are relative to the experiments folder; `problems` names what could not be read.
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
    confirmation: ConfirmationSummary | None = None
    baseline: SummaryBaseline | None = None
    time_left: SecondsLeft | None = None

    @property
    def others(self) -> list[SummaryTrial]:
        """The trials but the best one."""
        return [row for row in self.trials if self.best is None or row.trial_id != self.best.trial_id]


# The documents with a file of their own, by the names of their schemas in redsm5/schemas/.
SCHEMAS: dict[str, type[Document]] = {
    "trial": TrialRecord,
    "study": StudyRecord,
    "index": StudyIndex,
    "event": Event,
    "metric": MetricRow,
    "decision": Decision,
    "rung": RungRow,
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
    return dumps(body, indent=True).decode() + "\n"
