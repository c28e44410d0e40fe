"""Batches are padded as the encoder wants, and their order is a pure function of (seed, epoch), also after a resume."""

from itertools import chain

import pytest
import torch
from accelerate import Accelerator, skip_first_batches

from redsm5.config import compose
from redsm5.data.batches import EpochSampler, collate, eval_loader, train_loader
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
    return [batch["index_N"].tolist() for batch in loader]


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
    batch = next(iter(eval_loader(encoded, 8, 0)))
    floats = {"labels_NC": torch.float32, "known_SC": torch.bool}
    assert {name: value.dtype for name, value in batch.items()} == {
        name: floats.get(name, torch.long)
        for name in (
            "index_N", "labels_NC", "symptoms_NC", "input_ids_ST", "attention_mask_ST", "text_mask_ST",
            "token_type_ids_ST", "windows_NW", "spans_G4", "known_SC", "sentences_M3",
        )
    }  # fmt: skip
    assert batch["labels_NC"].shape == batch["symptoms_NC"].shape == batch["known_SC"].shape == (8, 9)
    assert batch["labels_NC"].tolist() == [list(post.labels) for post in encoded.posts[:8]]
    assert batch["symptoms_NC"].tolist() == [list(range(9))] * 8


def test_windows_spans_and_sentences_point_at_their_sequences(windowed):
    batch = next(iter(eval_loader(windowed, 8, 0)))
    windows = [window for item in windowed.items[:8] for window in item.windows]
    assert batch["input_ids_ST"].shape[0] == len(windows) > 8
    rows = [[s for s in row if s >= 0] for row in batch["windows_NW"].tolist()]
    assert list(chain(*rows)) == list(range(len(windows)))
    assert [len(row) for row in rows] == [len(item.windows) for item in windowed.items[:8]]
    assert batch["spans_G4"].tolist() == [[s, *span] for s, window in enumerate(windows) for span in window.spans]
    assert batch["sentences_M3"].tolist() == [[s, *x] for s, window in enumerate(windows) for x in window.sentences]
    assert batch["known_SC"].tolist() == [window.known for window in windows]


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    def permutation(seed, epoch):
        sampler = EpochSampler(100, seed)
        sampler.set_epoch(3)
        list(sampler)
        torch.manual_seed(epoch)
        sampler.set_epoch(epoch)
        return tuple(sampler)

    assert permutation(1, 2) == permutation(1, 2)
    assert sorted(permutation(1, 2)) == list(range(100))
    assert len({permutation(seed, epoch) for seed in range(5) for epoch in range(5)}) == 25


def test_evaluation_keeps_the_order(encoded):
    assert list(chain(*order(eval_loader(encoded, 8, 0)))) == list(range(50))


def test_every_post_is_trained_on_once_an_epoch(encoded):
    assert sorted(chain(*order(train_loader(encoded, 8, 1, 0)))) == list(range(50))


def test_a_prepared_loader_resumes_in_mid_epoch_where_it_was(encoded):
    accelerator = Accelerator(cpu=True)
    whole, resumed = (accelerator.prepare(train_loader(encoded, 8, 1, 0)) for _ in range(2))
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
