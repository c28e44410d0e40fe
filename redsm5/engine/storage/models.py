"""Models as checkpoints see them: a PyTorch module without its wrappers, or an object whose state is NumPy arrays."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from redsm5.engine.jsonio import dumps, loads

JSON = "json"  # the entry that holds the values that are no arrays


class Stateful(Protocol):
    """A model with PyTorch's two methods, whose state is named arrays, and values that JSON can hold."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


class ArrayModel:
    """Such a model, as checkpoints see a module: its state is tensors, and it has no parameters."""

    def __init__(self, model: Stateful) -> None:
        self._model = model

    def state_dict(self) -> dict[str, Tensor]:
        """Its arrays as tensors; the other values are one tensor of bytes, named `json`."""
        state = self._model.state_dict()
        tensors = {name: torch.from_numpy(np.array(v)) for name, v in state.items() if isinstance(v, np.ndarray)}
        if JSON in tensors:
            raise ValueError(f"a model's state must not have an array named {JSON}")
        if plain := {name: value for name, value in state.items() if name not in tensors}:
            tensors[JSON] = torch.frombuffer(bytearray(dumps(plain, strict=True)), dtype=torch.uint8)
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the model its state back; the arrays are its own to change."""
        state: dict[str, Any] = {name: tensor.numpy().copy() for name, tensor in tensors.items() if name != JSON}
        if JSON in tensors:
            state |= loads(tensors[JSON].numpy().tobytes())
        self._model.load_state_dict(state)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(())

    @property
    def name(self) -> str:
        return type(self._model).__qualname__


def unwrapped(model: Any) -> nn.Module | ArrayModel:
    """The model without what Accelerate wraps around it."""
    if isinstance(model, nn.Module):
        return extract_model_from_parallel(model)  # type: ignore[no-any-return]
    return ArrayModel(model)


def architecture(model: nn.Module | ArrayModel) -> str:
    """Its class and, since a module has them from the start, the first digits of a SHA-256 over its tensors' names,
    shapes and dtypes.
    """
    if isinstance(model, ArrayModel):
        return model.name
    tensors = sorted((name, tuple(t.shape), str(t.dtype)) for name, t in model.state_dict().items())
    return f"{type(model).__qualname__}, layout {hashlib.sha256(repr(tensors).encode()).hexdigest()[:12]}"
