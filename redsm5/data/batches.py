"""Batches of encoded posts: padding, and an order of training that is a pure function of (seed, epoch).

Shapes: B posts in a batch, T tokens (the longest of the batch, rounded up), C = 9 symptoms. The loaders are plain torch
DataLoaders, to be given to `accelerator.prepare`. After that set the epoch on the prepared loader:
`loader.set_epoch(epoch)`; Accelerate passes it on to the sampler and keeps it in `skip_first_batches`.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from redsm5.data.tokenize import EncodedPosts, Example

PAD_TO_MULTIPLE = 8  # what tensor cores want

Batch = dict[str, Tensor]


class EpochSampler(Sampler[int]):
    """A permutation of range(size) that depends on (seed, epoch) and nothing else: no state to save or restore."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        # Seeds next to each other give unrelated orders only if mixed: epoch 1 of seed 0 must not be epoch 0 of seed 1.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        yield from torch.randperm(self.size, generator=generator).tolist()


def collate(examples: Sequence[Example], pad_id: int, max_length: int) -> Batch:
    """input_ids_BT, attention_mask_BT (1 = token), starts_BC, ends_BC, index_B as int64; labels_BC as float32."""
    lengths = [len(example["input_ids"]) for example in examples]
    width = -(-max(lengths) // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE
    width = min(width, max_length)  # the encoder has no positions beyond
    input_ids_BT = torch.full((len(examples), width), pad_id)
    attention_mask_BT = torch.zeros_like(input_ids_BT)
    for b, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        input_ids_BT[b, :length] = torch.tensor(example["input_ids"])
        attention_mask_BT[b, :length] = 1
    return {
        "input_ids_BT": input_ids_BT,
        "attention_mask_BT": attention_mask_BT,
        "labels_BC": torch.stack([example["labels"] for example in examples]),
        "starts_BC": torch.stack([example["starts"] for example in examples]),
        "ends_BC": torch.stack([example["ends"] for example in examples]),
        "index_B": torch.tensor([example["index"] for example in examples]),
    }


def train_loader(dataset: EncodedPosts, batch_size: int, seed: int, pad_id: int) -> DataLoader[Example]:
    """All posts in the epoch's order; the last batch may be smaller."""
    return _loader(dataset, batch_size, pad_id, EpochSampler(len(dataset), seed))


def eval_loader(dataset: EncodedPosts, batch_size: int, pad_id: int) -> DataLoader[Example]:
    """All posts in the data set's own order."""
    return _loader(dataset, batch_size, pad_id, None)


def _loader(dataset: EncodedPosts, batch_size: int, pad_id: int, sampler: Sampler[int] | None) -> DataLoader[Example]:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=partial(collate, pad_id=pad_id, max_length=dataset.max_length),
        num_workers=0,
        # A DataLoader draws a number whenever it is iterated. From a generator of its own, an epoch that is resumed in
        # the middle leaves torch's global one (dropout) where an uninterrupted epoch would.
        generator=torch.Generator().manual_seed(0),
    )
