"""Calibration: the figures are scikit-learn's, and those computed by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from redsm5.data.posts import SYMPTOMS
from redsm5.evaluation.calibration import bins_of, brier_samples, calibration
from redsm5.evaluation.metrics import NO_POSTS

EMPTY = np.zeros((0, 9))


def split_of(seed, posts=40):
    rng = np.random.default_rng(seed)
    return rng.random((posts, 9)).round(1), (rng.random((posts, 9)) < 0.3).astype(np.int64)  # rounded: on the edges


def test_two_symptoms_by_hand():
    probabilities_PC = np.array([[0.0, 0.5], [0.1, 0.5], [0.15, 0.5], [1.0, 0.5]])
    labels_PC = np.array([[0, 1], [1, 1], [0, 1], [1, 0]])
    found = calibration(probabilities_PC, labels_PC, ["A", "B"])
    one, two = found.per_criterion
    # [0, 0.1] has 0.0 and 0.1, of which one is positive; (0.1, 0.2] has 0.15, negative; (0.9, 1] has 1.0, positive
    assert [b.count for b in one.bins] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert (one.bins[0].mean_probability, one.bins[0].share_positive) == (pytest.approx(0.05), 0.5)
    assert (one.bins[2].mean_probability, one.bins[2].share_positive) == (None, None)
    assert one.brier == pytest.approx((0 + 0.81 + 0.0225 + 0) / 4)
    assert one.ece == pytest.approx(2 / 4 * 0.45 + 1 / 4 * 0.15 + 1 / 4 * 0)
    assert two.brier == pytest.approx(0.25)
    assert two.ece == pytest.approx(0.25), "three of four are positive at 0.5"
    assert found.brier_macro == pytest.approx((0.208125 + 0.25) / 2)
    assert found.ece_macro == pytest.approx((0.2625 + 0.25) / 2)
    assert [b.count for b in found.bins] == [2, 1, 0, 0, 4, 0, 0, 0, 0, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_the_figures_are_scikit_learns(seed):
    probabilities_PC, labels_PC = split_of(seed)
    found = calibration(probabilities_PC, labels_PC, SYMPTOMS)
    for c, row in enumerate(found.per_criterion):
        assert row.brier == pytest.approx(brier_score_loss(labels_PC[:, c], probabilities_PC[:, c]))
        if labels_PC[:, c].min() == labels_PC[:, c].max():
            continue  # scikit-learn refuses a single class
        share, mean = calibration_curve(labels_PC[:, c], probabilities_PC[:, c], n_bins=10)
        filled = [b for b in row.bins if b.count]
        assert [b.share_positive for b in filled] == pytest.approx(share)
        assert [b.mean_probability for b in filled] == pytest.approx(mean)
        gaps = [b.count * abs(s - m) for b, s, m in zip(filled, share, mean, strict=True)]
        assert row.ece == pytest.approx(sum(gaps) / 40)
    assert found.brier_macro == pytest.approx(np.mean([row.brier for row in found.per_criterion]))
    assert found.ece_macro == pytest.approx(np.mean([row.ece for row in found.per_criterion]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_a_weighting_is_the_split_with_its_posts_repeated(seed):
    probabilities_PC, labels_PC = split_of(seed, 12)
    draw = np.random.default_rng(seed).integers(12, size=12)
    weights_RP = np.bincount(draw, minlength=12)[None].astype(float)
    again = calibration(probabilities_PC[draw], labels_PC[draw], SYMPTOMS)
    assert brier_samples(probabilities_PC, labels_PC, weights_RP) == pytest.approx(again.brier_macro)


def test_the_error_of_few_posts_is_too_high_even_of_true_probabilities():
    """So that it has no interval; `brier_samples` tells these figures."""
    rng = np.random.default_rng(2)

    def error(posts):
        probabilities_PC = rng.beta(0.4, 3.0, size=(posts, 9))
        return calibration(probabilities_PC, rng.random((posts, 9)) < probabilities_PC, SYMPTOMS).ece_macro

    assert np.mean([error(297) for _ in range(40)]) == pytest.approx(0.035, abs=0.002)
    assert error(60_000) < 0.004


def test_a_symptom_that_no_post_has_is_calibrated_too():
    found = calibration(np.full((4, 1), 0.3), np.zeros((4, 1), dtype=np.int64), ["A"])
    assert (found.brier_macro, found.ece_macro) == (pytest.approx(0.09), pytest.approx(0.3))


def test_without_posts_all_is_undefined_and_says_why():
    found = calibration(EMPTY, EMPTY.astype(np.int64), SYMPTOMS)
    assert (found.brier_macro, found.ece_macro, found.bins) == (None, None, [])
    assert found.undefined == {"brier_macro": NO_POSTS, "ece_macro": NO_POSTS}
    assert {(row.brier, row.ece, *row.undefined.values()) for row in found.per_criterion} == {
        (None, None, NO_POSTS, NO_POSTS)
    }
    assert bins_of(EMPTY[:, 0], EMPTY[:, 0].astype(np.int64)) == []
