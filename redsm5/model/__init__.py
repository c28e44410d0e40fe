"""The model: encoder, criteria and evidence heads, losses, optimizer."""

from redsm5.model.losses import multitask_loss
from redsm5.model.multitask import MultiTaskModel, architecture, head_config
from redsm5.model.optimization import build_optimizer, build_schedule, set_deterministic, steps_per_epoch
from redsm5.model.spans import Candidates

__all__ = [
    "Candidates",
    "MultiTaskModel",
    "architecture",
    "build_optimizer",
    "build_schedule",
    "head_config",
    "multitask_loss",
    "set_deterministic",
    "steps_per_epoch",
]
