"""Batches are padded as the encoder wants and little beyond, and are a pure function of (seed, epoch), also resumed."""

import math
from itertools import chain, pairwise, product

import pytest
import torch
from accelerate import Accelerator, skip_first_batches

from redsm5.config import compose
from redsm5.data.batches import (
    CHUNK,
    CPU_PART_COST,
    WHOLE_BATCH,
    Collator,
    MicroBatching,
    collate,
    eval_loader,
    micro_batches_of,
    on_device,
    train_loader,
    training_batches,
    useful_tokens,
    width,
)
from redsm5.data.encode import EncodedPosts, Example
from redsm5.data.packed import Item, Window
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import build_tokenizer


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_csvs(folder, 50, 5)
    posts = read_corpus(folder).posts
    return EncodedPosts(posts, build_tokenizer("tiny", posts), compose(["model.max_length=64"]))


@pytest.fixture(scope="module")
def windowed(encoded):
    config = compose(["model.max_length=32", "data.long_posts=window", "model.evidence_head_type=sentence_reranker"])
    return EncodedPosts(encoded.posts, build_tokenizer("tiny", encoded.posts), config)


def ids(encoded, index):
    return encoded.items[index].windows[0].input_ids.tolist()


def order(loader):
    return [
        [position for micro_batch in micro_batches for position in micro_batch["index_N"].tolist()]
        for micro_batches in loader
    ]


def test_a_batch_is_padded_to_a_multiple_of_eight(encoded):
    shortest = sorted(range(50), key=lambda i: len(ids(encoded, i)))[:4]
    batch = collate([encoded[i] for i in shortest], pad_id=7, max_length=64)
    longest = len(ids(encoded, shortest[-1]))
    width = batch["input_ids_ST"].shape[1]
    assert width % 8 == 0
    assert longest <= width < longest + 8
    for s, index in enumerate(shortest):
        length = len(ids(encoded, index))
        assert batch["input_ids_ST"][s].tolist() == ids(encoded, index) + [7] * (width - length)
        assert batch["attention_mask_ST"][s].tolist() == [1] * length + [0] * (width - length)
        assert batch["text_mask_ST"][s].tolist() == [0] + [1] * (length - 2) + [0] * (width - length + 1)
    assert batch["index_N"].tolist() == shortest
    assert batch["windows_NW"].tolist() == [[0], [1], [2], [3]]


def test_padding_stays_within_the_window():
    window = Window(list(range(57)), None, [(0, 0)] * 57, (1, 56), [], [True], [])
    examples = [Example(0, Item(0, (3,), (1,), [window]))]
    assert collate(examples, pad_id=0, max_length=60)["input_ids_ST"].shape == (1, 60)
    assert collate(examples, pad_id=0, max_length=512)["input_ids_ST"].shape == (1, 64)


def test_types_and_shapes(encoded):
    (batch,) = Collator(0, 64)([encoded[i] for i in range(8)])
    floats = {"labels_NC": torch.float32, "known_SC": torch.bool}
    floats |= {"item_count": torch.float32, "known_count": torch.float32}
    assert {name: value.dtype for name, value in batch.items()} == {
        name: floats.get(name, torch.long)
        for name in (
            "index_N", "labels_NC", "symptoms_NC", "input_ids_ST", "attention_mask_ST", "text_mask_ST",
            "token_type_ids_ST", "windows_NW", "spans_G4", "known_SC", "sentences_M3",
            "item_count", "known_count",
        )
    }  # fmt: skip
    assert batch["labels_NC"].shape == batch["symptoms_NC"].shape == batch["known_SC"].shape == (8, 9)
    assert batch["labels_NC"].tolist() == [list(post.labels) for post in encoded.posts[:8]]
    assert batch["symptoms_NC"].tolist() == [list(range(9))] * 8


def test_windows_spans_and_sentences_point_at_their_sequences(windowed):
    batch = collate([windowed[i] for i in range(8)], 0, 32)
    windows = [window for item in windowed.items[:8] for window in item.windows]
    assert batch["input_ids_ST"].shape[0] == len(windows) > 8
    rows = [[s for s in row if s >= 0] for row in batch["windows_NW"].tolist()]
    assert list(chain(*rows)) == list(range(len(windows)))
    assert [len(row) for row in rows] == [len(item.windows) for item in windowed.items[:8]]
    assert batch["spans_G4"].tolist() == [[s, *span] for s, window in enumerate(windows) for span in window.spans]
    assert batch["sentences_M3"].tolist() == [[s, *x] for s, window in enumerate(windows) for x in window.sentences]
    assert batch["known_SC"].tolist() == [window.known for window in windows]


def test_windows_of_like_length_stand_together_and_are_still_their_posts(windowed):
    examples = [windowed[i] for i in range(16)]
    items = [example.item for example in examples]
    plain, grouped = collate(examples, 0, 32), collate(examples, 0, 32, part_cost=8)
    groups = [tensor.shape for name, tensor in grouped.items() if name.startswith("group_")]
    S, T = plain["input_ids_ST"].shape
    assert sum(count for count, _, _ in groups) == S
    assert 1 < len(groups) <= T // 8
    assert sum(count * tokens for count, tokens, _ in groups) < S * T
    first = 0
    for count, tokens, _ in groups:
        assert not grouped["attention_mask_ST"][first : first + count, tokens:].any()
        first += count
    for item, row in zip(items, grouped["windows_NW"].tolist(), strict=True):
        for window, s in zip(item.windows, row[: len(item.windows)], strict=True):
            assert grouped["input_ids_ST"][s, : len(window.input_ids)].tolist() == window.input_ids.tolist()
            assert grouped["known_SC"][s].tolist() == list(window.known)
            assert [row[1:] for row in grouped["spans_G4"].tolist() if row[0] == s] == [list(x) for x in window.spans]
    assert not [name for name in collate(examples, 0, 32, part_cost=10**6) if name.startswith("group_")]


WIDTHS = [8 * (1 + i * i % 61) for i in range(1500)]


@pytest.mark.parametrize("by_length", [True, False])
def test_the_batches_are_a_pure_function_of_seed_and_epoch(by_length):
    def drawn(seed, epoch):
        torch.manual_seed(epoch)
        batches = training_batches(WIDTHS, 16, seed, epoch, by_length=by_length)
        assert sorted(chain(*batches)) == list(range(1500))
        assert sorted(map(len, batches)) == [12] + [16] * 93
        return tuple(map(tuple, batches))

    assert drawn(1, 2) == drawn(1, 2)
    assert len({drawn(seed, epoch) for seed in range(5) for epoch in range(5)}) == 25


def test_by_length_a_batch_holds_neighbours_and_comes_at_any_place():
    batches = training_batches(WIDTHS, 16, 1, 1, by_length=True)
    longest = [max(WIDTHS[i] for i in batch) for batch in batches]
    assert sum(map(sum, ([w] * 16 for w in longest))) < 1.04 * sum(WIDTHS)
    assert longest != sorted(longest, reverse=True)
    two = [{frozenset(b) for b in training_batches(WIDTHS, 16, 1, epoch, by_length=True)} for epoch in (1, 2)]
    assert not two[0] & two[1]  # what is equally long meets anew


def test_no_more_than_a_chunk_is_sorted_together():
    batches = training_batches(list(range(8, 8 * 4001, 8)), 8, 1, 1, by_length=True)
    assert len(batches) > CHUNK
    spread = [max(batch) - min(batch) for batch in batches]
    assert sum(spread) / len(spread) > 20  # 7, were all 4,000 sorted


def test_micro_batches_keep_to_max_tokens_and_hold_posts_of_similar_length(windowed):
    examples = [windowed[i] for i in range(50)]
    micro_batches = micro_batches_of(examples, MicroBatching(200))
    assert sorted(example.position for micro_batch in micro_batches for example in micro_batch) == list(range(50))
    widths = [[width(example.item) for example in micro_batch] for micro_batch in micro_batches]
    assert list(chain(*widths)) == sorted(chain(*widths), reverse=True)
    for micro_batch, widest in zip(micro_batches, map(max, widths), strict=True):
        assert len(micro_batch) == 1 or sum(len(example.item.windows) for example in micro_batch) * widest <= 200
    assert any(
        len(micro_batch) == 1 and len(micro_batch[0].item.windows) * width(micro_batch[0].item) > 200
        for micro_batch in micro_batches
    )
    assert [len(micro_batch) for micro_batch in micro_batches_of(examples, WHOLE_BATCH)] == [50]


def test_no_other_cut_costs_less(windowed):
    """Against all ways to cut ten items, for each part_cost, with and without max_tokens."""
    examples = sorted((windowed[i] for i in range(10)), key=lambda example: -width(example.item))

    def padded(micro_batch):
        return max(width(example.item) for example in micro_batch) * sum(
            len(example.item.windows) for example in micro_batch
        )

    for most, part_cost in product((math.inf, 150), (0, 5, 20, 60, 500)):
        found = micro_batches_of(examples, MicroBatching(None if most == math.inf else most, part_cost))
        costs = []
        for cuts in product((False, True), repeat=9):
            ends = [*(i for i, cut in enumerate(cuts, start=1) if cut), 10]
            micro_batches = [examples[begin:end] for begin, end in pairwise([0, *ends])]
            if all(len(micro_batch) == 1 or padded(micro_batch) <= most for micro_batch in micro_batches):
                costs.append(sum(padded(micro_batch) + part_cost for micro_batch in micro_batches))
        assert sum(padded(micro_batch) + part_cost for micro_batch in found) == min(costs)
        assert list(chain(*found)) == examples


def test_useful_tokens_are_those_that_the_masks_count(windowed):
    for loader in (
        train_loader(windowed, 8, 1, 0, micro_batching=MicroBatching(300)),
        eval_loader(windowed, 8, 0, (1, 3)),
    ):
        masks = [
            micro_batch["attention_mask_ST"]
            for micro_batches in loader
            for micro_batch in micro_batches
            if micro_batch["index_N"][0] >= 0
        ]
        counted = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
        assert useful_tokens(loader) == counted


def test_similar_lengths_waste_at_most_three_tokens_in_a_hundred():
    """A thousand posts as long as ReDSM5's are, about; an item is as long as its window."""
    lengths = (torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.8 + 5.6).exp().clamp(4, 512).int()
    dataset = EncodedPosts.__new__(EncodedPosts)
    dataset.max_length = 512
    dataset.items = [
        Item(i, (0,), (0,), [Window([1] * n, None, [], (1, n - 1), [], [True], [])])
        for i, n in enumerate(lengths.tolist())
    ]
    whole, grouped = (useful_tokens(train_loader(dataset, 16, 1, 0, by_length=by)) for by in (False, True))
    micro_batched = useful_tokens(
        train_loader(dataset, 16, 1, 0, micro_batching=MicroBatching(part_cost=CPU_PART_COST))
    )
    assert whole < 0.65
    assert grouped > 0.97
    assert micro_batched > 0.97


def test_evaluation_begins_with_the_longest(encoded):
    seen = list(chain(*order(eval_loader(encoded, 8, 0, micro_batching=MicroBatching(200)))))
    assert sorted(seen) == list(range(50))
    widths = [width(encoded.items[i]) for i in seen]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("by_length", [True, False])
def test_every_post_is_trained_on_once_an_epoch(encoded, by_length):
    loader = train_loader(encoded, 8, 1, 0, by_length=by_length, micro_batching=MicroBatching(200))
    assert sorted(chain(*order(loader))) == list(range(50))


@pytest.mark.parametrize("by_length", [True, False])
def test_a_prepared_loader_resumes_in_mid_epoch_where_it_was(encoded, by_length):
    accelerator = Accelerator(cpu=True)
    whole, resumed = (
        accelerator.prepare(train_loader(encoded, 8, 1, 0, by_length=by_length, micro_batching=MicroBatching(300)))
        for _ in range(2)
    )
    epochs = []
    for epoch in (1, 2, 3):
        whole.set_epoch(epoch)
        epochs.append(order(whole))
    assert epochs[0] != epochs[1]
    resumed.set_epoch(2)
    assert order(skip_first_batches(resumed, 3)) == epochs[1][3:]
    resumed.set_epoch(3)
    assert order(skip_first_batches(resumed, 0)) == epochs[2]


def test_iterating_leaves_the_global_generator_alone(encoded):
    loader = Accelerator(cpu=True).prepare(train_loader(encoded, 8, 1, 0))
    before = torch.random.get_rng_state()
    order(loader)
    order(skip_first_batches(loader, 2))
    order(eval_loader(encoded, 8, 0))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_for_a_gpu_are_copied_from_pinned_memory_while_it_computes(encoded, device, pinned):
    loader = on_device(train_loader(encoded, 4, 1, 0), torch.device(device))
    assert (loader.pin_memory, loader._non_blocking) == (pinned, True)


def test_an_epoch_in_which_no_post_was_augmented_is_the_one_without(encoded):
    before = [ids(encoded, i) for i in range(50)]
    encoded.encode(list(encoded.posts))
    assert [ids(encoded, i) for i in range(50)] == before
