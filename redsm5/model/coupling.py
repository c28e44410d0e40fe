"""Coupling of the two tasks: the criteria head also reads what the evidence head reads.

The evidence head reads its own projection of the encoder's states; the same projection, pooled over the post's tokens,
is joined to the criteria head's input. So one task's hidden layer is an input of the other, and both losses train it,
as in stack-propagation (Zhang and Weiss 2016). Shapes: S sequences, T tokens, H hidden, D = 2H with concat and else H.
"""

import torch
from torch import Tensor, nn

from redsm5.model.activation import build_activation
from redsm5.model.pooling import build_pooling
from redsm5.sections import ModelConfig


class Coupling(nn.Module):
    """The projection f(W h + b) of the states, its pooling, and one of the ways to join two vectors x and y.

    concat: [x; y]. add: x + y. mean: (x + y) / 2. weighted_sum: a x + b y with learned a and b, initially 1.
    weighted_mean: a x + b y with (a, b) the softmax of two learned numbers, initially equal (Peters et al. 2018, eq. 1,
    without gamma).

    Attributes:
        size: D, the size of the joined vector.
    """

    def __init__(self, config: ModelConfig, hidden_size: int) -> None:
        super().__init__()
        assert config.coupling_method is not None  # the configuration requires both of a coupled model
        assert config.coupling_pooling is not None
        self.method = config.coupling_method
        self.size = 2 * hidden_size if self.method == "concat" else hidden_size
        self.projection = nn.Linear(hidden_size, hidden_size)
        self.activation = build_activation(config.activation)
        self.pooling = build_pooling(config.coupling_pooling, hidden_size)
        if self.method in ("weighted_sum", "weighted_mean"):
            self.weights = nn.Parameter(torch.ones(2))

    def forward(self, states_STH: Tensor, pooled_SH: Tensor, text_mask_ST: Tensor) -> tuple[Tensor, Tensor]:
        """evidence_STH, the input of the evidence head, and joined_SD, the input of the criteria head."""
        evidence_STH = self.activation(self.projection(states_STH))
        evidence_SH = self.pooling(evidence_STH, text_mask_ST)
        return evidence_STH, self._join(pooled_SH, evidence_SH)

    def _join(self, x_SH: Tensor, y_SH: Tensor) -> Tensor:
        if self.method == "concat":
            return torch.cat([x_SH, y_SH], dim=-1)
        if self.method == "add":
            return x_SH + y_SH
        if self.method == "mean":
            return (x_SH + y_SH) / 2
        a, b = self.weights if self.method == "weighted_sum" else self.weights.softmax(dim=0)
        joined_SH: Tensor = a * x_SH + b * y_SH
        return joined_SH
