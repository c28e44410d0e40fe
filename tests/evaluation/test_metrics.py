"""What a score says is what scikit-learn, or a count by hand, says; and what cannot be known is null with a reason."""

import doctest
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
)

from redsm5.engine.errors import NotFiniteError
from redsm5.engine.jsonio import dumps
from redsm5.evaluation import metrics
from redsm5.evaluation.metrics import criteria_metrics, evidence_metrics
from redsm5.reports import CriteriaMetrics, EvidenceMetrics, TestMetrics

NAMES = ["FATIGUE", "ANHEDONIA", "SLEEP_ISSUES", "PSYCHOMOTOR"]
TEXT = "I can not even sleep"
#       0 2   6   10   15


def test_docstrings_are_right():
    assert doctest.testmod(metrics).failed == 0


# ---------------------------------------------------------------------------------------------------------------------
# criteria


def random_case(seed, posts, rate):
    rng = np.random.default_rng(seed)
    labels = (rng.random((posts, len(NAMES))) < rate).astype(np.int64)
    # A coarse grid, so that ties and probabilities equal to the threshold occur.
    return np.round(rng.random(labels.shape), 1), labels, np.round(rng.random(len(NAMES)), 1)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 1))
def test_criteria_agree_with_scikit_learn(seed, posts, rate):
    probabilities, labels, thresholds = random_case(seed, posts, rate)
    got = criteria_metrics(probabilities, labels, thresholds, NAMES)
    predicted = (probabilities >= thresholds).astype(int)

    assert got.accuracy == pytest.approx(accuracy_score(labels, predicted))
    defined = [c for c in range(len(NAMES)) if labels[:, c].any()]
    for c, row in enumerate(got.per_criterion):
        truth, guess = labels[:, c], predicted[:, c]
        assert row.id == NAMES[c]
        assert row.support == truth.sum()
        assert row.confusion_matrix == confusion_matrix(truth, guess, labels=[0, 1]).tolist()
        if c in defined:
            assert row.f1 == pytest.approx(f1_score(truth, guess, zero_division=0))
            assert row.precision == pytest.approx(precision_score(truth, guess, zero_division=0))
            assert row.recall == pytest.approx(recall_score(truth, guess))
            assert row.pr_auc == pytest.approx(average_precision_score(truth, probabilities[:, c]))
            assert row.undefined == {}
        else:
            assert row.f1 is row.precision is row.recall is row.pr_auc is None
            assert set(row.undefined) == {"f1", "precision", "recall", "pr_auc"}
    if defined:
        # Column by column: scikit-learn reads a matrix of one column as a binary problem with two classes.
        columns = [(labels[:, c], predicted[:, c], probabilities[:, c]) for c in defined]
        assert got.f1_macro == pytest.approx(np.mean([f1_score(y, p, zero_division=0) for y, p, _ in columns]))
        assert got.precision_macro == pytest.approx(
            np.mean([precision_score(y, p, zero_division=0) for y, p, _ in columns])
        )
        assert got.recall_macro == pytest.approx(np.mean([recall_score(y, p) for y, p, _ in columns]))
        assert got.macro_pr_auc == pytest.approx(np.mean([average_precision_score(y, s) for y, _, s in columns]))
        assert got.f1_weighted == pytest.approx(f1_score(labels, predicted, average="weighted", zero_division=0))
        assert got.f1_micro == pytest.approx(f1_score(labels, predicted, average="micro", zero_division=0))
        assert got.undefined == {}
    check_document(got)


def test_without_any_positive_all_but_accuracy_is_null_with_a_reason():
    got = criteria_metrics(np.array([[0.9], [0.1]]), np.zeros((2, 1), int), np.array([0.5]), ["FATIGUE"])
    assert got.accuracy == 0.5
    assert got.f1_macro is got.f1_micro is got.f1_weighted is got.precision_macro is None
    assert got.recall_macro is got.macro_pr_auc is None
    assert got.undefined["f1_micro"] == "no post of this split has any of the symptoms"
    assert got.per_criterion[0].confusion_matrix == [[1, 1], [0, 0]]
    check_document(got)


def test_an_empty_split_is_null_with_a_reason():
    got = criteria_metrics(np.zeros((0, 2)), np.zeros((0, 2), int), np.full(2, 0.5), NAMES[:2])
    assert got.accuracy is None
    assert set(got.undefined.values()) == {"there are no posts in this split"}
    check_document(got)


def test_positives_that_nobody_predicts_score_zero_and_not_null():
    row = criteria_metrics(np.array([[0.1], [0.2]]), np.array([[1], [0]]), np.array([0.5]), ["FATIGUE"]).per_criterion[
        0
    ]
    assert (row.f1, row.precision, row.recall) == (0.0, 0.0, 0.0)
    assert row.undefined == {}


def test_macro_leaves_out_criteria_without_positives_but_micro_counts_their_false_alarms():
    probabilities, labels = np.array([[0.9, 0.9], [0.1, 0.9]]), np.array([[1, 0], [0, 0]])
    got = criteria_metrics(probabilities, labels, np.full(2, 0.5), NAMES[:2])
    assert got.f1_macro == 1.0
    assert got.f1_micro == pytest.approx(2 / (2 + 2))


def test_a_probability_at_the_threshold_counts_as_present():
    got = criteria_metrics(np.array([[0.5]]), np.array([[1]]), np.array([0.5]), ["FATIGUE"])
    assert got.accuracy == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_a_training_error(bad):
    with pytest.raises(NotFiniteError):
        criteria_metrics(np.array([[bad]]), np.array([[1]]), np.array([0.5]), ["FATIGUE"])


@pytest.mark.parametrize(
    ("probabilities", "labels", "thresholds", "names"),
    [
        (np.zeros((2, 2)), np.zeros((2, 1), int), np.zeros(1), NAMES[:1]),
        (np.zeros((2, 1)), np.zeros((2, 1), int), np.zeros(2), NAMES[:1]),
        (np.zeros((2, 1)), np.zeros((2, 1), int), np.zeros(2), NAMES[:2]),
        (np.zeros((2, 1)), np.zeros((2, 1), int), np.zeros(1), NAMES[:2]),
        (np.zeros((2, 1)), np.full((2, 1), 2), np.zeros(1), NAMES[:1]),
    ],
)
def test_shapes_and_labels_that_do_not_fit_are_refused(probabilities, labels, thresholds, names):
    with pytest.raises(ValueError, match=r"do not match|0 or 1"):
        criteria_metrics(probabilities, labels, thresholds, names)


# ---------------------------------------------------------------------------------------------------------------------
# evidence


def one(predicted, *gold, text=TEXT):
    return evidence_metrics({(0, 0): predicted}, {(0, 0): list(gold)}, [text])


@pytest.mark.parametrize(
    ("predicted", "gold", "exact", "f1", "precision", "recall"),
    [
        ([(2, 9)], [(2, 9)], 1, 1, 1, 1),
        ([(1, 10)], [(2, 9)], 1, 1, 1, 1),  # spaces at the ends do not count
        ([(2, 9)], [(1, 10)], 1, 1, 1, 1),
        ([(2, 5)], [(2, 9)], 0, 2 / 3, 1, 3 / 7),
        ([(2, 8)], [(2, 9)], 0, 1, 1, 6 / 7),  # the same words, one character short
        ([(0, 1)], [(2, 9)], 0, 0, 0, 0),
        ([], [(2, 9)], 0, 0, 0, 0),
        ([(9, 10)], [(2, 9)], 0, 0, 0, 0),  # only a space: no span
        ([(15, 20)], [(0, 1), (15, 20)], 0, 2 / 3, 1, 5 / 6),  # one of two
        ([(15, 20), (0, 1)], [(0, 1), (15, 20)], 1, 1, 1, 1),  # both, in whatever order
        ([(0, 1), (15, 20)], [(15, 20)], 0, 2 / 3, 5 / 6, 1),  # one too many
        ([(0, 5)], [(0, 1), (2, 5)], 0, 1, 4 / 5, 1),
        ([(0, 20)], [(2, 9), (6, 14)], 0, 6 / 8, 12 / 20, 1),  # gold spans that overlap
    ],
)
def test_evidence_by_hand(predicted, gold, exact, f1, precision, recall):
    got = one(predicted, *gold)
    assert got.exact_match == exact
    assert got.f1 == pytest.approx(f1)
    assert got.char_precision == pytest.approx(precision)
    assert got.char_recall == pytest.approx(recall)
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert got.char_f1 == pytest.approx(expected)
    check_document(got)


def test_words_are_told_apart_by_position():
    assert one([(0, 3)], (8, 11), text="sad and sad").f1 == 0


def test_characters_are_pooled_and_words_averaged_over_pairs():
    texts = ["so tired today", "x"]
    predicted = {(0, 0): [(3, 8)], (0, 1): [], (1, 0): [(0, 1)], (1, 1): []}
    gold = {(0, 0): [(0, 14)], (0, 1): [(9, 14)], (1, 0): [], (1, 1): []}
    got = evidence_metrics(predicted, gold, texts)
    assert got.exact_match == 0
    assert got.f1 == pytest.approx((2 * 1 / (1 + 3) + 0) / 2)
    assert got.char_precision == 1
    assert got.char_recall == pytest.approx(5 / (14 + 5))
    assert got.null_span_accuracy == 0.5
    assert got.undefined == {}


def test_no_pair_with_evidence_is_null_with_a_reason():
    got = evidence_metrics({(0, 0): []}, {(0, 0): []}, [TEXT])
    assert got.null_span_accuracy == 1
    assert got.exact_match is got.f1 is got.char_f1 is got.char_precision is got.char_recall is None
    assert set(got.undefined) == {"exact_match", "f1", "char_f1", "char_precision", "char_recall"}
    check_document(got)


def test_no_pair_without_evidence_and_no_pair_at_all_are_null_with_a_reason():
    assert one([], (2, 9)).undefined == {
        "null_span_accuracy": "every pair of post and symptom in this split has evidence"
    }
    got = evidence_metrics({}, {}, [])
    assert set(got.undefined.values()) == {"there are no posts in this split"}
    assert len(got.undefined) == 6
    check_document(got)


def test_malformed_spans_are_refused_without_quoting_the_post():
    for predicted, gold in [
        ((0, 99), (2, 9)),
        ((9, 2), (2, 9)),
        ((-1, 2), (2, 9)),
        ((2, 9), (1, 2)),
        ((2, 9), (3, 99)),
    ]:
        with pytest.raises(ValueError, match=r"span") as error:
            one([predicted], gold)
        assert "sleep" not in str(error.value)
    with pytest.raises(ValueError, match="1 pairs"):
        evidence_metrics({(0, 0): []}, {}, [TEXT])


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab \n\u00a0\U0001f600", min_size=1, max_size=30), st.integers(0, 2**32 - 1))
def test_evidence_agrees_with_sets_of_positions(text, seed):
    """The same definitions, written with sets of characters and of words."""
    rng = random.Random(seed)

    def span():
        start, end = sorted(rng.choices(range(len(text) + 1), k=2))
        return start, end

    def chars(spans):
        found = set()
        for start, end in spans:
            inside = [i for i in range(start, end) if not text[i].isspace()]
            found |= set(range(inside[0], inside[-1] + 1)) if inside else set()
        return found

    def words(spans):
        return {
            next(j for j in range(i, -1, -1) if j == 0 or text[j - 1].isspace())
            for i in chars(spans)
            if not text[i].isspace()
        }

    def stripped(spans):
        return {frozenset(chars([s])) for s in spans if chars([s])}

    predicted = [span() for _ in range(rng.randint(0, 2))]
    gold = [s for s in (span() for _ in range(3)) if chars([s])]
    got = one(predicted, *gold, text=text)
    if not gold:
        assert got.null_span_accuracy == float(not chars(predicted))
        return
    hit, union = chars(predicted), chars(gold)
    assert got.exact_match == float(stripped(predicted) == stripped(gold))
    said, meant = words(predicted), words(gold)
    assert got.f1 == pytest.approx(2 * len(said & meant) / (len(said) + len(meant)))
    assert got.char_precision == pytest.approx(len(hit & union) / len(hit) if hit else 0)
    assert got.char_recall == pytest.approx(len(hit & union) / len(union))
    check_document(got)


# ---------------------------------------------------------------------------------------------------------------------


def check_document(record):
    """It reads back as itself, and every null has its reason and every reason its null."""
    text = dumps(record.model_dump(mode="json")).decode()
    assert "NaN" not in text
    assert type(record).model_validate(json.loads(text)) == record
    for row in [record, *getattr(record, "per_criterion", [])]:
        assert {name for name, value in row.model_dump().items() if value is None} == set(row.undefined)


def test_both_make_the_document_that_the_report_holds():
    criteria = criteria_metrics(np.array([[0.9]]), np.array([[1]]), np.array([0.5]), ["FATIGUE"])
    evidence = one([(2, 9)], (2, 9))
    assert isinstance(criteria, CriteriaMetrics)
    assert isinstance(evidence, EvidenceMetrics)
    check = TestMetrics(criteria_matching=criteria, evidence_binding=evidence)
    assert TestMetrics.model_validate_json(dumps(check.model_dump(mode="json"))) == check
