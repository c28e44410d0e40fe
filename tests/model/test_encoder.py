"""Encoders of several kinds, built small and loaded from a folder: windows, token types, precision, frozen layers,
attention, and what is refused.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    RobertaConfig,
    T5Config,
)

from redsm5.engine.errors import InputError
from redsm5.model import MultiTaskModel
from redsm5.model.attention import NAME
from redsm5.model.encoder import build_encoder, compile_layers, encode
from tests.model.batch import TOKENS, VOCABULARY, Batch, backward, model_config, random_batch, without_padding

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
POSITIONS: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 24}
ENCODERS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES, **POSITIONS),
    "roberta": RobertaConfig(**SIZES, vocab_size=VOCABULARY, max_position_embeddings=26, type_vocab_size=1),
    "distilbert": DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=32, **POSITIONS),
    "electra": ElectraConfig(**SIZES, **POSITIONS, embedding_size=8),
    "deberta": DebertaV2Config(**SIZES, **POSITIONS, relative_attention=True, pos_att_type=["p2c", "c2p"]),
}


def save(config: PretrainedConfig, folder: Path) -> None:
    """An encoder of this configuration with random weights."""
    AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved encoder of each kind."""
    folders = {}
    for kind, config in ENCODERS.items():
        torch.manual_seed(0)
        folders[kind] = tmp_path_factory.mktemp(kind)
        save(config, folders[kind])
    return folders


def build(folder: Path, *overrides: str) -> MultiTaskModel:
    torch.manual_seed(0)
    attention = "eager" if "deberta" in folder.name else "sdpa"
    config = model_config(f"model_id={folder}", f"attention={attention}", *overrides)
    return MultiTaskModel(config, vocab_size=VOCABULARY)


def batch_with_token_types() -> Batch:
    batch = random_batch(text_start=4)
    return batch | {"token_type_ids_ST": batch["text_mask_ST"]}


def total(model: MultiTaskModel, batch: Batch) -> Tensor:
    outputs = model(batch)
    return torch.add(outputs["criteria_logits_NC"].square().mean(), outputs["evidence_loss"])


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_parameter_of_any_encoder_is_trained_and_padding_changes_nothing(
    kind: str, folders: dict[str, Path]
) -> None:
    """Nothing is left over that has no part in the loss, such as a pooling layer."""
    model, batch = build(folders[kind]), batch_with_token_types()
    backward(total(model, batch))
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    short = random_batch(lengths=(9, 7), windows=((0,), (1,)))
    padded, bare = model(short), model(without_padding(short, 9))
    torch.testing.assert_close(padded["criteria_logits_NC"], bare["criteria_logits_NC"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded["evidence_loss"], bare["evidence_loss"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_weights_are_those_of_the_folder(kind: str, folders: dict[str, Path]) -> None:
    ours = build(folders[kind]).encoder.state_dict()
    saved = AutoModel.from_pretrained(folders[kind]).state_dict()
    assert ours.keys() == {name for name in saved if not name.startswith("pooler.")}
    assert all(torch.equal(ours[name], saved[name]) for name in ours)


@pytest.mark.parametrize(("kind", "told_apart"), [("bert", True), ("electra", True), ("roberta", False)])
def test_token_types_reach_the_encoders_that_have_them(kind: str, told_apart: bool, folders: dict[str, Path]) -> None:
    model, batch = build(folders[kind]).eval(), batch_with_token_types()
    with_types = encode(model.encoder, batch, below=False)[0]
    del batch["token_type_ids_ST"]
    assert torch.equal(with_types, encode(model.encoder, batch, below=False)[0]) != told_apart


def test_both_layers_of_states_are_the_encoders_own_as_float32(folders: dict[str, Path]) -> None:
    encoder, batch = build(folders["bert"], "dtype=bfloat16").eval().encoder, random_batch()
    inputs = {"input_ids": batch["input_ids_ST"], "attention_mask": batch["attention_mask_ST"]}
    expected = encoder(**inputs, output_hidden_states=True).hidden_states
    below_STH, last_STH = encode(encoder, batch, below=True)
    assert below_STH.dtype == last_STH.dtype == torch.float32
    assert torch.equal(below_STH, expected[-2].float())
    assert torch.equal(last_STH, expected[-1].float())
    assert len(encode(encoder, batch, below=False)) == 1


# ---------------------------------------------------------------------------------------------------------------------
# windows


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_window_is_as_long_as_the_encoder_has_positions_for(kind: str, folders: dict[str, Path]) -> None:
    """RoBERTa has 26 and cannot use two of them."""
    model = build(folders[kind], "max_length=24").eval()
    batch = random_batch(lengths=(24,), windows=((0,),), tokens=24)
    assert model(batch)["criteria_logits_NC"].isfinite().all()
    with pytest.raises(InputError, match="max_length=32 exceeds the encoder's window of 24") as caught:
        build(folders[kind], "max_length=32")
    assert "model.max_length=24" in str(caught.value)
    assert caught.value.exit_code == 1


# ---------------------------------------------------------------------------------------------------------------------
# precision, memory, frozen layers


@pytest.mark.parametrize("model_id", ["tiny", "bert"])
def test_the_encoder_has_the_type_that_is_asked_for_and_the_heads_stay_float32(
    model_id: str, folders: dict[str, Path]
) -> None:
    overrides = ("dtype=bfloat16", f"model_id={folders.get(model_id, model_id)}")
    model = MultiTaskModel(model_config(*overrides), vocab_size=VOCABULARY)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.bfloat16}
    assert {p.dtype for name, p in model.named_parameters() if not name.startswith("encoder.")} == {torch.float32}
    batch = random_batch()
    assert {tensor.dtype for tensor in model(batch).values()} == {torch.float32}
    backward(total(model, batch))


def test_under_mixed_precision_the_heads_stay_float32(folders: dict[str, Path]) -> None:
    model, dtypes = build(folders["bert"], "evidence_head_type=biaffine"), set()
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            part = "encoder" if name.startswith("encoder.") else "heads"
            layer.register_forward_hook(lambda _module, _input, out, part=part: dtypes.add((part, out.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(random_batch())
    assert dtypes == {("encoder", torch.bfloat16), ("heads", torch.float32)}


@pytest.mark.parametrize("kind", ENCODERS)
def test_recomputed_activations_give_the_same_gradients(kind: str, folders: dict[str, Path]) -> None:
    """With dropout, which the second pass must repeat; and it is a second pass: the lowest layer runs twice."""
    gradients, calls = [], []
    for checkpointing in ("true", "false"):
        model = build(folders[kind], f"gradient_checkpointing={checkpointing}", "frozen_layers=1").train()
        runs: list[int] = []
        trained = next(m for name, m in model.encoder.named_modules() if name.endswith("layer.1"))
        next(trained.children()).register_forward_hook(lambda *_, runs=runs: runs.append(1))
        torch.manual_seed(1)
        backward(total(model, random_batch()))
        calls.append(len(runs))
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert calls == [2, 1]
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_embeddings_and_the_lowest_layers_are_frozen(kind: str, folders: dict[str, Path]) -> None:
    def group(name: str) -> str:
        return name.split("layer.")[1][0] if "layer." in name else "below" if "embeddings" in name else "above"

    parameters = list(build(folders[kind], "frozen_layers=2").encoder.named_parameters())
    rel_embeddings = {name for name, _ in parameters if "rel_embeddings" in name}  # DeBERTa's, which all layers share
    frozen = {group(name) for name, p in parameters if not p.requires_grad}
    trained = {group(name) for name, p in parameters if p.requires_grad and name not in rel_embeddings}
    assert frozen == {"below", "0", "1"}
    assert trained - {"above"} == {"2"}
    assert all(p.requires_grad for p in build(folders[kind], "frozen_layers=0").encoder.parameters())
    assert not any(p.requires_grad for p in build(folders["bert"], "frozen_layers=3").encoder.parameters())
    with pytest.raises(InputError, match=r"frozen_layers=4: the encoder has 3 layers"):
        build(folders[kind], "frozen_layers=4")


# ---------------------------------------------------------------------------------------------------------------------
# attention


def test_the_attention_is_the_one_that_is_asked_for(folders: dict[str, Path]) -> None:
    batch, states = random_batch(), []
    for attention in ("eager", "sdpa"):
        for model_id in (str(folders["bert"]), "tiny"):
            torch.manual_seed(0)
            config = model_config(f"attention={attention}", f"model_id={model_id}")
            encoder = MultiTaskModel(config, vocab_size=VOCABULARY).eval().encoder
            assert encoder.config._attn_implementation == {"sdpa": NAME}.get(attention, attention)
            states.append(encode(encoder, batch, below=False)[0])
    torch.testing.assert_close(states[0], states[2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states[1], states[3], atol=1e-5, rtol=1e-5)


def test_an_attention_that_is_not_to_be_had_is_refused_with_what_is(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"model\.attention: flash_attention_2 needs a GPU") as caught:
        build(folders["bert"], "attention=flash_attention_2")
    assert "model.attention=sdpa" in str(caught.value)
    with pytest.raises(InputError, match=r"model\.attention=sdpa: DebertaV2Model") as caught:
        build(folders["deberta"], "attention=sdpa")
    assert "model.attention=eager" in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------------
# loading


def test_weights_that_only_a_pickle_holds_are_loaded(folders: dict[str, Path], tmp_path: Path) -> None:
    saved = AutoModel.from_pretrained(folders["bert"])
    saved.config.save_pretrained(tmp_path)
    torch.save(saved.state_dict(), tmp_path / "pytorch_model.bin")
    key = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(build(tmp_path).encoder.state_dict()[key], saved.state_dict()[key])


def test_an_encoder_that_is_not_there_is_an_input_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.model_id") as caught:
        build(tmp_path)
    assert caught.value.exit_code == 1
    assert "hf auth login" in str(caught.value)


def test_a_model_with_a_decoder_is_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": VOCABULARY,
    }
    save(T5Config(**sizes), tmp_path)
    with pytest.raises(InputError, match="T5Model is an encoder-decoder model"):
        build(tmp_path)


def test_tiny_has_the_window_and_the_vocabulary_that_are_asked_for() -> None:
    encoder = build_encoder(model_config(), vocab_size=30)
    assert (encoder.config.max_position_embeddings, encoder.config.vocab_size) == (TOKENS, 30)


def test_each_layer_is_compiled_alone_for_any_length_and_keeps_its_names(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build(folders["bert"]).encoder
    names = list(encoder.state_dict())
    compiled: list[tuple[nn.Module, dict[str, Any]]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **how: compiled.append((module, how)))
    compile_layers(encoder)
    assert [module for module, _ in compiled] == list(encoder.encoder.layer)
    assert [how for _, how in compiled] == [{"dynamic": True}] * 3
    assert list(encoder.state_dict()) == names


def test_what_has_no_layers_to_compile_says_so(folders: dict[str, Path]) -> None:
    encoder = build(folders["bert"]).encoder
    encoder.config.num_hidden_layers = 4
    with pytest.raises(InputError, match=r"train.compile=true: BertModel has no list of its"):
        compile_layers(encoder)
