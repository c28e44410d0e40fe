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
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86, Arm; names of torch.cpu.get_capabilities
LAYER_NUMBER = re.compile(r"\.(\d+)\.")


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019), or Adam (Kingma and Ba 2015), whose weight decay is part of the gradient.

    Biases and normalization weights are not decayed, as in BERT; frozen parameters are left out. A group holds the
    parameters with the same learning rate and weight decay; the highest rate comes first.
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
    layer, the number of layers for the embeddings. Parameters outside the numbered layers have the embeddings' rate if
    their name says so or they come before the first layer, such as a projection of the embeddings; others, such as a
    last normalization, have the top layer's rate.
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
    """Optimizer steps per epoch: the last group of accumulated batches steps even if it is not full."""
    return math.ceil(batches / config.accumulation_steps)


def group_factor(batch: int, batches: int, config: TrainConfig) -> float:
    """What to multiply the loss of an epoch's `batch`-th batch (from 0) with, which Accelerate divides by
    accumulation_steps: the gradient of the last group, which may have fewer batches, is the mean of theirs, too.
    """
    begin = batch - batch % config.accumulation_steps
    return config.accumulation_steps / min(config.accumulation_steps, batches - begin)


def build_schedule(optimizer: Optimizer, config: TrainConfig, *, total_steps: int) -> LambdaLR:
    """Linear warm-up over `warmup_ratio` of the steps, then to 0, linearly or along half a cosine (Loshchilov and
    Hutter 2017, eq. 5, without restarts). It multiplies each group's rate. Advance it once per optimizer step.
    """
    warmup_steps = round(config.warmup_ratio * total_steps)
    build = get_cosine_schedule_with_warmup if config.schedule == "cosine" else get_linear_schedule_with_warmup
    schedule: LambdaLR = build(optimizer, warmup_steps, total_steps)
    return schedule


def set_numerics(deterministic: bool) -> None:
    """Have torch use deterministic algorithms, or the fastest ones.

    On CPUs, denormal numbers (below 1e-38) become zero: computing with them takes many times as long, and a collapsed
    model is full of them (measured: the tiny model's steps grew from 17 to 40 ms).
    """
    torch.set_flush_denormal(True)
    torch.use_deterministic_algorithms(deterministic)
    # Else torch fills each new tensor, in case uninitialized memory is read: that takes 1/20 of a step (4 layers, 128
    # wide), and a third of decoding.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic


def slow_in_bf16(device: torch.device, mixed_precision: str) -> bool:
    """Whether this is bf16 on a CPU without instructions for it. With AVX2 alone, bf16 was 17 times slower than
    float32; with AVX512-BF16, 1.6 times faster.
    """
    has = torch.cpu.get_capabilities()
    return device.type == "cpu" and mixed_precision == "bf16" and not any(map(has.get, BF16_INSTRUCTIONS))
