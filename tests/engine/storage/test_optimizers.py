"""Optimizers and schedules whose state JSON cannot hold as it is: the steps after a load are those without one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    LambdaLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    SequentialLR,
)

from redsm5.engine.storage.checkpoint import TrainingState, seed_everything

STEPS = 8


class Growing(SGD):
    """An optimizer whose groups have an infinite limit, as Prodigy's have."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), 0.01)
        for group in self.param_groups:
            group["growth_rate"] = math.inf

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["lr"] *= min(1.1, group["growth_rate"] * 1.0)
        super().step()


def sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), 0.1, momentum=0.9)


def sequence(optimizer: Optimizer) -> LRScheduler:
    return SequentialLR(optimizer, [LambdaLR(optimizer, lambda s: (s + 1) / 3), MultiStepLR(optimizer, [2, 4])], [2])


CASES: dict[str, tuple[Callable[[nn.Module], Optimizer], Callable[[Optimizer], LRScheduler] | None]] = {
    "milestones": (sgd, lambda optimizer: MultiStepLR(optimizer, [2, 5, 5])),
    "products": (sgd, lambda optimizer: MultiplicativeLR(optimizer, lambda step: 0.9)),
    "a sequence": (sgd, sequence),
    "an infinite limit": (Growing, None),
    "a rate that is a tensor": (lambda model: AdamW(model.parameters(), torch.tensor(0.01)), None),
}


def training(case: str) -> TrainingState:
    seed_everything(0)
    model = nn.Linear(3, 1)
    make_optimizer, make_schedule = CASES[case]
    optimizer = make_optimizer(model)
    return TrainingState(model, optimizer, make_schedule(optimizer) if make_schedule else None)


def steps(state: TrainingState, count: int) -> list[list[float]]:
    assert state.optimizer
    done = []
    for _ in range(count):
        state.model(torch.ones(2, 3)).square().mean().backward()  # type: ignore[operator]
        state.optimizer.step()
        state.optimizer.zero_grad()
        if state.schedule:
            state.schedule.step()
        rates = [float(group["lr"]) for group in state.optimizer.param_groups]
        done.append([*rates, *(float(x) for p in state.model.parameters() for x in p.detach().flatten())])
    return done


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("before", [1, 4])
def test_the_steps_after_a_load_are_those_without_one(case: str, before: int) -> None:
    whole = steps(training(case), STEPS)
    interrupted = training(case)
    steps(interrupted, before)
    packed = {name: bytearray(content) for name, content in interrupted.pack().items()}
    resumed = training(case)
    resumed.unpack(packed)
    assert steps(resumed, STEPS - before) == whole[before:]
