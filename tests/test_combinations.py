"""Every head, pooling, coupling and input format works with every other: a step of training, a checkpoint, a report.

All 400 combinations run in `just test-long`; in `just test` a sample in which every two choices meet at least once.
"""

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from redsm5.config import Config, compose
from redsm5.data import Splits, load_splits
from redsm5.data.batches import eval_loader, train_loader
from redsm5.data.encode import EncodedPosts
from redsm5.data.posts import labels_of
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine.storage.checkpoint import Saver, TrainingState, load_best, save
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from redsm5.evaluation.predict import predict
from redsm5.evaluation.thresholds import choose, default_thresholds, score
from redsm5.model import (
    MultiTaskModel,
    build_criteria_loss,
    build_optimizer,
    build_schedule,
    identity_of,
    multitask_loss,
)
from redsm5.sections import HEADS_WITH_HIDDEN_LAYER, ModelConfig

FIELDS = ("criteria_head_type", "criteria_pooling", "evidence_head_type", "task_coupling", "input_format")
METHODS = ("concat", "add", "mean", "weighted_sum", "weighted_mean")
POOLINGS = ("mean", "max", "attention")

Combination = tuple[str, ...]


def choices(field: str) -> tuple[str, ...]:
    return tuple(get_args(ModelConfig.model_fields[field].annotation))


ALL: list[Combination] = list(product(*map(choices, FIELDS)))


def pairs_of(combination: Combination) -> set[tuple[tuple[int, str], ...]]:
    return set(combinations(enumerate(combination), 2))


def covering() -> list[Combination]:
    """Greedily: each combination meets as many pairs as can be that none before it met."""
    left = set().union(*map(pairs_of, ALL))
    sample: list[Combination] = []
    while left:
        best = max(ALL, key=lambda combination: len(pairs_of(combination) & left))
        sample.append(best)
        left -= pairs_of(best)
    return sample


SAMPLE = covering()


def configuration(combination: Combination, number: int) -> Config:
    words = [f"model.{field}={value}" for field, value in zip(FIELDS, combination, strict=True)]
    if "coupled" in combination:  # methods and poolings take turns
        words += [f"model.coupling_method={METHODS[number % 5]}", f"model.coupling_pooling={POOLINGS[number % 3]}"]
    if combination[0] in HEADS_WITH_HIDDEN_LAYER:
        words.append("model.criteria_hidden_dim=16")
    long_posts = ("truncate", "window")[number % 2]
    words += [f"data.long_posts={long_posts}", "data.posts=60", "model.max_length=64", "model.max_span_tokens=16"]
    return compose([*words, "train.batch_size=8", "trial.id=00000000-0000-4000-8000-000000000000"])


@pytest.fixture(scope="module")
def splits() -> Splits:
    """A few short posts; some of them, and of their sentences, are longer than the window."""
    found = load_splits(compose(["data.posts=60"]).data)
    short = sorted(found.train, key=lambda post: len(post.text))
    with_evidence = [post for post in short if post.evidence]
    train = [*with_evidence[:5], *[post for post in short if len(post.text) > 400][:1]]
    validation = [post for post in found.validation if post.evidence and len(post.text) < 1500][:2]
    assert len(validation) == 2
    return replace(found, train=train, validation=validation)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    ("number", "combination"),
    [pytest.param(n, c, id="-".join(c), marks=[] if c in SAMPLE else [pytest.mark.long]) for n, c in enumerate(ALL)],
)
def test_a_combination_trains_saves_loads_and_evaluates(
    number: int, combination: Combination, splits: Splits, tmp_path: Path
) -> None:
    config = configuration(combination, number)
    torch.manual_seed(number)
    tokenizer = tokenizer_of(config, splits.train)
    dataset = EncodedPosts(splits.train, tokenizer, config)
    validation = EncodedPosts(splits.validation, tokenizer, config)
    model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    criteria_loss = build_criteria_loss(config.train, torch.from_numpy(labels_of(splits.train)))

    def loss_of(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        return multitask_loss(outputs, batch, criteria_loss, config.train.task_weights)

    optimizer = build_optimizer(model, config.train)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    for (batch,) in list(train_loader(dataset, 8, 1, tokenizer.pad_token_id))[:2]:
        loss = loss_of(model(batch), batch)
        loss.backward()
        assert loss.isfinite()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    optimizer.step()
    assert any((before[name] != p).any() for name, p in model.named_parameters())

    state = TrainingState(model, optimizer, build_schedule(optimizer, config.train, total_steps=10), None)
    identity = identity_of(config, model, splits.fingerprint)
    store = CheckpointStore(tmp_path, Policy(), log=lambda *_, **__: None)
    state.progress.epochs_done, state.progress.step = 1, 1
    with Saver() as saver:
        save(store, saver, state, identity, score=0.5, metrics={})
    loaded = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    load_best(store.folder / "epoch-0001", loaded, identity_of(config, loaded, splits.fingerprint))

    said = []
    for each in (model, loaded):
        loader = eval_loader(validation, 8, tokenizer.pad_token_id)
        said.append(predict(each, loader, validation, loss_of))
    assert np.isfinite(said[0].loss)
    assert said[0].loss == said[1].loss
    assert (said[0].probabilities_P9 == said[1].probabilities_P9).all()
    assert said[0].spans == said[1].spans
    assert len(said[0].spans) == 2 * 9
    for (post, _), spans in said[0].spans.items():
        text = splits.validation[post].text
        assert all(0 <= s.start < s.end <= len(text) and 0 <= s.score <= 1 for s in spans)
    default = default_thresholds(config.model.evidence_head_type)
    limits = choose(said[0], splits.validation, scope="per_class", metric="val_f1_macro", default=default)
    assert score(said[0], splits.validation, limits).criteria_matching.f1_macro is not None


def test_the_sample_meets_every_pair_of_choices() -> None:
    assert len(ALL) == 400
    assert set().union(*map(pairs_of, SAMPLE)) == set().union(*map(pairs_of, ALL))
    assert len(SAMPLE) < 40
