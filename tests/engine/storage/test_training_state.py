"""A training state with a rate for each layer, either optimizer and schedule, and an adversary: resumed bit for bit."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from redsm5.config import compose
from redsm5.engine import paths
from redsm5.engine.storage.checkpoint import TrainingState, seed_everything
from redsm5.model.adversarial import EmbeddingAdversary
from redsm5.model.optimization import build_optimizer, build_schedule
from redsm5.sections import TrainConfig

LAYERS, STEPS = 3, 8


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = BertModel(
            BertConfig(
                vocab_size=20, hidden_size=8, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=16
            ),
            add_pooling_layer=False,
        )
        self.head = nn.Linear(8, 1)


def train_config(optimizer: str, schedule: str) -> TrainConfig:
    return compose(
        [
            f"train.optimizer={optimizer}",
            f"train.schedule={schedule}",
            "train.learning_rate=0.01",
            "train.warmup_ratio=0.25",
            "train.layer_wise_lr_decay=0.9",
            "train.differential_lr_ratio=0.5",
            "train.adversarial_epsilon=0.1",
        ]
    ).train


class Training:
    """A state and its adversary, which is no part of it."""

    def __init__(self, train: TrainConfig, *, seed: int, total_steps: int = STEPS) -> None:
        seed_everything(seed)
        model = Model().train()
        optimizer = build_optimizer(model, train)
        schedule = build_schedule(optimizer, train, total_steps=total_steps)
        self.state = TrainingState(model, optimizer, schedule, scaler=None)
        self.adversary = EmbeddingAdversary(model.encoder.get_input_embeddings(), train.adversarial_epsilon)

    def step(self) -> tuple[float, ...]:
        """One step over random words with dropout on: both losses and every group's rate."""
        model, words = self.state.model, torch.from_numpy(np.random.randint(1, 20, (4, 6)))

        def compute_loss() -> torch.Tensor:
            logits: torch.Tensor = model.head(model.encoder(input_ids=words).last_hidden_state[:, 0])
            return logits.square().mean() + random.random()

        losses = [compute_loss()]
        losses[0].backward()
        with self.adversary.attack():
            losses.append(compute_loss())
            losses[1].backward()
        self.state.optimizer.step()
        self.state.optimizer.zero_grad()
        self.state.schedule.step()
        return *(loss.item() for loss in losses), *(g["lr"] for g in self.state.optimizer.param_groups)

    def packed(self) -> dict[str, bytearray]:
        return {name: bytearray(content) for name, content in self.state.pack().items()}


@pytest.mark.parametrize(("optimizer", "schedule"), [("adamw", "cosine"), ("adam", "linear")])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_the_steps_after_a_load_are_those_without_one(optimizer: str, schedule: str, steps_before: int) -> None:
    train = train_config(optimizer, schedule)
    training = Training(train, seed=42)
    for _ in range(steps_before):
        training.step()
    packed = training.packed()
    expected = [training.step() for _ in range(3)]

    other = Training(train, seed=7)
    other.step()  # whatever it was before, it is put back
    other.state.unpack(packed)
    assert [other.step() for _ in range(3)] == expected
    assert other.packed() == training.packed()


def test_every_group_and_its_rate_are_in_the_state_as_json() -> None:
    training = Training(train_config("adamw", "cosine"), seed=42)
    for _ in range(4):
        training.step()
    saved = json.loads(training.packed()[paths.STATE_JSON])
    groups = saved["optimizer"]["param_groups"]
    assert len(groups) == 2 * (1 + LAYERS + 1)
    assert [g["lr"] for g in groups] == [g["lr"] for g in training.state.optimizer.param_groups]
    tops = [0.01, *(0.005 * 0.9**distance for distance in range(LAYERS + 1))]
    assert saved["schedule"]["base_lrs"] == pytest.approx([top for top in tops for _ in range(2)])


def test_with_more_epochs_every_group_takes_the_longer_cosine() -> None:
    train = train_config("adamw", "cosine")
    training, longer = Training(train, seed=42), Training(train, seed=42, total_steps=2 * STEPS)
    for _ in range(4):
        training.step()
        longer.step()
    resumed = Training(train, seed=7, total_steps=2 * STEPS)
    resumed.state.unpack(training.packed())
    rates = [[g["lr"] for g in t.state.optimizer.param_groups] for t in (resumed, longer, training)]
    assert rates[0] == rates[1]
    assert rates[0] != rates[2]
