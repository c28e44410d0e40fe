"""Every criteria loss against a reference: scikit-learn, torch, a float64 formula, numbers by hand, and its gradient.

Shapes: N items, C outputs an item, P posts.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch import Tensor
from torch.nn import functional as F

from redsm5.config import compose
from redsm5.model.losses import (
    CriteriaLoss,
    build_criteria_loss,
    multitask_loss,
    positive_weights,
    symptom_weights,
)
from redsm5.sections import TaskWeights, TrainConfig

N, C = 7, 9
LOSSES = {
    "bce": [],
    "weighted_bce": [],
    "focal": ["train.focal_gamma=2"],
    "adaptive_focal": ["train.focal_gamma=3"],
    "hybrid": ["train.focal_gamma=2", "train.hybrid_weight_alpha=0.3"],
}
PLAIN = ["train.label_smoothing=0", "train.class_weights=false"]
SMOOTHED_AND_WEIGHTED = ["train.label_smoothing=0.2", "train.class_weights=true"]

every_loss = pytest.mark.parametrize("name", LOSSES)


def train_labels() -> Tensor:
    """Of 12 posts: how many have each symptom."""
    labels_PC = torch.zeros(12, C)
    for symptom, posts in enumerate([6, 3, 1, 0, 12, 4, 2, 8, 5]):
        labels_PC[:posts, symptom] = 1
    return labels_PC


@cache
def train_config(name: str, *overrides: str) -> TrainConfig:
    return compose([f"train.loss_function={name}", *LOSSES[name], *PLAIN, *overrides]).train


def build(name: str, *overrides: str) -> CriteriaLoss:
    return build_criteria_loss(train_config(name, *overrides), train_labels())


def items(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """logits_NC, of which some are hard, labels_NC and symptoms_NC of posts in multi_label."""
    generator = torch.Generator().manual_seed(0)
    logits_NC = 2.5 * torch.randn(N, C, generator=generator, dtype=torch.float64)
    labels_NC = torch.randint(0, 2, (N, C), generator=generator).float()
    return logits_NC.to(dtype), labels_NC, torch.arange(C).expand(N, C)


def one(loss: CriteriaLoss, probability: float, label: float, symptom: int = 0) -> float:
    """The loss of a single output that has this probability of being present."""
    logits_NC = torch.tensor([[math.log(probability / (1 - probability))]], dtype=torch.float64)
    return loss(logits_NC, torch.tensor([[label]]), torch.tensor([[symptom]])).item()


# ---------------------------------------------------------------------------------------------------------------------
# against references


def test_bce_is_the_log_loss_of_scikit_learn() -> None:
    logits_NC, labels_NC, symptoms_NC = items()
    expected = log_loss(labels_NC.flatten().numpy(), logits_NC.double().sigmoid().flatten().numpy())
    assert build("bce")(logits_NC, labels_NC, symptoms_NC).item() == pytest.approx(expected, rel=1e-5)


def test_weighted_bce_weighs_each_positive_by_negatives_over_positives() -> None:
    logits_NC, labels_NC, symptoms_NC = items()
    ratio_C = np.array([6 / 6, 9 / 3, 11 / 1, 1, 1 / 100, 8 / 4, 10 / 2, 4 / 8, 7 / 5])
    loss = build("weighted_bce")(logits_NC, labels_NC, symptoms_NC).item()
    weight_NC = np.where(labels_NC.numpy() > 0, ratio_C, 1.0)
    by_sklearn = log_loss(
        labels_NC.flatten().numpy(),
        logits_NC.double().sigmoid().flatten().numpy(),
        sample_weight=weight_NC.flatten(),
        normalize=False,
    )
    assert loss == pytest.approx(by_sklearn / (N * C), rel=1e-5)
    by_torch = F.binary_cross_entropy_with_logits(logits_NC, labels_NC, pos_weight=torch.tensor(ratio_C).float())
    assert loss == pytest.approx(by_torch.item(), rel=1e-6)


def reference(name: str, logits_NC: Tensor, labels_NC: Tensor) -> float:
    """The focal family in float64, straight from the papers' words: no logarithm of a sigmoid is spared."""
    p_NC = 1 / (1 + np.exp(-logits_NC.double().numpy()))
    p_t = np.where(labels_NC.numpy() > 0, p_NC, 1 - p_NC)
    gamma = np.where(p_t < 0.2, 5.0, 3.0) if name == "adaptive_focal" else 2.0
    focal = -((1 - p_t) ** gamma) * np.log(p_t)
    return float(np.mean(0.3 * -np.log(p_t) + 0.7 * focal if name == "hybrid" else focal))


@pytest.mark.parametrize("name", ["focal", "adaptive_focal", "hybrid"])
def test_the_focal_family_is_its_formula(name: str) -> None:
    logits_NC, labels_NC, symptoms_NC = items()
    assert build(name)(logits_NC, labels_NC, symptoms_NC).item() == pytest.approx(
        reference(name, logits_NC, labels_NC), rel=1e-5
    )


def test_by_hand() -> None:
    assert one(build("bce"), 0.25, 1) == pytest.approx(math.log(4))
    assert one(build("weighted_bce"), 0.25, 1, symptom=1) == pytest.approx(3 * math.log(4))
    assert one(build("weighted_bce"), 0.25, 0, symptom=1) == pytest.approx(math.log(4 / 3))
    assert one(build("focal"), 0.25, 1) == pytest.approx(0.75**2 * math.log(4))
    assert one(build("focal"), 0.25, 0) == pytest.approx(0.25**2 * math.log(4 / 3))
    assert one(build("hybrid"), 0.5, 1) == pytest.approx((0.3 + 0.7 / 4) * math.log(2))


def test_adaptive_focal_is_sharper_where_the_label_has_less_than_a_fifth() -> None:
    """With gamma 3 it is FLSD-53: 5 below 0.2, 3 from there on, for either label."""
    loss = build("adaptive_focal")
    assert one(loss, 0.1, 1) == pytest.approx(0.9**5 * math.log(10))
    assert one(loss, 0.9, 0) == pytest.approx(0.9**5 * math.log(10))
    assert one(loss, 0.199, 1) == pytest.approx(0.801**5 * -math.log(0.199))
    assert one(loss, 0.201, 1) == pytest.approx(0.799**3 * -math.log(0.201))
    assert one(loss, 0.9, 1) == pytest.approx(0.1**3 * -math.log(0.9))


@pytest.mark.parametrize("name", ["focal", "adaptive_focal", "hybrid"])
def test_with_gamma_0_the_focal_family_is_bce(name: str) -> None:
    logits_NC, labels_NC, symptoms_NC = items()
    loss = build(name, "train.focal_gamma=0")(logits_NC, labels_NC, symptoms_NC)
    torch.testing.assert_close(loss, build("bce")(logits_NC, labels_NC, symptoms_NC))


@every_loss
def test_label_smoothing_mixes_both_labels_losses(name: str) -> None:
    """y (1 - s) + s / 2 with s = 0.2: nine parts of the label's own loss, one of the other's."""
    plain, smoothed = build(name), build(name, "train.label_smoothing=0.2")
    assert one(smoothed, 0.3, 1, 1) == pytest.approx(0.9 * one(plain, 0.3, 1, 1) + 0.1 * one(plain, 0.3, 0, 1))
    assert one(smoothed, 0.3, 0, 1) == pytest.approx(0.9 * one(plain, 0.3, 0, 1) + 0.1 * one(plain, 0.3, 1, 1))


@every_loss
def test_class_weights_are_a_factor_of_each_symptom(name: str) -> None:
    plain, weighted = build(name), build(name, "train.class_weights=true")
    for symptom, weight in enumerate(symptom_weights(train_labels()).tolist()):
        assert one(weighted, 0.3, 1, symptom) == pytest.approx(weight * one(plain, 0.3, 1, symptom))


@every_loss
@pytest.mark.parametrize("overrides", [PLAIN, SMOOTHED_AND_WEIGHTED], ids=["plain", "smoothed and weighted"])
def test_the_gradient_is_the_loss_own(name: str, overrides: list[str]) -> None:
    logits_NC, labels_NC, symptoms_NC = items(torch.float64)
    assert torch.autograd.gradcheck(build(name, *overrides), (logits_NC.requires_grad_(), labels_NC, symptoms_NC))


# ---------------------------------------------------------------------------------------------------------------------
# for any logits


@every_loss
@settings(max_examples=40, deadline=None)
@given(logit=st.floats(-30, 30), label=st.sampled_from([0.0, 1.0]), symptom=st.integers(0, C - 1))
def test_a_step_down_any_loss_moves_the_logit_towards_the_label(
    name: str, logit: float, label: float, symptom: int
) -> None:
    logits_NC = torch.tensor([[logit]], dtype=torch.float64, requires_grad=True)
    build(name)(logits_NC, torch.tensor([[label]]), torch.tensor([[symptom]])).backward()
    assert logits_NC.grad is not None
    assert (logits_NC.grad.item() < 0) == (label == 1)


@every_loss
@pytest.mark.parametrize("overrides", [PLAIN, SMOOTHED_AND_WEIGHTED], ids=["plain", "smoothed and weighted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_logits_have_finite_losses_and_gradients(name: str, overrides: list[str], dtype: torch.dtype) -> None:
    loss = build(name, *overrides)
    for size in (0.0, 1e-3, 20.0, 100.0, 6e4):
        for label in (0.0, 1.0):
            logits_NC = torch.tensor([[-size, size]], dtype=dtype, requires_grad=True)
            value = loss(logits_NC, torch.full((1, 2), label), torch.tensor([[0, 1]]))
            value.backward()
            assert value.isfinite()
            assert logits_NC.grad is not None
            assert logits_NC.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0, 0.5, 10])
@pytest.mark.parametrize("name", ["focal", "adaptive_focal", "hybrid"])
def test_extreme_logits_have_finite_gradients_with_any_gamma(name: str, gamma: float) -> None:
    """With gamma below 1 the slope of (1 - p_t)^gamma itself is infinite where p_t rounds to 1."""
    for size in (20.0, 100.0, 6e4):
        logits_NC = torch.tensor([[-size, size]], requires_grad=True)
        build(name, f"train.focal_gamma={gamma}")(logits_NC, torch.ones(1, 2), torch.tensor([[0, 1]])).backward()
        assert logits_NC.grad is not None
        assert logits_NC.grad.isfinite().all()


@pytest.mark.parametrize("name", ["bce", "weighted_bce", "hybrid"])
def test_a_wrong_logit_of_100_still_counts_100_times(name: str) -> None:
    loss = build(name)(torch.tensor([[-100.0]]), torch.tensor([[1.0]]), torch.tensor([[0]]))
    assert loss.item() == pytest.approx(100.0)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_of_half_precision_are_computed_with_in_full(name: str, dtype: torch.dtype) -> None:
    loss, (logits_NC, labels_NC, symptoms_NC) = build(name, *SMOOTHED_AND_WEIGHTED), items(dtype)
    half = logits_NC.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        value = loss(half, labels_NC, symptoms_NC)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits_NC.float(), labels_NC, symptoms_NC))
    value.backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype


@every_loss
def test_pairs_have_the_loss_of_their_posts(name: str) -> None:
    """binary_pairs: each pair of a post and a symptom is an item of its own, in any order."""
    loss, (logits_NC, labels_NC, symptoms_NC) = build(name, *SMOOTHED_AND_WEIGHTED), items()
    order = torch.randperm(N * C, generator=torch.Generator().manual_seed(1))
    pairs = [t.flatten()[order, None] for t in (logits_NC, labels_NC, symptoms_NC)]
    torch.testing.assert_close(loss(*pairs), loss(logits_NC, labels_NC, symptoms_NC))


@every_loss
@pytest.mark.usefixtures("deterministic")
def test_deterministic_algorithms_give_the_same_bits_twice(name: str) -> None:
    loss, (logits_NC, labels_NC, symptoms_NC) = build(name, *SMOOTHED_AND_WEIGHTED), items()
    runs = []
    for _ in range(2):
        leaf = logits_NC.clone().requires_grad_()
        value = loss(leaf, labels_NC, symptoms_NC)
        value.backward()
        runs.append((value, leaf.grad))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])


# ---------------------------------------------------------------------------------------------------------------------
# weights of the training split


def test_a_positive_weighs_negatives_over_positives_within_bounds() -> None:
    labels_PC = torch.zeros(1000, 5)
    for symptom, posts in enumerate([500, 200, 1, 1000, 0]):
        labels_PC[:posts, symptom] = 1
    weights_C = positive_weights(labels_PC)
    torch.testing.assert_close(weights_C, torch.tensor([1.0, 4.0, 100.0, 0.01, 1.0]))


def test_a_symptom_weighs_by_its_rarity_at_most_ten_times_the_most_frequent_and_one_on_average() -> None:
    labels_PC = torch.zeros(1000, 4)
    for symptom, posts in enumerate([400, 100, 2, 0]):
        labels_PC[:posts, symptom] = 1
    weights_C = symptom_weights(labels_PC)
    torch.testing.assert_close(weights_C, torch.tensor([1 / 5, 4 / 5, 10 / 5, 1.0]))
    assert weights_C.mean().item() == pytest.approx(1)


def test_without_any_positive_every_weight_is_1() -> None:
    labels_PC = torch.zeros(3, C)
    assert positive_weights(labels_PC).tolist() == symptom_weights(labels_PC).tolist() == [1.0] * C


def test_the_weights_move_with_the_module_and_are_no_part_of_a_checkpoint() -> None:
    loss = build("weighted_bce", "train.class_weights=true")
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    moved = loss.to("meta")
    assert {b.device.type for b in moved.buffers()} == {"meta"}
    assert len(list(moved.buffers())) == 2


# ---------------------------------------------------------------------------------------------------------------------
# both tasks


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    loss, (logits_NC, labels_NC, symptoms_NC) = build("bce"), items()
    outputs = {"criteria_logits_NC": logits_NC, "evidence_loss": torch.tensor(0.7)}
    batch = {"labels_NC": labels_NC, "symptoms_NC": symptoms_NC}
    both = multitask_loss(outputs, batch, loss, TaskWeights(criteria=0.5, evidence=2.0))
    assert both.shape == ()
    assert both.item() == pytest.approx(0.5 * loss(logits_NC, labels_NC, symptoms_NC).item() + 2.0 * 0.7)
