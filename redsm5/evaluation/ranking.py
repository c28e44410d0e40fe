"""Sentence ranking: whether a post's evidence for a symptom stands at the top when its sentences are ranked.

Shapes: P posts, M sentences of a post, C = 9 symptoms, Q pairs of post and symptom that are ranked, R weightings of the
posts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, ndcg_score

from redsm5.data.posts import SYMPTOMS, Post
from redsm5.evaluation.metrics import NO_POSTS, CharSpan
from redsm5.reports import SentenceRanking, SymptomRanking

TOP = 10
NO_SENTENCE = "no post of this split has an evidence sentence for the symptom"
NO_SENTENCE_AT_ALL = "no post of this split has an evidence sentence"
FIGURES = ("average_precision", "ndcg_at_10")

Floats = NDArray[np.float64]


class ScoredSentences(NamedTuple):
    """The sentences of a post, as characters [start, end), and scores_MC: the higher, the more likely is evidence for
    the symptom; finite.
    """

    ranges: Sequence[CharSpan]
    scores_MC: Floats


@dataclass(frozen=True)
class RankedPairs:
    """The pairs of post and symptom with at least one evidence sentence.

    Attributes:
        posts_Q, symptoms_Q: their positions.
        figures_Q2: average precision and nDCG@10 of the post's sentences, ranked for the symptom.
    """

    posts_Q: NDArray[np.int64]
    symptoms_Q: NDArray[np.int64]
    figures_Q2: Floats


def ranked_pairs(sentences: Sequence[ScoredSentences], posts: Sequence[Post]) -> RankedPairs:
    """Rank the sentences of each post for each symptom that it has evidence sentences for.

    Average precision is scikit-learn's `average_precision_score`; nDCG@10 its `ndcg_score` with gains 0 and 1, the gain
    at rank r divided by log2(r + 1), relative to the best ranking (Järvelin and Kekäläinen 2002). Sentences with equal
    scores form one step of the first; the second is the mean over their orders (McSherry and Najork 2008).
    """
    at: list[tuple[int, int]] = []
    figures: list[tuple[float, float]] = []
    for p, ((ranges, scores_MC), post) in enumerate(zip(sentences, posts, strict=True)):
        gold_MC = gold_sentences(post, ranges)
        for c in np.flatnonzero(gold_MC.any(axis=0)).tolist():
            gold_M, scores_M = gold_MC[:, c], scores_MC[:, c]
            at.append((p, c))
            # A single sentence is at the top; scikit-learn has no nDCG of one document.
            ndcg = float(ndcg_score(gold_M[None], scores_M[None], k=TOP)) if len(gold_M) > 1 else 1.0
            figures.append((float(average_precision_score(gold_M, scores_M)), ndcg))
    posts_Q, symptoms_Q = np.array(at, dtype=np.int64).reshape(len(at), 2).T
    return RankedPairs(posts_Q, symptoms_Q, np.array(figures).reshape(len(figures), 2))


def gold_sentences(post: Post, sentences: Sequence[CharSpan]) -> NDArray[np.bool_]:
    """gold_MC: the sentences that are evidence for each symptom: those whose overlap with an annotated span is at least
    half of the shorter of the two, in characters. The evidence head for sentences learns them by the same rule, in
    tokens.
    """
    gold_MC = np.zeros((len(sentences), len(SYMPTOMS)), dtype=bool)
    for span in post.evidence:
        for m, (start, end) in enumerate(sentences):
            shared = min(end, span.end) - max(start, span.start)
            gold_MC[m, span.symptom] |= shared > 0 and 2 * shared >= min(end - start, span.end - span.start)
    return gold_MC


def sentence_ranking(pairs: RankedPairs, posts: int) -> SentenceRanking:
    """The mean over the pairs of each symptom, and the mean of these over the symptoms that have any."""
    rows = []
    for c, name in enumerate(SYMPTOMS):
        of_symptom = pairs.figures_Q2[pairs.symptoms_Q == c]
        reason = {} if len(of_symptom) else dict.fromkeys(FIGURES, NO_SENTENCE if posts else NO_POSTS)
        means = of_symptom.mean(axis=0).tolist() if len(of_symptom) else [None, None]
        figures = dict(zip(FIGURES, means, strict=True))
        rows.append(SymptomRanking(id=name, posts=len(of_symptom), **figures, undefined=reason))
    if not len(pairs.posts_Q):
        reason = dict.fromkeys((f"{name}_macro" for name in FIGURES), NO_SENTENCE_AT_ALL if posts else NO_POSTS)
        return SentenceRanking(**dict.fromkeys(reason), per_criterion=rows, undefined=reason)
    macro = ranking_samples(pairs, np.ones((1, posts)))
    return SentenceRanking(**{name: float(values_R[0]) for name, values_R in macro.items()}, per_criterion=rows)


def ranking_samples(pairs: RankedPairs, weights_RP: Floats) -> dict[str, Floats]:
    """The macro figures for R weightings of the posts: arrays of length R; NaN if a weighting leaves no pair."""
    weights_RQ = weights_RP[:, pairs.posts_Q]
    found = {}
    for name, figures_Q in zip(FIGURES, pairs.figures_Q2.T, strict=True):
        total_R, symptoms_R = np.zeros(len(weights_RP)), np.zeros(len(weights_RP))
        for c in range(len(SYMPTOMS)):
            here_Q = pairs.symptoms_Q == c
            counts_R = weights_RQ[:, here_Q].sum(axis=1)
            total_R += (weights_RQ[:, here_Q] @ figures_Q[here_Q]) / np.maximum(counts_R, 1)
            symptoms_R += counts_R > 0
        with np.errstate(invalid="ignore"):
            found[f"{name}_macro"] = total_R / symptoms_R
    return found
