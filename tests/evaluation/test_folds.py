"""A trial's score over folds is that of one evaluation of all posts, each predicted by its fold's model."""

from collections.abc import Sequence

import numpy as np
import pytest

from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.posts import SYMPTOMS, Post
from redsm5.evaluation.folds import FoldScores
from redsm5.evaluation.predict import Predictions, ScoredSpan
from redsm5.evaluation.thresholds import default_thresholds, score

FOLDS = 3
DATA = compose(["data.posts=200", f"data.folds={FOLDS}"]).data
THRESHOLDS = default_thresholds("start_end_linear")


def predictions_of(posts: Sequence[Post], seed: int) -> Predictions:
    """What a model might say: right in most cases."""
    chance = np.random.default_rng(seed)
    labels = np.array([post.labels for post in posts])
    right = chance.random(labels.shape) < 0.7
    spans = {}
    for p, post in enumerate(posts):
        for c in range(len(SYMPTOMS)):
            own = [ScoredSpan(s.start, s.end, 0.9) for s in post.evidence if s.symptom == c]
            spans[p, c] = own if chance.random() < 0.6 else [ScoredSpan(0, len(post.text) // 2, chance.random())]
    margins = np.where(right, labels * 2.0 - 1.0, 0.5)
    return Predictions(chance.random(), np.where(right, labels, 1 - labels) * 0.8 + 0.1, margins, spans)


@pytest.fixture(scope="module")
def folds() -> list[tuple[list[Post], Predictions]]:
    posts = [load_splits(DATA, fold).validation for fold in range(FOLDS)]
    return [(some, predictions_of(some, seed)) for seed, some in enumerate(posts)]


def together(folds: Sequence[tuple[list[Post], Predictions]]) -> tuple[list[Post], Predictions]:
    """All posts, as if one model had predicted them."""
    posts = [post for some, _ in folds for post in some]
    begins = np.cumsum([0, *(len(some) for some, _ in folds)])
    spans = {
        (int(begin) + p, c): found
        for begin, (_, predictions) in zip(begins, folds, strict=False)
        for (p, c), found in predictions.spans.items()
    }
    return posts, Predictions(
        0.0,
        np.concatenate([predictions.probabilities_P9 for _, predictions in folds]),
        np.concatenate([predictions.margins_P9 for _, predictions in folds]),
        spans,
    )


def room() -> FoldScores:
    splits = load_splits(DATA)
    return FoldScores([*splits.train, *splits.validation], FOLDS)


def test_the_score_is_that_of_all_folds_posts_at_once(folds: list[tuple[list[Post], Predictions]]) -> None:
    scores = room()
    for fold, (posts, predictions) in enumerate(folds):
        scores.put(fold, predictions_of(posts, seed=99), posts, THRESHOLDS)  # an earlier epoch's, which is replaced
        scores.put(fold, predictions, posts, THRESHOLDS)
        all_posts, all_predictions = together(folds[: fold + 1])
        assert scores.metrics(fold, THRESHOLDS) == score(all_predictions, all_posts, THRESHOLDS)
    each = [score(predictions, posts, THRESHOLDS).criteria_matching.f1_macro for posts, predictions in folds]
    pooled = scores.metrics(FOLDS - 1, THRESHOLDS).criteria_matching.f1_macro
    assert pooled != pytest.approx(np.mean(each)), "the mean of the folds' scores is another figure"
    losses, sizes = [p.loss for _, p in folds], [len(posts) for posts, _ in folds]
    assert scores.loss(0) == losses[0]
    assert scores.loss(FOLDS - 1) == pytest.approx(np.average(losses, weights=sizes))


def test_what_checkpoints_have_is_all(folds: list[tuple[list[Post], Predictions]]) -> None:
    first, other = room(), room()
    for fold, (posts, predictions) in enumerate(folds[:2]):
        first.put(fold, predictions, posts, THRESHOLDS)
    for name, tensor in other.tensors.items():
        tensor.copy_(first.tensors[name])
    posts, predictions = folds[2]
    for scores in (first, other):
        scores.put(2, predictions, posts, THRESHOLDS)
    assert other.metrics(2, THRESHOLDS) == first.metrics(2, THRESHOLDS)
    assert other.loss(2) == first.loss(2)
