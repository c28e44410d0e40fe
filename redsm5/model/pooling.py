"""Poolings: from the encoder's states of a post's tokens to one vector for the post.

Shapes: B posts, T tokens, H hidden.
"""

import torch
from torch import Tensor, nn


class ClsPooling(nn.Module):
    """The first token's state (Devlin et al. 2019, section 4.1)."""

    def forward(self, states_BTH: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """pooled_BH."""
        return states_BTH[:, 0]


class AttentionPooling(nn.Module):
    """The mean of all tokens' states, weighted by how well each meets a learned query (Yang et al. 2016, eq. 6-7)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, 1)

    def forward(self, states_BTH: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """pooled_BH; padding has no weight."""
        scores_BT = self.query(states_BTH).squeeze(-1)
        scores_BT = scores_BT.masked_fill(attention_mask_BT == 0, torch.finfo(scores_BT.dtype).min)
        pooled_BH: Tensor = (scores_BT.softmax(dim=-1).unsqueeze(-1) * states_BTH).sum(dim=1)
        return pooled_BH


def build_pooling(name: str, hidden_size: int) -> nn.Module:
    """The pooling that `criteria_pooling` names."""
    return AttentionPooling(hidden_size) if name == "attention" else ClsPooling()
