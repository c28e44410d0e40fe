"""Poolings: from the encoder's states of a sequence's tokens to one vector per sequence.

A mask selects the tokens; the others have no effect, and where none is selected, mean, maximum and attention return
zeros. Shapes: S sequences, T tokens, H hidden.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ClsPooling(nn.Module):
    """The first token's state (Devlin et al. 2019, section 4.1)."""

    def forward(self, states_STH: Tensor, mask_ST: Tensor) -> Tensor:
        """pooled_SH."""
        return states_STH[:, 0]


class MeanPooling(nn.Module):
    """The mean of the tokens' states (Reimers and Gurevych 2019, section 3)."""

    def forward(self, states_STH: Tensor, mask_ST: Tensor) -> Tensor:
        """pooled_SH."""
        summed_SH = (states_STH * mask_ST.unsqueeze(-1)).sum(dim=1)
        return summed_SH / mask_ST.sum(dim=1, keepdim=True).clamp(min=1)


class MaxPooling(nn.Module):
    """The maximum over the tokens, in each dimension (Collobert et al. 2011)."""

    def forward(self, states_STH: Tensor, mask_ST: Tensor) -> Tensor:
        """pooled_SH."""
        lowest = torch.finfo(states_STH.dtype).min
        highest_SH = states_STH.masked_fill(mask_ST.unsqueeze(-1) == 0, lowest).amax(dim=1)
        return highest_SH.masked_fill(mask_ST.sum(dim=1, keepdim=True) == 0, 0.0)


class AttentionPooling(nn.Module):
    """The mean of the tokens' states, weighted by their similarity to a learned query (Yang et al. 2016, eq. 6-7).

    The query has no bias: it would shift all tokens' scores alike, which the softmax cancels.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, states_STH: Tensor, mask_ST: Tensor) -> Tensor:
        """pooled_SH."""
        scores_ST = self.query(states_STH).squeeze(-1)
        weights_ST = scores_ST.masked_fill(mask_ST == 0, torch.finfo(scores_ST.dtype).min).softmax(dim=-1) * mask_ST
        pooled_SH: Tensor = (weights_ST.unsqueeze(-1) * states_STH).sum(dim=1)
        return pooled_SH


class ScalarMix(nn.Module):
    """A learned mixture of layers: gamma * sum_j softmax(w)_j h_j (Peters et al. 2018, eq. 1); initially the mean."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """mixed_STH, from states_STH of each layer."""
        shares = self.weights.softmax(dim=0).unbind()
        mixed_STH: Tensor = self.gamma * sum(
            share * states_STH for share, states_STH in zip(shares, layers, strict=True)
        )
        return mixed_STH


def build_pooling(name: str, hidden_size: int) -> nn.Module:
    """The pooling that `criteria_pooling` or `coupling_pooling` names; last_2_layer_mix is [CLS] of the mixture."""
    if name == "attention":
        return AttentionPooling(hidden_size)
    return {"mean": MeanPooling, "max": MaxPooling}.get(name, ClsPooling)()
