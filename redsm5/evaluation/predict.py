"""Run a model over posts and score what it says.

Shapes: B posts a batch, P posts, C criteria, T tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from redsm5.data.posts import SYMPTOMS
from redsm5.data.tokenize import EncodedPosts
from redsm5.evaluation.metrics import criteria_metrics, evidence_metrics
from redsm5.model import decode_spans, multitask_loss
from redsm5.records import EvidenceMetrics, TestMetrics
from redsm5.sections import TaskWeights

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Predictions:
    """What a model says of P posts, in their order.

    Attributes:
        loss: the training loss, averaged over posts.
        probabilities_PC: of each symptom.
        spans_PC2: first and last token of the evidence; (0, 0) for none.
    """

    loss: float
    probabilities_PC: NDArray[np.float64]
    spans_PC2: NDArray[np.int64]


@torch.no_grad()
def predict(
    model: nn.Module, loader: Iterable[dict[str, Tensor]], accelerator: Accelerator, weights: TaskWeights
) -> Predictions:
    """Run the model in evaluation mode over a prepared loader; every process gets all predictions."""
    model.eval()
    losses: list[Tensor] = []
    probabilities: list[Tensor] = []
    spans: list[Tensor] = []
    order: list[Tensor] = []
    for batch in loader:
        outputs = model(batch["input_ids_BT"], batch["attention_mask_BT"])
        size = len(batch["index_B"])
        loss_B = multitask_loss(outputs, batch, weights).float().expand(size)
        gathered = accelerator.gather_for_metrics(
            (
                loss_B,
                outputs["criteria_logits_BC"].float().sigmoid(),
                decode_spans(outputs["evidence_logits_BCT2"]),
                batch["index_B"],
            )
        )
        for kept, part in zip((losses, probabilities, spans, order), gathered, strict=True):
            kept.append(part.cpu())
    by_post = torch.cat(order).argsort()
    return Predictions(
        loss=float(torch.cat(losses).double().mean()),
        probabilities_PC=torch.cat(probabilities)[by_post].double().numpy(),
        spans_PC2=torch.cat(spans)[by_post].numpy(),
    )


def score(predictions: Predictions, dataset: EncodedPosts) -> TestMetrics:
    """Both tasks' metrics of these predictions. A symptom counts as present from DEFAULT_THRESHOLD on."""
    labels_PC = dataset.labels_NC.numpy().astype(np.int64)
    criteria = criteria_metrics(
        predictions.probabilities_PC, labels_PC, np.full(len(SYMPTOMS), DEFAULT_THRESHOLD), SYMPTOMS
    )
    return TestMetrics(criteria_matching=criteria, evidence_binding=_score_evidence(predictions, dataset))


def validation_metrics(metrics: TestMetrics) -> dict[str, float]:
    """The metrics of an epoch by their names in the journal; what is undefined is NaN there."""
    criteria = metrics.criteria_matching.model_dump(exclude={"per_criterion", "undefined"})
    evidence = metrics.evidence_binding.model_dump(exclude={"undefined"})
    named = {f"val_{k}": v for k, v in criteria.items()} | {f"val_evidence_{k}": v for k, v in evidence.items()}
    return {name: float("nan") if value is None else value for name, value in named.items()}


def _score_evidence(predictions: Predictions, dataset: EncodedPosts) -> EvidenceMetrics:
    """Evidence metrics over (post, symptom) pairs; one whose symptom is present but whose sentence was not found in
    the post is left out, since nobody knows where its evidence is.
    """
    gold: dict[tuple[int, int], list[tuple[int, int]]] = {}
    predicted: dict[tuple[int, int], tuple[int, int] | None] = {}
    for post in range(len(dataset)):
        for symptom in range(len(SYMPTOMS)):
            spans = [(s.start, s.end) for s in dataset.evidence[post] if s.symptom == symptom]
            if not spans and dataset.labels_NC[post, symptom] > 0:
                continue
            gold[post, symptom] = spans
            first, last = predictions.spans_PC2[post, symptom]
            offsets = dataset.offsets[post]
            predicted[post, symptom] = (offsets[first][0], offsets[last][1]) if first > 0 else None
    return evidence_metrics(predicted, gold, dataset.texts)
