"""Evidence heads: from the encoder's states to one span of tokens, or none, for each symptom.

Shapes: B posts, T tokens, H hidden, C criteria; the last dimension of size 2 is (start, end). Token 0 is [CLS]; the
span (0, 0) means that the post holds no evidence (Devlin et al. 2019, section 4.3, for SQuAD 2.0).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_SPAN_TOKENS = 64  # longer than nearly every sentence; keeps a span from swallowing half a post


class StartEndLinearHead(nn.Module):
    """A start and an end logit for each token and symptom from one linear layer (Devlin et al. 2019, section 4.2)."""

    def __init__(self, hidden_size: int, criteria: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden_size, criteria * 2)

    def forward(self, states_BTH: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """logits_BCT2; padding and the closing special token, which are no evidence, have the lowest value there is."""
        B, T, _ = states_BTH.shape
        logits_BCT2 = self.linear(self.dropout(states_BTH)).view(B, T, -1, 2).transpose(1, 2)
        before_last_BT = F.pad(attention_mask_BT[:, 1:], (0, 1))  # 1 where another token follows
        no_text_B1T1 = before_last_BT[:, None, :, None] == 0
        masked: Tensor = logits_BCT2.masked_fill(no_text_B1T1, torch.finfo(logits_BCT2.dtype).min)
        return masked


def decode_spans(logits_BCT2: Tensor) -> Tensor:
    """The best span of each post and symptom as spans_BC2, first and last token; (0, 0) where none beats it.

    A span's score is the sum of its start and end logit; it lies after [CLS] and is at most MAX_SPAN_TOKENS long.
    """
    _, C, T, _ = logits_BCT2.shape
    logits_BCT2 = logits_BCT2.float()
    position = torch.arange(T, device=logits_BCT2.device)
    length_TT = position[None, :] - position[:, None]
    allowed_TT = (length_TT >= 0) & (length_TT < MAX_SPAN_TOKENS) & (position[:, None] > 0)
    spans = []
    for c in range(C):  # one symptom at a time: all of them at once would need C x T x T scores a post
        start_BT, end_BT = logits_BCT2[:, c, :, 0], logits_BCT2[:, c, :, 1]
        score_BTT = (start_BT[:, :, None] + end_BT[:, None, :]).masked_fill(~allowed_TT, -torch.inf)
        best_B, index_B = score_BTT.flatten(1).max(dim=1)
        span_B2 = torch.stack([index_B // T, index_B % T], dim=-1)
        null_B = start_BT[:, 0] + end_BT[:, 0] >= best_B
        spans.append(span_B2.masked_fill(null_B[:, None], 0))
    return torch.stack(spans, dim=1)
