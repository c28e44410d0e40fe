"""The model: one encoder with two heads, for the symptoms that a post shows and for their evidence.

Shapes: S sequences, N items, T tokens, H hidden, C outputs per item (the nine symptoms, or one with binary_pairs).
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from redsm5.config import Config
from redsm5.data.posts import SYMPTOMS
from redsm5.engine.storage.checkpoint import Identity
from redsm5.model.coupling import Coupling
from redsm5.model.criteria_heads import build_criteria_head, over_windows
from redsm5.model.encoder import build_encoder, encode
from redsm5.model.evidence_heads import build_evidence_head
from redsm5.model.pooling import ScalarMix, build_pooling
from redsm5.sections import ModelConfig

HEAD_FIELDS = (
    "input_format",
    "max_length",
    "criteria_head_type",
    "criteria_pooling",
    "criteria_hidden_dim",
    "evidence_head_type",
    "max_span_tokens",
    "task_coupling",
    "coupling_method",
    "coupling_pooling",
    "activation",
)


class MultiTaskModel(nn.Module):
    """The encoder with a criteria head and an evidence head over its last states, coupled or not."""

    def __init__(self, config: ModelConfig, *, vocab_size: int) -> None:
        super().__init__()
        outputs = len(SYMPTOMS) if config.input_format == "multi_label" else 1
        self.encoder = build_encoder(config, vocab_size=vocab_size)
        hidden_size: int = self.encoder.config.hidden_size
        self.layer_mix = ScalarMix(2) if config.criteria_pooling == "last_2_layer_mix" else None
        self.pooling = build_pooling(config.criteria_pooling, hidden_size)
        self.coupling = Coupling(config, hidden_size) if config.task_coupling == "coupled" else None
        pooled_size = self.coupling.size if self.coupling else hidden_size
        self.criteria_head = build_criteria_head(config, size=pooled_size, outputs=outputs)
        self.evidence_head = build_evidence_head(config, hidden_size=hidden_size, outputs=outputs)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """criteria_logits_NC, evidence_loss (a scalar), and the inputs of the evidence head's `decode`.

        The loss is computed inside, so that each parameter takes part in every forward pass, as DistributedDataParallel
        requires.
        """
        layers = encode(self.encoder, batch, below=self.layer_mix is not None)
        states_STH = layers[-1]
        with torch.autocast(states_STH.device.type, enabled=False):  # the heads are float32
            mixed_STH = self.layer_mix(layers) if self.layer_mix else states_STH
            pooled = self.pooling(mixed_STH, batch["attention_mask_ST"])
            if self.coupling:
                states_STH, pooled = self.coupling(states_STH, pooled, batch["text_mask_ST"])
            outputs: dict[str, Tensor] = self.evidence_head(states_STH, batch)
            outputs["evidence_loss"] = self.evidence_head.loss(outputs, batch)
            outputs["criteria_logits_NC"] = over_windows(self.criteria_head(pooled), batch["windows_NW"])
        return outputs


def architecture(model: MultiTaskModel) -> str:
    """What must be equal for weights to fit a model: the encoder's type and sizes, and the first digits of a SHA-256
    over the name, shape and dtype of every tensor. No shape shows the number of attention heads, so it is included
    unless a head has the usual size of 64.
    """
    encoder = model.encoder.config
    heads = getattr(encoder, "num_attention_heads", None)
    unusual = f"{heads} heads, " if heads and encoder.hidden_size != 64 * heads else ""
    tensors = sorted((name, tuple(t.shape), str(t.dtype)) for name, t in model.state_dict().items())
    layout = hashlib.sha256(repr(tensors).encode()).hexdigest()[:12]
    return (
        f"{encoder.model_type}: {encoder.num_hidden_layers} layers, {encoder.hidden_size} wide, {unusual}"
        f"vocabulary {encoder.vocab_size}, {sum(p.numel() for p in model.parameters())} parameters, layout {layout}"
    )


def identity_of(config: Config, model: MultiTaskModel, data_fingerprint: str) -> Identity:
    """What the checkpoints of a trial are of."""
    assert config.trial.id is not None
    fields = head_config(config.model)
    legacy = {name: Config.LEGACY[key] for name in fields if (key := f"model.{name}") in Config.LEGACY}
    return Identity(config.trial.id, architecture(model), fields, data_fingerprint, config.train.seed, legacy)


def head_config(config: ModelConfig) -> dict[str, Any]:
    """What must be equal for a checkpoint's outputs to mean the same."""
    return {field: getattr(config, field) for field in HEAD_FIELDS}
