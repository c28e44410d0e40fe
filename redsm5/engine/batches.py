"""The batches of an epoch: always the same ones in the same order, also after a resume in the middle."""

from collections.abc import Iterable, Sized
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from accelerate import skip_first_batches
from torch.utils.data import DataLoader

B = TypeVar("B", covariant=True)


class Batches(Sized, Iterable[B], Protocol[B]):
    """An iterable with a known number of batches, the same ones whenever an epoch is iterated."""


MOST_EPOCHS = 10_000  # more than train.epochs allows


def set_order(loader: Any, seed: int, epoch: int) -> None:
    """Make the order of a DataLoader that shuffles depend on the seed and the epoch alone, not on what came before.

    Its iterator also draws a seed for its workers. Drawn from the generator of the process, it would change what the
    model draws after a resume, for which the loader is iterated once more.
    """
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    if not isinstance(loader, DataLoader):
        return
    number = seed * MOST_EPOCHS + epoch
    loader.generator = torch.Generator().manual_seed(number)
    batches = loader.batch_sampler
    while inner := getattr(batches, "batch_sampler", None):  # Accelerate's share of each process
        batches = inner
    sampler: Any = getattr(batches, "sampler", loader.sampler)  # without batches, a loader has its own
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    generator = getattr(sampler, "generator", False)  # of all random samplers of PyTorch
    if generator is None:
        generator = sampler.generator = torch.Generator()
    if isinstance(generator, torch.Generator):  # Accelerate has a reference to the one it made
        generator.manual_seed(number)


def without_first(loader: Batches[B], count: int) -> Iterable[B]:
    """The batches but for the first ones, which a DataLoader does not even read."""
    skips = isinstance(loader, DataLoader) and loader.batch_sampler is not None
    return skip_first_batches(loader, count) if skips else islice(loader, count, None)
