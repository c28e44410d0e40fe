"""Attention's dropout on a CPU: the function that torch has, of random numbers that are drawn faster."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from redsm5.model.attention import NAME, attention

S, A, T, D = 3, 2, 40, 8


def layer(*, is_causal: bool) -> nn.Module:
    module = nn.Module()
    module.is_causal = is_causal
    return module


ENCODERS = layer(is_causal=False)


def random_inputs(width: int = D) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    query, key, value = (torch.randn(S, A, T, n, requires_grad=True) for n in (D, D, width))
    return query, key, value


def masks() -> dict[str, Tensor | None]:
    seen = torch.ones(S, 1, T, T, dtype=torch.bool)
    seen[1, :, :, T // 2 :] = False  # padding
    seen[2, :, 5] = False  # a query that sees nothing
    return {"none": None, "bool": seen, "added": torch.zeros(seen.shape).masked_fill(~seen, -1e4)}


def weights_after_dropout(mask: Tensor | None, dropout: float, seed: int = 1) -> Tensor:
    """What each query takes of each key: with the identity as values, the output is the weights themselves."""
    query, key, _ = random_inputs()
    torch.manual_seed(seed)
    return attention(ENCODERS, query, key, torch.eye(T).expand(S, A, T, T), mask, dropout=dropout)[0].transpose(1, 2)


@pytest.mark.parametrize("mask", masks())
def test_outputs_and_gradients_are_those_of_weights_dropped_and_scaled(mask: str) -> None:
    kept = weights_after_dropout(masks()[mask], 0.25) != 0
    inputs = random_inputs()
    torch.manual_seed(1)  # the same draw
    found = attention(ENCODERS, *inputs, masks()[mask], dropout=0.25)[0]
    told = torch.ones(S, T, dtype=torch.bool)
    told[2, 5] = mask == "none"  # of what sees nothing, nobody reads anything
    found[told].square().sum().backward()  # type: ignore[no-untyped-call]
    gradients = [x.grad for x in inputs]

    query, key, value = inputs = random_inputs()
    scores = query @ key.transpose(2, 3) / math.sqrt(D)
    added = masks()["added"] if mask != "none" else None
    weights = (scores if added is None else scores + added).softmax(-1)
    expected = ((weights * kept / 0.75) @ value).transpose(1, 2)
    expected[told].square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found[told], expected[told])
    for gradient, x in zip(gradients, inputs, strict=True):
        torch.testing.assert_close(gradient, x.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_each_weight_is_dropped_as_often_as_asked_and_apart_from_the_others(dropout: float) -> None:
    draws = torch.stack([weights_after_dropout(None, dropout, seed) == 0 for seed in range(200)]).double()

    def spread(numbers: int) -> float:
        return math.sqrt(dropout * (1 - dropout) / numbers)

    assert abs(draws.mean() - dropout) < 4 * spread(draws.numel())
    assert (draws.mean(0) - dropout).abs().max() < 6 * spread(len(draws))  # each place
    for step in (1, 2, 3, 4, T, T * T):  # neighbours: those of one random number, of a query, of a head
        both = (draws.flatten(1)[:, step:] * draws.flatten(1)[:, :-step]).mean()
        assert abs(both - dropout**2) < 6 * math.sqrt(dropout**2 * (1 - dropout**2) / draws.numel())


def test_without_dropout_it_is_sdpa_to_the_bit() -> None:
    inputs, mask = random_inputs(), masks()["bool"]
    expected = sdpa_attention_forward(ENCODERS, *inputs, mask)[0]
    assert torch.equal(attention(ENCODERS, *inputs, mask)[0], expected)


@pytest.mark.parametrize(
    ("module", "also"), [(layer(is_causal=True), {}), (ENCODERS, {"is_causal": True}), (nn.Module(), {})]
)
def test_what_does_not_see_what_comes_after_is_left_to_sdpa(module: nn.Module, also: dict[str, bool]) -> None:
    inputs = random_inputs()
    torch.manual_seed(1)
    found = attention(module, *inputs, None, dropout=0.3, **also)[0]  # type: ignore[arg-type]
    torch.manual_seed(1)
    assert torch.equal(found, sdpa_attention_forward(module, *inputs, None, dropout=0.3, **also)[0])


def test_an_encoder_trains_with_it_and_is_read_without(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=50, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.2, **sizes)
    torch.manual_seed(0)
    encoder = BertModel(config, add_pooling_layer=False)
    encoder.set_attn_implementation(NAME)
    inputs = {"input_ids": torch.randint(50, (4, 24)), "attention_mask": torch.ones(4, 24, dtype=torch.long)}
    inputs["attention_mask"][0, 9:] = 0
    dropouts: list[float] = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **how: dropouts.append(how["dropout_p"]) or real(*args, **how)
    )
    with torch.no_grad():
        read = encoder.eval()(**inputs).last_hidden_state
        assert dropouts == [0.0, 0.0]
        trained = [encoder.train()(**inputs).last_hidden_state for _ in range(400)]
    assert len(dropouts) == 2
    assert not torch.equal(trained[0], trained[1])
    seen = inputs["attention_mask"].bool()
    assert (torch.stack(trained).mean(0) - read)[seen].abs().mean() < 0.1 * (trained[0] - read)[seen].abs().mean()
