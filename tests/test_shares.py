"""Loss and gradients of a batch do not depend on its micro-batches, nor on how processes share it.

The micro-batches of a process add up to its share, and the mean of the shares, which DistributedDataParallel takes, is
the whole batch's. The shares are computed one after the other here. Shapes: see the modules.
"""

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from redsm5.config import Config, compose
from redsm5.data import Splits, load_splits
from redsm5.data.batches import WHOLE_BATCH, Batch, Collator, MicroBatching, collate, eval_loader, micro_batches_of
from redsm5.data.encode import EncodedPosts, Example
from redsm5.data.posts import labels_of
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine.distributed import ProcessGroup
from redsm5.evaluation.predict import predict
from redsm5.model import (
    EmbeddingAdversary,
    MultiTaskModel,
    build_criteria_loss,
    forward_backward,
    group_factor,
    multitask_loss,
)

HEADS = ("start_end_linear", "start_end_mlp", "biaffine", "bio_crf", "sentence_reranker")
FORMATS = ("multi_label", "binary_pairs")
LOSSES = {
    "bce": [],
    "weighted_bce": ["train.class_weights=true"],
    "focal": ["train.focal_gamma=2"],
    "adaptive_focal": ["train.focal_gamma=3", "train.label_smoothing=0.1"],
    "hybrid": ["train.focal_gamma=2", "train.hybrid_weight_alpha=0.3", "train.class_weights=true"],
}
CHOICES = [(head, FORMATS[(h + n) % 2], loss) for h, head in enumerate(HEADS) for n, loss in enumerate(LOSSES)]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load_splits(compose(["data.posts=60"]).data)


class Trained:
    """A model without dropout, and what a forward and backward over a batch, or a share of it, come to."""

    def __init__(self, config: Config, splits: Splits) -> None:
        torch.manual_seed(0)
        tokenizer = tokenizer_of(config, splits.train)
        self.config, self.pad_id = config, tokenizer.pad_token_id
        self.posts = EncodedPosts(splits.train[:12], tokenizer, config)
        self.model = MultiTaskModel(config.model, vocab_size=len(tokenizer)).train()
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.criteria_loss = build_criteria_loss(config.train, torch.from_numpy(labels_of(splits.train)))
        embeddings = self.model.encoder.get_input_embeddings()
        self.adversary = EmbeddingAdversary(embeddings, config.train.adversarial_epsilon)

    def examples(self, *positions: int) -> list[Example]:
        return [self.posts[position] for position in positions]

    def plain(self, examples: list[Example]) -> Batch:
        """The whole batch at once: all means are over its own items."""
        return collate(examples, self.pad_id, self.config.model.max_length)

    def micro_batched(
        self, examples: list[Example], share: tuple[int, int] = (0, 1), micro_batching: MicroBatching = WHOLE_BATCH
    ) -> list[Batch]:
        return Collator(self.pad_id, self.config.model.max_length, share, micro_batching)(examples)

    def loss_of(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        return multitask_loss(outputs, batch, self.criteria_loss, self.config.train.task_weights)

    def step(self, *batches: list[Batch], steps: int = 0, factor: float = 1.0) -> tuple[float, dict[str, Tensor]]:
        """The sum of the batches' losses, and every parameter's gradient of them and of the adversary's.

        Each batch is a list of micro-batches; with gradient accumulation a step takes several batches: `steps`, if they
        are not all there.
        """
        self.model.zero_grad()
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=steps or len(batches))
        losses = [forward_backward(accelerator, self.model, b, self.loss_of, self.adversary, factor) for b in batches]
        gradients = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        return float(torch.stack(losses).sum()), gradients


def close(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]) -> None:
    """To 1e-5, absolute or of what it is. Through bio_crf, which sums over all tokens, the rounding of the adversary's
    direction shows more.
    """
    crf = any("crf" in name or "transition" in name for name in expected[1])
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= (1e-4 if crf else 1e-5) * max(1.0, float(gradient.norm())), name


def mean(shares: list[tuple[float, dict[str, Tensor]]]) -> tuple[float, dict[str, Tensor]]:
    loss = sum(value for value, _ in shares) / len(shares)
    return loss, {n: torch.stack([g[n] for _, g in shares]).mean(dim=0) for n in shares[0][1]}


def trained(splits: Splits, head: str, form: str, loss: str) -> Trained:
    words = [f"model.evidence_head_type={head}", f"model.input_format={form}", f"train.loss_function={loss}"]
    words += ["data.posts=60", "data.long_posts=window", "model.max_length=64", "model.max_span_tokens=16"]
    return Trained(compose([*words, *LOSSES[loss], "train.adversarial_epsilon=0.1"]), splits)


@pytest.mark.parametrize(("head", "form", "loss"), CHOICES)
def test_micro_batches_and_shares_come_to_the_whole_batch(splits: Splits, head: str, form: str, loss: str) -> None:
    """A batch of six: in micro-batches, also with grouped windows, and in two shares of micro-batches. A batch of two:
    in three shares, one of which is empty.
    """
    one = trained(splits, head, form, loss)
    examples, budget = one.examples(0, 3, 5, 7, 8, 11), MicroBatching(200)
    assert len(micro_batches_of(examples, budget)) > 2
    expected = one.step([one.plain(examples)])
    close(one.step(one.micro_batched(examples)), expected)
    close(one.step(one.micro_batched(examples, (0, 1), budget)), expected)
    grouped = one.micro_batched(examples, (0, 1), MicroBatching(part_cost=16))
    assert any("group_1_ST0" in part for part in grouped)
    close(one.step(grouped), expected)
    close(mean([one.step(one.micro_batched(examples, (index, 2), budget)) for index in range(2)]), expected)
    two = one.examples(1, 4)
    close(
        mean([one.step(one.micro_batched(two, (index, 3), budget)) for index in range(3)]), one.step([one.plain(two)])
    )


def test_micro_batches_accumulate_as_whole_batches_do(splits: Splits) -> None:
    one = trained(splits, "biaffine", "multi_label", "focal")
    batches = [one.examples(0, 3, 5, 8), one.examples(1, 2, 11)]
    whole = one.step(*([one.plain(batch)] for batch in batches))
    close(one.step(*(one.micro_batched(batch, (0, 1), MicroBatching(200)) for batch in batches)), whole)


@pytest.mark.parametrize("left", [1, 3])
def test_the_last_group_of_an_epoch_has_the_mean_gradient_of_its_batches(splits: Splits, left: int) -> None:
    """Seven batches in groups of four leave three, and five leave one."""
    one = trained(splits, "start_end_linear", "multi_label", "bce")
    train = one.config.train.model_copy(update={"accumulation_steps": 4})
    batches = [[one.plain(one.examples(2 * n, 2 * n + 1))] for n in range(left)]
    factors = [group_factor(number, 4 + left, train) for number in range(4 + left)]
    assert factors[:4] == [1.0] * 4
    _, expected = mean([one.step(batch) for batch in batches])
    assert len(set(factors[4:])) == 1
    loss, found = one.step(*batches, steps=4, factor=factors[4])
    close((loss, found), (loss, expected))


def test_a_share_is_every_nth_post_and_knows_the_whole_batch_s_counts(splits: Splits) -> None:
    one = trained(splits, "start_end_linear", "multi_label", "bce")
    examples = one.examples(2, 3, 5, 7, 11)
    known = sum(sum(window.known) for example in examples for window in example.item.windows)
    shares = [part for index in range(2) for part in one.micro_batched(examples, (index, 2))]
    assert [share["index_N"].tolist() for share in shares] == [[2, 5, 11], [3, 7]]
    for share in shares:
        assert (float(share["item_count"]), float(share["known_count"])) == (2.5, known / 2)


def test_where_no_evidence_is_known_nothing_is_divided_by_zero(splits: Splits) -> None:
    one = trained(splits, "biaffine", "multi_label", "bce")
    examples = one.examples(0, 1, 2)
    for example in examples:
        for window in example.item.windows:
            window.known[:], window.spans[:] = [False] * 9, []
    close(
        mean([one.step(one.micro_batched(examples, (index, 2), MicroBatching(200))) for index in range(2)]),
        one.step([one.plain(examples)]),
    )


class Several(ProcessGroup):
    """One of several processes that run one after the other: it hears what those before it had."""

    def __init__(self, rank: int, world_size: int, before: list[Any]) -> None:
        self.rank, self.world_size, self.before = rank, world_size, before

    def mean(self, value: Tensor) -> Tensor:
        return value

    def gathered(self, value: Any) -> list[Any]:
        self.before.append(value)
        return self.before


@pytest.mark.parametrize("form", FORMATS)
def test_predictions_do_not_depend_on_how_posts_are_put_together(splits: Splits, form: str) -> None:
    """Neither on micro-batches nor on processes, with placeholder items; the loss is that of all posts as one batch."""
    one = trained(splits, "start_end_linear", form, "weighted_bce")
    everyone = one.examples(*range(len(one.posts)))
    whole = predict(one.model, [[one.plain(everyone)]], one.posts, one.loss_of)
    apart = predict(
        one.model, eval_loader(one.posts, 5, one.pad_id, micro_batching=MicroBatching(200)), one.posts, one.loss_of
    )
    before: list[Any] = []
    of_shares = [
        predict(one.model, eval_loader(one.posts, 2, one.pad_id, (r, 3)), one.posts, one.loss_of, Several(r, 3, before))
        for r in range(3)
    ]
    assert sorted(answer.position for part in before for answer in part) == list(range(len(one.posts)))
    assert apart.loss == pytest.approx(whole.loss, abs=1e-5)
    assert sum(p.loss for p in of_shares) / 3 == pytest.approx(whole.loss, abs=1e-5)
    for other in (apart, of_shares[-1]):
        assert abs(whole.probabilities_P9 - other.probabilities_P9).max() < 1e-6
        assert abs(whole.margins_P9 - other.margins_P9).max() < 1e-4
        assert whole.spans.keys() == other.spans.keys()
