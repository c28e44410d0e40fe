"""Spans against trying all of them: bands, the best that do not overlap, choices by hand.

Shapes: S sequences, C outputs, T tokens, L the greatest length of a span, D size of a vector.
"""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from redsm5.model.evidence_heads import banded_products
from redsm5.model.spans import (
    MASKED,
    allowed_spans,
    band,
    best_places,
    best_spans,
    best_within,
    choice_loss,
    mean_over_known,
    tokens_in,
)
from tests.model.batch import backward

seeds = st.integers(0, 2**31 - 1)


def greedy(scores_TL: Tensor, count: int) -> list[tuple[int, int, float]]:
    """By trying all spans: again and again the first best in the order of (first, last) that overlaps with none."""
    T, L = scores_TL.shape
    spans = [(t, t + length, scores_TL[t, length].item()) for t, length in product(range(T), range(L))]
    left = [span for span in spans if span[2] > MASKED]
    chosen: list[tuple[int, int, float]] = []
    while left and len(chosen) < count:
        best = max(left, key=lambda span: span[2])
        chosen.append(best)
        left = [span for span in left if span[0] > best[1] or span[1] < best[0]]
    return chosen


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 5), seeds, st.booleans())
def test_the_chosen_spans_are_the_best_of_all_that_do_not_overlap(
    T: int, L: int, count: int, seed: int, with_ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores_SCTL = torch.randn(2, 3, T, min(L, T), generator=generator)
    if with_ties:
        scores_SCTL = scores_SCTL.round()
    text_mask_ST = (torch.arange(T) < torch.tensor([[T - 1], [T // 2]])).long()
    scores_SCTL = scores_SCTL.masked_fill(~allowed_spans(text_mask_ST, min(L, T)).unsqueeze(1), MASKED)
    spans_SCK2, scores_SCK = best_spans(scores_SCTL, count)
    for s, c in product(range(2), range(3)):
        expected = greedy(scores_SCTL[s, c], count)
        expected += [(-1, -1, scores_SCK[s, c, -1].item())] * (count - len(expected))
        found = zip(spans_SCK2[s, c].tolist(), scores_SCK[s, c].tolist(), strict=True)
        assert [(first, last, score) for (first, last), score in found] == expected


@pytest.mark.parametrize("length", [1, 3, 6])
def test_a_span_may_be_where_all_of_it_is_text(length: int) -> None:
    text_mask_ST = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0]])
    allowed_STL = allowed_spans(text_mask_ST, length)
    for s, t, step in product(range(3), range(6), range(length)):
        inside = text_mask_ST[s, t : t + step + 1].tolist()
        assert bool(allowed_STL[s, t, step]) == (len(inside) == step + 1 and all(inside))


def test_a_band_holds_what_follows_each_token() -> None:
    banded_SCTL = band(torch.tensor([[[1.0, 2.0, 3.0]]]), 2)
    assert banded_SCTL.tolist() == [[[[1.0, 2.0], [2.0, 3.0], [3.0, 0.0]]]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 8), seeds)
def test_the_banded_products_are_those_of_each_pair(T: int, L: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first_STCD = torch.randn(2, T, 3, 4, generator=generator)
    last_STD = torch.randn(2, T, 4, generator=generator)
    all_SCTT = torch.einsum("itcd,iud->ictu", first_STCD, last_STD)
    scores_SCTL = banded_products(first_STCD, last_STD, L)
    assert scores_SCTL.shape == (2, 3, T, L)
    for t, step in product(range(T), range(L)):
        expected_SC = all_SCTT[:, :, t, t + step] if t + step < T else torch.zeros(2, 3)
        torch.testing.assert_close(scores_SCTL[:, :, t, step], expected_SC)


def test_the_best_places_are_ranked_and_empty_ones_are_left_out() -> None:
    first_SCX, last_SCX = torch.tensor([[[1, 4, -1, 8]]]), torch.tensor([[[3, 7, -1, 9]]])
    scores_SCX = torch.tensor([[[0.2, 0.5, 0.9, 0.5]]])
    spans_SCK2, scores_SCK = best_places(first_SCX, last_SCX, scores_SCX, first_SCX >= 0, 5)
    assert spans_SCK2.tolist() == [[[[4, 7], [8, 9], [1, 3], [-1, -1], [-1, -1]]]]
    assert scores_SCK.tolist() == [[[0.5, 0.5, pytest.approx(0.2), 0.0, 0.0]]]
    spans_SCK2, _ = best_places(first_SCX, last_SCX, scores_SCX, first_SCX >= 0, 1)
    assert spans_SCK2.tolist() == [[[[4, 7]]]]


def test_the_target_of_a_choice_is_uniform_over_the_gold_ones_and_choice_0_without_any() -> None:
    """Output 0: choices 1 and 3, one of them named twice; output 1: none; output 2: choice 2, but it is not known."""
    logits_SCX = torch.tensor([[[0.0, 1.0, 0.0, 2.0], [0.5, 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]]])
    gold_G3 = torch.tensor([[0, 0, 1], [0, 0, 3], [0, 0, 3], [0, 2, 2]])
    loss = choice_loss(logits_SCX, gold_G3, torch.tensor([[True, True, False]]))
    first = math.log(2 + math.e + math.e**2) - (1 + 2) / 2
    second = math.log(math.exp(0.5) + 3) - 0.5
    assert loss.item() == pytest.approx((first + second) / 2)


def test_the_mean_over_nothing_known_is_0_with_a_gradient_of_zeros() -> None:
    loss_SC = torch.tensor([[3.0, 5.0]], requires_grad=True)
    assert mean_over_known(loss_SC, torch.tensor([[False, True]])).item() == 5.0
    nothing = mean_over_known(loss_SC, torch.tensor([[False, False]]))
    backward(nothing)
    assert nothing.item() == 0.0
    assert loss_SC.grad is not None
    assert loss_SC.grad.tolist() == [[0.0, 0.0]]


def test_the_best_span_within_a_range_is_that_of_trying_all() -> None:
    generator = torch.Generator().manual_seed(3)
    scores_SCTL = torch.randn(2, 3, 9, 4, generator=generator)
    ranges_SJ2 = torch.tensor([[[0, 0], [1, 2], [2, 8], [-1, -1]], [[3, 7], [8, 8], [0, 8], [-1, -1]]])
    best_SCJ = best_within(scores_SCTL, ranges_SJ2)
    for s, c, j in product(range(2), range(3), range(4)):
        first, last = ranges_SJ2[s, j].tolist()
        inside = [
            scores_SCTL[s, c, t, width].item()
            for t, width in product(range(9), range(4))
            if first >= 0 and t >= first and t + width <= last
        ]
        assert best_SCJ[s, c, j].item() == pytest.approx(max(inside, default=MASKED), rel=1e-6)
    assert tokens_in(ranges_SJ2, 9).sum(dim=-1).tolist() == [[1, 2, 7, 0], [5, 1, 9, 0]]
