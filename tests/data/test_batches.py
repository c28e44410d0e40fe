"""Batches are padded as the encoder wants, and their order is a pure function of (seed, epoch), also after a resume."""

from itertools import chain

import pytest
import torch
from accelerate import Accelerator, skip_first_batches

from redsm5.data.batches import EpochSampler, collate, eval_loader, train_loader
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import build_tokenizer, encode


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_csvs(folder, 50, 5)
    posts = read_corpus(folder).posts
    return encode(posts, build_tokenizer("tiny", posts), 60)


def order(loader):
    return [batch["index_B"].tolist() for batch in loader]


def test_a_batch_is_padded_to_a_multiple_of_eight(encoded):
    shortest = sorted(range(50), key=lambda i: len(encoded.input_ids[i]))[:4]
    batch = collate([encoded[i] for i in shortest], pad_id=7, max_length=60)
    longest = len(encoded.input_ids[shortest[-1]])
    width = batch["input_ids_BT"].shape[1]
    assert width % 8 == 0
    assert longest <= width < longest + 8
    for b, index in enumerate(shortest):
        length = len(encoded.input_ids[index])
        assert batch["input_ids_BT"][b].tolist() == encoded.input_ids[index] + [7] * (width - length)
        assert batch["attention_mask_BT"][b].tolist() == [1] * length + [0] * (width - length)
    assert batch["index_B"].tolist() == shortest


def test_padding_stays_within_the_window(encoded):
    assert max(batch["input_ids_BT"].shape[1] for batch in eval_loader(encoded, 8, 0)) == 60


def test_types_and_shapes(encoded):
    batch = next(iter(eval_loader(encoded, 8, 0)))
    assert {name: value.dtype for name, value in batch.items()} == {
        "input_ids_BT": torch.long,
        "attention_mask_BT": torch.long,
        "labels_BC": torch.float32,
        "starts_BC": torch.long,
        "ends_BC": torch.long,
        "index_B": torch.long,
    }
    assert batch["labels_BC"].shape == batch["starts_BC"].shape == batch["ends_BC"].shape == (8, 9)
    assert torch.equal(batch["labels_BC"], encoded.labels_NC[:8])


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
