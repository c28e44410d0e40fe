"""Decision thresholds for symptoms and evidence, and how they are chosen on the validation split.

A symptom is present if its probability reaches its threshold. A post has evidence for a symptom if the log-odds of
evidence against no evidence reach `evidence_null_threshold` (the threshold of SQuAD 2.0, Devlin et al. 2019, section
4.3); of its spans, those with a score of at least `min_span_score` count. Only posts of the validation split are passed
to `choose`.

Shapes: P posts, C = 9 symptoms.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from redsm5.data.posts import SYMPTOMS, Post, Span, labels_of
from redsm5.evaluation.bootstrap import (
    SAMPLES,
    bounds,
    confidence_intervals,
    criteria_samples,
    pr_curve,
    weightings,
)
from redsm5.evaluation.metrics import (
    CharSpan,
    Pair,
    PairScores,
    criteria_metrics,
    evidence_metrics,
    pair_scores,
    pooled,
)
from redsm5.evaluation.predict import Predictions
from redsm5.evaluation.ranking import ranked_pairs
from redsm5.reports import HardNegativeMetrics, ScoreSamples, TestMetrics, Thresholds

DEFAULT_PROBABILITY = 0.5
# Heads that score each span independently have the default 0.5; heads whose spans share one distribution, a lower one.
DEFAULT_SPAN_SCORE = {"bio_crf": 0.5, "sentence_reranker": 0.5}
SHARED_SPAN_SCORE = 0.2
SHRINKAGE = 10  # positives; see `_shrunk`
SPAN_SCORES = tuple(i / 20 for i in range(20))
ROUNDS = 2  # passes over all thresholds, which affect the metric jointly


def default_thresholds(evidence_head_type: str) -> Thresholds:
    """The thresholds before any have been chosen: during training, and with `train.thresholds=fixed`."""
    return Thresholds(
        criteria=dict.fromkeys(SYMPTOMS, DEFAULT_PROBABILITY),
        evidence_null_threshold=0.0,
        min_span_score=DEFAULT_SPAN_SCORE.get(evidence_head_type, SHARED_SPAN_SCORE),
    )


# ---------------------------------------------------------------------------------------------------------------------
# apply


def score(predictions: Predictions, posts: Sequence[Post], thresholds: Thresholds) -> TestMetrics:
    """Both tasks' metrics for these predictions."""
    criteria = criteria_metrics(predictions.probabilities_P9, labels_of(posts), vector(thresholds), SYMPTOMS)
    gold = gold_spans(posts)
    chosen = chosen_spans(predictions, thresholds)
    evidence = evidence_metrics({pair: chosen[pair] for pair in gold}, gold, [post.text for post in posts])
    return TestMetrics(criteria_matching=criteria, evidence_binding=evidence)


def chosen_spans(predictions: Predictions, thresholds: Thresholds) -> dict[Pair, list[CharSpan]]:
    """The spans that pass the thresholds, for each (post, symptom)."""
    return {
        pair: (
            [(s.start, s.end) for s in spans if s.score >= thresholds.min_span_score]
            if predictions.margins_P9[pair] >= thresholds.evidence_null_threshold
            else []
        )
        for pair, spans in predictions.spans.items()
    }


def gold_spans(posts: Sequence[Post]) -> dict[Pair, list[CharSpan]]:
    """The annotated evidence of each (post, symptom). A pair is left out if its symptom is present but its sentences
    were not found in the post, since its evidence is unknown.
    """
    gold: dict[Pair, list[CharSpan]] = {}
    for p, post in enumerate(posts):
        for symptom in range(len(SYMPTOMS)):
            spans = [(s.start, s.end) for s in post.evidence if s.symptom == symptom]
            if spans or not post.labels[symptom]:
                gold[p, symptom] = spans
    return gold


def hard_negative_metrics(
    predictions: Predictions, posts: Sequence[Post], thresholds: Thresholds
) -> HardNegativeMetrics:
    """The model's scores on hard negatives: annotators checked a sentence and found the symptom absent (status 0).

    The pairs are a post and a symptom that it does not show, with at least one such sentence. criteria_specificity is
    the share for which the model predicts absent, evidence_specificity the share for which it chooses none of these
    sentences.
    """
    pairs = {
        (p, span.symptom) for p, post in enumerate(posts) for span in post.negatives if not post.labels[span.symptom]
    }
    chosen = chosen_spans(predictions, thresholds)
    limits = vector(thresholds)
    absent, passed_over = [], []
    for p, symptom in sorted(pairs):
        absent.append(predictions.probabilities_P9[p, symptom] < limits[symptom])
        negatives = [span for span in posts[p].negatives if span.symptom == symptom]
        passed_over.append(not any(_meet(span, other) for span in negatives for other in chosen[p, symptom]))
    return HardNegativeMetrics(
        pairs=len(pairs),
        criteria_specificity=float(np.mean(absent)) if pairs else None,
        evidence_specificity=float(np.mean(passed_over)) if pairs else None,
    )


def intervals(predictions: Predictions, posts: Sequence[Post], thresholds: Thresholds) -> dict[str, list[float]]:
    """95 % intervals of both tasks' metrics, by their dotted names in the report."""
    pairs = _pairs(predictions, posts, thresholds)
    ranked = None if predictions.sentences is None else ranked_pairs(predictions.sentences, posts)
    split = (predictions.probabilities_P9, labels_of(posts), vector(thresholds))
    return confidence_intervals(*split, pairs, ranked, SYMPTOMS)


def score_samples(
    metric: str, predictions: Predictions, posts: Sequence[Post], thresholds: Thresholds
) -> ScoreSamples | None:
    """The score of these posts by a metric that a study may optimize, and its bootstrap; None for a loss, and where it
    is undefined.
    """
    weights_RP = weightings(len(posts), SAMPLES)
    name = metric.removeprefix("val_")
    if name.startswith("evidence_"):
        values_R = pooled(_pairs(predictions, posts, thresholds), weights_RP).get(name.removeprefix("evidence_"))
    else:
        symptoms = predictions.probabilities_P9, labels_of(posts), vector(thresholds)
        values_R = criteria_samples(*symptoms, weights_RP).get(name)
    if values_R is None or name not in (found := bounds({name: values_R}, len(posts))):
        return None
    low, high = found[name]
    return ScoreSamples(
        metric=metric,
        posts=hashlib.sha256(json.dumps([post.post_id for post in posts]).encode()).hexdigest(),
        value=float(values_R[0]),
        low=low,
        high=high,
        samples=[round(float(value), 5) if np.isfinite(value) else None for value in values_R[1:]],
    )


def _pairs(predictions: Predictions, posts: Sequence[Post], thresholds: Thresholds) -> PairScores:
    gold = gold_spans(posts)
    chosen = chosen_spans(predictions, thresholds)
    return pair_scores({pair: chosen[pair] for pair in gold}, gold, [post.text for post in posts])


def pr_curves(predictions: Predictions, posts: Sequence[Post]) -> dict[str, list[list[float]]]:
    """Each symptom's precision over recall; a symptom without positives has no points."""
    columns = zip(SYMPTOMS, predictions.probabilities_P9.T, labels_of(posts).T, strict=True)
    return {name: pr_curve(probabilities_P, labels_P) for name, probabilities_P, labels_P in columns}


def validation_metrics(metrics: TestMetrics) -> dict[str, float]:
    """The metrics of an epoch by their names in the journal; undefined ones are NaN."""
    return {name: float("nan") if value is None else value for name, value in _named("val", metrics).items()}


def report_metrics(metrics: TestMetrics) -> dict[str, float]:
    """The report's metrics by their names in the journal, so that MLflow has them; undefined ones are left out."""
    return {name: value for name, value in _named("test", metrics).items() if value is not None}


def _named(split: str, metrics: TestMetrics) -> dict[str, float | None]:
    criteria = metrics.criteria_matching.model_dump(exclude={"per_criterion", "undefined"})
    evidence = metrics.evidence_binding.model_dump(exclude={"undefined"})
    return {f"{split}_{k}": v for k, v in criteria.items()} | {f"{split}_evidence_{k}": v for k, v in evidence.items()}


# ---------------------------------------------------------------------------------------------------------------------
# choose


def choose(
    predictions: Predictions,
    posts: Sequence[Post],
    *,
    scope: Literal["fixed", "global", "per_class"],
    metric: str,
    default: Thresholds,
) -> Thresholds:
    """The best thresholds for these posts, which are the validation split's.

    The symptoms' thresholds maximize the trial's metric, or macro F1 if that metric does not depend on them
    (val_macro_pr_auc, the evidence metrics); one each is then moved towards the one for all, the more so the fewer
    posts show the symptom. The evidence thresholds maximize the trial's metric if it is an evidence metric, else the
    mean of token F1 over pairs with evidence and null-span accuracy over those without, to balance the two.
    Of equally good thresholds the one nearest to the default is taken. The metrics of these posts with these thresholds
    are optimistic.

    Args:
        scope: one threshold for all symptoms (`global`), one each (`per_class`), or the defaults (`fixed`).
        metric: the trial's metric, by its name in the journal.
        default: the thresholds to use where none is chosen.
    """
    if scope == "fixed" or not posts:
        return default
    truth_PC, probabilities_PC = labels_of(posts).astype(bool), predictions.probabilities_P9
    of_criteria = _criteria_objective(metric.removeprefix("val_"), truth_PC)
    for_all = _best(
        _below(probabilities_PC.ravel(), truth_PC.ravel()),
        lambda t: of_criteria(probabilities_PC >= t),
        DEFAULT_PROBABILITY,
    )
    limits_C = np.full(len(SYMPTOMS), for_all)
    if scope == "per_class":
        limits_C = _shrunk(_per_class(probabilities_PC, truth_PC, of_criteria), for_all, truth_PC.sum(axis=0))
    null_threshold, min_score = _evidence_thresholds(predictions, posts, metric, default)
    return Thresholds(
        criteria={name: float(limit) for name, limit in zip(SYMPTOMS, limits_C.clip(0), strict=True)},
        evidence_null_threshold=null_threshold,
        min_span_score=min_score,
    )


def _per_class(
    probabilities_PC: NDArray[np.float64],
    truth_PC: NDArray[np.bool_],
    of_criteria: Callable[[NDArray[np.bool_]], float],
) -> NDArray[np.float64]:
    """Optimize one symptom's threshold after the other, starting from the thresholds with the best F1 of
    each symptom.
    """
    limits_C = np.full(len(SYMPTOMS), DEFAULT_PROBABILITY)
    with_positives = [c for c in range(len(SYMPTOMS)) if truth_PC[:, c].any()]
    for c in with_positives:
        column, truth = probabilities_PC[:, c], truth_PC[:, c]
        limits_C[c] = _best(_below(column, truth), lambda t, x=column, y=truth: _f1(x >= t, y), DEFAULT_PROBABILITY)  # type: ignore[misc]
    for _ in range(ROUNDS):
        for c in with_positives:

            def objective(limit: float, c: int = c) -> float:
                trial_C = limits_C.copy()
                trial_C[c] = limit
                return of_criteria(probabilities_PC >= trial_C)

            current = limits_C[c]
            best = _best(_below(probabilities_PC[:, c], truth_PC[:, c]), objective, DEFAULT_PROBABILITY)
            limits_C[c] = best if objective(best) > objective(current) else current
    return limits_C


def _shrunk(limits_C: NDArray[np.float64], for_all: float, positives_C: NDArray[np.int64]) -> NDArray[np.float64]:
    """Thresholds between a symptom's own and the one for all, on the scale of log-odds: halfway at SHRINKAGE positives.

    A threshold that few positives choose fits these few. In simulated splits of 222 posts with ReDSM5's shares of
    symptoms, macro F1 with own thresholds is 0.579 on these posts and 0.503 on others, with shrunk ones 0.535 and
    0.509, and with one for all 0.514 and 0.498; 5 or 20 in the place of 10 make no difference. A threshold above 1,
    which no probability reaches, stays.
    """
    own_C, common = (logit(np.clip(limit, 1e-6, 1 - 1e-6)) for limit in (limits_C, for_all))
    weight_C = positives_C / (positives_C + SHRINKAGE)
    return np.where(limits_C > 1, limits_C, expit(weight_C * own_C + (1 - weight_C) * common))


def _evidence_thresholds(
    predictions: Predictions, posts: Sequence[Post], metric: str, default: Thresholds
) -> tuple[float, float]:
    """Optimize the null threshold and the least span score in turn, ROUNDS times."""
    gold = gold_spans(posts)
    texts = [post.text for post in posts]
    margins = np.array([predictions.margins_P9[pair] for pair in gold])
    has_gold = np.array([bool(spans) for spans in gold.values()], dtype=bool)
    nowhere = pair_scores(dict.fromkeys(gold, ()), gold, texts)

    @cache
    def everywhere(min_score: float) -> PairScores:
        spans = {pair: [(s.start, s.end) for s in predictions.spans[pair] if s.score >= min_score] for pair in gold}
        return pair_scores(spans, gold, texts)

    def objective(null_threshold: float, min_score: float) -> float:
        """The pairs are scored once per `min_score`; the null threshold only selects between these scores and those for
        no prediction.
        """
        says = margins >= null_threshold
        return _evidence_objective(metric, everywhere(min_score).where(says[has_gold], says[~has_gold], nowhere))

    null_threshold, min_score = default.evidence_null_threshold, default.min_span_score
    for _ in range(ROUNDS):
        null_threshold = _best(
            _below(margins, has_gold), lambda t, m=min_score: objective(t, m), default.evidence_null_threshold  # type: ignore[misc]
        )
        min_score = _best(SPAN_SCORES, lambda m, t=null_threshold: objective(t, m), default.min_span_score)  # type: ignore[misc]
    return null_threshold, min_score


def _evidence_objective(metric: str, pairs: PairScores) -> float:
    scores = {name: value if value is None else float(value[0]) for name, value in pooled(pairs).items()}
    name = metric.removeprefix("val_evidence_")
    if name != metric:
        return scores[name] or 0.0
    parts = [value for value in (scores["f1"], scores["null_span_accuracy"]) if value is not None]
    return float(np.mean(parts)) if parts else 0.0


def _criteria_objective(metric: str, truth_PC: NDArray[np.bool_]) -> Callable[[NDArray[np.bool_]], float]:
    """A criteria metric as a function of the decisions; 0 if it is undefined."""
    positive = truth_PC.any(axis=0)
    support_C = truth_PC.sum(axis=0)[positive]

    def objective(predicted_PC: NDArray[np.bool_]) -> float:
        if metric == "accuracy":
            return float((predicted_PC == truth_PC).all(axis=1).mean())
        if metric == "f1_micro":
            return _f1(predicted_PC.ravel(), truth_PC.ravel())
        if not positive.any():
            return 0.0
        tp_C = (predicted_PC & truth_PC).sum(axis=0)[positive]
        said_C = predicted_PC.sum(axis=0)[positive]
        if metric == "precision_macro":
            return float(np.mean(tp_C / np.maximum(said_C, 1)))
        if metric == "recall_macro":
            return float(np.mean(tp_C / support_C))
        f1_C = 2 * tp_C / (said_C + support_C)
        return float(np.average(f1_C, weights=support_C if metric == "f1_weighted" else None))

    return objective


def _f1(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    total = int(predicted.sum() + truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 0.0


def _below(values: NDArray[np.float64], positive: NDArray[np.bool_]) -> Sequence[float]:
    """Candidate thresholds: between each positive's value and the next lower one, and one above all.

    No other is better: a threshold that is moved down to the next candidate takes in a positive in the end; moved
    further, short of the one after, it takes in nothing but negatives.
    """
    distinct = np.unique(values)
    if len(distinct) == 0:
        return []
    places = np.searchsorted(distinct, np.unique(values[positive]))
    lower = np.where(places > 0, distinct[places - 1], distinct[0] - 2e-6)
    return [*((lower + distinct[places]) / 2).tolist(), float(distinct[-1]) + 1e-6]


def _best(candidates: Sequence[float], objective: Callable[[float], float], default: float) -> float:
    """The candidate with the highest objective; of equals, the one nearest to the default, which is also
    a candidate.
    """
    return max([default, *candidates], key=lambda t: (objective(t), -abs(t - default)))


def vector(thresholds: Thresholds) -> NDArray[np.float64]:
    """The probability at which each symptom is present, in the order of SYMPTOMS."""
    return np.array([thresholds.criteria[name] for name in SYMPTOMS])


def _meet(a: Span, b: CharSpan) -> bool:
    return a.start < b[1] and b[0] < a.end
