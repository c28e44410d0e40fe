"""The whole model over the combinations of its parts: every parameter learns, candidates are valid, padding and
the order of a batch change nothing, and nothing depends on the run.

Shapes: S sequences, C outputs, K candidates.
"""

import random
from itertools import combinations, product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from redsm5.model import MultiTaskModel, architecture, head_config
from redsm5.model.encoder import TINY
from redsm5.sections import ModelConfig
from tests.model.batch import VOCABULARY, Batch, backward, model_config, random_batch, without_padding
from tests.model.test_evidence_heads import K, check_candidates

FORMATS = ("multi_label", "binary_pairs")
CRITERIA_HEADS = ("linear", "mlp", "mlp_residual", "gated", "multi_sample_dropout")
POOLINGS = ("cls", "mean", "attention", "last_2_layer_mix")
EVIDENCE_HEADS = ("start_end_linear", "start_end_mlp", "biaffine", "bio_crf", "sentence_reranker")
Coupling = str | tuple[str, str]
COUPLINGS: tuple[Coupling, ...] = (
    "independent",
    *product(("concat", "add", "mean", "weighted_sum", "weighted_mean"), ("mean", "max", "attention")),
)
Combination = tuple[str, str, str, str, Coupling]
ALL: list[Combination] = list(product(FORMATS, CRITERIA_HEADS, POOLINGS, EVIDENCE_HEADS, COUPLINGS))


def pairwise_sample() -> list[Combination]:
    """Combinations in which any two values of two parts are met together."""
    shuffled = random.Random(0).sample(ALL, len(ALL))
    missing = {pair for combination in ALL for pair in pairs_of(combination)}
    sample = []
    while missing:
        best = max(shuffled, key=lambda combination: len(pairs_of(combination) & missing))
        sample.append(best)
        missing -= pairs_of(best)
    return sample


def pairs_of(combination: Combination) -> set[tuple[object, ...]]:
    return set(combinations(enumerate(combination), 2))


def config_of(combination: Combination) -> ModelConfig:
    """Without dropout, so that a model's outputs are comparable."""
    input_format, criteria_head, pooling, evidence_head, coupling = combination
    overrides = [
        f"input_format={input_format}",
        f"criteria_head_type={criteria_head}",
        f"criteria_pooling={pooling}",
        f"evidence_head_type={evidence_head}",
        "max_span_tokens=4",
    ]
    if criteria_head in ("mlp", "mlp_residual", "gated"):
        overrides.append("criteria_hidden_dim=8")
    if isinstance(coupling, tuple):
        method, coupling_pooling = coupling
        overrides += ["task_coupling=coupled", f"coupling_method={method}", f"coupling_pooling={coupling_pooling}"]
    return model_config(*overrides)


def batch_for(input_format: str) -> Batch:
    return random_batch() if input_format == "multi_label" else random_batch(outputs=1, text_start=4)


def check_combination(combination: Combination) -> None:
    """One step: shapes, a gradient for every parameter, one that is not zero for all of the heads', candidates."""
    torch.manual_seed(0)
    model = MultiTaskModel(config_of(combination), vocab_size=VOCABULARY)
    batch = batch_for(combination[0])
    outputs = model(batch)
    assert outputs["criteria_logits_NC"].shape == batch["labels_NC"].shape
    assert outputs["evidence_loss"].shape == ()
    assert all(name.startswith("evidence_") for name in outputs if name != "criteria_logits_NC")
    criteria = F.binary_cross_entropy_with_logits(outputs["criteria_logits_NC"], batch["labels_NC"])
    backward(criteria + outputs["evidence_loss"])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.startswith("encoder."):
            assert (parameter.grad != 0).any(), name
    check_candidates(model.evidence_head.decode(outputs, batch, count=K), batch)


@pytest.mark.usefixtures("deterministic")
def test_every_parameter_learns_and_candidates_are_valid_in_a_covering_sample_of_all_combinations() -> None:
    for combination in pairwise_sample():
        check_combination(combination)


@pytest.mark.long
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("coupling", COUPLINGS, ids=str)
@pytest.mark.parametrize("evidence_head", EVIDENCE_HEADS)
def test_every_parameter_learns_and_candidates_are_valid_in_all_combinations(
    evidence_head: str, coupling: Coupling
) -> None:
    for combination in ALL:
        if combination[3:] == (evidence_head, coupling):
            check_combination(combination)


CASES: list[Combination] = [
    ("multi_label", "linear", "mean", "start_end_mlp", ("concat", "max")),
    ("binary_pairs", "gated", "attention", "biaffine", ("weighted_mean", "attention")),
    ("multi_label", "mlp", "last_2_layer_mix", "bio_crf", ("weighted_sum", "mean")),
    ("binary_pairs", "mlp_residual", "cls", "sentence_reranker", ("add", "max")),
    ("multi_label", "multi_sample_dropout", "attention", "start_end_linear", "independent"),
]


@pytest.mark.parametrize("combination", CASES, ids=lambda c: c[3])
def test_padding_changes_nothing(combination: Combination) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(config_of(combination), vocab_size=VOCABULARY).eval()
    outputs = 9 if combination[0] == "multi_label" else 1
    padded = random_batch(outputs=outputs, lengths=(10, 7), windows=((0,), (1,)))
    results = []
    for batch in (padded, without_padding(padded, 10)):
        out = model(batch)
        candidates = model.evidence_head.decode(out, batch, count=K)
        results.append((out["criteria_logits_NC"], out["evidence_loss"], *candidates))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("combination", CASES, ids=lambda c: c[3])
def test_two_runs_from_one_seed_are_equal_to_the_bit(combination: Combination, deterministic: None) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        model = MultiTaskModel(config_of(combination), vocab_size=VOCABULARY)
        outputs = model(batch_for(combination[0]))
        backward(outputs["criteria_logits_NC"].square().mean() + outputs["evidence_loss"])
        gradients = [p.grad for p in model.parameters()]
        results.append([outputs["criteria_logits_NC"], outputs["evidence_loss"], *gradients])
    for left, right in zip(*results, strict=True):
        assert left is not None
        assert right is not None
        assert torch.equal(left, right)


def test_the_criteria_are_pooled_over_all_tokens_and_the_coupling_over_the_text() -> None:
    """And the evidence head reads the coupling's states, the criteria head its joined vector."""
    torch.manual_seed(0)
    combination = ("binary_pairs", "linear", "mean", "start_end_linear", ("concat", "mean"))
    model, batch = MultiTaskModel(config_of(combination), vocab_size=VOCABULARY).eval(), batch_for("binary_pairs")
    assert model.coupling is not None
    read: dict[str, tuple[Tensor, ...]] = {}
    made: list[tuple[Tensor, Tensor]] = []
    parts = {"pooling": model.pooling, "coupling": model.coupling.pooling}
    parts |= {"criteria": model.criteria_head, "evidence": model.evidence_head}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda _, args, name=name: read.update({name: args}))
    model.coupling.register_forward_hook(lambda _module, _args, out: made.append(out))
    model(batch)
    assert torch.equal(read["pooling"][1], batch["attention_mask_ST"])
    assert torch.equal(read["coupling"][1], batch["text_mask_ST"])
    evidence_STH, joined_SD = made[0]
    assert torch.equal(read["evidence"][0], evidence_STH)
    assert torch.equal(read["criteria"][0], joined_SD)


@pytest.mark.parametrize("evidence_head", EVIDENCE_HEADS)
def test_a_sequences_answers_do_not_depend_on_its_place_in_the_batch(evidence_head: str) -> None:
    torch.manual_seed(0)
    model = MultiTaskModel(model_config(f"evidence_head_type={evidence_head}"), vocab_size=VOCABULARY).eval()
    batch = random_batch()
    turned = dict(batch)
    for name, tensor in batch.items():
        if name.endswith("_ST") or name == "known_SC":
            turned[name] = tensor.flip(0)
    last = len(batch["known_SC"]) - 1
    for name in ("spans_G4", "sentences_M3"):
        turned[name] = torch.cat([last - batch[name][:, :1], batch[name][:, 1:]], dim=1)
    turned["windows_NW"] = torch.where(batch["windows_NW"] < 0, -1, last - batch["windows_NW"])
    out, turned_out = model(batch), model(turned)
    torch.testing.assert_close(out["criteria_logits_NC"], turned_out["criteria_logits_NC"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out["evidence_loss"], turned_out["evidence_loss"], atol=1e-5, rtol=1e-5)
    ours, theirs = (model.evidence_head.decode(o, b, count=K) for o, b in ((out, batch), (turned_out, turned)))
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right.flip(0), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("evidence_head", EVIDENCE_HEADS)
def test_a_few_steps_find_the_evidence_of_a_batch(evidence_head: str) -> None:
    """Overfitting three posts: afterwards the margins say where evidence is, and the best candidate is gold."""
    torch.manual_seed(0)
    model = MultiTaskModel(
        model_config(f"evidence_head_type={evidence_head}", "evidence_dropout=0"), vocab_size=VOCABULARY
    )
    batch = random_batch(lengths=(16, 11, 13), windows=((0,), (1,), (2,)))
    sentence_GJ = [[s, first, last] for s, first, last in batch["sentences_M3"].tolist()]
    batch["spans_G4"] = torch.tensor([[s, (s + i) % 9, first, last] for i, (s, first, last) in enumerate(sentence_GJ)])
    batch["known_SC"] = torch.ones(3, 9, dtype=torch.bool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        backward(model(batch)["evidence_loss"])
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    candidates = model.evidence_head.decode(model(batch), batch, count=1)
    gold = {(s, c): (first, last) for s, c, first, last in batch["spans_G4"].tolist()}
    found = {
        (s, c): tuple(candidates.spans_SCK2[s, c, 0].tolist())
        for s, c in product(range(3), range(9))
        if candidates.margin_SC[s, c] > 0
    }
    assert found == gold


# ---------------------------------------------------------------------------------------------------------------------
# what a checkpoint is compared by


def test_the_architecture_names_what_must_be_equal() -> None:
    def described(*overrides: str) -> str:
        return architecture(MultiTaskModel(model_config(*overrides), vocab_size=VOCABULARY))

    plain = described()
    assert plain == described("criteria_dropout=0.3")
    assert f"vocabulary {VOCABULARY}," in plain
    for override in (
        "criteria_pooling=cls",
        "input_format=binary_pairs",
        "evidence_head_type=bio_crf",
        "dtype=bfloat16",
    ):
        assert plain != described(override)


def test_the_architecture_names_attention_heads_which_no_shape_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def described(heads: int) -> str:
        monkeypatch.setitem(TINY, "num_attention_heads", heads)
        return architecture(MultiTaskModel(model_config(), vocab_size=VOCABULARY))

    assert ", 2 heads, " in described(2)
    assert ", 4 heads, " in described(4)
    assert "heads" not in described(1)


def test_the_head_configuration_holds_all_that_changes_what_an_output_means() -> None:
    every_field = set(ModelConfig.model_fields)
    without_effect = {
        "model_id", "revision", "criteria_dropout", "evidence_dropout", "attention", "dtype", "gradient_checkpointing",
        "frozen_layers",
    }  # fmt: skip
    assert set(head_config(model_config())) == every_field - without_effect
    assert head_config(model_config("max_span_tokens=7"))["max_span_tokens"] == 7
