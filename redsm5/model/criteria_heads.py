"""Criteria heads: from the encoder's states to one logit for each symptom.

Shapes: B posts, T tokens, H hidden, C criteria.
"""

from torch import Tensor, nn


class LinearCriteriaHead(nn.Module):
    """Dropout and one linear layer over the first token, as BERT classifies (Devlin et al. 2019, section 4.1)."""

    def __init__(self, hidden_size: int, criteria: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, criteria)

    def forward(self, states_BTH: Tensor) -> Tensor:
        """logits_BC."""
        logits_BC: Tensor = self.linear(self.dropout(states_BTH[:, 0]))
        return logits_BC
