"""The optimizer, with learning rates by parameter group, and the learning-rate schedule."""

import math
import re

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from redsm5.sections import TrainConfig

ENCODER = "encoder."
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, Arm; as torch.cpu.get_capabilities has them
LAYER_NUMBER = re.compile(r"\.(\d+)\.")


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019), or Adam (Kingma and Ba 2015), whose decay is a part of the gradient.

    Biases and normalization are not decayed, as BERT was trained; frozen parameters are left out. A group holds the
    parameters of one rate that are decayed, or not; the highest rate comes first.
    """
    rates = learning_rates(model, config)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decayed = parameter.ndim >= 2 and not name.endswith("bias")
            groups.setdefault((rates[name], decayed), []).append(parameter)
    optimizer = AdamW if config.optimizer == "adamw" else Adam
    return optimizer(
        [
            {"params": groups[rate, decayed], "lr": rate, "weight_decay": config.weight_decay if decayed else 0.0}
            for rate, decayed in sorted(groups, reverse=True)
        ],
        lr=config.learning_rate,
        fused=True,  # one pass over each parameter, on CPUs too
    )


def learning_rates(model: nn.Module, config: TrainConfig) -> dict[str, float]:
    """The highest learning rate of each parameter, by its name.

    It is `learning_rate` outside `model.encoder`. Inside it is `learning_rate * differential_lr_ratio *
    layer_wise_lr_decay ** d`, d being the number of layers above (Howard and Ruder 2018, section 3.2): 0 for the top
    layer, the number of layers for the embeddings. What is in no numbered layer is of the embeddings if its name says
    so or it comes before the first layer, as a projection of them does; else, as a last normalization, it goes with
    the top layer.
    """
    names = [name for name, _ in model.named_parameters()]
    encoder = [name for name in names if name.startswith(ENCODER)]
    number_of = {name: int(found[1]) for name in encoder if (found := LAYER_NUMBER.search(name))}
    layers = max(number_of.values(), default=-1) + 1
    rates = dict.fromkeys(names, config.learning_rate)
    in_layers_yet = False
    for name in encoder:
        in_layers_yet |= name in number_of
        embeddings = not in_layers_yet or "embed" in name
        number = number_of.get(name, -1 if embeddings else layers - 1)
        distance = layers - 1 - number
        rates[name] *= config.differential_lr_ratio * config.layer_wise_lr_decay**distance
    return rates


def steps_per_epoch(batches: int, config: TrainConfig) -> int:
    """Optimizer steps an epoch: the last group of batches steps even where it is not full."""
    return math.ceil(batches / config.accumulation_steps)


def build_schedule(optimizer: Optimizer, config: TrainConfig, *, total_steps: int) -> LambdaLR:
    """Linear warm-up over `warmup_ratio` of the steps, then to 0, linearly or along half a cosine (Loshchilov and
    Hutter 2017, eq. 5, without restarts). Each group's rate is multiplied by it. Advanced once an optimizer step.
    """
    warmup_steps = round(config.warmup_ratio * total_steps)
    build = get_cosine_schedule_with_warmup if config.schedule == "cosine" else get_linear_schedule_with_warmup
    schedule: LambdaLR = build(optimizer, warmup_steps, total_steps)
    return schedule


def set_numerics(deterministic: bool) -> None:
    """Ask torch for algorithms whose results do not depend on the run, or for the fastest.

    On CPUs, numbers below the smallest normal one (1e-38) become zero: computing with them takes many times as
    long, and a model that has collapsed is full of them (measured: the tiny model's steps grew from 17 to 40 ms).
    """
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(deterministic)
    # Else each new tensor is filled before it is computed, in case something reads what it has not written: 1/20 of a
    # step (4 layers, 128 wide), and a third of decoding.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic


def slow_in_bf16(device: torch.device, mixed_precision: str) -> bool:
    """Whether this asks a CPU for bf16 that has no instructions for it: 17 times slower than float32 was one with
    AVX2 alone, 1.6 times faster one with AVX512-BF16.
    """
    has = torch.cpu.get_capabilities()
    return device.type == "cpu" and mixed_precision == "bf16" and not any(map(has.get, BF16_INSTRUCTIONS))
