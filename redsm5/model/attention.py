"""Attention with fast dropout on a CPU, where torch's own draws the random numbers one by one.

Shapes: S sequences, A attention heads, Q and K tokens (queries and keys), D size of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sdpa_with_fast_dropout"  # its name in transformers
CHANCES = 2**16  # values of a 16-bit number: the dropout rate is rounded to a multiple of 1 / CHANCES


def attention(
    module: nn.Module,
    query_SAQD: Tensor,
    key_SAKD: Tensor,
    value_SAKD: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' `sdpa`, except for uncompiled training with dropout on a CPU. There it computes the same function
    with another random stream: each random 64-bit number decides four attention weights, with a dropout rate rounded to
    1/65,536.

    That takes a sixth of the time of torch's dropout, which is a quarter of a step if posts are long and the model is
    small (`just bench throughput`). The mask is as for `sdpa`: bool (True: visible), or added to the scores. Returns
    SQAD.
    """
    dropped = min(round(dropout * CHANCES), CHANCES - 1)
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    grouped = getattr(module, "num_key_value_groups", 1) > 1
    plain = not causal and not grouped and kwargs.get("position_bias") is None
    if not (dropped and plain and query_SAQD.device.type == "cpu") or torch.compiler.is_compiling():
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_SAQD, key_SAKD, value_SAKD, mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output
    scale = query_SAQD.shape[-1] ** -0.5 if scaling is None else scaling
    scores_SAQK = (query_SAQD * scale) @ key_SAKD.transpose(2, 3)
    if mask is not None and mask.dtype == torch.bool:
        # Not infinite: a padded query with all keys masked would give NaN, and so would every gradient.
        scores_SAQK = scores_SAQK.masked_fill(~mask, torch.finfo(scores_SAQK.dtype).min)
    elif mask is not None:
        scores_SAQK = scores_SAQK + mask
    weights_SAQK = scores_SAQK.softmax(-1)
    kept_SAQK = weights_SAQK.masked_fill(_true_of(dropped, weights_SAQK), 0.0)
    output_SQAD = (kept_SAQK.to(value_SAKD.dtype) @ value_SAKD).transpose(1, 2) * (CHANCES / (CHANCES - dropped))
    return output_SQAD.contiguous(), None


def _true_of(chances: int, like: Tensor) -> Tensor:
    """Booleans of the shape of `like`, each true with probability chances / CHANCES, from torch's own generator."""
    numbers = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    return (numbers.view(torch.int16)[: like.numel()] < chances - CHANCES // 2).view_as(like)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
