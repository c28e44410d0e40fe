"""Batches of encoded posts: which go together, and how a batch is split so that little of it is padding.

Which posts go together is a pure function of (seed, epoch) and the posts' lengths, so there is no state to save. A
batch comes as a list of parts, each for a forward and backward of its own; their losses add up to the batch's.

Shapes: N items in a part, S sequences (the items' windows), W windows of an item at the most, T tokens (of the longest
sequence, rounded up), C outputs an item, G gold spans, M sentences. The loaders are plain torch
DataLoaders, to be given to `on_device`. After that set the epoch on the loader that comes back:
`loader.set_epoch(epoch)`; Accelerate passes it on to the batches' order and keeps it in `skip_first_batches`.

Several processes go through the same batches together, each with its share (index, count) of every batch: the posts at
index, index + count, ... of it. So a batch is the same one, whatever the number of processes.
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

PAD_TO_MULTIPLE = 8  # what tensor cores want
CHUNK = 64  # batches whose posts are sorted by length together: the more, the less padding, and the less chance
PROCESSOR_PART_COST = 32  # tokens: what a forward and backward takes there besides those for its tokens

Batch = dict[str, Tensor]
Share = tuple[int, int]


def training_batches(
    widths: Sequence[int], batch_size: int, seed: int, epoch: int, *, by_length: bool
) -> list[list[int]]:
    """The positions of each batch of an epoch: a permutation of all, cut up; the last one drawn may be smaller.

    By length, the permutation is cut into chunks first, each of which is sorted by `widths`, the longest first; what
    has the same width stays in the order that was drawn. Then the batches' order is drawn.
    """
    # Seeds next to each other give unrelated orders only if mixed: epoch 1 of seed 0 must not be epoch 0 of seed 1.
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(len(widths), generator=generator).tolist()
    if not by_length:
        return _cut(order, batch_size)
    chunks = [sorted(chunk, key=lambda position: -widths[position]) for chunk in _cut(order, CHUNK * batch_size)]
    batches = [batch for chunk in chunks for batch in _cut(chunk, batch_size)]
    return [batches[b] for b in torch.randperm(len(batches), generator=generator).tolist()]


class EpochBatches(Sampler[list[int]]):
    """The `training_batches` of a data set, as encoded when iterated, for the epoch that is set."""

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
class Parting:
    """How a batch is split.

    Attributes:
        max_tokens: of a part, padded, unless it is a single item, which the model can only read whole; None: any.
        part_cost: what a part costs beside its tokens, in tokens; None: too much to split what need not be.
    """

    max_tokens: int | None = None
    part_cost: int | None = None


UNDIVIDED = Parting()


def parts_of(examples: Sequence[Example], parting: Parting) -> list[list[Example]]:
    """The examples in parts of like length, the longest first: of all ways to cut that order, the one that costs the
    fewest tokens, with padding and `part_cost` for each part.
    """
    if parting == UNDIVIDED:
        return [list(examples)] if examples else []
    order = sorted(examples, key=lambda example: -width(example.item))
    widths, counts = [width(example.item) for example in order], [len(example.item.windows) for example in order]
    most = math.inf if parting.max_tokens is None else parting.max_tokens
    part_cost = sum(counts) * max(widths, default=0) if parting.part_cost is None else parting.part_cost
    return [order[begin:end] for begin, end in _cheapest_cut(widths, counts, most, part_cost)]


def _cheapest_cut(widths: Sequence[int], counts: Sequence[int], most: float, cost: int) -> list[tuple[int, int]]:
    """Where each piece begins and ends, of all ways to cut rectangles of falling widths into pieces: the one that comes
    to the least, each piece being as wide as its first and costing so much in itself; none of several is over `most`.
    """
    before = [0, *accumulate(counts)]
    costs, begins = [0], [0]  # of the first 0, 1, ...: the least cost, and where its last piece begins
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
    """(sequences, width) of each group of the items' windows, the widest first: the encoder reads a group at a time.

    Where posts have several windows, the last is as long as it happens to be. Windows are put together as posts are in
    `parts_of`; where that does not pay, or `part_cost` is None, or each has one window, there is one group.
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
    """What losses are averaged over: items, and outputs whose evidence is known."""

    items: int
    known: int

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Counts":
        return cls(len(items), sum(sum(window.known) for item in items for window in item.windows))


@dataclass(frozen=True)
class Collator:
    """Makes the parts of a batch, or of a share of it, from the whole batch's examples.

    Attributes:
        share: (index, count): which share, of how many.
        parting: how it is split.
        counts: what the losses are divided by, where it is not the batch's own counts.
    """

    pad_id: int
    max_length: int
    share: Share = (0, 1)
    parting: Parting = UNDIVIDED
    counts: Counts | None = None

    def parts(self, examples: Sequence[Example]) -> list[list[Example]]:
        """This share's examples; none where there are fewer than shares."""
        return parts_of(examples[self.share[0] :: self.share[1]], self.parting)

    def __call__(self, examples: Sequence[Example]) -> list[Batch]:
        """The parts, each as `collate` has it, with item_count and known_count: float32 scalars, the items, and the
        outputs whose evidence is known, of the whole batch, divided by the number of shares.

        Losses divide by them. So the sum of the parts' losses and gradients is the share's, and the mean of the
        shares', which DistributedDataParallel takes, is the whole batch's. An empty share holds a stand-in, since each
        process takes part in each step: an item of position -1, whose counts are infinite, so that its loss and its
        gradients are 0.
        """
        counts = self.counts or Counts.of([example.item for example in examples])
        divisors = (counts.items / self.share[1], max(counts.known, 1) / self.share[1])
        parts = self.parts(examples)
        if not parts:
            divisors, parts = (math.inf, math.inf), [[Example(-1, examples[0].item)]]
        divided_by = dict(zip(("item_count", "known_count"), map(torch.tensor, divisors), strict=True))
        cost = self.parting.part_cost
        return [collate(part, self.pad_id, self.max_length, part_cost=cost) | divided_by for part in parts]


def collate(examples: Sequence[Example], pad_id: int, max_length: int, *, part_cost: int | None = None) -> Batch:
    """Examples as tensors; all int64 but for labels_NC (float32) and known_SC (bool).

    index_N: positions of the items. labels_NC, symptoms_NC: each output's label, and which symptom it is of.
    input_ids_ST, attention_mask_ST (1 = token), text_mask_ST (1 = token of the post's own text), and token_type_ids_ST
    where the encoder has them. windows_NW: which sequences are the item's windows, -1 where it has fewer than others.
    spans_G4: gold evidence, rows (sequence, output, first token, last token). known_SC: whether an output's evidence
    in this sequence is known. sentences_M3: rows (sequence, first token, last token). group_k_ST0, where there are
    several `groups_of` the windows: empty, and as large as the group that its sequences and their first tokens are; a
    shape is known without waiting for the device.
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
    """windows_NW, where sequence s is the window `order[s]` of all items' windows."""
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
    flat = [row for part in rows for row in part]
    return torch.tensor(flat, dtype=torch.long).reshape(len(flat), width)


def train_loader(
    dataset: EncodedPosts,
    batch_size: int,
    seed: int,
    pad_id: int,
    share: Share = (0, 1),
    *,
    by_length: bool = False,
    parting: Parting = UNDIVIDED,
) -> DataLoader[Example]:
    """All items in the epoch's `training_batches`, each a list of parts whose losses add up to the batch's."""
    batches = EpochBatches(dataset, batch_size, seed, by_length=by_length)
    return _loader(dataset, batches, Collator(pad_id, dataset.max_length, share, parting))


def eval_loader(
    dataset: EncodedPosts, batch_size: int, pad_id: int, share: Share = (0, 1), *, parting: Parting = UNDIVIDED
) -> DataLoader[Example]:
    """All items, the longest first, in batches as `train_loader` has them, but the losses of all add up to that of the
    whole data set as one batch.
    """
    order = sorted(range(len(dataset)), key=lambda position: -width(dataset.items[position]))
    counts = Counts.of(dataset.items)
    return _loader(dataset, _cut(order, batch_size), Collator(pad_id, dataset.max_length, share, parting, counts))


def parting_of(config: Config) -> Parting:
    """As configured; where that says nothing, splitting pays on a processor, and not on a GPU."""
    cost = config.train.part_cost
    return Parting(config.train.max_tokens, PROCESSOR_PART_COST if cost is None and config.on_cpu else cost)


def loaders(
    train_set: EncodedPosts, validation_set: EncodedPosts, config: Config, pad_id: int, share: Share
) -> tuple[DataLoader[Example], DataLoader[Example]]:
    """What a trial trains on and validates on, as configured."""
    train, parting = config.train, parting_of(config)
    by_length = train.group_by_length
    return (
        train_loader(train_set, train.batch_size, train.seed, pad_id, share, by_length=by_length, parting=parting),
        eval_loader(validation_set, train.batch_size, pad_id, share, parting=parting),
    )


def useful_tokens(loader: DataLoader[Example]) -> float:
    """The share of this process's tokens, in one pass over the loader, that are no padding."""
    dataset, collator = loader.dataset, loader.collate_fn
    assert isinstance(dataset, EncodedPosts)
    assert isinstance(collator, Collator)
    useful = padded = 0
    for positions in loader.batch_sampler or ():
        for part in collator.parts([dataset[position] for position in positions]):
            items = [example.item for example in part]
            useful += sum(len(window.input_ids) for item in items for window in item.windows)
            groups = groups_of(items, collator.max_length, collator.parting.part_cost)
            padded += sum(sequences * tokens for sequences, tokens in groups)
    return useful / max(padded, 1)


def on_device(loader: DataLoader[Example], device: torch.device) -> DataLoaderShard:
    """The loader as Accelerate has it, its batches on the device. The shares are its own: it is left as it is.

    To a GPU they are copied from pinned memory while it computes: nobody waits for a copy, and since the loop does not
    wait for the GPU either, the next batch is made and sent while it is at the last one.
    """
    loader.pin_memory = device.type == "cuda"
    return prepare_data_loader(loader, device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True)


def _loader(dataset: EncodedPosts, batches: Any, collator: Collator) -> DataLoader[Example]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collator,
        num_workers=0,
        # A DataLoader draws a number whenever it is iterated. From a generator of its own, an epoch that is resumed in
        # the middle leaves torch's global one (dropout) where an uninterrupted epoch would.
        generator=torch.Generator().manual_seed(0),
    )
