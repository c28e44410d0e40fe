"""Token spans: their scores in a band, the best ones that do not overlap, and helpers of all evidence heads.

A span of a sequence is (first, last), both inclusive; in a band it is (first, length - 1). So a flattened band is
ordered by (first, last), and of several equal scores the first span is chosen.

Shapes: S sequences, C outputs per sequence, T tokens, L maximum length of a span, K candidates, G gold spans, J
sentences per sequence, X choices (of a softmax, or places where a candidate may be).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MASKED = -1e30  # a softmax makes it 0, and unlike -inf, sums of thousands of them are still finite


class Candidates(NamedTuple):
    """The evidence that a head proposes for each sequence and output.

    Attributes:
        spans_SCK2: int64, first and last token; padded with -1. They do not overlap.
        scores_SCK: float32 in [0, 1], decreasing; padded with 0.
        margin_SC: float32, the log-odds of any evidence in the sequence against none; 0 means even odds.
    """

    spans_SCK2: Tensor
    scores_SCK: Tensor
    margin_SC: Tensor


def band(values_SCT: Tensor, length: int) -> Tensor:
    """banded_SCTL: banded[t, l] = values[t + l] of values_SCT, and 0 beyond its end."""
    return F.pad(values_SCT, (0, length - 1)).unfold(-1, length, 1)


def allowed_spans(text_mask_ST: Tensor, length: int) -> Tensor:
    """allowed_STL, bool: the spans of at most `length` tokens within the post's text, which is contiguous."""
    text_S1T = text_mask_ST.bool().unsqueeze(1)
    return (text_S1T.unsqueeze(-1) & band(text_S1T.int(), length).bool()).squeeze(1)


def best_spans(scores_SCTL: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """spans_SCK2 and their scores_SCK, chosen greedily: each is the best that does not overlap the spans chosen before
    it.

    If there are fewer than `count`, the spans are padded with -1 and the scores with MASKED, which also marks forbidden
    spans in scores_SCTL.
    """
    _, _, T, L = scores_SCTL.shape
    first_T = torch.arange(T, device=scores_SCTL.device)
    # Once a span is chosen, a token before it can still begin the spans that end before it: its shortest ones. So the
    # maxima over each token's l shortest spans, for each l, are enough to find the next span.
    best_SCTL = scores_SCTL.cummax(dim=-1).values
    left_SCT = torch.full(scores_SCTL.shape[:3], L, device=scores_SCTL.device)
    spans, scores = [], []
    for _ in range(count):
        best_SCT = best_SCTL.gather(-1, (left_SCT - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
        best_SC1, first_SC1 = best_SCT.masked_fill(left_SCT == 0, MASKED).max(dim=-1, keepdim=True)
        of_first_SCL = scores_SCTL.take_along_dim(first_SC1.unsqueeze(-1), dim=2).squeeze(2)
        last_SC1 = first_SC1 + (of_first_SCL == best_SC1).int().argmax(dim=-1, keepdim=True)
        spans.append(torch.cat([first_SC1, last_SC1], dim=-1).masked_fill(best_SC1 <= MASKED, -1))
        scores.append(best_SC1.squeeze(-1))
        before_SCT = torch.minimum(left_SCT, (first_SC1 - first_T).clamp(min=0))
        left_SCT = left_SCT.where(first_T > last_SC1, before_SCT)
    return torch.stack(spans, dim=2), torch.stack(scores, dim=2)


def best_within(scores_SCTL: Tensor, ranges_SJ2: Tensor) -> Tensor:
    """best_SCJ: the highest score of the spans within each range of tokens (first, last); MASKED if there is none."""
    S, C, T, L = scores_SCTL.shape
    J = ranges_SJ2.shape[1]
    token_T = torch.arange(T, device=scores_SCTL.device)
    # A span that begins at a token ends in its range if it is no longer than what is left of the range.
    left_SJT = (ranges_SJ2[..., 1:] - token_T).clamp(min=0, max=L - 1)
    best_SCTL = scores_SCTL.cummax(dim=-1).values
    index_SCJT1 = left_SJT[:, None, :, :, None].expand(S, C, J, T, 1)
    best_SCJT = best_SCTL.unsqueeze(2).expand(S, C, J, T, L).gather(-1, index_SCJT1).squeeze(-1)
    return best_SCJT.masked_fill(~tokens_in(ranges_SJ2, T).unsqueeze(1), MASKED).amax(dim=-1)


def tokens_in(ranges_SJ2: Tensor, tokens: int) -> Tensor:
    """inside_SJT, bool: the tokens of each range (first, last); none of one that is padded with -1."""
    token_T = torch.arange(tokens, device=ranges_SJ2.device)
    first_SJ1, last_SJ1 = ranges_SJ2[..., :1], ranges_SJ2[..., 1:]
    return (token_T >= first_SJ1) & (token_T <= last_SJ1) & (first_SJ1 >= 0)


def best_places(
    first_SCX: Tensor, last_SCX: Tensor, scores_SCX: Tensor, present_SCX: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """spans_SCK2 and scores_SCK of the best of X disjoint spans, some of which are missing."""
    ranked_SCX, order_SCX = scores_SCX.masked_fill(~present_SCX, -1.0).sort(dim=-1, descending=True, stable=True)
    spans_SCX2 = torch.stack([first_SCX.gather(-1, order_SCX), last_SCX.gather(-1, order_SCX)], dim=-1)
    spans_SCX2 = spans_SCX2.masked_fill((ranked_SCX < 0).unsqueeze(-1), -1)
    missing = max(count - ranked_SCX.shape[-1], 0)
    spans_SCK2 = F.pad(spans_SCX2[:, :, :count], (0, 0, 0, missing), value=-1)
    return spans_SCK2, F.pad(ranked_SCX[..., :count].clamp(min=0.0), (0, missing))


def choice_loss(logits_SCX: Tensor, gold_G3: Tensor, known_SC: Tensor, count: Tensor | None = None) -> Tensor:
    """Cross-entropy of a choice among X, a scalar: the target is uniform over the gold choices (rows (s, c, x), which
    may repeat); if there is none, it is choice 0, no evidence.
    """
    gold_SCX = torch.zeros_like(logits_SCX, dtype=torch.bool)
    gold_SCX[tuple(gold_G3.unbind(dim=-1))] = True
    gold_SCX[..., 0] = ~gold_SCX.any(dim=-1)
    gold_logit_SC = (logits_SCX * gold_SCX).sum(dim=-1) / gold_SCX.sum(dim=-1)
    return mean_over_known(logits_SCX.logsumexp(dim=-1) - gold_logit_SC, known_SC, count)


def mean_over_known(loss_SC: Tensor, known_SC: Tensor, count: Tensor | None = None) -> Tensor:
    """The mean over the outputs whose evidence is known; 0, with a zero gradient, if it is known for none.

    `count` replaces their number if these are a share of a batch (redsm5/data/batches.py).
    """
    return (loss_SC * known_SC).sum() / (known_SC.sum().clamp(min=1) if count is None else count)
