"""Runs a model over posts: probabilities of symptoms, and evidence as character spans of the post.

Shapes: P posts, N items, S sequences, C outputs per item (9 or 1), K candidates per sequence and output, M sentences of
a post, J of the post with the most.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from redsm5.data.encode import CharRange, EncodedPosts, sentences_of, tokens_of
from redsm5.data.posts import SYMPTOMS
from redsm5.engine.distributed import ALONE, ProcessGroup
from redsm5.evaluation.metrics import Pair
from redsm5.evaluation.ranking import ScoredSentences
from redsm5.model import Candidates, MultiTaskModel

CANDIDATES = 4  # most candidate spans per window and symptom


class ScoredSpan(NamedTuple):
    """Characters [start, end) of a post that may be evidence, with the head's score in [0, 1]."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for P posts, in their order.

    Attributes:
        loss: the training loss of all of them as one batch.
        probabilities_P9: the probability of each symptom.
        margins_P9: log-odds of any evidence for the symptom in the post against none.
        spans: the candidates of each (post, symptom), the best first; they do not overlap.
        sentences: the scores of each post's sentences by the evidence head's `score_sentences`, the best of its
            windows; below all others if no window has any of the sentence. None if they were not asked for.
    """

    loss: float
    probabilities_P9: NDArray[np.float64]
    margins_P9: NDArray[np.float64]
    spans: dict[Pair, list[ScoredSpan]]
    sentences: list[ScoredSentences] | None = None


class _Answer(NamedTuple):
    """One item's outputs, as lists that processes can exchange."""

    position: int
    probabilities_C: list[float]
    margins_C: list[float]
    spans_C: list[list[ScoredSpan]]
    sentences_CM: list[list[float]]


@torch.no_grad()
def predict(
    model: MultiTaskModel,
    loader: Iterable[list[dict[str, Tensor]]],
    dataset: EncodedPosts,
    loss_of: Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor] | None = None,
    group: ProcessGroup = ALONE,
    *,
    sentences: bool = False,
) -> Predictions:
    """Run the unwrapped model in evaluation mode over a loader of the data set, on its device.

    The batching affects only the last digits, through padding.

    Args:
        loss_of: computes the loss, a scalar, of (outputs, batch); without it the predictions' loss is NaN.
        group: the processes that share the batches; each gets the predictions of all of them.
        sentences: whether each sentence gets a score.
    """
    model.eval()
    cut = [sentences_of(post.text) for post in dataset.posts] if sentences else None
    answers: list[_Answer] = []
    losses: list[Tensor] = []
    for micro_batch in chain.from_iterable(loader):
        outputs = model(micro_batch)
        if loss_of:
            losses.append(loss_of(outputs, micro_batch).double())
        candidates = model.evidence_head.decode(outputs, micro_batch, count=CANDIDATES)
        some = _answers(outputs["criteria_logits_NC"], candidates, micro_batch, dataset)
        if cut is not None:
            some = _with_sentences(some, model, outputs, micro_batch, dataset, cut)
        answers += some
    loss = float(group.mean(torch.stack(losses).sum())) if losses else math.nan
    everyones = [answer for some in group.gathered(answers) for answer in some]
    return _by_post(sorted(everyones, key=lambda answer: answer.position), dataset, loss, cut)


def _answers(
    logits_NC: Tensor, candidates: Candidates, batch: dict[str, Tensor], dataset: EncodedPosts
) -> list[_Answer]:
    """The answer for each item of a batch, with the candidates of its windows in characters of its post."""
    probabilities_NC = logits_NC.double().sigmoid().tolist()
    spans_SCK2, scores_SCK = candidates.spans_SCK2.tolist(), candidates.scores_SCK.double().tolist()
    margins_SC = candidates.margin_SC.double().tolist()
    answers = []
    for n, (position, windows) in enumerate(zip(batch["index_N"].tolist(), batch["windows_NW"].tolist(), strict=True)):
        if position < 0:  # the placeholder item of an empty share
            continue
        item = dataset.items[position]
        rows = [s for s in windows if s >= 0]
        spans_C: list[list[ScoredSpan]] = []
        for c in range(len(item.symptoms)):
            offered = []
            for s, window in zip(rows, item.windows, strict=True):
                for (first, last), score in zip(spans_SCK2[s][c], scores_SCK[s][c], strict=True):
                    if first >= 0:
                        start, end = int(window.offsets[first][0]), int(window.offsets[last][1])
                        offered.append(ScoredSpan(start, end, score))
            spans_C.append(without_overlaps(offered))
        margins_C = [max(margins_SC[s][c] for s in rows) for c in range(len(item.symptoms))]
        answers.append(_Answer(position, probabilities_NC[n], margins_C, spans_C, []))
    return answers


def _with_sentences(
    answers: Sequence[_Answer],
    model: MultiTaskModel,
    outputs: dict[str, Tensor],
    batch: dict[str, Tensor],
    dataset: EncodedPosts,
    cut: Sequence[Sequence[CharRange]],
) -> list[_Answer]:
    """The same answers with the scores of their posts' sentences, each the best of the post's windows."""
    windows_of = {
        position: [s for s in windows if s >= 0]
        for position, windows in zip(batch["index_N"].tolist(), batch["windows_NW"].tolist(), strict=True)
    }
    items = [dataset.items[answer.position] for answer in answers]
    most = max((len(cut[item.post]) for item in items), default=0)
    if not most:
        return list(answers)
    ranges_SJ2 = torch.full((len(batch["attention_mask_ST"]), most, 2), -1)
    for answer, item in zip(answers, items, strict=True):
        for s, window in zip(windows_of[answer.position], item.windows, strict=True):
            ranges_SJ2[s, : len(cut[item.post])] = torch.from_numpy(tokens_of(window, cut[item.post]))
    ranges_SJ2 = ranges_SJ2.to(batch["attention_mask_ST"].device)
    scores_SCJ = model.evidence_head.score_sentences(outputs, batch, ranges_SJ2).double().cpu().numpy()
    return [
        answer._replace(
            sentences_CM=scores_SCJ[windows_of[answer.position]].max(axis=0)[:, : len(cut[item.post])].tolist()
        )
        for answer, item in zip(answers, items, strict=True)
    ]


def without_overlaps(spans: Iterable[ScoredSpan]) -> list[ScoredSpan]:
    """The best spans first, without those that overlap a better one, so that overlapping windows give one answer."""
    kept: list[ScoredSpan] = []
    for span in sorted(spans, key=lambda s: (-s.score, s.start, s.end)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return kept


def _by_post(
    answers: Sequence[_Answer], dataset: EncodedPosts, loss: float, cut: Sequence[Sequence[CharRange]] | None
) -> Predictions:
    shape = (len(dataset.posts), len(SYMPTOMS))
    probabilities_P9, margins_P9 = np.zeros(shape), np.zeros(shape)
    spans: dict[Pair, list[ScoredSpan]] = {}
    sentences = [ScoredSentences(ranges, np.zeros((len(ranges), len(SYMPTOMS)))) for ranges in cut or ()]
    for answer in answers:
        item = dataset.items[answer.position]
        for c, symptom in enumerate(item.symptoms):
            probabilities_P9[item.post, symptom] = answer.probabilities_C[c]
            margins_P9[item.post, symptom] = answer.margins_C[c]
            spans[item.post, symptom] = answer.spans_C[c]
            if answer.sentences_CM:
                sentences[item.post].scores_MC[:, symptom] = answer.sentences_CM[c]
    return Predictions(loss, probabilities_P9, margins_P9, spans, None if cut is None else sentences)
