"""The table that a paper needs: simple models and a study's winner on the authors' own split and on ours, and the
figures of the authors' notebooks beside them.

The authors (github.com/eliseobao/redsm5, examples/) split with `train_test_split(test_size=0.2, random_state=42)`,
duplicates and all, decide at 0.5, and score ten labels: the nine symptoms and NO_SYMPTOMS, which the posts without any
have. Our split keeps duplicates together, and thresholds are chosen on validation posts.

Shapes: P posts, C = 9 symptoms, L = 10 labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC

from redsm5.data.duplicates import originals
from redsm5.data.posts import SYMPTOMS, Post, labels_of
from redsm5.evaluation.baseline import fit, predictions_of
from redsm5.evaluation.bootstrap import SAMPLES, bounds, criteria_samples, weightings
from redsm5.evaluation.thresholds import choose, default_thresholds, vector
from redsm5.reports import Thresholds

NO_SYMPTOMS = "NO_SYMPTOMS"
LABELS = (*SYMPTOMS, NO_SYMPTOMS)
THEIR_SHARE, THEIR_SEED = 0.2, 42
FIGURES = ("f1_macro", "f1_micro")

# By model: F1 macro and micro of ten labels, as the notebooks print them, and what to know of them.
SEED_42 = "the authors' figures, from their notebook; seed 42"
THEIRS = {
    "CNN": (0.19, 0.25, SEED_42),
    "SVM": (0.28, 0.39, SEED_42),
    "BERT-base": (0.36, 0.51, SEED_42),
    "Llama-3.2-1B": (0.49, 0.54, "the authors' figures; an unseeded split, and the epoch was chosen on the test posts"),
}

Said = NDArray[np.bool_]
Figure = tuple[float, float | None, float | None]
"""A metric's value and its 95 % interval, which may be unknown."""


@dataclass(frozen=True)
class Split:
    """Posts to learn from, to choose thresholds by (none: they are 0.5), and to be scored on."""

    name: str
    train: Sequence[Post]
    validation: Sequence[Post]
    test: Sequence[Post]


@dataclass(frozen=True)
class Row:
    """A model on a split.

    Attributes:
        posts: of the test split. copies: those that have a duplicate among the posts the model learned from.
        nine, ten: the figures over the symptoms, and over these and NO_SYMPTOMS, by name; without those that the posts
            do not define.
        note: what to know of them.
    """

    split: str
    model: str
    posts: int
    copies: int | None
    nine: dict[str, Figure] = field(default_factory=dict)
    ten: dict[str, Figure] = field(default_factory=dict)
    note: str = ""


def authors_split(posts: Sequence[Post]) -> Split:
    """The posts, in the order of their rows, as the authors' notebooks split them; at least two."""
    train, test = train_test_split(list(posts), test_size=THEIR_SHARE, random_state=THEIR_SEED)
    return Split("authors'", train, [], test)


def copies_of(test: Sequence[Post], train: Sequence[Post]) -> int:
    """How many of the test posts have a duplicate, equal or nearly so, among the training posts."""
    first = originals([*train, *test])
    seen = set(first[: len(train)])
    return sum(group in seen for group in first[len(train) :])


def with_none(labels_PC: NDArray[np.integer] | Said) -> Said:
    """labels_PL: the nine labels, and NO_SYMPTOMS where there is none of them."""
    labels = labels_PC.astype(bool)
    return np.column_stack([labels, ~labels.any(axis=1)])


def f1_figures(truth: Said, said: Said) -> dict[str, Figure]:
    """Macro and micro F1 with intervals, over the labels in the columns; as `criteria_metrics` defines them, the macro
    over labels that a post has.
    """
    decided, half = said.astype(float), np.full(truth.shape[1], 0.5)
    found = criteria_samples(decided, truth.astype(np.int64), half, weightings(len(truth), SAMPLES))
    limits = bounds({name: found[name] for name in FIGURES}, len(truth))
    return {name: (float(found[name][0]), *limits[name]) for name in limits}


def scored(split: Split, model: str, said_PL: Said, note: str = "", copies: int | None = None) -> Row:
    """The row of a model's decisions for the split's test posts."""
    truth_PL = with_none(labels_of(split.test))
    C = len(SYMPTOMS)
    nine = f1_figures(truth_PL[:, :C], said_PL[:, :C])
    copies = copies_of(split.test, split.train) if copies is None else copies
    return Row(split.name, model, len(split.test), copies, nine, f1_figures(truth_PL, said_PL), note)


# ---------------------------------------------------------------------------------------------------------------------
# the models


def majority(train: Sequence[Post], test: Sequence[Post]) -> Said:
    """Each label as most training posts have it."""
    most_L = with_none(labels_of(train)).mean(axis=0) > 0.5
    return np.tile(most_L, (len(test), 1))


def their_svm(train: Sequence[Post], test: Sequence[Post]) -> Said:
    """The decisions of the authors' SVM, trained as their notebook does it: TF-IDF of single words without stop words,
    an SVM for each of ten labels.
    """
    vectors = TfidfVectorizer(max_features=10_000_000, stop_words="english", sublinear_tf=True)
    seen, unseen = vectors.fit_transform([post.text for post in train]), vectors.transform([p.text for p in test])
    columns = []
    for labels_P in with_none(labels_of(train)).T:
        if labels_P.all() or not labels_P.any():  # as scikit-learn's OneVsRestClassifier has it
            columns.append(np.full(len(test), labels_P[0]))
        else:
            model = LinearSVC(random_state=0, tol=1e-5).fit(seen, labels_P)
            columns.append(model.decision_function(unseen) > 0)
    return np.column_stack(columns)


def our_svm(split: Split, *, scope: str, metric: str, seed: int) -> tuple[Said, Thresholds]:
    """The decisions of the baseline (`just baseline`), with its thresholds chosen on the validation posts if there are
    any.
    """
    models = fit(split.train, seed=seed)
    limits = default_thresholds("sentence_reranker")
    if split.validation:
        seen = predictions_of(models, split.validation)
        limits = choose(seen, split.validation, scope=scope, metric=metric, default=limits)  # type: ignore[arg-type]
    return with_none(predictions_of(models, split.test).probabilities_P9 >= vector(limits)), limits


def simple_rows(split: Split, *, scope: str, metric: str, seed: int) -> list[Row]:
    """The rows of the models that need no encoder."""
    copies = copies_of(split.test, split.train)
    chosen = "thresholds chosen on validation posts" if split.validation and scope != "fixed" else "thresholds 0.5"
    said, _ = our_svm(split, scope=scope, metric=metric, seed=seed)
    return [
        scored(split, "majority", majority(split.train, split.test), "each label as most training posts", copies),
        scored(split, "SVM, just baseline", said, chosen, copies),
        scored(split, "SVM, authors' recipe", their_svm(split.train, split.test), "thresholds 0.5", copies),
    ]


def their_rows() -> list[Row]:
    """The figures of the authors' notebooks, of the 297 test posts of the whole data set."""
    return [
        Row("authors'", f"{model} *", 297, None, {}, {"f1_macro": (a, None, None), "f1_micro": (b, None, None)}, note)
        for model, (a, b, note) in THEIRS.items()
    ]
