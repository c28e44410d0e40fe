"""Forward and backward pass of one batch, one micro-batch at a time (redsm5/data/batches.py)."""

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
    micro_batches: Sequence[dict[str, Tensor]],
    loss_of: LossOf,
    adversary: EmbeddingAdversary,
    factor: float = 1.0,
) -> Tensor:
    """Accumulate the gradients of a batch's loss, and of the adversary's, in the parameters.

    The processes may have different numbers of micro-batches; they exchange gradients only with their last one.

    Args:
        factor: of the loss's gradient, where Accelerate divides it by more than the batches of the group.

    Returns:
        The batch's loss, a scalar, detached.
    """
    losses = []
    for number, micro_batch in enumerate(micro_batches, start=1):
        with nullcontext() if number == len(micro_batches) else accelerator.no_sync(model):
            loss = loss_of(model(micro_batch), micro_batch)
            accelerator.backward(loss * factor)
            if adversary:
                with adversary.attack():
                    accelerator.backward(loss_of(model(micro_batch), micro_batch) * factor)
        losses.append(loss.detach())
    return torch.stack(losses).sum()
