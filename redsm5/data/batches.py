"""Batches of encoded posts: which posts form a batch, and how a batch is split into micro-batches with little padding.

The batches are a pure function of (seed, epoch) and the posts' lengths, so there is no sampler state to save. A batch
is a list of micro-batches, each with its own forward and backward pass; their losses add up to the batch's loss.

Shapes: N items in a micro-batch, S sequences (the items' windows), W windows of an item at most, T tokens (of the
longest sequence, rounded up), C outputs per item, G gold spans, M sentences. The loaders are plain torch DataLoaders;
pass them to `on_device`, then call `set_epoch(epoch)` on the loader that it returns. Accelerate passes the epoch on to
the batch sampler and keeps it in `skip_first_batches`.

With several processes, all iterate over the same batches, and each takes its share (index, count) of every batch: the
posts at index, index + count, ... So the batches do not depend on the number of processes.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard, prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from redsm5.config import Config
from redsm5.data.encode import EncodedPosts, Example
from redsm5.data.packed import Item

PAD_TO_MULTIPLE = 8  # tensor cores are fastest on multiples of 8
CHUNK = 64  # batches whose posts are sorted together by length: more means less padding and less shuffling
CPU_PART_COST = 32  # tokens: the fixed cost of a forward and backward pass on a CPU

Batch = dict[str, Tensor]
Share = tuple[int, int]


def training_batches(
    widths: Sequence[int], batch_size: int, seed: int, epoch: int, *, by_length: bool
) -> list[list[int]]:
    """The positions of each batch of an epoch: a random permutation cut into batches; the last one may be smaller.

    With `by_length`, the permutation is first cut into chunks and each chunk is sorted by `widths`, longest first
    (stable), then cut into batches, which are shuffled.
    """
    # Mix seed and epoch, so that epoch 1 of seed 0 is not epoch 0 of seed 1.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(len(widths), generator=generator).tolist()
    if not by_length:
        return _cut(order, batch_size)
    chunks = [sorted(chunk, key=lambda position: -widths[position]) for chunk in _cut(order, CHUNK * batch_size)]
    batches = [batch for chunk in chunks for batch in _cut(chunk, batch_size)]
    return [batches[b] for b in torch.randperm(len(batches), generator=generator).tolist()]


class EpochBatches(Sampler[list[int]]):
    """A batch sampler: the `training_batches` of the epoch that was set, from the data set's state at iteration."""

    def __init__(self, dataset: EncodedPosts, batch_size: int, seed: int, *, by_length: bool) -> None:
        self.dataset, self.batch_size, self.seed, self.by_length = dataset, batch_size, seed, by_length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        widths = [width(item) for item in self.dataset.items]
        yield from training_batches(widths, self.batch_size, self.seed, self.epoch, by_length=self.by_length)


def _cut(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[at : at + size]) for at in range(0, len(order), size)]


def width(item: Item) -> int:
    """Tokens of the item's longest window, padded."""
    return _padded(max(len(window.input_ids) for window in item.windows))


def _padded(length: int) -> int:
    return -(-length // PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE


@dataclass(frozen=True)
class MicroBatching:
    """How a batch is split into micro-batches.

    Attributes:
        max_tokens: limit of a micro-batch, padding included; a single item is never split. None: no limit.
        part_cost: fixed cost of a micro-batch, in tokens. None: split only where `max_tokens` requires it.
    """

    max_tokens: int | None = None
    part_cost: int | None = None


WHOLE_BATCH = MicroBatching()


def micro_batches_of(examples: Sequence[Example], micro_batching: MicroBatching) -> list[list[Example]]:
    """The examples in length-bucketed micro-batches, longest first.

    The sorted examples are cut in the cheapest way. The cost is in tokens, padding included, plus `part_cost` for each
    micro-batch.
    """
    if micro_batching == WHOLE_BATCH:
        return [list(examples)] if examples else []
    order = sorted(examples, key=lambda example: -width(example.item))
    widths, counts = [width(example.item) for example in order], [len(example.item.windows) for example in order]
    most = math.inf if micro_batching.max_tokens is None else micro_batching.max_tokens
    part_cost = sum(counts) * max(widths, default=0) if micro_batching.part_cost is None else micro_batching.part_cost
    return [order[begin:end] for begin, end in _cheapest_cut(widths, counts, most, part_cost)]


def _cheapest_cut(widths: Sequence[int], counts: Sequence[int], most: float, cost: int) -> list[tuple[int, int]]:
    """(begin, end) of each piece of the cheapest cut of rows sorted by decreasing width.

    A piece costs `cost` plus its rows times the width of its first row. A piece of several rows has at most `most`
    tokens.
    """
    before = [0, *accumulate(counts)]
    costs, begins = [0], [0]  # for the first 0, 1, ... rows: the least cost, and where its last piece begins
    for end in range(1, len(widths) + 1):
        tokens = {begin: widths[begin] * (before[end] - before[begin]) for begin in range(end)}
        least, begin = min((costs[b] + tokens[b] + cost, b) for b in tokens if tokens[b] <= most or b == end - 1)
        costs.append(least)
        begins.append(begin)
    pieces, end = [], len(widths)
    while end:
        pieces.append((begins[end], end))
        end = begins[end]
    return pieces[::-1]


def groups_of(items: Sequence[Item], max_length: int, part_cost: int | None) -> list[tuple[int, int]]:
    """(sequences, width) of each length bucket of the items' windows, widest first; the encoder reads one at a time.

    A post's last window may be shorter than the others, so windows are bucketed as posts are in `micro_batches_of`.
    There is one group if more save nothing, if `part_cost` is None, or if each item has one window.
    """
    count_of = Counter(_padded(len(window.input_ids)) for item in items for window in item.windows)
    widths = sorted(count_of, reverse=True)
    counts = [count_of[width] for width in widths]
    pieces = [(0, len(widths))]
    if part_cost is not None and sum(counts) > len(items):
        pieces = _cheapest_cut(widths, counts, math.inf, part_cost)
    return [(sum(counts[begin:end]), min(widths[begin], max_length)) for begin, end in pieces]


@dataclass(frozen=True)
class Counts:
    """The divisors of the mean losses: the number of items, and of outputs whose evidence is known."""

    items: int
    known: int

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Counts":
        return cls(len(items), sum(sum(window.known) for item in items for window in item.windows))


@dataclass(frozen=True)
class Collator:
    """Makes the micro-batches of a batch, or of one share of it, from the whole batch's examples.

    Attributes:
        share: (index, number of shares).
        micro_batching: how the share is split.
        counts: the losses' divisors, if they are not the batch's own counts.
    """

    pad_id: int
    max_length: int
    share: Share = (0, 1)
    micro_batching: MicroBatching = WHOLE_BATCH
    counts: Counts | None = None

    def micro_batches(self, examples: Sequence[Example]) -> list[list[Example]]:
        """This share's examples; an empty list if there are fewer examples than shares."""
        return micro_batches_of(examples[self.share[0] :: self.share[1]], self.micro_batching)

    def __call__(self, examples: Sequence[Example]) -> list[Batch]:
        """The micro-batches, each as from `collate`, plus item_count and known_count (float32 scalars): the whole
        batch's items, and its outputs whose evidence is known, divided by the number of shares.

        Losses divide by them. So the losses and gradients of the micro-batches add up to the share's, and the mean over
        the shares, which DistributedDataParallel takes, is the whole batch's. An empty share gets a placeholder item,
        since every process takes part in every step: its position is -1 and its counts are infinite, so that its loss
        and gradients are 0.
        """
        counts = self.counts or Counts.of([example.item for example in examples])
        divisors = (counts.items / self.share[1], max(counts.known, 1) / self.share[1])
        micro_batches = self.micro_batches(examples)
        if not micro_batches:
            divisors, micro_batches = (math.inf, math.inf), [[Example(-1, examples[0].item)]]
        divided_by = dict(zip(("item_count", "known_count"), map(torch.tensor, divisors), strict=True))
        cost = self.micro_batching.part_cost
        return [collate(some, self.pad_id, self.max_length, part_cost=cost) | divided_by for some in micro_batches]


def collate(examples: Sequence[Example], pad_id: int, max_length: int, *, part_cost: int | None = None) -> Batch:
    """Examples as tensors, int64 except labels_NC (float32) and known_SC (bool).

    index_N: positions of the items. labels_NC, symptoms_NC: each output's label and symptom. input_ids_ST,
    attention_mask_ST (1 = token), text_mask_ST (1 = token of the post's own text), and token_type_ids_ST if the encoder
    has them. windows_NW: the sequences that are the item's windows, padded with -1. spans_G4: gold evidence, rows
    (sequence, output, first token, last token). known_SC: whether an output's evidence in this sequence is known.
    sentences_M3: rows (sequence, first token, last token). group_k_ST0, if there are several `groups_of` the windows:
    an empty tensor with the group's shape (sequences, tokens), since reading a shape does not wait for the device.
    """
    items = [example.item for example in examples]
    windows = [window for item in items for window in item.windows]
    groups = groups_of(items, max_length, part_cost)
    order = list(range(len(windows)))
    if len(groups) > 1:
        order.sort(key=lambda s: -len(windows[s].input_ids))
        windows = [windows[s] for s in order]
    input_ids_ST = torch.full((len(windows), groups[0][1]), pad_id)  # the encoder has no positions beyond max_length
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
        "windows_NW": _windows_of(items, order),
        "spans_G4": _rows([[(s, *span) for span in window.spans] for s, window in enumerate(windows)], 4),
        "known_SC": torch.tensor([window.known for window in windows]),
        "sentences_M3": _rows([[(s, *x) for x in window.sentences] for s, window in enumerate(windows)], 3),
    }
    if windows[0].type_ids is not None:
        batch["token_type_ids_ST"] = type_ids_ST
    if len(groups) > 1:
        batch |= {f"group_{k}_ST0": torch.empty(*group, 0) for k, group in enumerate(groups)}
    return batch


def _windows_of(items: Sequence[Item], order: Sequence[int]) -> Tensor:
    """windows_NW, if sequence s is window `order[s]` of all items' windows."""
    place = {window: s for s, window in enumerate(order)}
    widest = max(len(item.windows) for item in items)
    windows_NW = torch.full((len(items), widest), -1)
    first = 0
    for n, item in enumerate(items):
        count = len(item.windows)
        windows_NW[n, :count] = torch.tensor([place[first + w] for w in range(count)])
        first += count
    return windows_NW


def _rows(rows: Sequence[Sequence[tuple[int, ...]]], width: int) -> Tensor:
    flat = [row for chunk in rows for row in chunk]
    return torch.tensor(flat, dtype=torch.long).reshape(len(flat), width)


def train_loader(
    dataset: EncodedPosts,
    batch_size: int,
    seed: int,
    pad_id: int,
    share: Share = (0, 1),
    *,
    by_length: bool = False,
    micro_batching: MicroBatching = WHOLE_BATCH,
) -> DataLoader[Example]:
    """All items in the epoch's `training_batches`, each a list of micro-batches whose losses add up to the batch's."""
    batches = EpochBatches(dataset, batch_size, seed, by_length=by_length)
    return _loader(dataset, batches, Collator(pad_id, dataset.max_length, share, micro_batching))


def eval_loader(
    dataset: EncodedPosts,
    batch_size: int,
    pad_id: int,
    share: Share = (0, 1),
    *,
    micro_batching: MicroBatching = WHOLE_BATCH,
) -> DataLoader[Example]:
    """All items, longest first, in batches like those of `train_loader`; the batches' losses add up to the mean loss of
    the data set.
    """
    order = sorted(range(len(dataset)), key=lambda position: -width(dataset.items[position]))
    counts = Counts.of(dataset.items)
    return _loader(
        dataset, _cut(order, batch_size), Collator(pad_id, dataset.max_length, share, micro_batching, counts)
    )


def micro_batching_of(config: Config) -> MicroBatching:
    """As configured. By default a batch is split to save padding on a CPU, but not on a GPU."""
    cost = config.train.part_cost
    return MicroBatching(config.train.max_tokens, CPU_PART_COST if cost is None and config.on_cpu else cost)


def loaders(
    train_set: EncodedPosts, validation_set: EncodedPosts, config: Config, pad_id: int, share: Share
) -> tuple[DataLoader[Example], DataLoader[Example]]:
    """The training and the validation loader of a trial, as configured."""
    train, micro_batching = config.train, micro_batching_of(config)
    by_length = train.group_by_length
    return (
        train_loader(
            train_set, train.batch_size, train.seed, pad_id, share, by_length=by_length, micro_batching=micro_batching
        ),
        eval_loader(validation_set, train.batch_size, pad_id, share, micro_batching=micro_batching),
    )


def useful_tokens(loader: DataLoader[Example]) -> float:
    """The fraction of this process's tokens, in one pass over the loader, that are not padding."""
    dataset, collator = loader.dataset, loader.collate_fn
    assert isinstance(dataset, EncodedPosts)
    assert isinstance(collator, Collator)
    useful = padded = 0
    for positions in loader.batch_sampler or ():
        for micro_batch in collator.micro_batches([dataset[position] for position in positions]):
            items = [example.item for example in micro_batch]
            useful += sum(len(window.input_ids) for item in items for window in item.windows)
            groups = groups_of(items, collator.max_length, collator.micro_batching.part_cost)
            padded += sum(sequences * tokens for sequences, tokens in groups)
    return useful / max(padded, 1)


def on_device(loader: DataLoader[Example], device: torch.device) -> DataLoaderShard:
    """The loader wrapped by Accelerate, with its batches on the device. Our loader distributes the batches itself, so
    Accelerate does not.

    Batches are copied to a GPU from pinned memory while it computes. The training loop does not wait for the GPU
    either, so the next batch is collated and copied during the current step.
    """
    loader.pin_memory = device.type == "cuda"
    return prepare_data_loader(loader, device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True)


def _loader(dataset: EncodedPosts, batches: Any, collator: Collator) -> DataLoader[Example]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collator,
        num_workers=0,
        # A DataLoader draws a random number whenever it is iterated. Its own generator keeps that from advancing
        # torch's global one (dropout), so that an epoch resumed in the middle sees the same random numbers.
        generator=torch.Generator().manual_seed(0),
    )
