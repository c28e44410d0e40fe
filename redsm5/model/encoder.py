"""The encoder: any that AutoModel loads, or `tiny`, two layers built from a configuration with random weights.

Shapes: B posts, T tokens, H hidden.
"""

import logging
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel

from redsm5 import hub
from redsm5.errors import InputError
from redsm5.sections import ModelConfig

log = logging.getLogger(__name__)

TINY: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def build_encoder(config: ModelConfig, *, vocab_size: int) -> PreTrainedModel:
    """The encoder as a module that maps input_ids_BT and attention_mask_BT to last_hidden_state_BTH.

    Raises:
        InputError: the model cannot be loaded, or its window is shorter than `max_length`.
        HubError: the Hub does not give it.
    """
    if config.model_id == "tiny":
        tiny = BertConfig(vocab_size=vocab_size, max_position_embeddings=config.max_length, **TINY)
        return BertModel(tiny, add_pooling_layer=False)
    encoder = _load(config)
    window = getattr(encoder.config, "max_position_embeddings", config.max_length)
    if config.max_length > window:
        raise InputError(
            f"model.max_length={config.max_length} exceeds the encoder's window of {window} tokens",
            where=f"model.model_id={config.model_id}",
            remedy=f"Set model.max_length={window} or less.",
        )
    return encoder


def _load(config: ModelConfig) -> PreTrainedModel:
    """The pretrained encoder. Weights that are only there as .bin are a pickle: nothing but tensors is taken of it."""
    folder = hub.model_files(config.model_id, config.revision).folder
    safe = any(folder.glob("*.safetensors"))
    if not safe:
        log.warning(f"{config.model_id} has no safetensors: its weights are read from a .bin with weights_only=True")
    try:
        encoder: PreTrainedModel = AutoModel.from_pretrained(str(folder), use_safetensors=safe, weights_only=True)
    except UnpicklingError:
        raise InputError(
            "the encoder's .bin holds more than tensors, which may be code that runs as it is read",
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
