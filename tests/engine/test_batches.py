"""The batches that are left of an epoch are those that an uninterrupted epoch has, whatever draws their order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from redsm5.engine.batches import set_order, without_first

ITEMS: Any = list(range(24))

LOADERS: dict[str, Callable[[], DataLoader[Any]]] = {
    "shuffle": lambda: DataLoader(ITEMS, 4, shuffle=True),
    "a subset": lambda: DataLoader(ITEMS, 4, sampler=SubsetRandomSampler(range(0, 24, 2))),
    "weights": lambda: DataLoader(ITEMS, 4, sampler=WeightedRandomSampler([1.0] * 24, 24)),
    "a batch sampler": lambda: DataLoader(ITEMS, batch_sampler=BatchSampler(RandomSampler(ITEMS), 4, False)),
    "no batches": lambda: DataLoader(ITEMS, None, shuffle=True),
}


def epoch(loader: DataLoader[Any], done: int) -> list[list[int]]:
    torch.randn(1 + done)  # what the model draws before the epoch is no part of its order
    set_order(loader, seed=1, epoch=2)
    return [batch.tolist() if isinstance(batch, torch.Tensor) else [batch] for batch in without_first(loader, done)]


@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
@pytest.mark.parametrize("name", LOADERS)
def test_the_batches_left_are_those_of_the_whole_epoch(name: str, prepared: bool) -> None:
    def loader() -> DataLoader[Any]:
        made = LOADERS[name]()
        return Accelerator(cpu=True).prepare(made) if prepared else made

    assert epoch(loader(), 2) == epoch(loader(), 0)[2:]
