"""Adversarial training (FGM): each sequence is also trained on with its embeddings moved to increase the loss.

It follows Miyato, Dai and Goodfellow 2017 (section 3), on the encoder's word embeddings, which are not normalized here.
The embeddings of a sequence are moved, not the weights, so nothing must be restored. The direction does not depend on
the gradient's norm, and so neither on gradient accumulation nor on loss scaling.

Shapes: S sequences, T tokens, H embedding size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EmbeddingAdversary:
    """Records the gradient of a module's output in one forward and backward pass, and moves the output in the next one.

        accelerator.backward(compute_loss())
        if adversary:
            with adversary.attack():
                accelerator.backward(compute_loss())

    Both gradients add up in the parameters. A forward pass may call the module several times, for the groups of a
    batch; the attacked pass must call it for the same groups in the same order. Nothing is recorded in evaluation mode
    or without gradients, and nothing is kept from one step to the next. With epsilon 0 it is false and does not change
    the module.

    Args:
        embeddings: the module; its output is vectors_STH.
        epsilon: the L2 norm of the move of a sequence, over all its tokens, in the units of that output. In half
            precision the move is rounded, and a small one may be lost.
    """

    def __init__(self, embeddings: nn.Module, epsilon: float) -> None:
        self._epsilon = epsilon
        self._clean: list[Tensor] = []  # vectors_STH of each call
        self._moves: Iterator[Tensor] | None = None
        if epsilon > 0:
            embeddings.register_forward_hook(self._on_forward)

    def __bool__(self) -> bool:
        return self._epsilon > 0

    @contextmanager
    def attack(self) -> Iterator[None]:
        """A context in which the forward pass of the last batch runs on the moved embeddings.

        Raises:
            RuntimeError: there was no forward and backward pass in training mode before.
        """
        gradients = [clean_STH.grad for clean_STH in self._clean if clean_STH.grad is not None]
        self._clean = []  # frees its memory for the second forward pass
        if not gradients:
            raise RuntimeError("an attack needs a forward pass in training mode, and its backward pass, first")
        self._moves = iter([steepest_move(gradient_STH, self._epsilon) for gradient_STH in gradients])
        del gradients
        try:
            yield
        finally:
            self._moves = None

    def _on_forward(self, module: nn.Module, inputs: tuple[object, ...], vectors_STH: Tensor) -> Tensor:
        if not (module.training and torch.is_grad_enabled()):
            return vectors_STH
        if self._moves is not None:
            return vectors_STH + next(self._moves).to(vectors_STH.dtype)
        if not vectors_STH.requires_grad:  # frozen embeddings
            vectors_STH = vectors_STH.detach().requires_grad_()
        vectors_STH.retain_grad()
        if self._clean and self._clean[-1].grad is not None:  # left from a batch that was not attacked
            self._clean = []
        self._clean.append(vectors_STH)
        return vectors_STH


def steepest_move(gradient_STH: Tensor, epsilon: float) -> Tensor:
    """move_STH = epsilon g / ||g||_2 for each sequence's g, in float32; 0 where g is 0 or not finite."""
    gradient_SX = gradient_STH.float().flatten(1)
    largest_S1 = gradient_SX.abs().amax(dim=1, keepdim=True)
    direction_SX = gradient_SX / largest_S1  # squares of very large or small numbers would overflow or vanish
    move_SX = epsilon * direction_SX / direction_SX.norm(dim=1, keepdim=True)
    return torch.where((largest_S1 > 0) & largest_S1.isfinite(), move_SX, 0.0).view_as(gradient_STH)
