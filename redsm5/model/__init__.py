"""The model: encoder, criteria and evidence heads, losses, optimizer, adversary."""

from redsm5.model.adversarial import EmbeddingAdversary
from redsm5.model.encoder import compile_layers
from redsm5.model.losses import CriteriaLoss, build_criteria_loss, multitask_loss
from redsm5.model.multitask import MultiTaskModel, architecture, head_config, identity_of
from redsm5.model.optimization import (
    build_optimizer,
    build_schedule,
    group_factor,
    set_numerics,
    slow_in_bf16,
    steps_per_epoch,
)
from redsm5.model.spans import Candidates
from redsm5.model.step import forward_backward

__all__ = [
    "Candidates",
    "CriteriaLoss",
    "EmbeddingAdversary",
    "MultiTaskModel",
    "architecture",
    "build_criteria_loss",
    "build_optimizer",
    "build_schedule",
    "compile_layers",
    "forward_backward",
    "group_factor",
    "head_config",
    "identity_of",
    "multitask_loss",
    "set_numerics",
    "slow_in_bf16",
    "steps_per_epoch",
]
