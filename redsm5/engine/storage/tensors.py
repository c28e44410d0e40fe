"""Tensors to and from the bytes of a safetensors file, without needless copies.

A `TensorFile` lays out such a file once, in one memory buffer. Filling it with the current tensors is one copy, and its
bytes can be written while training changes the tensors. `read` returns tensors that are views of a file's bytes. The
format is https://huggingface.co/docs/safetensors: 8 bytes with the length of the header, the header in JSON, then the
tensors one after the other.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from redsm5.engine.files import PAGE
from redsm5.engine.jsonio import dumps, loads
from redsm5.engine.storage.store import DamagedCheckpoint

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.complex64: "C64",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
MAX_HEADER = 100_000_000  # bytes, as in the safetensors library
ALIGNMENT = 64  # of the first tensor; the largest elements come first, so that all others are aligned too


class TensorFile:
    """The bytes of a safetensors file with these tensors' names, types and shapes; in pinned memory with `pinned`."""

    def __init__(self, tensors: Mapping[str, Tensor], *, pinned: bool) -> None:
        self._signature = _signature(tensors)
        header, at = {}, 0
        names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
        for name in names:
            tensor = tensors[name]
            size = tensor.numel() * tensor.element_size()
            header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
            at += size
        text = dumps(header)
        text += b" " * (-(8 + len(text)) % ALIGNMENT)
        size = 8 + len(text) + at
        memory = torch.empty(size + PAGE, dtype=torch.uint8, pin_memory=pinned)
        on_a_page = -memory.data_ptr() % PAGE  # so that it can be written past the page cache
        self._bytes = memory[on_a_page : on_a_page + size]
        self.content = memoryview(self._bytes.numpy())  # type: ignore[arg-type]
        self.content[: 8 + len(text)] = len(text).to_bytes(8, "little") + text
        self._views = _views(self._bytes[8 + len(text) :], header)

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether these tensors have the names, types and shapes that it was made for."""
        return _signature(tensors) == self._signature

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors. When this returns, they may change."""
        if not (names := list(tensors)):
            return
        sources = [tensors[name].detach() for name in names]
        torch._foreach_copy_([self._views[name] for name in names], sources, non_blocking=True)
        if any(source.is_cuda for source in sources):
            torch.cuda.synchronize()


def read(content: bytearray) -> dict[str, Tensor]:
    """The tensors of a safetensors file, as views of its bytes.

    Raises:
        DamagedCheckpoint: it is no such file: its header cannot be read, or the tensors in it overlap, leave gaps or
            reach beyond its end, which the format forbids.
    """
    size = int.from_bytes(content[:8], "little")
    if not 0 < size <= min(len(content) - 8, MAX_HEADER):
        raise DamagedCheckpoint(f"a safetensors file of {len(content)} bytes has a header of {size}")
    try:
        header = loads(content[8 : 8 + size])
        header.pop("__metadata__", None)
        spans = sorted((*entry["data_offsets"], _bytes(entry)) for entry in header.values())
        at = 0
        for start, end, expected in spans:
            if start != at or end - start != expected:
                raise ValueError(f"bytes {start} to {end} hold a tensor of {expected}, and {at} was next")
            at = end
        if at != len(content) - 8 - size:
            raise ValueError(f"its tensors end at byte {at} of {len(content) - 8 - size}")
        return _views(torch.frombuffer(content, dtype=torch.uint8)[8 + size :], header)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedCheckpoint(f"a safetensors file is malformed: {error}") from error


def _bytes(entry: Mapping[str, Any]) -> int:
    """How many bytes a tensor of this type and shape takes."""
    if any(not isinstance(length, int) or length < 0 for length in entry["shape"]):
        raise ValueError(f"a tensor has the shape {entry['shape']}")
    shape: list[int] = entry["shape"]
    return math.prod(shape) * DTYPES[entry["dtype"]].itemsize


def _views(data: Tensor, header: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    views = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        views[name] = data[start:end].view(DTYPES[entry["dtype"]]).view(entry["shape"])
    return views


def _signature(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.dtype, torch.Size]]:
    return sorted((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())
