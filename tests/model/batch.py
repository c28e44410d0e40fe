"""Batches of random posts for the tests of the model, and its configuration.

Shapes: S sequences, N items, C outputs, T tokens, W windows an item.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from redsm5.config import compose
from redsm5.sections import ModelConfig

TOKENS, VOCABULARY = 16, 50
LENGTHS = (16, 11, 16, 7)  # of the sequences, special tokens included
WINDOWS = ((0, 1), (2, -1), (3, -1))  # the first item has two windows

Batch = dict[str, Tensor]


@cache
def _default() -> dict[str, Any]:
    return compose([f"model.max_length={TOKENS}"]).model.model_dump()


def model_config(*overrides: str) -> ModelConfig:
    """The model's default configuration, the tiny encoder with a short window, with other values of these keys."""
    changes = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(changes, dict)
    return ModelConfig.model_validate(_default() | changes)


def random_batch(
    *,
    outputs: int = 9,
    lengths: Sequence[int] = LENGTHS,
    windows: Sequence[Sequence[int]] = WINDOWS,
    tokens: int = TOKENS,
    text_start: int = 1,
    seed: int = 0,
) -> Batch:
    """Posts of these lengths: special tokens up to `text_start`, the text, one special token, padding.

    The first sequence has known evidence, twice, for its first output; for most others some is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    sequences, items = len(lengths), len(windows)
    token_T, length_S1 = torch.arange(tokens), torch.tensor(lengths).unsqueeze(-1)
    attention_mask_ST = (token_T < length_S1).long()
    text_mask_ST = ((token_T >= text_start) & (token_T < length_S1 - 1)).long()
    input_ids_ST = torch.randint(5, VOCABULARY, (sequences, tokens), generator=generator) * attention_mask_ST

    spans = [(0, 0, text_start, text_start + 1), (0, 0, text_start + 3, text_start + 3)]
    known_SC = torch.ones(sequences, outputs, dtype=torch.bool)
    for s, length in enumerate(lengths):
        for c in range(outputs):
            draw = torch.rand(3, generator=generator).tolist()
            if (s, c) != (0, 0) and length - 1 > text_start and draw[0] < 0.6:
                first = text_start + int(draw[1] * (length - 1 - text_start))
                spans.append((s, c, first, first + int(draw[2] * (length - 1 - first))))
            known_SC[s, c] = (s, c) == (0, 0) or draw[0] < 0.9
    sentences = [
        (s, first, end - 1)
        for s, length in enumerate(lengths)
        for first, end in pairwise([*range(text_start, length - 1, 3), length - 1])
    ]
    return {
        "index_N": torch.arange(items),
        "labels_NC": torch.randint(0, 2, (items, outputs), generator=generator).float(),
        "symptoms_NC": torch.arange(outputs).expand(items, -1),
        "input_ids_ST": input_ids_ST,
        "attention_mask_ST": attention_mask_ST,
        "text_mask_ST": text_mask_ST,
        "windows_NW": torch.tensor(windows),
        "spans_G4": torch.tensor(spans),
        "known_SC": known_SC,
        "sentences_M3": torch.tensor(sentences).reshape(-1, 3),
    }


def without_padding(batch: Batch, length: int) -> Batch:
    """The same batch with as many tokens a sequence as the longest needs."""
    return {name: tensor[:, :length] if name.endswith("_ST") else tensor for name, tensor in batch.items()}


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
