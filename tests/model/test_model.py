"""The losses by hand, who is decayed, and the rates.

Shapes: B posts, T tokens, C criteria.
"""

import math

import pytest
import torch
from torch import nn

from redsm5.config import compose
from redsm5.model import MultiTaskModel, build_optimizer, build_schedule, multitask_loss, steps_per_epoch
from redsm5.model.losses import criteria_loss, evidence_loss
from redsm5.sections import TaskWeights
from tests.model.batch import VOCABULARY, model_config

B, T, C = 3, 16, 9


def build() -> MultiTaskModel:
    return MultiTaskModel(model_config(), vocab_size=VOCABULARY)


def test_criteria_loss_by_hand() -> None:
    loss = criteria_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log1p(math.exp(2))) / 2)


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    torch.manual_seed(0)
    outputs = {"criteria_logits_BC": torch.randn(B, C), "evidence_logits_BCT2": torch.randn(B, C, T, 2)}
    labels_BC = torch.randint(0, 2, (B, C)).float()
    starts_BC = torch.randint(1, T, (B, C)) * labels_BC.long()
    batch = {"labels_BC": labels_BC, "starts_BC": starts_BC, "ends_BC": starts_BC}
    criteria = criteria_loss(outputs["criteria_logits_BC"], labels_BC).item()
    evidence = evidence_loss(outputs["evidence_logits_BCT2"], starts_BC, starts_BC, labels_BC).item()
    loss = multitask_loss(outputs, batch, TaskWeights(criteria=0.5, evidence=2.0))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(0.5 * criteria + 2.0 * evidence)


# ---------------------------------------------------------------------------------------------------------------------
# optimization


def test_biases_and_normalization_are_not_decayed_and_every_parameter_is_in_one_group() -> None:
    model = build()
    optimizer = build_optimizer(model, compose(["train.weight_decay=0.05"]).train)
    name_of = {id(p): name for name, p in model.named_parameters()}
    decay_of = {name_of[id(p)]: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(decay_of) == len(name_of)
    plain = {name for name, decay in decay_of.items() if decay == 0}
    assert plain == {name for name in decay_of if name.endswith("bias") or "LayerNorm" in name}
    assert {decay for name, decay in decay_of.items() if name not in plain} == {0.05}


def test_frozen_parameters_are_left_out() -> None:
    model = build()
    model.encoder.requires_grad_(False)
    groups = build_optimizer(model, compose([]).train).param_groups
    encoder = {id(p) for p in model.encoder.parameters()}
    assert not any(id(p) in encoder for g in groups for p in g["params"])


def test_the_rate_rises_over_the_warm_up_and_falls_to_0() -> None:
    train = compose(["train.learning_rate=0.01", "train.warmup_ratio=0.2"]).train
    optimizer = build_optimizer(nn.Linear(2, 2), train)
    schedule = build_schedule(optimizer, train, total_steps=10)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [0.0, 0.005, 0.01, *(0.01 * left / 8 for left in range(7, -1, -1))]
    assert rates == pytest.approx(expected)


def test_without_warm_up_the_rate_begins_at_its_top() -> None:
    train = compose(["train.learning_rate=0.01", "train.warmup_ratio=0"]).train
    optimizer = build_optimizer(nn.Linear(2, 2), train)
    build_schedule(optimizer, train, total_steps=10)
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.01]


@pytest.mark.parametrize(("batches", "accumulation", "steps"), [(10, 1, 10), (10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_the_last_group_of_batches_steps_even_where_it_is_not_full(batches: int, accumulation: int, steps: int) -> None:
    train = compose([f"train.accumulation_steps={accumulation}"]).train
    assert steps_per_epoch(batches, train) == steps
