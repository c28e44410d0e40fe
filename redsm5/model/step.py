"""One batch's forward and backward, in the parts that it comes in (redsm5/data/batches.py)."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from redsm5.model.adversarial import EmbeddingAdversary

LossOf = Callable[[dict[str, Tensor], dict[str, Tensor]], Tensor]


def forward_backward(
    accelerator: Accelerator,
    model: nn.Module,
    parts: Sequence[dict[str, Tensor]],
    loss_of: LossOf,
    adversary: EmbeddingAdversary,
) -> Tensor:
    """Add the gradient of a batch's loss, and of the adversary's, to the parameters; the loss, without a gradient.

    Of several processes, each may have another number of parts: they exchange gradients with their last one only.
    """
    losses = []
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            loss = loss_of(model(part), part)
            accelerator.backward(loss)
            if adversary:
                with adversary.attack():
                    accelerator.backward(loss_of(model(part), part))
        losses.append(loss.detach())
    return torch.stack(losses).sum()
