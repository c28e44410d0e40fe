"""Models as checkpoints see them: a PyTorch module without its wrappers, or an object whose state is NumPy arrays."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

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
        """Its arrays as tensors; the other values are one tensor of bytes, named `json`.

        Raises:
            TypeError: a value is neither an array of numbers nor one that JSON can hold; says which.
            ValueError: an array is named json.
        """
        state = self._model.state_dict()
        if unnamed := [name for name in state if not isinstance(name, str)]:
            raise TypeError(f"the name {unnamed[0]!r} in a model's state is not a text")
        tensors = {name: _tensor(name, v) for name, v in state.items() if isinstance(v, np.ndarray)}
        if JSON in tensors:
            raise ValueError(f"a model's state must not have an array named {JSON}")
        if plain := {name: _text(name, value) for name, value in state.items() if name not in tensors}:
            text = ", ".join(f"{json.dumps(name)}: {value}" for name, value in plain.items())
            tensors[JSON] = torch.frombuffer(bytearray(f"{{{text}}}".encode()), dtype=torch.uint8)
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the model its state back; the arrays are its own to change."""
        state: dict[str, Any] = {name: tensor.numpy().copy() for name, tensor in tensors.items() if name != JSON}
        if JSON in tensors:
            state |= json.loads(tensors[JSON].numpy().tobytes())
        self._model.load_state_dict(state)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter(())

    @property
    def name(self) -> str:
        return type(self._model).__qualname__


def _tensor(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    try:
        return torch.from_numpy(np.array(array))
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} in a model's state is an array of {array.dtype}: only numbers and booleans can be saved"
        ) from None


def _text(name: str, value: Any) -> str:
    """A value as JSON, by the standard library, which keeps infinite numbers and whole numbers of any size."""
    try:
        return json.dumps(value, default=_item)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} in a model's state is neither an array nor a value for JSON: {error}") from None


def _item(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__}")


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
