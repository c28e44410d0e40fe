"""ROC AUC and Matthews correlation are scikit-learn's, and each symptom's intervals are of its own metrics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, matthews_corrcoef, roc_auc_score

from redsm5.data.posts import SYMPTOMS
from redsm5.evaluation.bootstrap import FEWEST, confidence_intervals, symptom_samples
from redsm5.evaluation.calibration import calibration
from redsm5.evaluation.discrimination import (
    ALL_POSITIVE,
    NO_SYMPTOM,
    discrimination,
    discrimination_samples,
)
from redsm5.evaluation.metrics import NO_POSITIVES, NO_POSTS, criteria_metrics, pair_scores

LIMITS = np.full(9, 0.5)


def split_of(seed, posts=30):
    rng = np.random.default_rng(seed)
    return rng.random((posts, 9)).round(1), (rng.random((posts, 9)) < 0.2).astype(np.int64), rng  # rounded: ties


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_the_figures_are_scikit_learns(seed):
    probabilities_PC, labels_PC, _ = split_of(seed)
    found = discrimination(probabilities_PC, labels_PC, LIMITS, SYMPTOMS)
    told = []
    for c, row in enumerate(found.per_criterion):
        if labels_PC[:, c].min() == labels_PC[:, c].max():
            assert (row.roc_auc, row.mcc) == (None, None)
            assert row.undefined == dict.fromkeys(("roc_auc", "mcc"), NO_POSITIVES)
            continue
        assert row.roc_auc == pytest.approx(roc_auc_score(labels_PC[:, c], probabilities_PC[:, c]))
        assert row.mcc == pytest.approx(matthews_corrcoef(labels_PC[:, c], probabilities_PC[:, c] >= 0.5))
        assert row.undefined == {}
        told.append((row.roc_auc, row.mcc))
    assert (found.roc_auc_macro, found.mcc_macro) == pytest.approx(tuple(np.mean(told, axis=0)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_a_weighting_is_the_split_with_its_posts_repeated(seed):
    probabilities_PC, labels_PC, rng = split_of(seed)
    draw = rng.integers(30, size=30)
    weights_RP = np.bincount(draw, minlength=30)[None].astype(float)
    again = (probabilities_PC[draw], labels_PC[draw], LIMITS)
    rows = discrimination(*again, SYMPTOMS).per_criterion, criteria_metrics(*again, SYMPTOMS).per_criterion
    split = (probabilities_PC, labels_PC, LIMITS, weights_RP)
    for samples, wanted in zip((discrimination_samples(*split), symptom_samples(*split)), rows, strict=True):
        for name, values_RC in samples.items():
            for value, row in zip(values_RC[0], wanted, strict=True):
                figure = getattr(row, name)
                assert np.isnan(value) if figure is None else value == pytest.approx(figure), name


def test_two_symptoms_by_hand():
    probabilities_PC = np.array([[0.9, 0.1], [0.4, 0.9], [0.6, 0.2], [0.4, 0.3]])
    labels_PC = np.array([[1, 1], [1, 1], [0, 1], [0, 1]])
    one, two = discrimination(probabilities_PC, labels_PC, np.array([0.5, 0.5]), ["A", "B"]).per_criterion
    # of the pairs (0.9, 0.6), (0.9, 0.4), (0.4, 0.6), (0.4, 0.4), the first is higher in two and tied in one
    assert one.roc_auc == 2.5 / 4
    assert one.mcc == 0, "one true and one false of each decision"
    assert (two.roc_auc, two.mcc, two.undefined["mcc"]) == (None, None, ALL_POSITIVE)


def test_without_posts_or_positives_there_is_a_reason():
    nothing = discrimination(np.zeros((0, 9)), np.zeros((0, 9), dtype=np.int64), LIMITS, SYMPTOMS)
    assert nothing.undefined == dict.fromkeys(("roc_auc_macro", "mcc_macro"), NO_POSTS)
    assert nothing.per_criterion[0].undefined["roc_auc"] == NO_POSTS
    absent = discrimination(np.zeros((5, 9)), np.zeros((5, 9), dtype=np.int64), LIMITS, SYMPTOMS)
    assert (absent.roc_auc_macro, absent.undefined["roc_auc_macro"]) == (None, NO_SYMPTOM)


def test_each_symptom_has_intervals_that_hold_its_own_figures():
    probabilities_PC, labels_PC, _ = split_of(5, posts=200)
    found = confidence_intervals(probabilities_PC, labels_PC, LIMITS, pair_scores({}, {}, []), None, SYMPTOMS)
    criteria = criteria_metrics(probabilities_PC, labels_PC, LIMITS, SYMPTOMS).per_criterion
    told = discrimination(probabilities_PC, labels_PC, LIMITS, SYMPTOMS)
    calibrated = calibration(probabilities_PC, labels_PC, SYMPTOMS).per_criterion
    widths = []
    for c, name in enumerate(SYMPTOMS):
        assert calibrated[c].brier == pytest.approx(brier_score_loss(labels_PC[:, c], probabilities_PC[:, c]))
        for row in (criteria[c], told.per_criterion[c], calibrated[c]):
            for key in ("f1", "precision", "recall", "pr_auc", "roc_auc", "mcc", "brier"):
                if hasattr(row, key):
                    low, high = found[f"by_symptom.{name}.{key}"]
                    assert low - 1e-12 <= getattr(row, key) <= high + 1e-12, (name, key)
                    widths.append(high - low)
    assert len(widths) == 9 * 7
    assert 0.01 < min(widths) < max(widths) < 0.9
    for key in ("roc_auc_macro", "mcc_macro"):
        low, high = found[f"discrimination.{key}"]
        assert low < getattr(told, key) < high
    assert found["by_symptom.SLEEP_ISSUES.mcc"][0] < 0, "chance: from -1 to 1, not from 0"


def test_where_few_posts_have_a_symptom_only_the_brier_score_has_an_interval():
    probabilities_PC, labels_PC, _ = split_of(5, posts=200)
    labels_PC[:, 0], labels_PC[:, 1] = np.arange(200) < FEWEST - 1, np.arange(200) > FEWEST - 2
    labels_PC[:, 2] = np.arange(200) < FEWEST
    found = confidence_intervals(probabilities_PC, labels_PC, LIMITS, pair_scores({}, {}, []), None, SYMPTOMS)
    told = [{key.rpartition(".")[2] for key in found if key.startswith(f"by_symptom.{name}.")} for name in SYMPTOMS[:3]]
    assert told == [{"brier"}, {"brier"}, {"f1", "precision", "recall", "pr_auc", "roc_auc", "mcc", "brier"}]


def test_a_report_of_which_nothing_is_said_by_symptom_has_no_such_intervals():
    probabilities_PC, labels_PC, _ = split_of(5)
    found = confidence_intervals(probabilities_PC, labels_PC, LIMITS, pair_scores({}, {}, []))
    assert not [name for name in found if name.startswith("by_symptom")]
