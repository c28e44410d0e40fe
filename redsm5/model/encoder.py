"""The encoder: any that AutoModel loads, or `tiny`, two layers built from a configuration with random weights.

Shapes: S sequences, T tokens, H hidden.
"""

import inspect
import logging
from collections.abc import Mapping
from contextlib import suppress
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available
from transformers.utils.logging import disable_progress_bar

from redsm5 import hub
from redsm5.engine.errors import InputError
from redsm5.model import attention
from redsm5.sections import ModelConfig

log = logging.getLogger(__name__)

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    # Layers that initially change the token embeddings little train faster: over ten seeds, five epochs reach what
    # takes six with BERT's 0.02, and every seed learns.
    "initializer_range": 0.005,
    # Attention dropout makes attention on CPUs twice as slow. Drawing the random numbers for hidden dropout takes a
    # tenth of a step. So small a model does not overfit in its few epochs.
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
}


def build_encoder(config: ModelConfig, *, vocab_size: int) -> PreTrainedModel:
    """The encoder for `encode`: without its own pooling layer, and with its lowest layers frozen.

    Raises:
        InputError: the model cannot be loaded, is no encoder, has a window shorter than `max_length` or fewer layers
            than `frozen_layers`, or does not support `attention` or `gradient_checkpointing` as configured.
        HubError: the Hub does not give it.
    """
    if config.attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise InputError(
            "flash_attention_2 needs a GPU and the package flash-attn (2.3.3 or newer); one of them is missing here",
            where="model.attention",
            remedy="Set model.attention=sdpa, or install flash-attn on a machine with a GPU.",
        )
    dtype: torch.dtype = getattr(torch, config.dtype)
    encoder: PreTrainedModel
    if config.model_id == "tiny":
        tiny = BertConfig(vocab_size=vocab_size, max_position_embeddings=config.max_length, **TINY)
        encoder = BertModel(tiny, add_pooling_layer=False).to(dtype)  # type: ignore[arg-type]
    else:
        encoder = _load(config, dtype)
        _check_kind(encoder, config)
        if "add_pooling_layer" in inspect.signature(type(encoder).__init__).parameters:
            # Its output is not used, and DistributedDataParallel requires that every parameter takes part in the loss.
            encoder.pooler = None  # type: ignore[assignment]
    _set_attention(encoder, config)
    if config.gradient_checkpointing:
        if not encoder.supports_gradient_checkpointing:
            raise InputError(
                f"{type(encoder).__name__} does not support gradient checkpointing",
                where="model.gradient_checkpointing=true",
                remedy="Set model.gradient_checkpointing=false.",
            )
        encoder.activation_checkpointing_enable({"use_reentrant": False})
        # Else a useless gradient is computed through frozen layers.
        encoder.disable_input_require_grads()  # type: ignore[no-untyped-call]
    _freeze(encoder, config.frozen_layers)
    return encoder


def encode(encoder: PreTrainedModel, batch: Mapping[str, Tensor], *, below: bool) -> list[Tensor]:
    """The states after the last layer and, with `below`, also those of the layers below it: each states_STH, float32
    with any dtype of the encoder.

    Groups of sequences (redsm5/data/batches.py) are encoded one after the other, each at its own width; the padding
    beyond it is 0.
    """
    inputs = {"input_ids": batch["input_ids_ST"], "attention_mask": batch["attention_mask_ST"]}
    if "token_type_ids_ST" in batch and _takes_token_types(encoder):
        inputs["token_type_ids"] = batch["token_type_ids_ST"]
    S, T = batch["input_ids_ST"].shape
    groups = [tuple(tensor.shape[:2]) for name, tensor in batch.items() if name.startswith("group_")] or [(S, T)]
    read, first = [], 0
    for sequences, tokens in groups:
        group = {name: tensor[first : first + sequences, :tokens] for name, tensor in inputs.items()}
        outputs = encoder(**group, output_hidden_states=below)
        states = [outputs.hidden_states[-2]] if below else []
        read.append([state.float() for state in (*states, outputs.last_hidden_state)])
        first += sequences
    if len(read) == 1:
        return read[0]
    return [torch.cat([F.pad(x, (0, 0, 0, T - x.shape[1])) for x in layer]) for layer in zip(*read, strict=True)]


def compile_layers(encoder: PreTrainedModel) -> None:
    """Compile each of the encoder's layers at its first use, for any number and length of sequences.

    The modules around them are unchanged: an adversary accesses the embeddings, and parameters keep their names.
    """
    for layer in _stack(encoder, where="train.compile=true", remedy="Set train.compile=false."):
        layer.compile(dynamic=True)


def _load(config: ModelConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The pretrained encoder. Weights that exist only as .bin are a pickle: only tensors are loaded from it."""
    folder = hub.model_files(config.model_id, config.revision).folder
    safe = any(folder.glob("*.safetensors"))
    if not safe:
        log.warning(f"{config.model_id} has no safetensors: its weights are read from a .bin with weights_only=True")
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        encoder: PreTrainedModel = AutoModel.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=safe, weights_only=True
        )
    except UnpicklingError:
        raise InputError(
            "the encoder's .bin holds more than tensors, and could run code when it is loaded",
            where=f"model.model_id={config.model_id}",
            remedy="Choose a model with safetensors.",
        ) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"the encoder cannot be loaded: {str(error).splitlines()[0]}",
            where=f"model.model_id={config.model_id}",
            remedy="Give a folder that AutoModel loads, or the name of such a model on the Hugging Face Hub (`hf auth "
            "login` first, where it is gated).",
        ) from None
    return encoder


def _check_kind(encoder: PreTrainedModel, config: ModelConfig) -> None:
    where = f"model.model_id={config.model_id}"
    if encoder.config.is_encoder_decoder:
        raise InputError(
            f"{type(encoder).__name__} is an encoder-decoder model",
            where=where,
            remedy="Choose an encoder, such as BERT, RoBERTa or ELECTRA.",
        )
    window = _window(encoder)
    if window is not None and config.max_length > window:
        raise InputError(
            f"model.max_length={config.max_length} exceeds the encoder's window of {window} tokens",
            where=where,
            remedy=f"Set model.max_length={window - window % 8} or less.",
        )


def _window(encoder: PreTrainedModel) -> int | None:
    """The longest sequence that the encoder takes, in tokens; None if it has no limit.

    RoBERTa and its variants number positions from padding_idx + 1, so they can use 512 of 514.
    """
    window: int | None = getattr(encoder.config, "max_position_embeddings", None)
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return window


def _takes_token_types(encoder: PreTrainedModel) -> bool:
    """Whether the encoder distinguishes two segments: RoBERTa has the argument, but only one type."""
    takes = "token_type_ids" in inspect.signature(encoder.forward).parameters
    return takes and getattr(encoder.config, "type_vocab_size", 2) > 1


def _set_attention(encoder: PreTrainedModel, config: ModelConfig) -> None:
    with suppress(ValueError, ImportError):
        encoder.set_attn_implementation(config.attention)
    own = encoder.config._attn_implementation
    if own != config.attention:  # some encoders raise an error, others only warn and keep their own implementation
        raise InputError(
            f"{type(encoder).__name__} cannot use it here",
            where=f"model.attention={config.attention}",
            remedy=f"Set model.attention={own}.",
        )
    if own == "sdpa":
        encoder.set_attn_implementation(attention.NAME)


def _freeze(encoder: PreTrainedModel, layers: int) -> None:
    """Train neither the embeddings nor the lowest `layers` layers; with 0, train all."""
    if layers == 0:
        return
    stack = _stack(encoder, where=f"model.frozen_layers={layers}", remedy="Set model.frozen_layers=0.")
    if layers > len(stack):
        raise InputError(
            f"the encoder has {len(stack)} layers",
            where=f"model.frozen_layers={layers}",
            remedy=f"Set model.frozen_layers={len(stack)} or less.",
        )
    lowest = next(stack.parameters())
    for parameter in encoder.parameters():  # modules registered before the layers are below them: the embeddings
        if parameter is lowest:
            break
        parameter.requires_grad_(False)
    stack[:layers].requires_grad_(False)


def _stack(encoder: PreTrainedModel, where: str, remedy: str) -> nn.ModuleList:
    """The list of the encoder's layers; `where` and `remedy` are for the error if it has no such list."""
    depth = encoder.config.num_hidden_layers
    stacks = (m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    stack = next(stacks, None)
    if stack is None:
        name = type(encoder).__name__
        raise InputError(f"{name} has no list of its {depth} layers", where=where, remedy=remedy)
    return stack
