"""Criteria heads: from one vector for a post to one logit for each symptom.

Shapes: B posts, H hidden, C criteria.
"""

from torch import Tensor, nn


class LinearCriteriaHead(nn.Module):
    """Dropout and one linear layer, as BERT classifies (Devlin et al. 2019, section 4.1)."""

    def __init__(self, hidden_size: int, criteria: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, criteria)

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """logits_BC."""
        logits_BC: Tensor = self.linear(self.dropout(pooled_BH))
        return logits_BC
