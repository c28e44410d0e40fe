"""The chain against enumeration of all its paths: log Z, the best path with a span, marginals, margin, likelihood.

Shapes: S sequences, C outputs, T tokens; 3 tags.
"""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from redsm5.model.crf import (
    AFTER,
    BEFORE,
    BEGIN,
    INSIDE,
    B,
    BioCrfHead,
    I,
    O,
    best_path_with_span,
    chain,
    gold_tags,
    log_partition,
    path_score,
    posteriors,
    spans_of,
)
from tests.model.batch import backward, model_config

Path = tuple[int, ...]
TEXTS = ((1, 5), (0, 3), (2, 3), (1, 0))  # first token and number of tokens of each sequence's text; the last has none
T, C = 7, 2


def random_chain(seed: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """emissions_SCT3, transitions_C33, text_mask_ST: different lengths beside each other."""
    generator = torch.Generator().manual_seed(seed)
    emissions_SCT3 = scale * torch.randn(len(TEXTS), C, T, 3, generator=generator)
    transitions_C33 = scale * torch.randn(C, 3, 3, generator=generator)
    text_mask_ST = torch.tensor([[int(first <= t < first + n) for t in range(T)] for first, n in TEXTS])
    return emissions_SCT3, transitions_C33, text_mask_ST


def all_paths(emissions_SCT3: Tensor, transitions_C33: Tensor, s: int, c: int) -> dict[Path, float]:
    """Each path that is allowed over a sequence's text, with its score."""
    first, n = TEXTS[s]
    scores = {}
    for path in product((O, B, I), repeat=n):
        steps = list(zip((O, *path), path, strict=False))
        if (O, I) not in steps:
            tags = sum(emissions_SCT3[s, c, first + t, tag].item() for t, tag in enumerate(path))
            scores[path] = tags + sum(transitions_C33[c, i, j].item() for i, j in steps)
    return scores


def log_sum(scores: list[float]) -> float:
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.1, 1.0, 5.0]))
def test_the_chain_is_that_of_all_paths(seed: int, scale: float) -> None:
    emissions_SCT3, transitions_C33, text_mask_ST = random_chain(seed, scale)
    steps_SCT44 = chain(emissions_SCT3, transitions_C33, text_mask_ST)
    log_z_SC = log_partition(steps_SCT44)
    posterior_SCT, margin_SC = posteriors(steps_SCT44)
    states_SCT = best_path_with_span(steps_SCT44)
    for s, c in product(range(len(TEXTS)), range(C)):
        first, n = TEXTS[s]
        paths = all_paths(emissions_SCT3, transitions_C33, s, c)
        log_z = log_sum(list(paths.values()))
        assert log_z_SC[s, c].item() == pytest.approx(log_z, abs=1e-4)
        if n == 0:
            assert margin_SC[s, c] < -1e9
            assert math.isfinite(margin_SC[s, c])
            continue
        none = (O,) * n
        with_span = {path: score for path, score in paths.items() if path != none}
        margin = log_sum(list(with_span.values())) - paths[none]
        assert margin_SC[s, c].item() == pytest.approx(margin, abs=1e-4)
        for t in range(n):
            p = sum(math.exp(score - log_z) for path, score in paths.items() if path[t] in (B, I))
            assert posterior_SCT[s, c, first + t].item() == pytest.approx(p, abs=1e-4)
        states = states_SCT[s, c, first : first + n].tolist()
        tags = tuple({BEFORE: O, AFTER: O, BEGIN: B, INSIDE: I}[state] for state in states)
        assert with_span[tags] == pytest.approx(max(with_span.values()), abs=1e-4)


@pytest.mark.parametrize("margin", [-4.0, 4.0])
def test_the_best_path_without_a_span_is_passed_over_but_decides_the_margin(margin: float) -> None:
    """One token, no transitions: B against O by `margin`, I impossible."""
    emissions_SCT3 = torch.tensor([[[[0.0, margin, 0.0]]]])
    steps_SCT44 = chain(emissions_SCT3, torch.zeros(1, 3, 3), torch.ones(1, 1))
    assert best_path_with_span(steps_SCT44).tolist() == [[[BEGIN]]]
    posterior_SCT, margin_SC = posteriors(steps_SCT44)
    assert margin_SC.item() == pytest.approx(margin)
    assert posterior_SCT.item() == pytest.approx(1 / (1 + math.exp(-margin)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_the_loss_is_the_negative_log_likelihood_of_the_gold_path(seed: int) -> None:
    """Two spans that touch in the first sequence, a third in another output, none elsewhere; one output is unknown."""
    emissions_SCT3, transitions_C33, text_mask_ST = random_chain(seed, 1.0)
    head = BioCrfHead(model_config(), 4, C)
    head.transitions_C33.data = transitions_C33
    known_SC = torch.ones(len(TEXTS), C, dtype=torch.bool)
    known_SC[2, 0] = False
    spans_G4 = torch.tensor([[0, 0, 1, 2], [0, 0, 3, 3], [1, 1, 0, 1], [2, 0, 3, 4]])
    batch = {"spans_G4": spans_G4, "known_SC": known_SC, "text_mask_ST": text_mask_ST}
    gold = {(0, 0): (B, I, B, O, O), (1, 1): (B, I, O)}
    losses = []
    for s, c in product(range(len(TEXTS)), range(C)):
        if known_SC[s, c]:
            paths = all_paths(emissions_SCT3, transitions_C33, s, c)
            losses.append(log_sum(list(paths.values())) - paths[gold.get((s, c), (O,) * TEXTS[s][1])])
    loss = head.loss({"evidence_emissions_SCT3": emissions_SCT3}, batch)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), abs=1e-4)


def test_gold_spans_that_overlap_are_one_and_those_that_touch_are_two() -> None:
    spans_G4 = torch.tensor([[0, 0, 1, 3], [0, 0, 3, 5], [0, 1, 1, 2], [0, 1, 3, 4], [0, 2, 1, 5], [0, 2, 2, 3]])
    assert gold_tags(spans_G4, (1, 3, 7)).tolist() == [
        [[O, B, I, I, I, I, O], [O, B, I, B, I, O, O], [O, B, I, I, I, I, O]]
    ]


def test_a_span_scores_the_mean_of_its_tokens_and_the_best_come_first() -> None:
    states_SCT = torch.tensor([[[BEFORE, BEGIN, INSIDE, BEGIN, AFTER, BEGIN]]])
    posterior_SCT = torch.tensor([[[0.1, 0.6, 0.8, 0.9, 0.2, 0.3]]])
    spans_SCK2, scores_SCK = spans_of(states_SCT, posterior_SCT, 4)
    assert spans_SCK2.tolist() == [[[[3, 3], [1, 2], [5, 5], [-1, -1]]]]
    assert scores_SCK[0, 0].tolist() == pytest.approx([0.9, 0.7, 0.3, 0.0])
    assert spans_of(states_SCT, posterior_SCT, 1)[0].tolist() == [[[[3, 3]]]]


def test_a_long_chain_stays_finite_and_its_gradient_is_expected_minus_observed() -> None:
    """The gradient of log Z by an emission is the tag's probability: that of B and I is what `posteriors` says."""
    generator = torch.Generator().manual_seed(0)
    emissions_SCT3 = (5 * torch.randn(2, 1, 301, 3, generator=generator)).requires_grad_()
    transitions_C33 = torch.randn(1, 3, 3, generator=generator, requires_grad=True)
    text_mask_ST = (torch.arange(301) < torch.tensor([[301], [200]])).long()
    tags_SCT = torch.zeros(2, 1, 301, dtype=torch.long)
    steps_SCT44 = chain(emissions_SCT3, transitions_C33, text_mask_ST)
    log_z_SC = log_partition(steps_SCT44)
    backward((log_z_SC - path_score(emissions_SCT3, transitions_C33, text_mask_ST, tags_SCT)).sum())
    assert emissions_SCT3.grad is not None
    assert transitions_C33.grad is not None
    assert transitions_C33.grad.isfinite().all()
    assert transitions_C33.grad[0, O, I] == 0.0
    posterior_SCT, _ = posteriors(steps_SCT44.detach().double())
    expected_SCT = posterior_SCT.float() * text_mask_ST.unsqueeze(1)
    torch.testing.assert_close(emissions_SCT3.grad[..., [B, I]].sum(-1), expected_SCT, atol=1e-3, rtol=0)
    torch.testing.assert_close(emissions_SCT3.grad[..., O], -expected_SCT, atol=1e-3, rtol=0)
