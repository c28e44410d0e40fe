"""The model: encoder, criteria and evidence heads, losses, optimizer, adversary."""

from redsm5.model.adversarial import EmbeddingAdversary
from redsm5.model.evidence_heads import decode_spans
from redsm5.model.losses import CriteriaLoss, build_criteria_loss, multitask_loss
from redsm5.model.multitask import MultiTaskModel, architecture, head_config
from redsm5.model.optimization import build_optimizer, build_schedule, set_deterministic, steps_per_epoch

__all__ = [
    "CriteriaLoss",
    "EmbeddingAdversary",
    "MultiTaskModel",
    "architecture",
    "build_criteria_loss",
    "build_optimizer",
    "build_schedule",
    "decode_spans",
    "head_config",
    "multitask_loss",
    "set_deterministic",
    "steps_per_epoch",
]
