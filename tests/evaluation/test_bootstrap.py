"""The intervals resample posts, and a sample's metrics are those that a split of just these posts would have."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from redsm5.data.posts import SYMPTOMS
from redsm5.evaluation.bootstrap import (
    CURVE_POINTS,
    SAMPLES,
    bounds,
    confidence_intervals,
    criteria_samples,
    pr_curve,
    weightings,
)
from redsm5.evaluation.calibration import brier_samples
from redsm5.evaluation.metrics import PairScores, criteria_metrics, evidence_metrics, pair_scores, pooled
from redsm5.evaluation.ranking import RankedPairs, ranking_samples

LIMITS = np.full(9, 0.5)


def random_split(seed, posts=12):
    rng = np.random.default_rng(seed)
    labels_PC = (rng.random((posts, 9)) < 0.25).astype(np.int64)
    probabilities_PC = rng.random((posts, 9)).round(1)  # rounded: ties
    return probabilities_PC, labels_PC, rng


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_a_weighting_is_the_split_with_its_posts_repeated(seed):
    probabilities_PC, labels_PC, rng = random_split(seed)
    draw = rng.integers(12, size=12)
    weights_RP = np.bincount(draw, minlength=12)[None].astype(float)
    expected = criteria_metrics(probabilities_PC[draw], labels_PC[draw], LIMITS, SYMPTOMS)
    for name, (value,) in criteria_samples(probabilities_PC, labels_PC, LIMITS, weights_RP).items():
        wanted = getattr(expected, name)
        assert np.isnan(value) if wanted is None else value == pytest.approx(wanted), name


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_evidence_of_a_weighting_is_that_of_its_posts(seed):
    rng = np.random.default_rng(seed)
    text = "I am so tired and I cannot sleep at all"

    def spans(most):
        return [tuple(sorted(rng.choice(len(text), 2, replace=False).tolist())) for _ in range(rng.integers(most + 1))]

    gold = {(p, c): [s for s in spans(2) if text[slice(*s)].strip()] for p in range(6) for c in range(3)}
    said = {pair: spans(2) for pair in gold}
    draw = rng.integers(6, size=6)
    again = {(i, c): (said[p, c], gold[p, c]) for i, p in enumerate(draw.tolist()) for c in range(3)}
    expected = evidence_metrics({k: v[0] for k, v in again.items()}, {k: v[1] for k, v in again.items()}, [text] * 6)
    weights_RP = np.bincount(draw, minlength=6)[None].astype(float)
    for name, value in pooled(pair_scores(said, gold, [text] * 6), weights_RP).items():
        wanted = getattr(expected, name)
        if value is None or np.isnan(value[0]):
            assert wanted is None, name
        else:
            assert value[0] == pytest.approx(wanted), name


def test_intervals_hold_the_figure_and_narrow_with_more_posts():
    widths = []
    for posts in (40, 640):
        probabilities_PC, labels_PC, _ = random_split(5, posts)
        pairs = pair_scores({(0, 0): []}, {(0, 0): []}, ["x"] * posts)
        found = confidence_intervals(probabilities_PC, labels_PC, LIMITS, pairs)
        figures = criteria_metrics(probabilities_PC, labels_PC, LIMITS, SYMPTOMS)
        for name in ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro"):
            low, high = found[f"criteria_matching.{name}"]
            assert low <= getattr(figures, name) <= high, name
        assert "evidence_binding.f1" not in found, "no pair has evidence"
        low, high = found["criteria_matching.f1_micro"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 2.5  # the square root of 16 is 4


def test_intervals_are_the_same_each_time_and_a_constant_has_none_to_speak_of():
    probabilities_PC, labels_PC, _ = random_split(1)
    pairs = pair_scores({(0, 0): []}, {(0, 0): []}, ["x"] * 12)
    words = (probabilities_PC, labels_PC, LIMITS, pairs)
    assert confidence_intervals(*words) == confidence_intervals(*words)
    perfect = confidence_intervals(labels_PC.astype(float), labels_PC, LIMITS, pairs)
    assert perfect["criteria_matching.f1_micro"] == [1.0, 1.0]
    assert confidence_intervals(np.zeros((0, 9)), np.zeros((0, 9), dtype=np.int64), LIMITS, pairs) == {}


def test_the_coverage_of_the_intervals_is_about_what_they_say():
    """Of splits drawn from one population, nearly all intervals hold the population's figure."""
    probabilities_PC, labels_PC, rng = random_split(9, 4000)
    truth = criteria_metrics(probabilities_PC, labels_PC, LIMITS, SYMPTOMS).f1_micro
    pairs = pair_scores({}, {}, [])
    held = 0
    for _ in range(20):
        draw = rng.choice(4000, 80, replace=False)
        low, high = confidence_intervals(probabilities_PC[draw], labels_PC[draw], LIMITS, pairs)[
            "criteria_matching.f1_micro"
        ]
        held += low <= truth <= high
    assert held >= 16


SHARES = np.array([0.22, 0.18, 0.10, 0.11, 0.08, 0.06, 0.16, 0.05, 0.025])  # of posts with each symptom, as in ReDSM5


def drawn(rng, posts):
    """Probabilities and labels of posts, of a model that is good at frequent symptoms and poor at rare ones."""
    mood_P1 = rng.normal(size=(posts, 1))
    shares_PC = 1 / (1 + np.exp(-(np.log(SHARES / (1 - SHARES)) + 0.4 * mood_P1)))
    labels_PC = (rng.random((posts, 9)) < shares_PC).astype(np.int64)
    scores_PC = labels_PC * np.linspace(2.2, 1.2, 9) + rng.normal(size=(posts, 9)) - 1.2
    return 1 / (1 + np.exp(-1.5 * scores_PC)), labels_PC


def drawn_pairs(rng, posts):
    """Pairs with and without evidence, of posts that are more or less easy."""
    posts_N, ease_N = np.repeat(np.arange(posts), 9), np.repeat(rng.beta(2, 2, size=posts), 9)
    gold_N = rng.random(9 * posts) < 0.1
    G, ease_G = gold_N.sum(), ease_N[gold_N]
    exact_G = rng.random(G) < 0.5 * ease_G
    f1_G = np.where(exact_G, 1.0, rng.beta(1.5, 1.5, G) * (rng.random(G) < 0.45))
    chars_G = rng.integers(20, 160, G)
    said_G = np.where(exact_G, chars_G, rng.integers(20, 160, G) * (f1_G > 0))
    return PairScores(
        posts_N[gold_N],
        exact_G.astype(float),
        f1_G,
        np.stack([f1_G * np.minimum(chars_G, said_G), said_G, chars_G], axis=1),
        posts_N[~gold_N],
        (rng.random((~gold_N).sum()) < 0.7 + 0.28 * ease_N[~gold_N]).astype(float),
    )


def drawn_ranking(rng, posts):
    """Pairs whose evidence sentence is at a rank that is the lower the harder the post and the rarer the symptom."""
    posts_Q, symptoms_Q = np.nonzero(rng.random((posts, 9)) < SHARES)
    ease_Q = rng.beta(2, 2, size=posts)[posts_Q] * np.linspace(1.0, 0.5, 9)[symptoms_Q]
    rank_Q = rng.geometric(0.15 + 0.6 * ease_Q)
    return RankedPairs(posts_Q, symptoms_Q, np.stack([1 / rank_Q, (rank_Q <= 10) / np.log2(rank_Q + 1)], axis=1))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_each_metric_s_interval_holds_the_truth_in_92_of_100_splits():
    rng = np.random.default_rng(2)
    everyone, everyones_pairs = drawn(rng, 60_000), drawn_pairs(rng, 60_000)
    truth = {
        f"criteria_matching.{name}": value[0]
        for name, value in criteria_samples(*everyone, LIMITS, np.ones((1, 60_000))).items()
    } | {f"evidence_binding.{name}": value[0] for name, value in pooled(everyones_pairs).items()}
    held = dict.fromkeys(truth, 0)
    for _ in range(400):
        found = confidence_intervals(*drawn(rng, 297), LIMITS, drawn_pairs(rng, 297))
        for name, value in truth.items():
            held[name] += found[name][0] <= value <= found[name][1]
    assert {name: count / 400 for name, count in held.items() if count / 400 < 0.92} == {}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_intervals_of_ranking_and_of_the_brier_score_hold_the_truth_in_92_of_100_splits():
    rng = np.random.default_rng(3)
    once, weights_RP = np.ones((1, 60_000)), weightings(297, SAMPLES)

    def samples(posts, weights_RP):
        return {"brier": brier_samples(*drawn(rng, posts), weights_RP)} | ranking_samples(
            drawn_ranking(rng, posts), weights_RP
        )

    truth = {name: value[0] for name, value in samples(60_000, once).items()}
    held = dict.fromkeys(truth, 0)
    for _ in range(2000):
        for name, (low, high) in bounds(samples(297, weights_RP), 297).items():
            held[name] += low <= truth[name] <= high
    assert {name: count / 2000 for name, count in held.items() if count / 2000 < 0.92} == {}


def test_an_interval_holds_its_figure_even_where_the_samples_are_biased():
    """Average precision of few positives is higher in a sample of the sample."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        probabilities_PC, labels_PC = drawn(rng, 60)
        found = confidence_intervals(probabilities_PC, labels_PC, LIMITS, pair_scores({}, {}, []))
        figure = criteria_metrics(probabilities_PC, labels_PC, LIMITS, SYMPTOMS).macro_pr_auc
        low, high = found["criteria_matching.macro_pr_auc"]
        assert 0 <= low <= figure <= high <= 1


def steps_area(points) -> float:
    """sum over n of (R_n - R_{n-1}) P_n, from the highest recall down."""
    return float(-np.sum(np.diff(points[:, 0]) * points[:-1, 1]))


def test_the_curve_s_area_is_the_average_precision() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random(200) < 0.2).astype(np.int64)
    probabilities = (labels * 0.2 + rng.random(200)).round(2)  # with ties
    points = np.array(pr_curve(probabilities, labels))
    assert len(points) <= CURVE_POINTS
    assert steps_area(points) == pytest.approx(average_precision_score(labels, probabilities))
    assert pr_curve(probabilities, np.zeros(200, dtype=np.int64)) == []


def test_a_long_curve_is_thinned_and_its_area_stays() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random(3000) < 0.2).astype(np.int64)
    probabilities = labels * 0.2 + rng.random(3000)
    points = np.array(pr_curve(probabilities, labels))
    assert len(points) == CURVE_POINTS
    assert (np.diff(points[:, 0]) < 0).all()
    assert steps_area(points) == pytest.approx(average_precision_score(labels, probabilities), abs=0.02)
