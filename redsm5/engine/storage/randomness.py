"""The random states of Python, NumPy and torch, as a checkpoint stores them."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Generators = tuple[dict[str, Tensor], dict[str, Any]]


def random_generators() -> Generators:
    """The states of all random generators of this process: tensors, and what JSON can hold."""
    tensors = {"rng.torch": torch.get_rng_state()}
    for index, state in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []):
        tensors[f"rng.cuda.{index}"] = state
    name, keys, *rest = np.random.get_state(legacy=True)
    tensors["rng.numpy"] = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    return tensors, {"rng_numpy": [name, *rest], "rng_python": random.getstate()}


def set_random_generators(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Put them back as `random_generators` found them."""
    torch.set_rng_state(tensors["rng.torch"].clone())
    if torch.cuda.is_available():
        states = [tensors[k].clone() for k in sorted(tensors) if k.startswith("rng.cuda.")]
        torch.cuda.set_rng_state_all(states[: torch.cuda.device_count()])  # fewer may be visible here
    name, *rest = plain["rng_numpy"]
    np.random.set_state((name, tensors["rng.numpy"].numpy().astype(np.uint32), *rest))
    version, internal, gauss = plain["rng_python"]
    random.setstate((version, tuple(internal), gauss))
