"""One encoder, two heads: which symptoms a post shows, and where.

Shapes: B posts, T tokens, H hidden, C criteria.
"""

import hashlib
from typing import Any

from torch import Tensor, nn

from redsm5.model.criteria_heads import LinearCriteriaHead
from redsm5.model.encoder import build_encoder
from redsm5.model.evidence_heads import StartEndLinearHead
from redsm5.model.pooling import build_pooling
from redsm5.sections import ModelConfig

HEAD_FIELDS = (
    "input_format",
    "criteria_head_type",
    "criteria_pooling",
    "evidence_head_type",
    "task_coupling",
    "max_length",
)


class MultiTaskModel(nn.Module):
    """The encoder with a criteria head and an evidence head over its last states."""

    def __init__(self, config: ModelConfig, *, vocab_size: int, criteria: int) -> None:
        super().__init__()
        self.encoder = build_encoder(config, vocab_size=vocab_size)
        hidden_size: int = self.encoder.config.hidden_size
        self.pooling = build_pooling(config.criteria_pooling, hidden_size)
        self.criteria_head = LinearCriteriaHead(hidden_size, criteria, config.criteria_dropout)
        self.evidence_head = StartEndLinearHead(hidden_size, criteria, config.evidence_dropout)

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> dict[str, Tensor]:
        """criteria_logits_BC and evidence_logits_BCT2."""
        states_BTH = self.encoder(input_ids=input_ids_BT, attention_mask=attention_mask_BT).last_hidden_state
        return {
            "criteria_logits_BC": self.criteria_head(self.pooling(states_BTH, attention_mask_BT)),
            "evidence_logits_BCT2": self.evidence_head(states_BTH, attention_mask_BT),
        }


def architecture(model: MultiTaskModel) -> str:
    """What must be equal for one model's weights to fit another: the encoder's kind and sizes, and the first digits of
    a SHA-256 over the name, shape and type of every tensor.
    """
    encoder = model.encoder.config
    tensors = sorted((name, tuple(t.shape), str(t.dtype)) for name, t in model.state_dict().items())
    layout = hashlib.sha256(repr(tensors).encode()).hexdigest()[:12]
    return (
        f"{encoder.model_type}: {encoder.num_hidden_layers} layers, {encoder.hidden_size} wide, "
        f"vocabulary {encoder.vocab_size}, {sum(p.numel() for p in model.parameters())} parameters, layout {layout}"
    )


def head_config(config: ModelConfig) -> dict[str, Any]:
    """What must be equal for a checkpoint's outputs to mean the same."""
    return {field: getattr(config, field) for field in HEAD_FIELDS}
