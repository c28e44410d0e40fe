"""A trial's score over all its folds: each post is predicted by the model that was not trained on it.

The predictions of all folds are pooled, and each metric is computed once over all of them (Forman and Scholz 2010 show
for F1 that the mean of the folds' scores is biased, most so for rare labels). A trial without folds has one, which is
its validation split.

Shapes: P posts that are not test posts; G and E of their (post, symptom) pairs, with and without gold spans; F folds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from redsm5.data.posts import SYMPTOMS, Post, labels_of
from redsm5.evaluation.metrics import PairScores, criteria_metrics, pair_metrics, pair_scores
from redsm5.evaluation.predict import Predictions
from redsm5.evaluation.thresholds import chosen_spans, gold_spans, vector
from redsm5.reports import TestMetrics, Thresholds


class FoldScores:
    """The validation predictions of the folds so far, as far as metrics need them.

    Attributes:
        tensors: all that it holds, of a fixed shape, for checkpoints.
    """

    def __init__(self, posts: Sequence[Post], folds: int) -> None:
        """Room for the predictions of these posts, in so many folds."""
        gold = gold_spans(posts).values()
        self._P, self._G, self._E = len(posts), sum(map(bool, gold)), sum(not spans for spans in gold)

        def room(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        self.tensors = {
            "ends": torch.zeros(folds + 1, 3, dtype=torch.int64),  # of each fold's rows of P, G and E
            "losses": room(folds),
            "probabilities": room(self._P, len(SYMPTOMS)),
            "labels": torch.zeros(self._P, len(SYMPTOMS), dtype=torch.int64),
            "exact": room(self._G),
            "f1": room(self._G),
            "chars": room(self._G, 3),
            "null_right": room(self._E),
        }

    def put(self, fold: int, predictions: Predictions, posts: Sequence[Post], thresholds: Thresholds) -> None:
        """Take in a fold's predictions for its posts, in the place of those that its model made before.

        Args:
            fold: its number; the folds before it have been taken in.
        """
        gold = gold_spans(posts)
        chosen = chosen_spans(predictions, thresholds)
        pairs = pair_scores({pair: chosen[pair] for pair in gold}, gold, [post.text for post in posts])
        ends = self.tensors["ends"]
        sizes = torch.tensor([len(posts), len(pairs.exact_G), len(pairs.null_right_E)])
        ends[fold + 1] = ends[fold] + sizes
        p, g, e = (slice(int(a), int(b)) for a, b in zip(ends[fold], ends[fold + 1], strict=True))
        self.tensors["losses"][fold] = predictions.loss
        for name, rows, values in (
            ("probabilities", p, predictions.probabilities_P9),
            ("labels", p, labels_of(posts)),
            ("exact", g, pairs.exact_G),
            ("f1", g, pairs.f1_G),
            ("chars", g, pairs.chars_G3),
            ("null_right", e, pairs.null_right_E),
        ):
            self.tensors[name][rows] = torch.from_numpy(np.asarray(values))

    def loss(self, fold: int) -> float:
        """The mean loss up to this fold, weighted by posts."""
        losses = self.tensors["losses"][: fold + 1].numpy()
        if fold == 0:
            return float(losses[0])
        return float(np.average(losses, weights=np.diff(self.tensors["ends"][: fold + 2, 0].numpy())))

    def metrics(self, fold: int, thresholds: Thresholds) -> TestMetrics:
        """Both tasks' metrics over the predictions up to this fold."""
        P, G, E = self.tensors["ends"][fold + 1].tolist()
        held = {name: tensor.numpy() for name, tensor in self.tensors.items()}
        criteria = criteria_metrics(held["probabilities"][:P], held["labels"][:P], vector(thresholds), SYMPTOMS)
        rows = PairScores(
            np.zeros(G, dtype=np.int64),
            held["exact"][:G],
            held["f1"][:G],
            held["chars"][:G],
            np.zeros(E, dtype=np.int64),
            held["null_right"][:E],
        )
        return TestMetrics(criteria_matching=criteria, evidence_binding=pair_metrics(rows))
