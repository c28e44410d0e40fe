"""The evidence heads: losses by hand, what is masked, what is proposed, and what unknown evidence teaches.

Shapes: S sequences, C outputs, T tokens, L the greatest length of a span, J sentences a sequence, H hidden.
"""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from redsm5.model.evidence_heads import BiaffineHead, EvidenceHead, StartEndHead, build_evidence_head
from redsm5.model.sentences import SentenceReranker, arrange, gold_sentences
from redsm5.model.spans import MASKED, Candidates
from tests.model.batch import LENGTHS, TOKENS, Batch, backward, model_config, random_batch

HEADS = ("start_end_linear", "start_end_mlp", "biaffine", "bio_crf", "sentence_reranker")
H, C, K = 8, 9, 3


def build(name: str, *overrides: str, outputs: int = C) -> EvidenceHead:
    torch.manual_seed(0)
    config = model_config(f"evidence_head_type={name}", "max_span_tokens=4", *overrides)
    return build_evidence_head(config, hidden_size=H, outputs=outputs).eval()


def states(batch: Batch, *, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return scale * torch.randn(*batch["input_ids_ST"].shape, H, generator=generator)


def known(*values: bool) -> Tensor:
    return torch.tensor([values])


# ---------------------------------------------------------------------------------------------------------------------
# all heads


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])
def test_a_batch_without_known_evidence_has_loss_0_and_a_gradient_of_zeros(name: str, precision: torch.dtype) -> None:
    head, batch = build(name).to(precision), random_batch()
    batch["known_SC"] = torch.zeros_like(batch["known_SC"])
    outputs = head(states(batch).to(precision), batch)
    loss = head.loss(outputs, batch)
    backward(loss)
    assert loss.item() == 0.0
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert (parameter.grad == 0).all()


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_in_which_no_output_has_evidence_teaches_that_there_is_none(name: str) -> None:
    """Neither a gold span nor, for the reranker, a sentence in the last sequence: the loss falls, and so do margins."""
    head, batch = build(name), random_batch()
    batch["spans_G4"] = torch.zeros(0, 4, dtype=torch.long)
    batch["sentences_M3"] = batch["sentences_M3"][batch["sentences_M3"][:, 0] < 3]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    margins = []
    for _ in range(2):
        outputs = head(states(batch), batch)
        margins.append(head.decode(outputs, batch, count=K).margin_SC[:3].mean().item())
        backward(head.loss(outputs, batch))
        optimizer.step()
    assert margins[1] < margins[0]


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_without_sentences_or_spans_is_scored(name: str) -> None:
    head, batch = build(name), random_batch()
    batch["spans_G4"], batch["sentences_M3"] = torch.zeros(0, 4).long(), torch.zeros(0, 3).long()
    outputs = head(states(batch), batch)
    loss = head.loss(outputs, batch)
    backward(loss)
    assert loss.isfinite()
    assert all(p.grad is not None for p in head.parameters())
    check_candidates(head.decode(outputs, batch, count=K), batch)


@pytest.mark.parametrize("name", HEADS)
def test_evidence_that_is_unknown_teaches_nothing(name: str) -> None:
    """Whatever the gold spans of an unknown output are, loss and gradients are the same."""
    head, batch = build(name), random_batch()
    batch["known_SC"][0, 1] = False
    changed = dict(batch)
    elsewhere_G = ~((batch["spans_G4"][:, 0] == 0) & (batch["spans_G4"][:, 1] == 1))
    changed["spans_G4"] = torch.cat([batch["spans_G4"][elsewhere_G], torch.tensor([[0, 1, 5, 6]])])
    losses = []
    for each in (batch, changed):
        head.zero_grad()
        loss = head.loss(head(states(each), each), each)
        backward(loss)
        losses.append((loss.item(), [p.grad.clone() for p in head.parameters() if p.grad is not None]))
    assert losses[0][0] == losses[1][0] > 0
    for left, right in zip(losses[0][1], losses[1][1], strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_candidates_lie_in_the_text_apart_from_each_other_best_first(name: str, precision: torch.dtype) -> None:
    head, batch = build(name).to(precision), random_batch(lengths=(*LENGTHS, 2), text_start=1)
    candidates = head.decode(head(states(batch, scale=3.0).to(precision), batch), batch, count=K)
    check_candidates(candidates, batch)
    assert (candidates.spans_SCK2[4] == -1).all()  # it has no text
    assert (candidates.margin_SC[4] < -1e9).all()
    assert (candidates.spans_SCK2[0, :, 0] > 0).all()
    if name not in ("bio_crf", "sentence_reranker"):
        lengths_SCK = candidates.spans_SCK2[..., 1] - candidates.spans_SCK2[..., 0] + 1
        assert lengths_SCK.max() <= 4


def check_candidates(candidates: Candidates, batch: Batch) -> None:
    """What is promised of all candidates."""
    spans_SCK2, scores_SCK, margin_SC = candidates
    S, C = batch["known_SC"].shape
    assert spans_SCK2.shape == (S, C, K, 2)
    assert spans_SCK2.dtype == torch.int64
    assert scores_SCK.shape == (S, C, K)
    assert scores_SCK.dtype == margin_SC.dtype == torch.float32
    assert margin_SC.shape == (S, C)
    assert margin_SC.isfinite().all()
    assert ((scores_SCK >= 0) & (scores_SCK <= 1)).all()
    assert (scores_SCK.diff(dim=-1) <= 0).all()
    for s, c in product(range(S), range(C)):
        taken: set[int] = set()
        for (first, last), score in zip(spans_SCK2[s, c].tolist(), scores_SCK[s, c].tolist(), strict=True):
            if first < 0:
                assert (last, score) == (-1, 0.0)
                continue
            tokens = set(range(first, last + 1))
            assert tokens
            assert not tokens & taken
            assert all(batch["text_mask_ST"][s, t] for t in tokens)
            taken |= tokens


# ---------------------------------------------------------------------------------------------------------------------
# start and end


def test_start_end_loss_by_hand() -> None:
    """Output 0: evidence at tokens 1 to 2 and 1 to 3, whose start counts once; output 1: none, which is token 0."""
    logits_SCT2 = torch.zeros(1, 2, 4, 2)
    logits_SCT2[0, 0, 1, 0] = 1.0
    logits_SCT2[0, 0, 3, 1] = 2.0
    batch = {"spans_G4": torch.tensor([[0, 0, 1, 2], [0, 0, 1, 3]]), "known_SC": known(True, True)}
    loss = build("start_end_linear").loss({"evidence_logits_SCT2": logits_SCT2}, batch)
    start = [math.log(3 + math.e) - 1, math.log(4)]
    end = [math.log(3 + math.e**2) - (0 + 2) / 2, math.log(4)]
    assert loss.item() == pytest.approx((sum(start) / 2 + sum(end) / 2) / 2)


@pytest.mark.parametrize("name", ["start_end_linear", "start_end_mlp"])
def test_only_the_text_and_the_first_token_have_logits(name: str) -> None:
    batch = random_batch(text_start=4)
    logits_SCT2 = build(name)(states(batch), batch)["evidence_logits_SCT2"]
    assert logits_SCT2.shape == (4, C, TOKENS, 2)
    eligible_ST = batch["text_mask_ST"].bool()
    eligible_ST[:, 0] = True
    assert ((logits_SCT2 > MASKED).all(dim=-1) == eligible_ST.unsqueeze(1)).all()


def test_start_end_candidates_by_hand() -> None:
    """Tokens 0 to 4, the text is 1 to 3. The best span is (2, 3); what is left is token 1 alone."""
    start_T, end_T = torch.tensor([1.0, 0.0, 3.0, 0.5, MASKED]), torch.tensor([0.5, 1.0, 0.0, 2.0, MASKED])
    outputs = {"evidence_logits_SCT2": torch.stack([start_T, end_T], dim=-1)[None, None]}
    batch = {"text_mask_ST": torch.tensor([[0, 1, 1, 1, 0]])}
    spans_SCK2, scores_SCK, margin_SC = build("start_end_linear").decode(outputs, batch, count=K)
    assert spans_SCK2.tolist() == [[[[2, 3], [1, 1], [-1, -1]]]]
    start_p, end_p = start_T.softmax(0), end_T.softmax(0)
    expected = [math.sqrt(start_p[2] * end_p[3]), math.sqrt(start_p[1] * end_p[1]), 0.0]
    assert scores_SCK[0, 0].tolist() == pytest.approx(expected)
    assert margin_SC.item() == pytest.approx((3.0 + 2.0) - (1.0 + 0.5))


def test_the_hidden_layer_is_what_tells_the_two_start_end_heads_apart() -> None:
    head, batch = build("start_end_mlp", "activation=tanh"), random_batch()
    assert isinstance(head, StartEndHead)
    assert sum(p.numel() for p in head.parameters()) == H * H + H + 2 * C * H
    assert sum(p.numel() for p in build("start_end_linear").parameters()) == 2 * C * H
    states_STH = states(batch)
    hidden_STH = torch.tanh(head.hidden[0](states_STH))
    logits_SCT2 = head(states_STH, batch)["evidence_logits_SCT2"]
    torch.testing.assert_close(logits_SCT2[1, :, 2].flatten(), head.linear(hidden_STH[1, 2]))


# ---------------------------------------------------------------------------------------------------------------------
# biaffine


def test_a_biaffine_score_is_that_of_its_first_and_last_token() -> None:
    head, batch = build("biaffine", "activation=tanh"), random_batch()
    assert isinstance(head, BiaffineHead)
    states_STH = states(batch)
    outputs = head(states_STH, batch)
    scores_SCTL = outputs["evidence_scores_SCTL"]
    one = torch.ones(1)
    for s, first, last in ((0, 1, 1), (0, 2, 5), (1, 7, 9)):
        left = torch.cat([torch.tanh(head.first(states_STH[s, first])), one])
        right = torch.cat([torch.tanh(head.last(states_STH[s, last])), one])
        for c in range(C):
            expected = left @ head.weight_CDD[c] @ right
            torch.testing.assert_close(scores_SCTL[s, c, first, last - first], expected)
    assert (scores_SCTL[1, :, 9, 1] == MASKED).all()  # token 10 is the closing special one
    torch.testing.assert_close(outputs["evidence_null_SC"], head.null(states_STH[:, 0]))


def test_biaffine_loss_by_hand_with_a_span_that_is_too_long() -> None:
    """L = 2. Output 0: spans (1, 1) and (1, 9), of which (1, 2) is meant; output 1: none."""
    scores_SCTL = torch.full((1, 2, 3, 2), MASKED)
    scores_SCTL[:, :, 1] = torch.tensor([1.0, 2.0])
    scores_SCTL[:, :, 2, 0] = 0.5
    null_SC = torch.tensor([[0.0, 3.0]])
    batch = {"spans_G4": torch.tensor([[0, 0, 1, 1], [0, 0, 1, 9]]), "known_SC": known(True, True)}
    outputs = {"evidence_scores_SCTL": scores_SCTL, "evidence_null_SC": null_SC}
    spans = math.e + math.e**2 + math.exp(0.5)
    expected = (math.log(1 + spans) - (1 + 2) / 2 + math.log(math.e**3 + spans) - 3) / 2
    assert build("biaffine").loss(outputs, batch).item() == pytest.approx(expected)
    spans_SCK2, scores_SCK, margin_SC = build("biaffine").decode(outputs, batch, count=K)
    assert spans_SCK2[0, 0].tolist() == [[1, 2], [-1, -1], [-1, -1]]  # (2, 2) overlaps with it, and so does (1, 1)
    assert scores_SCK[0, :, 0].tolist() == pytest.approx([math.e**2 / (1 + spans), math.e**2 / (math.e**3 + spans)])
    assert margin_SC.tolist() == [[2.0, -1.0]]


# ---------------------------------------------------------------------------------------------------------------------
# sentences


def test_sentences_are_arranged_by_sequence_whatever_their_order() -> None:
    sentences_M3 = torch.tensor([[2, 5, 9], [0, 1, 3], [2, 1, 4], [0, 4, 6], [2, 10, 11]])
    none = [-1, -1]
    assert arrange(sentences_M3, 3).tolist() == [
        [[1, 3], [4, 6], none],
        [none, none, none],
        [[5, 9], [1, 4], [10, 11]],
    ]
    assert arrange(torch.zeros(0, 3, dtype=torch.long), 2).tolist() == [[none], [none]]


@pytest.mark.parametrize(
    ("first", "last", "gold"),
    [
        (1, 4, [True, False, False]),
        (3, 6, [True, True, False]),  # half of the span, which is as long as the first sentence
        (4, 6, [False, True, False]),  # one of three tokens of the shorter
        (2, 2, [True, False, False]),  # all of the shorter, which is the span
        (3, 10, [True, True, True]),  # half of the first, all of the second, both tokens of the third
    ],
)
def test_a_sentence_is_gold_where_it_shares_half_of_the_shorter(first: int, last: int, gold: list[bool]) -> None:
    ranges_SJ2 = torch.tensor([[[1, 4], [5, 8], [9, 10]], [[1, 4], [-1, -1], [-1, -1]]])
    gold_SCJ = gold_sentences(ranges_SJ2, torch.tensor([[0, 1, first, last]]), 2)
    assert gold_SCJ[0, 1].tolist() == gold
    assert not gold_SCJ[0, 0].any()
    assert not gold_SCJ[1].any()


def test_reranker_loss_and_candidates_by_hand() -> None:
    """One sequence of two sentences, and another of one; the second output is known of neither."""
    logits_SCJ = torch.tensor([[[1.0, -2.0], [0.0, 0.0]], [[0.5, MASKED], [0.0, MASKED]]])
    batch = {
        "sentences_M3": torch.tensor([[0, 1, 4], [0, 5, 8], [1, 1, 3]]),
        "spans_G4": torch.tensor([[0, 0, 1, 4]]),
        "known_SC": torch.tensor([[True, False], [True, False]]),
    }
    head, outputs = build("sentence_reranker"), {"evidence_logits_SCJ": logits_SCJ}
    first = math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))
    second = math.log1p(math.exp(0.5))
    assert head.loss(outputs, batch).item() == pytest.approx((first + second) / 2)
    spans_SCK2, scores_SCK, margin_SC = head.decode(outputs, batch, count=K)
    assert spans_SCK2[:, 0].tolist() == [[[1, 4], [5, 8], [-1, -1]], [[1, 3], [-1, -1], [-1, -1]]]
    assert scores_SCK[0, 0].tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2)), 0.0])
    assert margin_SC.tolist() == [[1.0, 0.0], [0.5, 0.0]]


def test_a_sentence_is_read_as_the_mean_of_its_states_beside_that_of_the_first_token() -> None:
    head, batch = build("sentence_reranker", "activation=tanh"), random_batch()
    assert isinstance(head, SentenceReranker)
    states_STH = states(batch)
    logits_SCJ = head(states_STH, batch)["evidence_logits_SCJ"]
    sentence_H = states_STH[1, 4:7].mean(0)
    hidden_H = torch.tanh(head.hidden(torch.cat([sentence_H, states_STH[1, 0]])))
    torch.testing.assert_close(logits_SCJ[1, :, 1], head.linear(hidden_H))
    assert (logits_SCJ[1, :, 3:] == MASKED).all()
