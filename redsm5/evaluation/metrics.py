"""Metrics of both tasks, computed from plain arrays and character offsets, without a model or torch.

A metric that is undefined on a split (no positive post, no pair with evidence) is None with a reason in `undefined`,
never 0 or NaN.

Shapes: P posts, C criteria, G pairs with gold spans, E pairs without, R weightings of the posts.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from redsm5.engine.errors import NotFiniteError
from redsm5.reports import CriteriaMetrics, CriterionMetrics, EvidenceMetrics

CharSpan = tuple[int, int]
"""Characters [start, end) of a post's text."""

Pair = tuple[int, int]
"""(position of the post, position of the symptom)."""

NO_POSTS = "there are no posts in this split"
NO_POSITIVES = "no post of this split has the symptom"
NO_POSITIVES_AT_ALL = "no post of this split has any of the symptoms"
NO_EVIDENCE = "no pair of post and symptom in this split has evidence"
ALL_EVIDENCE = "every pair of post and symptom in this split has evidence"

# ---------------------------------------------------------------------------------------------------------------------
# criteria


def criteria_metrics(
    probabilities_PC: NDArray[np.floating],
    labels_PC: NDArray[np.integer],
    thresholds_C: NDArray[np.floating],
    symptoms: Sequence[str],
) -> CriteriaMetrics:
    """Multi-label scores, each as scikit-learn defines it. A symptom counts as present if its probability is at least
    its threshold.

    accuracy is the exact-match ratio: the share of posts whose C labels are all right, as `accuracy_score` defines it
    for indicator matrices. For one criterion, precision = tp / (tp + fp), recall = tp / (tp + fn), F1 = 2 tp / (2 tp +
    fp + fn), 0 if nothing was predicted (`zero_division=0`); pr_auc is average precision, sum over n of (R_n - R_{n-1})
    P_n without interpolation (`average_precision_score`). The macro scores are means over the criteria that have
    positives in the split; weighted is the mean by support; micro pools the counts of all criteria, including false
    positives of criteria without positives.

    >>> m = criteria_metrics(np.array([[0.9], [0.2], [0.6]]), np.array([[1], [1], [0]]), np.array([0.5]), ["FATIGUE"])
    >>> m.f1_macro, m.per_criterion[0].confusion_matrix
    (0.5, [[0, 1], [1, 1]])

    Args:
        probabilities_PC: in [0, 1].
        labels_PC: 0 or 1.
        thresholds_C: decision thresholds.
        symptoms: names of the C criteria, in the order of the columns.

    Raises:
        ValueError: the shapes do not fit, or a label is neither 0 nor 1.
        NotFiniteError: a probability is NaN or infinite.
    """
    _check(probabilities_PC, labels_PC, thresholds_C, symptoms)
    truth_PC = labels_PC.astype(np.bool_)
    predicted_PC = probabilities_PC >= thresholds_C
    rows = [
        _criterion(name, probabilities_PC[:, c], truth_PC[:, c], predicted_PC[:, c]) for c, name in enumerate(symptoms)
    ]
    positive = [row for row in rows if row.support]
    tp, fp, fn = (
        int(np.sum(hits)) for hits in (predicted_PC & truth_PC, predicted_PC & ~truth_PC, ~predicted_PC & truth_PC)
    )
    f1, precision, recall, pr_auc = (
        [value for row in positive if (value := getattr(row, field)) is not None]
        for field in ("f1", "precision", "recall", "pr_auc")
    )
    scores = {
        "accuracy": float((predicted_PC == truth_PC).all(axis=1).mean()) if len(truth_PC) else None,
        "f1_macro": _mean(f1),
        "f1_micro": _f1(tp, fp, fn) if positive else None,
        "f1_weighted": float(np.average(f1, weights=[row.support for row in positive])) if positive else None,
        "precision_macro": _mean(precision),
        "recall_macro": _mean(recall),
        "macro_pr_auc": _mean(pr_auc),
    }
    reason = NO_POSITIVES_AT_ALL if len(truth_PC) else NO_POSTS
    return CriteriaMetrics(
        **scores, per_criterion=rows, undefined={name: reason for name, score in scores.items() if score is None}
    )


def _check(
    probabilities_PC: NDArray[np.floating],
    labels_PC: NDArray[np.integer],
    thresholds_C: NDArray[np.floating],
    symptoms: Sequence[str],
) -> None:
    """Check the arguments of `criteria_metrics`, and raise its errors."""
    criteria = (len(symptoms),)
    if probabilities_PC.shape != labels_PC.shape or not labels_PC.shape[1:] == thresholds_C.shape == criteria:
        raise ValueError(
            f"probabilities {probabilities_PC.shape}, labels {labels_PC.shape}, thresholds {thresholds_C.shape} and "
            f"{len(symptoms)} symptoms do not match"
        )
    if not np.isin(labels_PC, (0, 1)).all():
        raise ValueError("labels are 0 or 1")
    if not np.isfinite(probabilities_PC).all():
        raise NotFiniteError("the model predicts probabilities that are not finite")


def _criterion(
    name: str, probabilities_P: NDArray[np.floating], labels_P: NDArray[np.bool_], predicted_P: NDArray[np.bool_]
) -> CriterionMetrics:
    tp = int((predicted_P & labels_P).sum())
    fp = int((predicted_P & ~labels_P).sum())
    fn = int((~predicted_P & labels_P).sum())
    confusion = [[len(labels_P) - tp - fp - fn, fp], [fn, tp]]
    if tp + fn == 0:
        return CriterionMetrics(
            id=name,
            f1=None,
            precision=None,
            recall=None,
            pr_auc=None,
            support=0,
            confusion_matrix=confusion,
            undefined=dict.fromkeys(("f1", "precision", "recall", "pr_auc"), NO_POSITIVES),
        )
    return CriterionMetrics(
        id=name,
        f1=_f1(tp, fp, fn),
        precision=tp / (tp + fp) if tp + fp else 0.0,
        recall=tp / (tp + fn),
        pr_auc=float(average_precision_score(labels_P, probabilities_P)),
        support=tp + fn,
        confusion_matrix=confusion,
    )


def _f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / (2 * tp + fp + fn)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


# ---------------------------------------------------------------------------------------------------------------------
# evidence


@dataclass(frozen=True)
class PairScores:
    """What each pair contributes to the evidence metrics, as arrays with a row per pair.

    Attributes:
        posts_G: the post of each of the G pairs with gold spans.
        exact_G, f1_G: exact match, 0 or 1; token F1.
        chars_G3: the numbers of shared, predicted and gold characters.
        null_posts_E, null_right_E: the post of each of the E pairs without gold spans, and whether nothing was
            predicted, 0 or 1.
    """

    posts_G: NDArray[np.int64]
    exact_G: NDArray[np.float64]
    f1_G: NDArray[np.float64]
    chars_G3: NDArray[np.float64]
    null_posts_E: NDArray[np.int64]
    null_right_E: NDArray[np.float64]

    def where(self, taken_G: NDArray[np.bool_], taken_E: NDArray[np.bool_], other: "PairScores") -> "PairScores":
        """These rows where `taken` is true, else those of `other`, which has the same pairs."""
        return PairScores(
            self.posts_G,
            np.where(taken_G, self.exact_G, other.exact_G),
            np.where(taken_G, self.f1_G, other.f1_G),
            np.where(taken_G[:, None], self.chars_G3, other.chars_G3),
            self.null_posts_E,
            np.where(taken_E, self.null_right_E, other.null_right_E),
        )


def evidence_metrics(
    predicted: Mapping[Pair, Sequence[CharSpan]], gold: Mapping[Pair, Sequence[CharSpan]], texts: Sequence[str]
) -> EvidenceMetrics:
    """How well the predicted spans of each (post, symptom) pair agree with the annotated ones.

    Spans are compared without the whitespace at their ends; a predicted span of only whitespace is ignored. Over the
    pairs with gold spans: exact_match is the share of pairs whose predicted spans are exactly the gold ones; f1 the
    mean over pairs of the token F1 between the words that the predicted spans touch and those that the gold spans
    touch, 0 for no prediction (for a single span both are as in SQuAD, Rajpurkar et al. 2016, section 6.1; tokens are
    whitespace-separated words, told apart by position and not by spelling); char_precision, char_recall and char_f1
    count characters of the text, pooled over pairs, with precision 0 if nothing was predicted. Over the pairs without
    gold spans, null_span_accuracy is the share for which nothing was predicted.

    The prediction below touches 3 words, the gold span 2, and 2 are shared: F1 = 2 * 2 / (3 + 2). Of its 12 characters
    8 are in the gold span, which has 8.

    >>> m = evidence_metrics({(0, 5): [(2, 14)], (0, 6): []}, {(0, 5): [(6, 14)], (0, 6): []}, ["I can not even sleep"])
    >>> m.exact_match, m.f1, m.char_precision, m.char_recall, m.null_span_accuracy
    (0.0, 0.8, 0.6666666666666666, 1.0, 1.0)

    With two gold spans of two words each and one of them predicted, half of the words are found: F1 = 2 * 2 / (2 + 4).

    >>> evidence_metrics({(0, 5): [(0, 5)]}, {(0, 5): [(0, 5), (6, 14)]}, ["I can not even sleep"]).f1
    0.6666666666666666

    Args:
        predicted: the model's spans for each scored pair; an empty list if it finds no evidence.
        gold: the annotated spans of the same pairs; an empty list if the symptom has none. A pair with the label but
            without an aligned span belongs in neither: the caller leaves it out and counts it.
        texts: the posts' texts, by position.

    Raises:
        ValueError: the pairs differ, a span is not inside its text, or a gold span holds only whitespace.
    """
    return pair_metrics(pair_scores(predicted, gold, texts))


def pair_metrics(rows: PairScores) -> EvidenceMetrics:
    """The evidence metrics of these pairs; see `evidence_metrics`."""
    scores = {name: None if value is None else float(value[0]) for name, value in pooled(rows).items()}
    pairs = len(rows.posts_G) + len(rows.null_posts_E)
    undefined = {
        name: ALL_EVIDENCE if name == "null_span_accuracy" and pairs else NO_EVIDENCE if pairs else NO_POSTS
        for name, score in scores.items()
        if score is None
    }
    return EvidenceMetrics(**scores, undefined=undefined)


def pair_scores(
    predicted: Mapping[Pair, Sequence[CharSpan]], gold: Mapping[Pair, Sequence[CharSpan]], texts: Sequence[str]
) -> PairScores:
    """The rows that `evidence_metrics` pools; raises as `evidence_metrics` does."""
    if predicted.keys() != gold.keys():
        raise ValueError(f"{len(predicted.keys() ^ gold.keys())} pairs are only in one of predicted and gold")
    posts, exact, f1, chars = list[int](), list[float](), list[float](), list[tuple[int, int, int]]()
    null_posts, null_right = list[int](), list[float]()
    words = {post: _words(texts[post]) for post in {post for (post, _), spans in gold.items() if spans}}
    for (post, symptom), spans in gold.items():
        text = texts[post]
        guesses = {guess for span in predicted[post, symptom] if (guess := _strip(text, span)) is not None}
        if not spans:
            null_posts.append(post)
            null_right.append(float(not guesses))
            continue
        answers = {answer for span in spans if (answer := _strip(text, span)) is not None}
        if any(_strip(text, span) is None for span in spans):
            raise ValueError(f"a gold span of post {post}, symptom {symptom} holds only whitespace")
        posts.append(post)
        exact.append(float(guesses == answers))
        f1.append(_token_f1(words[post], guesses, answers))
        chosen, right = union_of(guesses), union_of(answers)
        shared = sum(_overlap(a, b) for a in chosen for b in right)
        chars.append((shared, sum(end - start for start, end in chosen), sum(end - start for start, end in right)))
    return PairScores(
        np.array(posts, dtype=np.int64),
        np.array(exact),
        np.array(f1),
        np.array(chars, dtype=np.float64).reshape(len(chars), 3),
        np.array(null_posts, dtype=np.int64),
        np.array(null_right),
    )


def pooled(rows: PairScores, weights_RP: NDArray[np.float64] | None = None) -> dict[str, NDArray[np.float64] | None]:
    """The evidence metrics for R weightings of the posts, each an array of length R; None if no pair defines the
    metric.

    Args:
        weights_RP: how often each post counts; by default once. A weighting that leaves no pair gives NaN.
    """
    G, E = len(rows.posts_G), len(rows.null_posts_E)
    weights_RG = np.ones((1, G)) if weights_RP is None else weights_RP[:, rows.posts_G]
    weights_RE = np.ones((1, E)) if weights_RP is None else weights_RP[:, rows.null_posts_E]
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs_R = weights_RG.sum(axis=1)
        shared_R, predicted_R, gold_R = (weights_RG @ rows.chars_G3).T
        precision_R = np.where((predicted_R == 0) & (pairs_R > 0), 0.0, shared_R / predicted_R)
        with_gold = {
            "exact_match": weights_RG @ rows.exact_G / pairs_R,
            "f1": weights_RG @ rows.f1_G / pairs_R,
            "char_f1": 2 * shared_R / (predicted_R + gold_R),
            "char_precision": precision_R,
            "char_recall": shared_R / gold_R,
        }
        right_R = weights_RE @ rows.null_right_E / weights_RE.sum(axis=1)
    return {name: value if G else None for name, value in with_gold.items()} | {
        "null_span_accuracy": right_R if E else None
    }


def _strip(text: str, span: CharSpan) -> CharSpan | None:
    """The span without the whitespace at its ends; None if nothing is left."""
    start, end = span
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"span ({start}, {end}) is not inside a text of {len(text)} characters")
    covered = text[start:end]
    start += len(covered) - len(covered.lstrip())
    return (start, start + len(covered.strip())) if covered.strip() else None


@lru_cache(maxsize=4096)  # thresholds are chosen by scoring the same posts again and again
def _words(text: str) -> tuple[list[int], list[int]]:
    """The start and end of each whitespace-separated word."""
    found = [match.span() for match in re.finditer(r"\S+", text)]
    return [start for start, _ in found], [end for _, end in found]


def _token_f1(words: tuple[list[int], list[int]], a: Iterable[CharSpan], b: Iterable[CharSpan]) -> float:
    """2 |A & B| / (|A| + |B|) over the words that the spans on each side touch; 0 if A is empty."""
    starts, ends = words
    touched = [{w for s, e in spans for w in range(bisect_right(ends, s), bisect_left(starts, e))} for spans in (a, b)]
    return 2 * len(touched[0] & touched[1]) / (len(touched[0]) + len(touched[1]))


def _overlap(a: CharSpan, b: CharSpan) -> int:
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))


def union_of(spans: Iterable[CharSpan]) -> list[CharSpan]:
    """Merge spans: disjoint spans that cover the same characters."""
    union: list[CharSpan] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union
