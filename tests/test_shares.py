"""What the processes of a trial have of a batch: the mean of their shares' losses and gradients is the whole batch's.

DistributedDataParallel takes that mean; here the shares are computed one after the other. Shapes: see the modules.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from redsm5.config import Config, compose
from redsm5.data import Splits, load_splits
from redsm5.data.batches import Batch, collate
from redsm5.data.encode import EncodedPosts, Example
from redsm5.data.posts import labels_of
from redsm5.data.tokenize import tokenizer_of
from redsm5.evaluation.predict import predict
from redsm5.model import EmbeddingAdversary, MultiTaskModel, build_criteria_loss, multitask_loss
from redsm5.ranks import Ranks

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

    def collated(self, examples: list[Example], share: tuple[int, int] = (0, 1)) -> Batch:
        return collate(examples, self.pad_id, self.config.model.max_length, share)

    def loss_of(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        return multitask_loss(outputs, batch, self.criteria_loss, self.config.train.task_weights)

    def step(self, batch: Batch) -> tuple[float, dict[str, Tensor]]:
        """The loss, and every parameter's gradient of it and of the adversary's."""
        self.model.zero_grad()
        loss = self.loss_of(self.model(batch), batch)
        loss.backward()
        with self.adversary.attack():
            self.loss_of(self.model(batch), batch).backward()
        return float(loss.detach()), {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}


def trained(splits: Splits, head: str, form: str, loss: str) -> Trained:
    words = [f"model.evidence_head_type={head}", f"model.input_format={form}", f"train.loss_function={loss}"]
    words += ["data.posts=60", "data.long_posts=window", "model.max_length=64", "model.max_span_tokens=16"]
    return Trained(compose([*words, *LOSSES[loss], "train.adversarial_epsilon=0.1"]), splits)


@pytest.mark.parametrize(("head", "form", "loss"), CHOICES)
def test_shares_come_to_the_whole_batch(splits: Splits, head: str, form: str, loss: str) -> None:
    """Of a batch of five in two shares and of one of two in three, one of which is empty."""
    one = trained(splits, head, form, loss)
    for examples, count in ((one.examples(0, 3, 5, 8, 11), 2), (one.examples(1, 4), 3)):
        expected, gradients = one.step(one.collated(examples))
        shares = [one.step(one.collated(examples, (index, count))) for index in range(count)]
        assert sum(value for value, _ in shares) / count == pytest.approx(expected, abs=1e-5)
        for name, gradient in gradients.items():
            mean = sum(of_share[name] for _, of_share in shares) / count
            assert (mean - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name


def test_a_share_is_every_nth_post_and_knows_the_whole_batch_s_counts(splits: Splits) -> None:
    one = trained(splits, "start_end_linear", "multi_label", "bce")
    examples = one.examples(2, 3, 5, 7, 11)
    known = sum(sum(window.known) for example in examples for window in example.item.windows)
    shares = [one.collated(examples, (index, 2)) for index in range(2)]
    assert [share["index_N"].tolist() for share in shares] == [[2, 5, 11], [3, 7]]
    for share in shares:
        assert (float(share["item_count"]), float(share["known_count"])) == (2.5, known / 2)


def test_where_no_evidence_is_known_nothing_is_divided_by_zero(splits: Splits) -> None:
    one = trained(splits, "biaffine", "multi_label", "bce")
    examples = one.examples(0, 1, 2)
    for example in examples:
        for window in example.item.windows:
            window.known[:], window.spans[:] = [False] * 9, []
    expected, _ = one.step(one.collated(examples))
    assert sum(one.step(one.collated(examples, (index, 2)))[0] for index in range(2)) / 2 == pytest.approx(expected)


class Several(Ranks):
    """One of several processes that run one after the other: it hears what those before it had."""

    def __init__(self, index: int, count: int, before: list[Any]) -> None:
        self.index, self.count, self.before = index, count, before

    def mean(self, value: Tensor) -> Tensor:
        return value

    def gathered(self, value: Any) -> list[Any]:
        self.before.append(value)
        return self.before


def test_predictions_of_shares_are_those_of_the_whole_each_post_once(splits: Splits) -> None:
    """In batches of two for three processes, so that stand-ins are about."""
    one = trained(splits, "start_end_linear", "multi_label", "bce")
    positions = range(len(one.posts))
    batches = [one.examples(*positions[at : at + 2]) for at in range(0, len(positions), 2)]
    whole = predict(one.model, map(one.collated, batches), one.posts)
    before: list[Any] = []
    for index in range(3):
        mine = [one.collated(batch, (index, 3)) for batch in batches]
        together = predict(one.model, mine, one.posts, ranks=Several(index, 3, before))
    assert sorted(answer.position for part in before for answer in part) == list(positions)
    assert abs(whole.probabilities_P9 - together.probabilities_P9).max() < 1e-6
    assert abs(whole.margins_P9 - together.margins_P9).max() < 1e-4
    assert whole.spans.keys() == together.spans.keys()
