"""The adversarial step against autograd: two gradients in one, the second at vectors that were moved by epsilon.

Shapes: S sequences, T tokens, H width of the embeddings.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, BertConfig, DebertaV2Config, DistilBertConfig, PretrainedConfig, RobertaConfig

from redsm5.model.adversarial import EmbeddingAdversary, steepest_move

S, T, H, WORDS = 3, 4, 5, 20
EPSILON = 0.3
SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
}


class Small(nn.Module):
    """Words, one nonlinearity, one linear layer: small enough to say by hand what its gradients are."""

    def __init__(self, *, checkpointed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = nn.Embedding(WORDS, H)
        self.linear = nn.Linear(T * H, 1)
        self.checkpointed = checkpointed

    def after_embeddings(self, vectors_STH: Tensor) -> Tensor:
        logits_S: Tensor = self.linear(vectors_STH.flatten(1).tanh()).squeeze(1)
        return logits_S

    def forward(self, words_ST: Tensor) -> Tensor:
        vectors_STH = self.embeddings(words_ST)
        if self.checkpointed:
            return checkpoint(self.after_embeddings, vectors_STH, use_reentrant=False)
        return self.after_embeddings(vectors_STH)


def batch(seed: int = 1, sequences: int = S) -> tuple[Tensor, Tensor]:
    """words_ST and labels_S."""
    generator = torch.Generator().manual_seed(seed)
    words_ST = torch.randint(0, WORDS, (sequences, T), generator=generator)
    return words_ST, torch.randint(0, 2, (sequences,), generator=generator).float()


def loss_of(model: nn.Module, words_ST: Tensor, labels_S: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(model(words_ST).float(), labels_S)


def train_step(model: nn.Module, adversary: EmbeddingAdversary, compute_loss: Callable[[], Tensor]) -> None:
    """Forward and backward as the training loop has them."""
    compute_loss().backward()
    if adversary:
        with adversary.attack():
            compute_loss().backward()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def by_autograd(model: Small, words_ST: Tensor, labels_S: Tensor, epsilon: float = EPSILON) -> dict[str, Tensor]:
    """The sum of the gradients at x and at x + epsilon g / ||g||, x being the words' vectors, without any hook."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def loss_at(move_STH: Tensor | float) -> tuple[Tensor, Tensor]:
        vectors_STH = F.embedding(words_ST, model.embeddings.weight)
        if not vectors_STH.requires_grad:
            vectors_STH.requires_grad_()
        logits_S = model.after_embeddings(vectors_STH + move_STH)
        return F.binary_cross_entropy_with_logits(logits_S, labels_S), vectors_STH

    clean, vectors_STH = loss_at(0.0)
    (g_STH,) = torch.autograd.grad(clean, vectors_STH, retain_graph=True)
    length_S = torch.stack([sum(x * x for x in g.flatten()).sqrt() for g in g_STH])
    moved, _ = loss_at(epsilon * g_STH / length_S[:, None, None])
    pairs = zip(
        torch.autograd.grad(clean, [*named.values()]), torch.autograd.grad(moved, [*named.values()]), strict=True
    )
    return {name: a + b for name, (a, b) in zip(named, pairs, strict=True)}


# ---------------------------------------------------------------------------------------------------------------------
# the gradient


@pytest.mark.parametrize("checkpointed", [False, True], ids=["", "gradient checkpointing"])
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen embeddings"])
def test_the_gradient_is_the_clean_one_plus_that_at_the_moved_vectors(frozen: bool, checkpointed: bool) -> None:
    model = Small(checkpointed=checkpointed)
    model.embeddings.requires_grad_(not frozen)
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    train_step(model, adversary, lambda: loss_of(model, *batch()))
    assert ("embeddings.weight" in gradients(model)) == (not frozen)
    assert_same(gradients(model), by_autograd(model, *batch()))


def test_each_sequence_is_moved_by_epsilon_towards_a_higher_loss() -> None:
    model, (words_ST, labels_S) = Small(), batch()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    seen: list[Tensor] = []
    model.embeddings.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    loss = loss_of(model, words_ST, labels_S)
    loss.backward()
    with adversary.attack():
        moved = loss_of(model, words_ST, labels_S)
    assert (seen[1] - seen[0]).flatten(1).norm(dim=1).tolist() == pytest.approx([EPSILON] * S)
    assert moved > loss


def test_no_weight_is_changed_and_the_next_forward_is_clean() -> None:
    model = Small()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    clean = model(batch()[0])
    train_step(model, adversary, lambda: loss_of(model, *batch()))
    assert torch.equal(model(batch()[0]), clean)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_attack_that_fails_leaves_the_next_forward_clean() -> None:
    model = Small()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    clean = loss_of(model, *batch())
    clean.backward()
    with pytest.raises(MemoryError), adversary.attack():
        raise MemoryError
    assert torch.equal(loss_of(model, *batch()), clean)


def test_two_micro_batches_add_up_each_with_moves_of_its_own() -> None:
    model = Small()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    for seed in (1, 2):
        train_step(model, adversary, lambda seed=seed: loss_of(model, *batch(seed)) / 2)
    first, second = by_autograd(model, *batch(1)), by_autograd(model, *batch(2))
    assert_same(gradients(model), {name: (first[name] + second[name]) / 2 for name in first})


def test_micro_batches_may_differ_in_size() -> None:
    model = Small()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    for seed, sequences in ((1, 3), (2, 1)):
        train_step(model, adversary, lambda s=seed, n=sequences: loss_of(model, *batch(s, n)))
    first, second = by_autograd(model, *batch(1, 3)), by_autograd(model, *batch(2, 1))
    assert_same(gradients(model), {name: first[name] + second[name] for name in first})


# ---------------------------------------------------------------------------------------------------------------------
# the direction


def test_the_move_has_the_gradients_direction_and_epsilons_length() -> None:
    gradient_STH = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, -2.0], [0.0, 0.0]]])
    expected = torch.tensor([[[0.06, 0.0], [0.0, 0.08]], [[0.0, -0.1], [0.0, 0.0]]])
    torch.testing.assert_close(steepest_move(gradient_STH, 0.1), expected)


@pytest.mark.parametrize("scale", [2.0**-120, 2.0**-60, 2.0**16, 2.0**100])
def test_the_move_does_not_depend_on_the_gradients_length(scale: float) -> None:
    gradient_STH = torch.randn(S, T, H, generator=torch.Generator().manual_seed(0))
    assert torch.equal(steepest_move(gradient_STH * scale, 0.1), steepest_move(gradient_STH, 0.1))


@pytest.mark.parametrize("fault", [0.0, torch.nan, torch.inf, -torch.inf])
def test_a_sequence_without_a_direction_stays_and_the_others_move(fault: float) -> None:
    gradient_STH = torch.ones(2, T, H)
    if fault == 0:
        gradient_STH[0] = 0
    else:
        gradient_STH[0, 1, 2] = fault
    move_STH = steepest_move(gradient_STH, 0.1)
    assert (move_STH[0] == 0).all()
    assert move_STH[1].norm().item() == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gradient_of_half_precision_gives_a_move_in_float32(dtype: torch.dtype) -> None:
    move_STH = steepest_move(torch.full((1, T, H), 6e4, dtype=dtype), 0.1)
    assert move_STH.dtype == torch.float32
    assert move_STH.norm().item() == pytest.approx(0.1)


# ---------------------------------------------------------------------------------------------------------------------
# mixed precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_works_under_autocast(dtype: torch.dtype) -> None:
    model = Small()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)

    def compute_loss() -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            return loss_of(model, *batch())

    train_step(model, adversary, compute_loss)
    for name, expected in by_autograd(model, *batch()).items():
        torch.testing.assert_close(gradients(model)[name], expected, atol=2e-2, rtol=2e-2)


def test_a_gradient_scaler_changes_nothing() -> None:
    plain, scaled = Small(), Small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    train_step(plain, EmbeddingAdversary(plain.embeddings, EPSILON), lambda: loss_of(plain, *batch()))
    optimizer = torch.optim.SGD(scaled.parameters(), lr=0.1)
    train_step(scaled, EmbeddingAdversary(scaled.embeddings, EPSILON), lambda: scaler.scale(loss_of(scaled, *batch())))
    scaler.unscale_(optimizer)
    ours, theirs = gradients(plain), gradients(scaled)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_scaled_gradient_that_overflows_skips_the_step_as_ever() -> None:
    model = Small()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_step(model, adversary, lambda: scaler.scale(loss_of(model, *batch()) * 1e38))
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() < 2.0**10
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    optimizer.zero_grad()
    train_step(model, adversary, lambda: loss_of(model, *batch()))
    assert_same(gradients(model), by_autograd(model, *batch()))


# ---------------------------------------------------------------------------------------------------------------------
# when it does nothing


def test_with_epsilon_0_the_training_is_the_one_without_an_adversary_bit_for_bit() -> None:
    trained = []
    for with_adversary in (False, True):
        model = Small()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        adversary = EmbeddingAdversary(model.embeddings, 0.0) if with_adversary else None
        for seed in range(4):
            loss_of(model, *batch(seed)).backward()
            if adversary:
                with adversary.attack():
                    loss_of(model, *batch(seed)).backward()
            optimizer.step()
            optimizer.zero_grad()
        trained.append(model.state_dict())
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())


def test_with_epsilon_0_the_module_is_left_alone() -> None:
    model = Small()
    model.embeddings.requires_grad_(False)
    assert not EmbeddingAdversary(model.embeddings, 0.0)
    assert not model.embeddings(batch()[0]).requires_grad


@pytest.mark.parametrize("way", ["evaluation mode", "no gradients"])
def test_nothing_is_noted_in_evaluation(way: str) -> None:
    model = Small()
    model.embeddings.requires_grad_(False)
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    model.train(way == "no gradients")
    with torch.set_grad_enabled(way == "evaluation mode"):
        vectors_STH = model.embeddings(batch()[0])
    assert not vectors_STH.requires_grad
    with pytest.raises(RuntimeError, match="needs a forward pass in training mode"), adversary.attack():
        pass


def test_a_step_leaves_nothing_for_the_next() -> None:
    model = Small()
    adversary = EmbeddingAdversary(model.embeddings, EPSILON)
    train_step(model, adversary, lambda: loss_of(model, *batch()))
    with pytest.raises(RuntimeError), adversary.attack():
        pass


# ---------------------------------------------------------------------------------------------------------------------
# real encoders


@pytest.mark.parametrize(
    "encoder",
    [
        BertConfig(**SMALL),
        RobertaConfig(**SMALL),
        DistilBertConfig(vocab_size=WORDS, dim=8, n_layers=2, n_heads=2, hidden_dim=16, max_position_embeddings=24),
        DebertaV2Config(**SMALL, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"]),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen embeddings"])
def test_encoders_train_with_it_with_and_without_gradient_checkpointing(
    encoder: PretrainedConfig, frozen: bool
) -> None:
    """Dropout is on, and the same random numbers are drawn again in a layer that is computed again."""
    runs = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = AutoModel.from_config(encoder).train()
        model.get_input_embeddings().requires_grad_(not frozen)
        if checkpointed:
            model.activation_checkpointing_enable()
        adversary = EmbeddingAdversary(model.get_input_embeddings(), EPSILON)
        torch.manual_seed(1)
        train_step(model, adversary, lambda model=model: model(batch()[0]).last_hidden_state[:, 0].std())
        runs.append(gradients(model))
    assert_same(runs[0], runs[1])
    assert any("query" in name or "q_lin" in name for name in runs[0])


@pytest.mark.usefixtures("deterministic")
def test_deterministic_algorithms_give_the_same_bits_twice() -> None:
    runs = []
    for _ in range(2):
        model = Small()
        train_step(model, EmbeddingAdversary(model.embeddings, EPSILON), lambda m=model: loss_of(m, *batch()))
        runs.append(gradients(model))
    assert all(torch.equal(gradient, runs[1][name]) for name, gradient in runs[0].items())
