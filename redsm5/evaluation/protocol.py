"""The protocol of ReDSM5's authors beside ours: how well a model finds symptoms, on their split and on ours.

Theirs (github.com/eliseobao/redsm5, examples/) is `train_test_split`, 80/20 with seed 42, over the posts in the order
of their rows: duplicates of a test post may be among the training posts. Ours keeps duplicates together, and has a
validation split to choose thresholds by. Ten labels are the nine symptoms and NO_SYMPTOMS, which a post has if it shows
none of them.

Shapes: P posts, K labels, 9 or 10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.svm import LinearSVC

from redsm5.data import Splits
from redsm5.data.duplicates import originals
from redsm5.data.posts import Post, labels_of
from redsm5.engine.errors import InputError
from redsm5.engine.installed import command
from redsm5.engine.tables import Row
from redsm5.evaluation.baseline import decisions, fit, predictions_of
from redsm5.evaluation.bootstrap import SAMPLES, bounds, criteria_samples, weightings
from redsm5.evaluation.thresholds import choose, default_thresholds, vector
from redsm5.reports import EvaluationReport, PredictionsRecord

THRESHOLD = 0.5
OURS, AUTHORS, OTHER = "ours", "authors", "authors, unseeded"
BASELINE, THEIR_SVM, MAJORITY = "SVM, just baseline", "SVM, authors' recipe", "majority"
FIGURES = ("macro_f1", "macro_low", "macro_high", "micro_f1", "micro_low", "micro_high")
COLUMNS = ("split", "model", "labels", "posts", "copies", *FIGURES, "note")
# As the authors' notebooks print them, for ten labels: the split, macro F1 and micro F1, and what to know of them.
PRINTED = "the authors' figures, from their notebook, of all of ReDSM5"
THEIRS = {
    "CNN": (AUTHORS, 0.19, 0.25, PRINTED),
    "SVM": (AUTHORS, 0.28, 0.39, PRINTED),
    "BERT-base": (AUTHORS, 0.36, 0.51, PRINTED),
    "Llama-3.2-1B": (OTHER, 0.49, 0.54, f"{PRINTED}; epoch chosen on the test posts"),
}

Scope = Literal["fixed", "global", "per_class"]
Cell = str | int | float | None
Labels = NDArray[np.int64]
Decisions = NDArray[np.bool_]


@dataclass(frozen=True)
class Part:
    """A split: the posts that models may learn from, validation posts included, and the test posts."""

    name: str
    train: Sequence[Post]
    test: Sequence[Post]

    @cached_property
    def copies(self) -> int:
        """How many test posts are duplicates of a training post, equal or nearly so (redsm5/data/duplicates.py)."""
        groups = originals([*self.train, *self.test])
        learned = set(groups[: len(self.train)])
        return sum(group in learned for group in groups[len(self.train) :])


def with_none(symptoms_P9: NDArray[Any]) -> Labels:
    """labels_P10: the nine, and NO_SYMPTOMS where none of them is present."""
    present_P9 = symptoms_P9.astype(bool)
    return np.column_stack([present_P9, ~present_P9.any(axis=1)]).astype(np.int64)


def by_authors(part: Part, seed: int) -> list[Row]:
    """Simple models trained and tested on the authors' split, with thresholds at 0.5; each label has its own
    classifier.
    """
    models = fit(part.train, seed=seed, labels_PK=with_none(labels_of(part.train)))
    said_P10 = expit(decisions(models, [post.text for post in part.test])) >= THRESHOLD
    return [*rows_of(part, BASELINE, said_P10), *_without_thresholds(part, part.train)]


def by_us(part: Part, splits: Splits, *, seed: int, scope: Scope, metric: str) -> list[Row]:
    """The same on our splits, trained on the training posts; `just baseline` has thresholds chosen on the validation
    posts, and predicts NO_SYMPTOMS where it predicts no symptom.
    """
    models, default = fit(splits.train, seed=seed), default_thresholds("sentence_reranker")
    seen = predictions_of(models, splits.validation)
    limits = choose(seen, splits.validation, scope=scope, metric=metric, default=default)
    said_P9 = predictions_of(models, part.test).probabilities_P9 >= vector(limits)
    return [*rows_of(part, BASELINE, with_none(said_P9) > 0), *_without_thresholds(part, splits.train)]


def _without_thresholds(part: Part, train: Sequence[Post]) -> list[Row]:
    """The authors' SVM, and the majority of the training posts for each label; absent if they are divided."""
    usual_10 = with_none(labels_of(train)).mean(axis=0) > THRESHOLD
    return [
        *rows_of(part, THEIR_SVM, authors_svm(train, part.test)),
        *rows_of(part, MAJORITY, np.tile(usual_10, (len(part.test), 1))),
    ]


def authors_svm(train: Sequence[Post], test: Sequence[Post]) -> Decisions:
    """said_P10 of the SVM as the authors' notebook trains it: TF-IDF of single words without stop words, and a
    classifier for each label; a label that all training posts have, or none, is predicted so.
    """
    vectors = TfidfVectorizer(max_features=10_000_000, stop_words="english", sublinear_tf=True)
    learned, unseen = vectors.fit_transform([post.text for post in train]), vectors.transform([p.text for p in test])
    columns = []
    for labels_P in with_none(labels_of(train)).T:
        if labels_P.min() == labels_P.max():
            columns.append(np.full(len(test), labels_P[0] > 0))
        else:
            model = LinearSVC(random_state=0, tol=1e-5).fit(learned, labels_P)
            columns.append(model.decision_function(unseen) > 0)
    return np.column_stack(columns)


def of_trial(
    part: Part,
    name: str,
    predictions: PredictionsRecord,
    report: EvaluationReport,
    fingerprint: str,
    experiments: Path,
) -> list[Row]:
    """A trained trial on the test posts of its split, from its predictions and the thresholds of its report.

    Args:
        fingerprint: of the posts and their splits.
        experiments: the trial's folder's.

    Raises:
        InputError: the trial had others, or was not evaluated on the test split.
    """
    if predictions.split != "test":
        raise InputError(
            f"trial {predictions.trial_id} was last evaluated on the {predictions.split} split",
            remedy="Evaluate it on the test split: "
            f"`{command('evaluate', predictions.trial_id, '--split', 'test', experiments=experiments)}`.",
        )
    if report.data_fingerprint != fingerprint:
        raise InputError(
            f"trial {predictions.trial_id} was trained with other posts or splits",
            where="data",
            remedy="Give the overrides of data that its study was started with.",
        )
    at = {post_id: p for p, post_id in enumerate(predictions.post_ids)}
    order = [at[post.post_id] for post in part.test]
    limits_9 = np.array([(report.decision_thresholds or {})[symptom] for symptom in predictions.symptoms])
    return rows_of(part, name, with_none(np.array(predictions.probabilities)[order] >= limits_9) > 0)


def not_evaluated(part: Part, name: str, learned: Sequence[Post]) -> Row:
    """The row of a trial that cannot be tested on this split, since it was trained on another.

    Args:
        learned: its training and validation posts.
    """
    seen = {post.post_id for post in learned}
    known = sum(post.post_id in seen for post in part.test)
    note = f"not evaluated: {known} of these posts are in its training or validation split"
    return _row(part, name, 10, dict.fromkeys(FIGURES), note)


def of_notebooks() -> list[Row]:
    """The figures of the authors' notebooks; they give no intervals."""
    rows: list[Row] = []
    for model, (split, macro, micro, note) in THEIRS.items():
        figures = dict.fromkeys(FIGURES) | {"macro_f1": macro, "micro_f1": micro}
        where: dict[str, Cell] = {
            "split": split,
            "model": f"{model} (theirs)",
            "labels": 10,
            "posts": None,
            "copies": None,
        }
        rows.append({**where, **figures, "note": note})
    return rows


def rows_of(part: Part, model: str, said_P10: Decisions) -> list[Row]:
    """A model's rows for nine labels and for ten."""
    truth_P10 = with_none(labels_of(part.test))
    return [_row(part, model, count, f1_figures(said_P10[:, :count], truth_P10[:, :count]), None) for count in (9, 10)]


def f1_figures(said_PK: Decisions, labels_PK: Labels) -> dict[str, float | None]:
    """Macro and micro F1 with their 95 % intervals by a bootstrap over posts; None where they are undefined.

    Macro F1 is the mean over the labels that the test posts have; where they have all, both are scikit-learn's.
    """
    P, limits_K = len(labels_PK), np.full(labels_PK.shape[1], THRESHOLD)
    samples = criteria_samples(said_PK.astype(np.float64), labels_PK, limits_K, weightings(P, SAMPLES))
    found: dict[str, float | None] = {}
    intervals = bounds(samples, P)
    for short in ("macro", "micro"):
        name = f"f1_{short}"
        figure = float(samples[name][0]) if name in intervals else None
        low, high = intervals.get(name, (None, None))
        found |= {f"{short}_f1": figure, f"{short}_low": low, f"{short}_high": high}
    return found


def _row(part: Part, model: str, labels: int, figures: Mapping[str, float | None], note: str | None) -> Row:
    where: dict[str, Cell] = {
        "split": part.name,
        "model": model,
        "labels": labels,
        "posts": len(part.test),
        "copies": part.copies,
    }
    return {**where, **figures, "note": note}
