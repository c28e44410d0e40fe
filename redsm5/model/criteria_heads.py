"""Criteria heads: from a sequence's vector to one logit per output, and from an item's windows to the item's logits.

Shapes: S sequences, N items, W windows per item, D size of the vector, M hidden, C outputs.
"""

import torch
from torch import Tensor, nn

from redsm5.model.activation import build_activation
from redsm5.sections import ModelConfig

DROPOUT_SAMPLES = 5


class LinearHead(nn.Module):
    """Dropout and one linear layer, as in BERT for classification (Devlin et al. 2019, section 4.1)."""

    def __init__(self, size: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.criteria_dropout)
        self.linear = nn.Linear(size, outputs)

    def forward(self, pooled_SD: Tensor) -> Tensor:
        """logits_SC."""
        logits_SC: Tensor = self.linear(self.dropout(pooled_SD))
        return logits_SC


class MlpHead(nn.Module):
    """One hidden layer between two dropouts, as in RoBERTa for classification (Liu et al. 2019; in transformers,
    RobertaClassificationHead).
    """

    def __init__(self, size: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.criteria_dropout)
        self.hidden = nn.Linear(size, _hidden_dim(config))
        self.activation = build_activation(config.activation)
        self.linear = nn.Linear(_hidden_dim(config), outputs)

    def forward(self, pooled_SD: Tensor) -> Tensor:
        """logits_SC."""
        hidden_SM = self.activation(self.hidden(self.dropout(pooled_SD)))
        logits_SC: Tensor = self.linear(self.dropout(hidden_SM))
        return logits_SC


class MlpResidualHead(nn.Module):
    """LayerNorm(x + W2 f(W1 x)), then a linear layer: the feed-forward sub-layer of a Transformer with its residual
    connection (Vaswani et al. 2017, sections 3.1 and 3.3).
    """

    def __init__(self, size: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.criteria_dropout)
        self.up = nn.Linear(size, _hidden_dim(config))
        self.activation = build_activation(config.activation)
        self.down = nn.Linear(_hidden_dim(config), size)
        self.norm = nn.LayerNorm(size)
        self.linear = nn.Linear(size, outputs)

    def forward(self, pooled_SD: Tensor) -> Tensor:
        """logits_SC."""
        change_SD = self.down(self.activation(self.up(pooled_SD)))
        logits_SC: Tensor = self.linear(self.norm(pooled_SD + self.dropout(change_SD)))
        return logits_SC


class GatedHead(nn.Module):
    """f(W x) * (V x), then a linear layer: a gated linear unit (Dauphin et al. 2017, eq. 1) whose gate is the
    activation (Shazeer 2020, eq. 5).
    """

    def __init__(self, size: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.criteria_dropout)
        self.gate = nn.Linear(size, _hidden_dim(config))
        self.value = nn.Linear(size, _hidden_dim(config))
        self.activation = build_activation(config.activation)
        self.linear = nn.Linear(_hidden_dim(config), outputs)

    def forward(self, pooled_SD: Tensor) -> Tensor:
        """logits_SC."""
        pooled_SD = self.dropout(pooled_SD)
        logits_SC: Tensor = self.linear(self.dropout(self.activation(self.gate(pooled_SD)) * self.value(pooled_SD)))
        return logits_SC


class MultiSampleDropoutHead(LinearHead):
    """A linear layer whose logits are, in training, the mean over several dropout masks (Inoue 2019)."""

    def forward(self, pooled_SD: Tensor) -> Tensor:
        """logits_SC."""
        if not self.training:
            return super().forward(pooled_SD)
        return torch.stack(
            [super(MultiSampleDropoutHead, self).forward(pooled_SD) for _ in range(DROPOUT_SAMPLES)]
        ).mean(dim=0)


def build_criteria_head(config: ModelConfig, *, size: int, outputs: int) -> nn.Module:
    """The head that `criteria_head_type` names: it maps vectors of `size` to `outputs` logits."""
    heads = {
        "linear": LinearHead,
        "mlp": MlpHead,
        "mlp_residual": MlpResidualHead,
        "gated": GatedHead,
        "multi_sample_dropout": MultiSampleDropoutHead,
    }
    return heads[config.criteria_head_type](size, outputs, config)


def over_windows(logits_SC: Tensor, windows_NW: Tensor) -> Tensor:
    """logits_NC: for each item the highest over its windows, since a post shows a symptom if any part of it does.

    windows_NW: indices into S, padded with -1; each item has at least one.
    """
    absent_NW1 = (windows_NW < 0).unsqueeze(-1)
    return logits_SC[windows_NW.clamp(min=0)].masked_fill(absent_NW1, -torch.inf).amax(dim=1)


def _hidden_dim(config: ModelConfig) -> int:
    assert config.criteria_hidden_dim is not None  # the configuration requires it of these heads
    return config.criteria_hidden_dim
