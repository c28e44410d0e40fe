"""The loss of both tasks: one of five for the criteria head; the evidence head computes its own.

Every criteria loss is, for each output, y L(1) + (1 - y) L(0): the losses for a present and for an absent symptom,
weighted by the label y, which label smoothing moves away from 0 and 1. It is computed from logits in float32 or better,
so that loss and gradient stay finite. Symptom frequencies are those of the training split.

Shapes: N items, C outputs per item, P posts; in tensors over all symptoms, C is 9.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from redsm5.sections import TaskWeights, TrainConfig

MAX_POSITIVE_WEIGHT = 100.0  # the largest ratio between the weights of a label and of its opposite
MAX_WEIGHT_RATIO = 10.0  # the largest weight of a symptom against the most frequent one
HARD = 0.2  # adaptive_focal: an output is hard if its label has a lower probability than this
HARD_GAMMA_RATIO = 5 / 3


class CriteriaLoss(nn.Module):
    """The criteria loss that `loss_function` names, averaged over items and outputs; `build_criteria_loss` makes it.

    Its weights move with `.to(device)`. They are not part of a checkpoint, since they follow from the training split.
    """

    positive_weights_C: Tensor
    symptom_weights_C: Tensor

    def __init__(self, config: TrainConfig, positive_weights_C: Tensor, symptom_weights_C: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("positive_weights_C", positive_weights_C, persistent=False)
        self.register_buffer("symptom_weights_C", symptom_weights_C, persistent=False)

    def forward(self, logits_NC: Tensor, labels_NC: Tensor, symptoms_NC: Tensor, count: Tensor | None = None) -> Tensor:
        """A scalar from logits_NC, labels_NC of 0 and 1, and symptoms_NC, the symptom of each output.

        `count` replaces N if these are a share of a batch (redsm5/data/batches.py).
        """
        logits_NC = logits_NC.to(torch.promote_types(logits_NC.dtype, torch.float32))
        targets_NC = smoothed(labels_NC.to(logits_NC.dtype), self.config.label_smoothing)
        loss_NC = self._of_each(logits_NC, targets_NC, symptoms_NC)
        loss_NC = loss_NC * self.symptom_weights_C[symptoms_NC].to(logits_NC.dtype)
        return loss_NC.mean() if count is None else loss_NC.mean(dim=1).sum() / count

    def _of_each(self, logits_NC: Tensor, targets_NC: Tensor, symptoms_NC: Tensor) -> Tensor:
        name, gamma, alpha = self.config.loss_function, self.config.focal_gamma, self.config.hybrid_weight_alpha
        if name == "bce":
            return F.binary_cross_entropy_with_logits(logits_NC, targets_NC, reduction="none")
        if name == "weighted_bce":
            weights_NC = self.positive_weights_C[symptoms_NC].to(logits_NC.dtype)
            return F.binary_cross_entropy_with_logits(logits_NC, targets_NC, pos_weight=weights_NC, reduction="none")
        assert gamma is not None  # the configuration requires it of the focal family, and alpha of hybrid
        focal_NC = focal_loss(logits_NC, targets_NC, gamma, adaptive=name == "adaptive_focal")
        if name != "hybrid":
            return focal_NC
        assert alpha is not None
        bce_NC = F.binary_cross_entropy_with_logits(logits_NC, targets_NC, reduction="none")
        return alpha * bce_NC + (1 - alpha) * focal_NC


def build_criteria_loss(config: TrainConfig, train_labels_PC: Tensor) -> CriteriaLoss:
    """The configured criteria loss, with weights from the labels of the training posts, train_labels_PC of 0 and 1."""
    weights_C = symptom_weights(train_labels_PC) if config.class_weights else torch.ones(train_labels_PC.shape[1])
    return CriteriaLoss(config, positive_weights(train_labels_PC), weights_C)


def multitask_loss(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], criteria_loss: CriteriaLoss, weights: TaskWeights
) -> Tensor:
    """The weighted sum of both tasks' losses, a scalar; the evidence head's is among the outputs."""
    criteria: Tensor = criteria_loss(
        outputs["criteria_logits_NC"], batch["labels_NC"], batch["symptoms_NC"], batch.get("item_count")
    )
    return torch.add(weights.criteria * criteria, outputs["evidence_loss"], alpha=weights.evidence)


def smoothed(labels_NC: Tensor, smoothing: float) -> Tensor:
    """y (1 - s) + s / 2: label smoothing for two classes (Szegedy et al. 2016, section 7; Müller et al. 2019)."""
    return labels_NC * (1 - smoothing) + smoothing / 2


def focal_loss(logits_NC: Tensor, targets_NC: Tensor, gamma: float, *, adaptive: bool = False) -> Tensor:
    """loss_NC = -(1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 4), p_t being the probability of the label.

    Adaptive: 5/3 of gamma if p_t < 0.2, since FLSD-53 of Mukhoti et al. 2020 has 5 there and 3 elsewhere. Gamma is
    treated as a constant: the loss jumps at p_t = 0.2, and the gradient ignores the jump.
    """
    log_p_NC, log_q_NC = F.logsigmoid(logits_NC), F.logsigmoid(-logits_NC)
    present_NC = _focal_term(log_p_NC, log_q_NC, gamma, adaptive)
    absent_NC = _focal_term(log_q_NC, log_p_NC, gamma, adaptive)
    return targets_NC * present_NC + (1 - targets_NC) * absent_NC


def _focal_term(log_pt_NC: Tensor, log_rest_NC: Tensor, gamma: float, adaptive: bool) -> Tensor:
    exponent_NC = torch.full_like(log_pt_NC, gamma)
    if adaptive:
        exponent_NC = exponent_NC.masked_fill(log_pt_NC < math.log(HARD), gamma * HARD_GAMMA_RATIO)
    return -(exponent_NC * log_rest_NC).exp() * log_pt_NC  # exp(gamma log(1 - p_t)): 1 - p_t itself may round to 0


def positive_weights(labels_PC: Tensor) -> Tensor:
    """weights_C: posts without a symptom divided by posts with it, from 1/100 to 100; 1 if no post has it."""
    with_C = labels_PC.double().sum(dim=0)
    ratio_C = ((len(labels_PC) - with_C) / with_C).clamp(1 / MAX_POSITIVE_WEIGHT, MAX_POSITIVE_WEIGHT)
    return torch.where(with_C > 0, ratio_C, 1.0).float()


def symptom_weights(labels_PC: Tensor) -> Tensor:
    """weights_C: the inverse of how many posts have the symptom, at most 10 times that of the most frequent one, then
    scaled to a mean of 1. A symptom that no post has, whose rarity is unknown, has the weight 1.
    """
    with_C = labels_PC.double().sum(dim=0)
    seen_C = with_C > 0
    rarity_C = (with_C.max() / with_C).clamp(max=MAX_WEIGHT_RATIO)
    return torch.where(seen_C, rarity_C / rarity_C[seen_C].mean(), 1.0).float()
