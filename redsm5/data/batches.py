"""Batches of encoded posts: padding, and an order of training that is a pure function of (seed, epoch).

Shapes: N items in a batch, S sequences (the items' windows), W windows of an item at the most, T tokens (of the longest
sequence, rounded up), C outputs an item, G gold spans, M sentences. The loaders are plain torch
DataLoaders, to be given to `on_device`. After that set the epoch on the loader that comes back:
`loader.set_epoch(epoch)`; Accelerate passes it on to the sampler and keeps it in `skip_first_batches`.

Several processes go through the same batches together, each with its share (index, count) of every batch: the posts at
index, index + count, ... of it. So a batch is the same one, whatever the number of processes.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from accelerate.data_loader import DataLoaderShard, prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from redsm5.data.encode import EncodedPosts, Example
from redsm5.data.packed import Item

PAD_TO_MULTIPLE = 8  # what tensor cores want

Batch = dict[str, Tensor]
Share = tuple[int, int]


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


def collate(examples: Sequence[Example], pad_id: int, max_length: int, share: Share = (0, 1)) -> Batch:
    """One batch, or a share of it; all int64 but for labels_NC (float32) and known_SC (bool).

    index_N: positions of the items. labels_NC, symptoms_NC: each output's label, and which symptom it is of.
    input_ids_ST, attention_mask_ST (1 = token), text_mask_ST (1 = token of the post's own text), and token_type_ids_ST
    where the encoder has them. windows_NW: which sequences are the item's windows, -1 where it has fewer than others.
    spans_G4: gold evidence, rows (sequence, output, first token, last token). known_SC: whether an output's evidence
    in this sequence is known. sentences_M3: rows (sequence, first token, last token).

    With several shares there are also item_count and known_count, float32 scalars: the items, and the outputs whose
    evidence is known, of the whole batch, divided by the number of shares. Losses divide by them, so that the mean of
    the shares' losses and gradients, which DistributedDataParallel takes, is the whole batch's. An empty share holds a
    stand-in, since each process takes part in each step: an item of position -1, whose counts are infinite, so that its
    loss and its gradients are 0.
    """
    counts = {}
    if share[1] > 1:
        whole, examples = examples, examples[share[0] :: share[1]]
        known = sum(sum(window.known) for example in whole for window in example.item.windows)
        divisors = (len(whole) / share[1], max(known, 1) / share[1]) if examples else (math.inf, math.inf)
        counts = dict(zip(("item_count", "known_count"), map(torch.tensor, divisors), strict=True))
        examples = examples or [Example(-1, whole[0].item)]
    items = [example.item for example in examples]
    windows = [window for item in items for window in item.windows]
    width = -(-max(len(window.input_ids) for window in windows) // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE
    width = min(width, max_length)  # the encoder has no positions beyond
    input_ids_ST = torch.full((len(windows), width), pad_id)
    attention_mask_ST, text_mask_ST, type_ids_ST = (torch.zeros_like(input_ids_ST) for _ in range(3))
    for s, window in enumerate(windows):
        length = len(window.input_ids)
        input_ids_ST[s, :length] = torch.tensor(window.input_ids)
        attention_mask_ST[s, :length] = 1
        text_mask_ST[s, slice(*window.text)] = 1
        if window.type_ids is not None:
            type_ids_ST[s, :length] = torch.tensor(window.type_ids)
    batch = {
        "index_N": torch.tensor([example.position for example in examples]),
        "labels_NC": torch.tensor([item.labels for item in items], dtype=torch.float32),
        "symptoms_NC": torch.tensor([item.symptoms for item in items]),
        "input_ids_ST": input_ids_ST,
        "attention_mask_ST": attention_mask_ST,
        "text_mask_ST": text_mask_ST,
        "windows_NW": _windows_of(items),
        "spans_G4": _rows([[(s, *span) for span in window.spans] for s, window in enumerate(windows)], 4),
        "known_SC": torch.tensor([window.known for window in windows]),
        "sentences_M3": _rows([[(s, *x) for x in window.sentences] for s, window in enumerate(windows)], 3),
    }
    return batch | counts | ({"token_type_ids_ST": type_ids_ST} if windows[0].type_ids is not None else {})


def _windows_of(items: Sequence[Item]) -> Tensor:
    widest = max(len(item.windows) for item in items)
    windows_NW = torch.full((len(items), widest), -1)
    first = 0
    for n, item in enumerate(items):
        count = len(item.windows)
        windows_NW[n, :count] = torch.arange(first, first + count)
        first += count
    return windows_NW


def _rows(rows: Sequence[Sequence[tuple[int, ...]]], width: int) -> Tensor:
    flat = [row for part in rows for row in part]
    return torch.tensor(flat, dtype=torch.long).reshape(len(flat), width)


def train_loader(
    dataset: EncodedPosts, batch_size: int, seed: int, pad_id: int, share: Share = (0, 1)
) -> DataLoader[Example]:
    """All items in the epoch's order; the last batch may be smaller."""
    return _loader(dataset, batch_size, pad_id, EpochSampler(len(dataset), seed), share)


def eval_loader(dataset: EncodedPosts, batch_size: int, pad_id: int, share: Share = (0, 1)) -> DataLoader[Example]:
    """All items in the data set's own order."""
    return _loader(dataset, batch_size, pad_id, None, share)


def on_device(loader: DataLoader[Example], device: torch.device) -> DataLoaderShard:
    """The loader as Accelerate has it, its batches on the device. The shares are its own: it is left as it is."""
    return prepare_data_loader(loader, device, num_processes=1, process_index=0, put_on_device=True)


def _loader(
    dataset: EncodedPosts, batch_size: int, pad_id: int, sampler: Sampler[int] | None, share: Share
) -> DataLoader[Example]:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=partial(collate, pad_id=pad_id, max_length=dataset.max_length, share=share),
        num_workers=0,
        # A DataLoader draws a number whenever it is iterated. From a generator of its own, an epoch that is resumed in
        # the middle leaves torch's global one (dropout) where an uninterrupted epoch would.
        generator=torch.Generator().manual_seed(0),
    )
