"""The optimizer and its schedule: who is decayed, who learns at which rate, how rates rise and fall.

Shapes: S sequences, T tokens.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import (
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLNetConfig,
)

from redsm5.config import compose
from redsm5.model.optimization import build_optimizer, build_schedule, set_numerics, slow_in_bf16, steps_per_epoch
from redsm5.sections import TrainConfig

LAYERS = 3
SMALL: dict[str, Any] = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}
ENCODERS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SMALL),
    "roberta": RobertaConfig(**SMALL),
    "distilbert": DistilBertConfig(
        vocab_size=30, dim=8, n_layers=LAYERS, n_heads=2, hidden_dim=16, max_position_embeddings=24
    ),
    "electra": ElectraConfig(**SMALL, embedding_size=6),
    "deberta-v2": DebertaV2Config(
        **SMALL, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], conv_kernel_size=3
    ),
    "modernbert": ModernBertConfig(
        **SMALL, pad_token_id=0, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2
    ),
    "xlnet": XLNetConfig(vocab_size=30, d_model=8, n_layer=LAYERS, n_head=2, d_inner=16),
}
every_encoder = pytest.mark.parametrize("kind", ENCODERS)


class Model(nn.Module):
    """An encoder and what stands for all heads, registered first, since their order must not matter."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.criteria_head = nn.Linear(8, 9)
        self.norm = nn.LayerNorm(8)
        self.encoder: PreTrainedModel = AutoModel.from_config(ENCODERS[kind])

    def forward(self, input_ids_ST: Tensor) -> Tensor:
        states_STH = self.encoder(input_ids=input_ids_ST).last_hidden_state
        logits: Tensor = self.criteria_head(self.norm(states_STH[:, 0]))
        return logits


def train_config(*overrides: str) -> TrainConfig:
    return compose([f"train.{override}" for override in overrides]).train


def by_name(model: nn.Module, optimizer: Optimizer, field: str) -> dict[str, float]:
    """A field of the group that each parameter is in, by the parameter's name."""
    name_of = {id(p): name for name, p in model.named_parameters()}
    return {name_of[id(p)]: g[field] for g in optimizer.param_groups for p in g["params"]}


def layers_of(encoder: nn.Module) -> nn.ModuleList:
    """The encoder's layers, found as modules: the list with one for each."""
    (layers,) = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == LAYERS]
    return layers


# ---------------------------------------------------------------------------------------------------------------------
# decay


@every_encoder
def test_biases_and_normalization_are_not_decayed_and_every_parameter_is_in_one_group(kind: str) -> None:
    model = Model(kind)
    optimizer = build_optimizer(model, train_config("weight_decay=0.05", "layer_wise_lr_decay=0.9"))
    decay_of = by_name(model, optimizer, "weight_decay")
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(decay_of) == len(list(model.parameters()))
    plain = {name for name, decay in decay_of.items() if decay == 0}
    assert plain == {name for name in decay_of if name.endswith("bias") or "norm" in name.lower()}
    assert {decay for name, decay in decay_of.items() if name not in plain} == {0.05}


def test_without_rates_of_their_own_there_are_two_groups() -> None:
    model = Model("bert")
    groups = build_optimizer(model, train_config("learning_rate=0.01", "weight_decay=0")).param_groups
    assert [g["lr"] for g in groups] == [0.01, 0.01]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in matrices]


def test_frozen_parameters_are_left_out() -> None:
    model = Model("bert")
    model.encoder.requires_grad_(False)
    groups = build_optimizer(model, train_config("layer_wise_lr_decay=0.9")).param_groups
    encoder = {id(p) for p in model.encoder.parameters()}
    assert not any(id(p) in encoder for g in groups for p in g["params"])


def adam_by_hand(w: float, gradient: float, rate: float, decay: float, *, decoupled: bool, steps: int) -> float:
    """Kingma and Ba 2015, algorithm 1, on one number with a constant gradient of the loss."""
    m = v = 0.0
    for t in range(1, steps + 1):
        if decoupled:
            w -= rate * decay * w
        g = gradient if decoupled else gradient + decay * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= rate * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adamw_decays_the_weight_and_adam_the_gradient(name: str) -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(2.0)
    train = train_config(f"optimizer={name}", "learning_rate=0.1", "weight_decay=0.5")
    optimizer = build_optimizer(layer, train)
    for _ in range(3):
        layer.weight.grad = torch.full((1, 1), -0.3)
        optimizer.step()
    expected = adam_by_hand(2.0, -0.3, 0.1, 0.5, decoupled=name == "adamw", steps=3)
    assert layer.weight.item() == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(adam_by_hand(2.0, -0.3, 0.1, 0.5, decoupled=name == "adam", steps=3), rel=1e-2)


# ---------------------------------------------------------------------------------------------------------------------
# a rate for each layer


@every_encoder
def test_each_layer_learns_slower_than_the_one_above(kind: str) -> None:
    model = Model(kind)
    train = train_config("learning_rate=0.01", "differential_lr_ratio=0.5", "layer_wise_lr_decay=0.9")
    rate_of = by_name(model, build_optimizer(model, train), "lr")
    rate = {id(p): rate_of[name] for name, p in model.named_parameters()}

    heads = [*model.criteria_head.parameters(), *model.norm.parameters()]
    assert {rate[id(p)] for p in heads} == {0.01}
    for index, layer in enumerate(layers_of(model.encoder)):
        expected = 0.01 * 0.5 * 0.9 ** (LAYERS - 1 - index)
        assert [rate[id(p)] for p in layer.parameters()] == pytest.approx([expected] * len(list(layer.parameters())))
    lowest = 0.01 * 0.5 * 0.9**LAYERS
    assert rate[id(model.encoder.get_input_embeddings().weight)] == pytest.approx(lowest)


@pytest.mark.parametrize(
    ("kind", "name", "distance"),
    [
        ("bert", "embeddings.LayerNorm.weight", LAYERS),
        ("bert", "embeddings.position_embeddings.weight", LAYERS),
        ("bert", "pooler.dense.weight", 0),
        ("electra", "embeddings_project.weight", LAYERS),
        ("deberta-v2", "encoder.rel_embeddings.weight", LAYERS),
        ("modernbert", "embeddings.norm.weight", LAYERS),
        ("modernbert", "final_norm.weight", 0),
        ("xlnet", "mask_emb", LAYERS),
        ("xlnet", "layer.0.rel_attn.seg_embed", LAYERS - 1),
    ],
)
def test_what_is_in_no_layer_goes_with_the_embeddings_or_with_the_top(kind: str, name: str, distance: int) -> None:
    model = Model(kind)
    train = train_config("learning_rate=0.01", "layer_wise_lr_decay=0.8")
    rate_of = by_name(model, build_optimizer(model, train), "lr")
    assert rate_of[f"encoder.{name}"] == pytest.approx(0.01 * 0.8**distance)


def test_frozen_layers_do_not_shift_the_rates_of_the_others() -> None:
    train = train_config("layer_wise_lr_decay=0.9")
    whole, partly = Model("bert"), Model("bert")
    partly.encoder.embeddings.requires_grad_(False)
    layers_of(partly.encoder)[0].requires_grad_(False)
    rates = by_name(partly, build_optimizer(partly, train), "lr")
    assert rates.items() < by_name(whole, build_optimizer(whole, train), "lr").items()
    assert not any(".layer.0." in name or "embeddings" in name for name in rates)


# ---------------------------------------------------------------------------------------------------------------------
# the schedule


def rates_over(steps: int, optimizer: Optimizer, train: TrainConfig) -> list[list[float]]:
    """The rate of each group before each of so many steps, and after the last."""
    schedule = build_schedule(optimizer, train, total_steps=steps)
    rates = []
    for _ in range(steps + 1):
        rates.append([g["lr"] for g in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "falling"),
    [
        ("linear", [left / 8 for left in range(7, -1, -1)]),
        ("cosine", [(1 + math.cos(math.pi * done / 8)) / 2 for done in range(1, 9)]),
    ],
)
def test_the_rate_rises_over_the_warm_up_and_falls_to_0(schedule: str, falling: list[float]) -> None:
    train = train_config("learning_rate=0.01", "warmup_ratio=0.2", f"schedule={schedule}")
    rates = rates_over(10, build_optimizer(nn.Linear(2, 2), train), train)
    expected = [0.0, 0.005, 0.01, *(0.01 * share for share in falling)]
    assert [rate for rate, _ in rates] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_every_group_keeps_its_share_of_the_rate(schedule: str) -> None:
    train = train_config(f"schedule={schedule}", "layer_wise_lr_decay=0.9", "differential_lr_ratio=0.5")
    optimizer = build_optimizer(Model("bert"), train)
    tops = [g["lr"] for g in optimizer.param_groups]
    assert tops == sorted(tops, reverse=True)
    assert len(tops) == 2 * (1 + LAYERS + 1)
    for rates in rates_over(6, optimizer, train):
        assert rates == pytest.approx([rates[0] * top / tops[0] for top in tops])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_without_warm_up_the_rate_begins_at_its_top(schedule: str) -> None:
    train = train_config("learning_rate=0.01", "warmup_ratio=0", f"schedule={schedule}")
    optimizer = build_optimizer(nn.Linear(2, 2), train)
    build_schedule(optimizer, train, total_steps=10)
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.01]


@pytest.mark.parametrize(("batches", "accumulation", "steps"), [(10, 1, 10), (10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_the_last_group_of_batches_steps_even_where_it_is_not_full(batches: int, accumulation: int, steps: int) -> None:
    assert steps_per_epoch(batches, train_config(f"accumulation_steps={accumulation}")) == steps


# ---------------------------------------------------------------------------------------------------------------------
# the same bits


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.usefixtures("deterministic")
def test_deterministic_algorithms_give_the_same_bits_twice(name: str) -> None:
    train = train_config(f"optimizer={name}", "learning_rate=0.01", "layer_wise_lr_decay=0.9", "schedule=cosine")
    trained = []
    for _ in range(2):
        model = Model("bert")
        optimizer = build_optimizer(model, train)
        schedule = build_schedule(optimizer, train, total_steps=3)
        for _ in range(3):
            model(torch.arange(10).view(2, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        trained.append(model.state_dict())
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())


@pytest.mark.parametrize(
    ("device", "precision", "has", "slow"),
    [
        ("cpu", "bf16", {"avx2": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ("cpu", "bf16", {"avx2": True, "avx512_bf16": True, "amx_bf16": False}, False),
        ("cpu", "bf16", {"neon": True, "bf16": True}, False),
        ("cpu", "no", {"avx2": True}, False),
        ("cuda", "bf16", {"avx2": True}, False),
    ],
)
def test_bf16_is_slow_on_a_cpu_without_it(
    monkeypatch: pytest.MonkeyPatch, device: str, precision: str, has: dict[str, bool], slow: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert slow_in_bf16(torch.device(device), precision) == slow


def test_what_is_too_small_to_compute_with_fast_is_zero():
    """Numbers below the smallest normal one, of which a collapsed model is full, cost a CPU many times as much as
    others do.
    """
    torch.set_flush_denormal(False)
    assert torch.tensor(1e-38).mul(0.01) > 0
    set_numerics(deterministic=False)
    assert torch.tensor(1e-38).mul(0.01) == 0
