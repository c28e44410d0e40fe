"""The encoder: any that AutoModel loads, or `tiny`, two layers built from a configuration with random weights.

Shapes: B posts, T tokens, H hidden.
"""

from pathlib import Path
from typing import Any

from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel

from redsm5.errors import InputError
from redsm5.sections import ModelConfig

TINY: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def build_encoder(config: ModelConfig, *, vocab_size: int) -> PreTrainedModel:
    """The encoder as a module that maps input_ids_BT and attention_mask_BT to last_hidden_state_BTH.

    Raises:
        InputError: the model is neither in the cache nor to be had, or its window is shorter than `max_length`.
    """
    if config.model_id == "tiny":
        tiny = BertConfig(vocab_size=vocab_size, max_position_embeddings=config.max_length, **TINY)
        return BertModel(tiny, add_pooling_layer=False)
    try:
        encoder: PreTrainedModel = AutoModel.from_pretrained(
            config.model_id, use_safetensors=_has_safetensors(config.model_id)
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"the encoder cannot be loaded: {str(error).splitlines()[0]}",
            where=f"model.model_id={config.model_id}",
            remedy="Give a local folder, or log in to the Hugging Face Hub (`hf auth login`), accept the model's terms "
            "there and unset HF_HUB_OFFLINE.",
        ) from None
    window = getattr(encoder.config, "max_position_embeddings", config.max_length)
    if config.max_length > window:
        raise InputError(
            f"model.max_length={config.max_length} exceeds the encoder's window of {window} tokens",
            where=f"model.model_id={config.model_id}",
            remedy=f"Set model.max_length={window} or less.",
        )
    return encoder


def _has_safetensors(model_id: str) -> bool | None:
    """True asks for safetensors of a local folder that has them; None lets the Hub's own choice stand."""
    return True if any(Path(model_id).glob("*.safetensors")) else None
