"""Two models are told apart as far as the posts allow, and no further."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from redsm5.evaluation.comparison import compare

LIMITS = [np.full(9, 0.5)] * 2


def drawn(seed, posts, noise):
    """Labels, and the probabilities of two models: the second has so much more noise."""
    rng = np.random.default_rng(seed)
    labels_PC = (rng.random((posts, 9)) < 0.25).astype(np.int64)
    first, second = (
        (0.5 + 0.3 * (2 * labels_PC - 1) + rng.normal(0, 0.3 + extra, labels_PC.shape)).clip(0, 1)
        for extra in (0, noise)
    )
    return first, second, labels_PC


def test_a_model_does_not_differ_from_itself():
    first, _, labels_PC = drawn(0, 100, 0)
    for each in compare(first, first, labels_PC, LIMITS):
        assert (each.difference, each.low, each.high, each.p) == (0, 0, 0, 1)


def test_a_clear_difference_is_clear_in_both_directions():
    first, second, labels_PC = drawn(1, 300, 0.4)
    worse, better = (
        {each.metric: each for each in compare(*pair, labels_PC, LIMITS)} for pair in ((first, second), (second, first))
    )
    told = worse["f1_macro"]
    assert told.first == pytest.approx(f1_score(labels_PC, first >= 0.5, average="macro"))
    assert told.second == pytest.approx(f1_score(labels_PC, second >= 0.5, average="macro"))
    assert told.low < told.difference < told.high < 0
    assert told.p < 0.001
    assert better["f1_macro"].low == pytest.approx(-told.high)
    assert better["f1_macro"].p == told.p


def test_each_model_has_its_own_thresholds():
    first, _, labels_PC = drawn(2, 100, 0)
    found = {each.metric: each for each in compare(first, first, labels_PC, [LIMITS[0], np.full(9, 0.6)])}
    assert found["f1_micro"].difference != 0
    assert found["macro_pr_auc"].difference == 0, "it has no threshold"


def test_equal_models_differ_in_about_5_of_100_splits():
    p_values = []
    for seed in range(200):
        first, second, labels_PC = drawn(seed, 60, 0)
        found = compare(first, second, labels_PC, LIMITS, samples=400)
        p_values.append(next(each.p for each in found if each.metric == "f1_micro"))
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1


def test_what_the_posts_leave_undefined_is_left_out():
    first, second, labels_PC = drawn(3, 20, 0)
    assert [each.metric for each in compare(first, second, np.zeros_like(labels_PC), LIMITS)] == ["accuracy"]
