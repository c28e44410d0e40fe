"""What the criteria head reads and says: poolings, heads and coupling by hand, and items over their windows.

Shapes: S sequences, T tokens, H hidden, C outputs.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redsm5.model.activation import build_activation
from redsm5.model.coupling import Coupling
from redsm5.model.criteria_heads import build_criteria_head, over_windows
from redsm5.model.pooling import AttentionPooling, ScalarMix, build_pooling
from tests.model.batch import backward, model_config

S, T, H, C = 3, 5, 4, 2
HEADS = ("linear", "mlp", "mlp_residual", "gated", "multi_sample_dropout")
STATES_STH = torch.randn(S, T, H, generator=torch.Generator().manual_seed(0))
MASK_ST = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])


def head_of(name: str, *overrides: str, size: int = H) -> nn.Module:
    torch.manual_seed(0)
    hidden = ["criteria_hidden_dim=8"] if name in ("mlp", "mlp_residual", "gated") else []
    config = model_config(f"criteria_head_type={name}", *hidden, *overrides)
    return build_criteria_head(config, size=size, outputs=C)


def coupling_of(method: str, pooling: str) -> Coupling:
    torch.manual_seed(0)
    overrides = ("task_coupling=coupled", f"coupling_method={method}", f"coupling_pooling={pooling}", "activation=tanh")
    return Coupling(model_config(*overrides), H)


# ---------------------------------------------------------------------------------------------------------------------
# poolings


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("cls", STATES_STH[0, 0], STATES_STH[1, 0]),
        ("mean", STATES_STH[0].mean(0), STATES_STH[1, :2].mean(0)),
        ("max", STATES_STH[0].amax(0), STATES_STH[1, :2].amax(0)),
    ],
)
def test_a_pooling_is_over_the_tokens_that_take_part(name: str, first: Tensor, second: Tensor) -> None:
    pooled_SH = build_pooling(name, H)(STATES_STH, MASK_ST)
    torch.testing.assert_close(pooled_SH[:2], torch.stack([first, second]))
    if name != "cls":
        assert pooled_SH[2].tolist() == [0.0] * H


def test_attention_weighs_the_tokens_by_their_softmax() -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(H)
    scores = [math.exp(pooling.query(STATES_STH[1, t]).item()) for t in range(2)]
    expected_H = (scores[0] * STATES_STH[1, 0] + scores[1] * STATES_STH[1, 1]) / sum(scores)
    pooled_SH = pooling(STATES_STH, MASK_ST)
    torch.testing.assert_close(pooled_SH[1], expected_H)
    assert pooled_SH[2].tolist() == [0.0] * H


def test_the_mixture_of_layers_is_elmos() -> None:
    mix = ScalarMix(2)
    below_STH = -2.0 * STATES_STH
    torch.testing.assert_close(mix([below_STH, STATES_STH]), (below_STH + STATES_STH) / 2)
    mix.weights.data = torch.tensor([0.0, math.log(3.0)])
    mix.gamma.data.fill_(2.0)
    torch.testing.assert_close(mix([below_STH, STATES_STH]), 2.0 * (0.25 * below_STH + 0.75 * STATES_STH))


# ---------------------------------------------------------------------------------------------------------------------
# heads


@pytest.mark.parametrize("name", HEADS)
def test_a_head_has_a_logit_for_each_output_and_does_not_drop_in_evaluation(name: str) -> None:
    head = head_of(name, "criteria_dropout=0.5")
    pooled_SH = STATES_STH[:, 0]
    assert head(pooled_SH).shape == (S, C)
    assert not torch.equal(head(pooled_SH), head(pooled_SH))
    head.eval()
    assert torch.equal(head(pooled_SH), head(pooled_SH))


@pytest.mark.parametrize("name", ["mlp", "mlp_residual", "gated"])
def test_a_head_with_a_hidden_layer_is_its_formula(name: str) -> None:
    head = head_of(name, "activation=silu").eval()
    x_SH = STATES_STH[:, 0]
    p = dict(head.named_parameters())

    def linear(layer: str, x: Tensor) -> Tensor:
        return x @ p[f"{layer}.weight"].T + p[f"{layer}.bias"]

    if name == "mlp":
        hidden = F.silu(linear("hidden", x_SH))
    elif name == "gated":
        hidden = F.silu(linear("gate", x_SH)) * linear("value", x_SH)
    else:
        hidden = x_SH + linear("down", F.silu(linear("up", x_SH)))
        hidden = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(head(x_SH), linear("linear", hidden))


def test_multi_sample_dropout_is_the_mean_over_five_masks() -> None:
    head, linear = head_of("multi_sample_dropout", "criteria_dropout=0.5"), head_of("linear", "criteria_dropout=0.5")
    linear.load_state_dict(head.state_dict())
    pooled_SH = STATES_STH[:, 0]
    torch.manual_seed(1)
    sampled_SC = head(pooled_SH)
    torch.manual_seed(1)
    torch.testing.assert_close(sampled_SC, torch.stack([linear(pooled_SH) for _ in range(5)]).mean(0))


@pytest.mark.parametrize(
    ("name", "at_minus_one"),
    [
        ("gelu", -0.15865525),
        ("silu", -0.26894142),
        ("swish", -0.26894142),
        ("relu", 0.0),
        ("leakyrelu", -0.01),
        ("mish", -0.30340147),
        ("tanh", -0.76159416),
    ],
)
def test_an_activation_is_the_one_of_its_name(name: str, at_minus_one: float) -> None:
    assert build_activation(name)(torch.tensor(-1.0)).item() == pytest.approx(at_minus_one, abs=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# windows


def test_an_item_shows_what_any_of_its_windows_shows() -> None:
    logits_SC = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-4.0, -5.0]], requires_grad=True)
    logits_NC = over_windows(logits_SC, torch.tensor([[2, -1], [0, 1]]))
    assert logits_NC.tolist() == [[-4.0, -5.0], [1.0, 3.0]]
    backward(logits_NC.sum())
    assert logits_SC.grad is not None
    assert logits_SC.grad.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


# ---------------------------------------------------------------------------------------------------------------------
# coupling


@pytest.mark.parametrize("method", ["concat", "add", "mean", "weighted_sum", "weighted_mean"])
def test_a_coupling_joins_the_two_vectors_as_its_method_says(method: str) -> None:
    coupling = coupling_of(method, "mean")
    pooled_SH = STATES_STH[:, 0]
    evidence_STH, joined_SD = coupling(STATES_STH, pooled_SH, MASK_ST)
    projected_STH = torch.tanh(STATES_STH @ coupling.projection.weight.T + coupling.projection.bias)
    torch.testing.assert_close(evidence_STH, projected_STH)
    text_SH = torch.stack([projected_STH[0].mean(0), projected_STH[1, :2].mean(0), torch.zeros(H)])
    expected = {
        "concat": torch.cat([pooled_SH, text_SH], dim=-1),
        "add": pooled_SH + text_SH,
        "mean": (pooled_SH + text_SH) / 2,
        "weighted_sum": pooled_SH + text_SH,
        "weighted_mean": (pooled_SH + text_SH) / 2,
    }
    torch.testing.assert_close(joined_SD, expected[method])
    assert joined_SD.shape[-1] == coupling.size


def test_the_weights_of_a_coupling_are_learned_numbers_or_their_softmax() -> None:
    pooled_SH, weights = STATES_STH[:, 0], torch.tensor([0.0, math.log(3.0)])
    for method, (a, b) in {"weighted_sum": (0.0, math.log(3.0)), "weighted_mean": (0.25, 0.75)}.items():
        coupling = coupling_of(method, "max")
        coupling.weights.data = weights
        evidence_STH, joined_SH = coupling(STATES_STH, pooled_SH, MASK_ST)
        text_SH = build_pooling("max", H)(evidence_STH, MASK_ST)
        torch.testing.assert_close(joined_SH, a * pooled_SH + b * text_SH)
