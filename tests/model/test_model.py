"""The model against its own words: shapes, spans against every possible one.

Shapes: B posts, T tokens, H hidden, C criteria.
"""

from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from redsm5.config import compose
from redsm5.errors import InputError
from redsm5.model import (
    MultiTaskModel,
    architecture,
    decode_spans,
    head_config,
)
from redsm5.model.evidence_heads import MAX_SPAN_TOKENS, StartEndLinearHead
from redsm5.sections import ModelConfig

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
