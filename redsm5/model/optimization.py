"""The optimizer and its learning-rate schedule."""

import math

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from redsm5.sections import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019); biases and normalization are not decayed, as BERT was trained."""
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    plain = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return AdamW(groups, lr=config.learning_rate)


def steps_per_epoch(batches: int, config: TrainConfig) -> int:
    """Optimizer steps an epoch: the last group of batches steps even where it is not full."""
    return math.ceil(batches / config.accumulation_steps)


def build_schedule(optimizer: Optimizer, config: TrainConfig, *, total_steps: int) -> LambdaLR:
    """Linear warm-up over `warmup_ratio` of the steps, then linearly to 0. Advanced once an optimizer step."""
    warmup_steps = round(config.warmup_ratio * total_steps)
    schedule: LambdaLR = get_linear_schedule_with_warmup(optimizer, warmup_steps, total_steps)  # type: ignore[no-untyped-call]
    return schedule


def set_deterministic(deterministic: bool) -> None:
    """Ask torch for algorithms whose results do not depend on the run, or for the fastest."""
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
