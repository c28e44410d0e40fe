"""The model against its own words: shapes, losses by hand, spans against every possible one, who is decayed, rates.

Shapes: B posts, T tokens, H hidden, C criteria.
"""

import math
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from redsm5.errors import InputError
from redsm5.model import (
    MultiTaskModel,
    architecture,
    build_optimizer,
    build_schedule,
    decode_spans,
    head_config,
    multitask_loss,
    steps_per_epoch,
)
from redsm5.model.evidence_heads import MAX_SPAN_TOKENS, StartEndLinearHead
from redsm5.model.losses import criteria_loss, evidence_loss
from redsm5.sections import ModelConfig, TaskWeights, compose

B, T, C, VOCABULARY = 3, 16, 9, 50


def model_config(*overrides: str) -> ModelConfig:
    return compose(["model.max_length=16", *overrides]).model


def build(*overrides: str) -> MultiTaskModel:
    torch.manual_seed(0)
    return MultiTaskModel(model_config(*overrides), vocab_size=VOCABULARY, criteria=C).eval()


def posts(lengths: list[int]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_ids_BT = torch.randint(1, VOCABULARY, (len(lengths), T), generator=generator)
    attention_mask_BT = (torch.arange(T)[None] < torch.tensor(lengths)[:, None]).long()
    return input_ids_BT * attention_mask_BT, attention_mask_BT


# ---------------------------------------------------------------------------------------------------------------------
# forward


@pytest.mark.parametrize("pooling", ["cls", "attention"])
def test_a_logit_for_each_symptom_and_two_for_each_token_of_it(pooling: str) -> None:
    outputs = build(f"model.criteria_pooling={pooling}")(*posts([16, 9, 4]))
    assert outputs["criteria_logits_BC"].shape == (B, C)
    assert outputs["evidence_logits_BCT2"].shape == (B, C, T, 2)
    assert outputs["criteria_logits_BC"].isfinite().all()


@pytest.mark.parametrize("pooling", ["cls", "attention"])
def test_padding_changes_nothing(pooling: str) -> None:
    model = build(f"model.criteria_pooling={pooling}")
    input_ids_BT, attention_mask_BT = posts([9])
    padded = model(input_ids_BT, attention_mask_BT)
    bare = model(input_ids_BT[:, :9], attention_mask_BT[:, :9])
    torch.testing.assert_close(padded["criteria_logits_BC"], bare["criteria_logits_BC"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        padded["evidence_logits_BCT2"][:, :, :8], bare["evidence_logits_BCT2"][:, :, :8], atol=1e-5, rtol=1e-5
    )


def test_every_parameter_has_a_gradient() -> None:
    model = build()
    outputs = model(*posts([16, 9, 4]))
    text_BCT2 = outputs["evidence_logits_BCT2"][:, :, :3]  # the others are masked in the shortest post
    (outputs["criteria_logits_BC"].square().sum() + text_BCT2.square().sum()).backward()
    # [PAD]'s row has none by design; only whole parameters without one would never learn.
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("lengths", [[16, 9, 4], [2, 3, 16]])
def test_padding_and_the_last_special_token_are_never_chosen(lengths: list[int]) -> None:
    head = StartEndLinearHead(8, C, dropout=0.0)
    nn.init.zeros_(head.linear.weight)
    head.linear.bias.data.fill_(0.0)
    _, attention_mask_BT = posts(lengths)
    states_BTH = torch.zeros(len(lengths), T, 8)
    for row, length in enumerate(lengths):
        states_BTH[row, length - 1 :, 0] = 1000.0  # as if [SEP] and padding were the best evidence there is
    head.linear.weight.data[:, 0] = 1.0
    logits_BCT2 = head(states_BTH, attention_mask_BT)
    lowest = torch.finfo(torch.float32).min
    for row, length in enumerate(lengths):
        assert (logits_BCT2[row, :, length - 1 :] == lowest).all()
        assert (logits_BCT2[row, :, : length - 1] == 0).all()
    assert (decode_spans(logits_BCT2)[..., 1] < torch.tensor(lengths)[:, None] - 1).all()


def test_heads_of_half_precision_mask_with_what_it_can_hold() -> None:
    head = StartEndLinearHead(8, C, dropout=0.0).to(torch.bfloat16)
    logits_BCT2 = head(torch.zeros(1, T, 8, dtype=torch.bfloat16), posts([5])[1])
    assert logits_BCT2.isfinite().all()
    assert (decode_spans(logits_BCT2)[..., 1] < 4).all()


def test_architecture_and_head_name_what_must_be_equal() -> None:
    assert architecture(build()) == architecture(build("model.criteria_dropout=0.3"))
    assert architecture(build()) != architecture(build("model.criteria_pooling=cls"))
    assert f"vocabulary {VOCABULARY}," in architecture(build())
    assert head_config(model_config())["max_length"] == 16
    assert "criteria_dropout" not in head_config(model_config())


# ---------------------------------------------------------------------------------------------------------------------
# encoder


def test_an_encoder_is_loaded_from_a_local_folder_and_its_window_is_checked(tmp_path: Path) -> None:
    tiny = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24,
    )  # fmt: skip
    saved = BertModel(tiny, add_pooling_layer=False)
    saved.save_pretrained(tmp_path)
    config = model_config(f"model.model_id={tmp_path}")
    model = MultiTaskModel(config, vocab_size=30, criteria=C)
    key = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(model.encoder.state_dict()[key], saved.state_dict()[key])
    with pytest.raises(InputError, match="max_length=32 exceeds the encoder's window of 24") as caught:
        MultiTaskModel(config.model_copy(update={"max_length": 32}), vocab_size=30, criteria=C)
    assert "model.max_length=24" in str(caught.value)


def test_an_encoder_that_is_not_there_is_an_input_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"model\.model_id") as caught:
        MultiTaskModel(model_config(f"model.model_id={tmp_path / 'empty'}"), vocab_size=30, criteria=C)
    assert caught.value.exit_code == 1
    assert "hf auth login" in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# losses, by hand


def test_criteria_loss_by_hand() -> None:
    loss = criteria_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log1p(math.exp(2))) / 2)


def test_evidence_loss_by_hand() -> None:
    """One post, two symptoms, three tokens: present at tokens 1 to 2, and absent, which is token 0 twice."""
    logits_BCT2 = torch.zeros(1, 2, 3, 2)
    logits_BCT2[0, 0, 1, 0] = 1.0
    start = [math.log(2 + math.e) - 1, math.log(3)]
    end = [math.log(3), math.log(3)]
    loss = evidence_loss(logits_BCT2, torch.tensor([[1, 0]]), torch.tensor([[2, 0]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx((sum(start) / 2 + sum(end) / 2) / 2)


def test_evidence_that_is_unknown_teaches_nothing() -> None:
    """A symptom that is present without its evidence is left out of the mean, and no gradient reaches its logits."""
    torch.manual_seed(0)
    logits_BCT2 = torch.randn(1, 3, 5, 2, requires_grad=True)
    labels_BC, starts_BC, ends_BC = (
        torch.tensor([[1.0, 1.0, 0.0]]),
        torch.tensor([[2, 0, 0]]),
        torch.tensor([[3, 0, 0]]),
    )
    loss = evidence_loss(logits_BCT2, starts_BC, ends_BC, labels_BC)
    known = evidence_loss(logits_BCT2[:, [0, 2]], starts_BC[:, [0, 2]], ends_BC[:, [0, 2]], labels_BC[:, [0, 2]])
    assert loss.item() == pytest.approx(known.item())
    loss.backward()
    assert logits_BCT2.grad is not None
    assert (logits_BCT2.grad[0, 1] == 0).all()
    assert (logits_BCT2.grad[0, [0, 2]] != 0).any(dim=(1, 2)).all()


def test_a_batch_without_any_known_evidence_has_loss_0_and_a_gradient() -> None:
    logits_BCT2 = torch.randn(2, 1, 4, 2, requires_grad=True)
    none = torch.zeros(2, 1, dtype=torch.long)
    loss = evidence_loss(logits_BCT2, none, none, torch.ones(2, 1))
    loss.backward()
    assert loss.item() == 0.0
    assert logits_BCT2.grad is not None
    assert (logits_BCT2.grad == 0).all()


@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])
def test_a_batch_without_any_known_evidence_stays_finite_with_masked_tokens(precision: torch.dtype) -> None:
    """The masked logits are the lowest number there is; their sum must not become infinite, nor the loss NaN."""
    head = StartEndLinearHead(8, 1, dropout=0.0).to(precision)
    logits_BCT2 = head(torch.zeros(2, T, 8, dtype=precision), posts([5, 4])[1])
    none = torch.zeros(2, 1, dtype=torch.long)
    loss = evidence_loss(logits_BCT2, none, none, torch.ones(2, 1))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    torch.manual_seed(0)
    outputs = {"criteria_logits_BC": torch.randn(B, C), "evidence_logits_BCT2": torch.randn(B, C, T, 2)}
    labels_BC = torch.randint(0, 2, (B, C)).float()
    starts_BC = torch.randint(1, T, (B, C)) * labels_BC.long()
    batch = {"labels_BC": labels_BC, "starts_BC": starts_BC, "ends_BC": starts_BC}
    criteria = criteria_loss(outputs["criteria_logits_BC"], labels_BC).item()
    evidence = evidence_loss(outputs["evidence_logits_BCT2"], starts_BC, starts_BC, labels_BC).item()
    loss = multitask_loss(outputs, batch, TaskWeights(criteria=0.5, evidence=2.0))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(0.5 * criteria + 2.0 * evidence)


# ---------------------------------------------------------------------------------------------------------------------
# spans, against every possible one


def best_span(logits_T2: Tensor) -> tuple[int, int]:
    """The first of the best spans in the order of (start, end), found by trying all of them."""
    start, end = logits_T2[:, 0].tolist(), logits_T2[:, 1].tolist()
    T = len(start)
    spans = [(i, j) for i, j in product(range(1, T), repeat=2) if i <= j < i + MAX_SPAN_TOKENS]
    best = max(spans, key=lambda span: start[span[0]] + end[span[1]])
    return best if start[best[0]] + end[best[1]] > start[0] + end[0] else (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 90), st.integers(1, 3), st.integers(0, 2**31 - 1), st.booleans())
def test_the_decoded_span_is_the_best_of_all(T: int, C: int, seed: int, with_ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_BCT2 = torch.randn(2, C, T, 2, generator=generator)
    if with_ties:
        logits_BCT2 = logits_BCT2.round()
    spans_BC2 = decode_spans(logits_BCT2)
    assert spans_BC2.shape == (2, C, 2)
    for b, c in product(range(2), range(C)):
        assert tuple(spans_BC2[b, c].tolist()) == best_span(logits_BCT2[b, c])


def test_a_span_is_never_longer_than_its_limit() -> None:
    logits_BCT2 = torch.zeros(1, 1, 100, 2)
    logits_BCT2[0, 0, 10, 0] = logits_BCT2[0, 0, 10 + MAX_SPAN_TOKENS, 1] = 10.0
    start, end = decode_spans(logits_BCT2)[0, 0].tolist()
    assert end - start < MAX_SPAN_TOKENS
    logits_BCT2[0, 0, 10 + MAX_SPAN_TOKENS - 1, 1] = 10.0
    assert decode_spans(logits_BCT2)[0, 0].tolist() == [10, 10 + MAX_SPAN_TOKENS - 1]


def test_a_span_that_only_equals_no_evidence_is_no_evidence() -> None:
    assert decode_spans(torch.zeros(1, 1, 5, 2)).tolist() == [[[0, 0]]]


# ---------------------------------------------------------------------------------------------------------------------
# optimization


def test_biases_and_normalization_are_not_decayed_and_every_parameter_is_in_one_group() -> None:
    model = build()
    optimizer = build_optimizer(model, compose(["train.weight_decay=0.05"]).train)
    name_of = {id(p): name for name, p in model.named_parameters()}
    decay_of = {name_of[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(decay_of) == len(name_of)
    plain = {name for name, decay in decay_of.items() if decay == 0}
    assert plain == {name for name in decay_of if name.endswith("bias") or "LayerNorm" in name}
    assert {decay for name, decay in decay_of.items() if name not in plain} == {0.05}


def test_frozen_parameters_are_left_out() -> None:
    model = build()
    model.encoder.requires_grad_(False)
    groups = build_optimizer(model, compose([]).train).param_groups
    encoder = {id(p) for p in model.encoder.parameters()}
    assert not any(id(p) in encoder for g in groups for p in g["params"])


def test_the_rate_rises_over_the_warm_up_and_falls_to_0() -> None:
    train = compose(["train.learning_rate=0.01", "train.warmup_ratio=0.2"]).train
    optimizer = build_optimizer(nn.Linear(2, 2), train)
    schedule = build_schedule(optimizer, train, total_steps=10)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [0.0, 0.005, 0.01, *(0.01 * left / 8 for left in range(7, -1, -1))]
    assert rates == pytest.approx(expected)


def test_without_warm_up_the_rate_begins_at_its_top() -> None:
    train = compose(["train.learning_rate=0.01", "train.warmup_ratio=0"]).train
    optimizer = build_optimizer(nn.Linear(2, 2), train)
    build_schedule(optimizer, train, total_steps=10)
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.01]


@pytest.mark.parametrize(("batches", "accumulation", "steps"), [(10, 1, 10), (10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_the_last_group_of_batches_steps_even_where_it_is_not_full(batches: int, accumulation: int, steps: int) -> None:
    train = compose([f"train.accumulation_steps={accumulation}"]).train
    assert steps_per_epoch(batches, train) == steps
