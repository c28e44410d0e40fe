"""The loss of both tasks.

Shapes: B posts, T tokens, C criteria.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from redsm5.sections import TaskWeights

IGNORED = -100


def criteria_loss(logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over posts and symptoms."""
    return F.binary_cross_entropy_with_logits(logits_BC.float(), labels_BC)


def evidence_loss(logits_BCT2: Tensor, starts_BC: Tensor, ends_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """Cross-entropy of the start and the end token, averaged over both and over posts and symptoms.

    A symptom that is present but whose evidence was not found or lies beyond the window teaches nothing here: to
    train it as "no evidence" would be wrong.
    """
    unknown_BC = (labels_BC > 0) & (starts_BC == 0)
    if unknown_BC.all():
        return (logits_BCT2 * 0.0).sum()  # not the sum times 0: the masked logits add up to -inf
    logits_NT2 = logits_BCT2.float().flatten(0, 1)
    starts_N = starts_BC.masked_fill(unknown_BC, IGNORED).flatten()
    ends_N = ends_BC.masked_fill(unknown_BC, IGNORED).flatten()
    start = F.cross_entropy(logits_NT2[..., 0], starts_N, ignore_index=IGNORED)
    end = F.cross_entropy(logits_NT2[..., 1], ends_N, ignore_index=IGNORED)
    return (start + end) / 2


def multitask_loss(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], weights: TaskWeights) -> Tensor:
    """The weighted sum of both tasks' losses, a scalar."""
    criteria = criteria_loss(outputs["criteria_logits_BC"], batch["labels_BC"])
    evidence = evidence_loss(outputs["evidence_logits_BCT2"], batch["starts_BC"], batch["ends_BC"], batch["labels_BC"])
    return torch.add(weights.criteria * criteria, evidence, alpha=weights.evidence)
