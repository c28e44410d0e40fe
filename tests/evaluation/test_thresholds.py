"""Thresholds are the best ones that validation knows, and decide what counts as present and as evidence."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from redsm5.data.posts import SYMPTOMS, Post, Span
from redsm5.evaluation import thresholds
from redsm5.evaluation.predict import Predictions, ScoredSpan, without_overlaps
from redsm5.evaluation.thresholds import (
    choose,
    chosen_spans,
    default_thresholds,
    gold_spans,
    hard_negative_metrics,
    score,
)

TEXT = "I am tired. I am sad. It is late."
METRICS = {
    "val_f1_macro": lambda truth, said: f1_score(truth, said, average="macro"),
    "val_f1_micro": lambda truth, said: f1_score(truth, said, average="micro"),
    "val_f1_weighted": lambda truth, said: f1_score(truth, said, average="weighted"),
    "val_accuracy": accuracy_score,
    "val_recall_macro": lambda truth, said: recall_score(truth, said, average="macro"),
    "val_precision_macro": lambda truth, said: precision_score(truth, said, average="macro", zero_division=0),
}


def posts_with(labels_PC, evidence=(), negatives=()):
    return [
        Post(f"p{p}", TEXT, tuple(map(int, labels)), tuple(evidence), tuple(negatives))
        for p, labels in enumerate(labels_PC)
    ]


def predictions(probabilities_P9, spans=None, margins_P9=None):
    shape = probabilities_P9.shape
    everything = {(p, c): [] for p in range(shape[0]) for c in range(shape[1])}
    return Predictions(
        0.0, probabilities_P9, np.zeros(shape) if margins_P9 is None else margins_P9, everything | (spans or {})
    )


@pytest.fixture(scope="module")
def noisy():
    """Probabilities that know the labels, but whose right threshold is another one for each symptom."""
    rng = np.random.default_rng(3)
    labels_P9 = (rng.random((80, 9)) < 0.3).astype(int)
    centres = np.linspace(0.1, 0.8, 9)
    probabilities_P9 = (centres + 0.15 * (labels_P9 - 0.5) + rng.normal(0, 0.07, (80, 9))).clip(0.001, 0.999)
    return labels_P9, probabilities_P9


def chosen_by(noisy, metric, scope):
    labels_P9, probabilities_P9 = noisy
    limits = choose(
        predictions(probabilities_P9),
        (posts_with(labels_P9)),
        scope=scope,
        metric=metric,
        default=default_thresholds("start_end_linear"),
    )
    return np.array([limits.criteria[name] for name in SYMPTOMS])


@pytest.mark.parametrize("metric", METRICS)
def test_no_single_change_of_a_threshold_does_better_by_the_trials_metric(noisy, metric, monkeypatch):
    monkeypatch.setattr(thresholds, "SHRINKAGE", 0)
    labels_P9, probabilities_P9 = noisy
    limits_9 = chosen_by(noisy, metric, "per_class")
    value = METRICS[metric](labels_P9, probabilities_P9 >= limits_9)
    assert value > METRICS[metric](labels_P9, probabilities_P9 >= 0.5)
    if metric in ("val_f1_macro", "val_f1_weighted"):  # these fall apart into symptoms: the best there is
        for c in range(9):
            for limit in np.unique(probabilities_P9[:, c]):
                other = limits_9.copy()
                other[c] = limit
                assert METRICS[metric](labels_P9, probabilities_P9 >= other) <= value + 1e-12


def test_the_global_threshold_is_the_best_of_all_single_ones(noisy):
    labels_P9, probabilities_P9 = noisy
    limits_9 = chosen_by(noisy, "val_f1_macro", "global")
    assert len(set(limits_9)) == 1
    value = METRICS["val_f1_macro"](labels_P9, probabilities_P9 >= limits_9)
    best = max(METRICS["val_f1_macro"](labels_P9, probabilities_P9 >= t) for t in np.unique(probabilities_P9))
    assert value == pytest.approx(best)
    assert value > METRICS["val_f1_macro"](labels_P9, probabilities_P9 >= 0.5)


def test_fixed_thresholds_are_the_default(noisy):
    assert set(chosen_by(noisy, "val_f1_macro", "fixed")) == {0.5}


def test_a_threshold_is_the_nearer_to_that_for_all_the_fewer_positives_chose_it(noisy, monkeypatch):
    labels_P9, probabilities_P9 = noisy
    few = labels_P9.copy()
    few[:, 4] = 0
    few[np.flatnonzero(labels_P9[:, 5])[2:], 5] = 0
    for_all = chosen_by((few, probabilities_P9), "val_f1_macro", "global")[0]
    shrunk_9 = chosen_by((few, probabilities_P9), "val_f1_macro", "per_class")
    monkeypatch.setattr(thresholds, "SHRINKAGE", 1e-9)
    own_9 = chosen_by((few, probabilities_P9), "val_f1_macro", "per_class")
    assert shrunk_9[4] == pytest.approx(for_all), "without positives it is the one for all"
    for c in {*range(9)} - {4}:
        assert min(own_9[c], for_all) <= shrunk_9[c] <= max(own_9[c], for_all)

    def moved(c):
        odds = [np.log(limit / (1 - limit)) for limit in (own_9[c], shrunk_9[c], for_all)]
        return (odds[1] - odds[0]) / (odds[2] - odds[0])

    assert moved(5) == pytest.approx(10 / 12)
    assert moved(0) == pytest.approx(10 / (10 + labels_P9[:, 0].sum()))


def test_shrunk_thresholds_do_better_on_other_posts(monkeypatch):
    """Than own ones and than one for all; and their score on the posts that chose them is less optimistic."""
    rng = np.random.default_rng(1)
    shares = np.array([0.22, 0.18, 0.10, 0.11, 0.08, 0.06, 0.16, 0.05, 0.025])
    apart = np.linspace(2.2, 1.2, 9)

    def drawn(posts):
        labels_P9 = (rng.random((posts, 9)) < shares).astype(int)
        scores_P9 = labels_P9 * apart + rng.normal(size=(posts, 9))
        odds_P9 = apart * scores_P9 - apart**2 / 2 + np.log(shares / (1 - shares))  # calibrated
        return labels_P9, 1 / (1 + np.exp(-odds_P9))

    labels_P9, probabilities_P9 = drawn(20_000)
    found = {name: [] for name in ("own", "shrunk", "global")}
    for _ in range(30):
        split = drawn(222)
        for name in found:
            monkeypatch.setattr(thresholds, "SHRINKAGE", 1e-9 if name == "own" else 10)
            limits_9 = chosen_by(split, "val_f1_macro", "global" if name == "global" else "per_class")
            here, elsewhere = (
                METRICS["val_f1_macro"](y, p >= limits_9) for y, p in (split, (labels_P9, probabilities_P9))
            )
            found[name].append((here - elsewhere, elsewhere))
    optimism, elsewhere = ({name: np.mean(values, axis=0)[i] for name, values in found.items()} for i in (0, 1))
    assert elsewhere["shrunk"] > max(elsewhere["own"], elsewhere["global"])
    assert optimism["shrunk"] < 0.6 * optimism["own"]


def test_the_top_of_the_ranking_is_looked_at_as_closely_as_the_rest(monkeypatch):
    """Three of a thousand posts show the symptom, and only they have more than 0.99."""
    monkeypatch.setattr(thresholds, "SHRINKAGE", 0)
    labels_P9, probabilities_P9 = np.ones((1000, 9), dtype=int), np.tile(np.linspace(0, 1, 1000)[:, None], 9)
    labels_P9[:-3, 8] = 0
    limits_9 = chosen_by((labels_P9, probabilities_P9), "val_f1_macro", "per_class")
    assert f1_score(labels_P9[:, 8], probabilities_P9[:, 8] >= limits_9[8]) == 1


def test_where_nothing_should_be_present_saturated_probabilities_are_not():
    labels_P9, probabilities_P9 = np.zeros((20, 9), dtype=int), np.ones((20, 9))
    labels_P9[0] = 1
    limits_9 = chosen_by((labels_P9, probabilities_P9), "val_accuracy", "global")
    assert not (probabilities_P9 >= limits_9).any()


def test_a_metric_that_thresholds_do_not_change_falls_back_to_macro_f1(noisy):
    expected = chosen_by(noisy, "val_f1_macro", "per_class")
    assert (chosen_by(noisy, "val_macro_pr_auc", "per_class") == expected).all()
    assert (chosen_by(noisy, "val_evidence_f1", "per_class") == expected).all()


def test_evidence_counts_from_both_thresholds_on():
    spans = {(0, 3): [ScoredSpan(0, 11, 0.9), ScoredSpan(12, 21, 0.3), ScoredSpan(22, 33, 0.1)]}
    margins = np.full((1, 9), -1.0)
    margins[0, 3] = 2.0
    said = predictions(np.zeros((1, 9)), spans, margins)
    limits = default_thresholds("start_end_linear")
    assert chosen_spans(said, limits)[0, 3] == [(0, 11), (12, 21)]
    assert chosen_spans(said, default_thresholds("bio_crf"))[0, 3] == [(0, 11)]
    stricter = limits.model_copy(update={"evidence_null_threshold": 2.1})
    assert chosen_spans(said, stricter)[0, 3] == []


def test_evidence_thresholds_part_what_validation_shows_apart():
    """Pairs with evidence have margins above 3 and their right span above 0.6; all others lie below."""
    rng = np.random.default_rng(1)
    labels_P9 = (rng.random((30, 9)) < 0.4).astype(int)
    posts = [
        Post(f"p{p}", TEXT, tuple(map(int, row)), tuple(Span(c, 0, 11) for c in range(9) if row[c]), ())
        for p, row in enumerate(labels_P9)
    ]
    margins = np.where(labels_P9 == 1, rng.uniform(3.2, 6, (30, 9)), rng.uniform(0, 2.8, (30, 9)))
    spans = {
        (p, c): [ScoredSpan(0, 11, rng.uniform(0.65, 0.9)), ScoredSpan(12, 21, rng.uniform(0.3, 0.55))]
        for p in range(30)
        for c in range(9)
    }
    said = predictions(labels_P9.astype(float), spans, margins)
    data = posts
    before = score(said, data, default_thresholds("start_end_linear")).evidence_binding
    limits = choose(
        said, data, scope="per_class", metric="val_f1_macro", default=default_thresholds("start_end_linear")
    )
    after = score(said, data, limits).evidence_binding
    assert (before.null_span_accuracy, before.exact_match) == (0.0, 0.0)
    assert (after.null_span_accuracy, after.exact_match) == (1.0, 1.0)
    assert 2.8 <= limits.evidence_null_threshold <= 3.2
    assert 0.55 <= limits.min_span_score <= 0.65


def test_an_evidence_metric_chooses_the_evidence_thresholds_itself():
    labels_P9 = np.zeros((4, 9), dtype=int)
    labels_P9[:2, 0] = 1
    posts = [
        Post(f"p{p}", TEXT, tuple(map(int, row)), (Span(0, 0, 11),) if row[0] else (), ())
        for p, row in enumerate(labels_P9)
    ]
    margins = np.full((4, 9), -5.0)
    spans = {(p, c): [ScoredSpan(0, 11, 0.9)] for p in range(4) for c in range(9)}
    said, data = predictions(labels_P9.astype(float), spans, margins), (posts)
    words = {"scope": "per_class", "default": default_thresholds("start_end_linear")}
    by_f1 = score(said, data, choose(said, data, metric="val_evidence_f1", **words)).evidence_binding
    by_nulls = score(said, data, choose(said, data, metric="val_evidence_null_span_accuracy", **words)).evidence_binding
    assert (by_f1.f1, by_f1.null_span_accuracy) == (1.0, 0.0)
    assert (by_nulls.f1, by_nulls.null_span_accuracy) == (0.0, 1.0)


@pytest.mark.parametrize("metric", ["f1_macro", "evidence_f1", "evidence_char_f1", "evidence_exact_match"])
def test_no_other_score_of_a_span_does_better_beside_the_chosen_null_threshold(metric):
    rng = np.random.default_rng(5)
    labels_P9 = (rng.random((25, 9)) < 0.4).astype(int)
    posts = [
        Post(f"p{p}", TEXT, tuple(map(int, row)), tuple(Span(c, 0, 11) for c in range(9) if row[c]), ())
        for p, row in enumerate(labels_P9)
    ]
    spans = {
        (p, c): [ScoredSpan(0, int(rng.integers(5, 12)), rng.random()), ScoredSpan(12, 21, rng.random() / 2)]
        for p in range(25)
        for c in range(9)
    }
    said = predictions(labels_P9.astype(float), spans, labels_P9 + rng.normal(0, 1, (25, 9)))
    limits = choose(said, posts, scope="per_class", metric=f"val_{metric}", default=default_thresholds("biaffine"))

    def value(min_score):
        found = score(said, posts, limits.model_copy(update={"min_span_score": min_score})).evidence_binding
        if metric == "f1_macro":
            return (found.f1 + found.null_span_accuracy) / 2
        return getattr(found, metric.removeprefix("evidence_"))

    values = [value(i / 20) for i in range(20)]
    assert value(limits.min_span_score) == pytest.approx(max(values), abs=1e-12)
    assert len(set(values)) > 1


def test_a_pair_whose_sentences_were_not_found_is_left_out():
    post = Post("p", TEXT, (0, 0, 0, 1, 1, 0, 0, 0, 0), (Span(3, 0, 11),), ())
    gold = gold_spans([post])
    assert gold[0, 3] == [(0, 11)]
    assert (0, 4) not in gold
    assert len(gold) == 8


def test_hard_negatives_are_reported_apart():
    negatives = (Span(0, 0, 11), Span(2, 12, 21), Span(3, 12, 21))
    posts = posts_with([[1, 0, 0, 0, 0, 0, 0, 0, 0]], negatives=negatives)
    probabilities = np.full((1, 9), 0.1)
    probabilities[0, 2] = 0.9
    spans = {(0, 2): [ScoredSpan(0, 5, 0.9)], (0, 3): [ScoredSpan(15, 30, 0.9)]}
    got = hard_negative_metrics(predictions(probabilities, spans), (posts), default_thresholds("start_end_linear"))
    assert got.pairs == 2, "symptom 0 is present: its negative sentence says nothing about the post"
    assert got.criteria_specificity == 0.5  # symptom 2 is said to be present
    assert got.evidence_specificity == 0.5  # of symptom 3 the negative sentence is chosen, of 2 another one
    none = hard_negative_metrics(predictions(probabilities), (posts_with([[0] * 9])), default_thresholds("bio_crf"))
    assert (none.pairs, none.criteria_specificity, none.evidence_specificity) == (0, None, None)


def test_overlapping_windows_agree_on_the_better_span():
    spans = [ScoredSpan(0, 10, 0.4), ScoredSpan(5, 12, 0.6), ScoredSpan(5, 12, 0.5), ScoredSpan(12, 20, 0.1)]
    kept = without_overlaps(spans)
    assert kept == [ScoredSpan(5, 12, 0.6), ScoredSpan(12, 20, 0.1)]
    assert all(a.score >= b.score for a, b in pairwise(kept))
