"""The tensors of a safetensors file are those that the library reads, and what it refuses is refused."""

import json
from collections.abc import Callable

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load as library_load
from safetensors.torch import save as library_save

from redsm5.engine.storage.store import DamagedCheckpoint
from redsm5.engine.storage.tensors import read

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "ids": torch.arange(3),
    "none": torch.zeros(0, 4),
    "flag": torch.tensor([True]),
    "half": torch.ones(2, dtype=torch.bfloat16),
}


def test_what_the_library_writes_is_read_as_it_reads_it() -> None:
    content = library_save(TENSORS, {"format": "pt"})
    ours, theirs = read(bytearray(content)), library_load(content)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs)


def rewritten(change: Callable[[dict], object]) -> bytes:
    """A file of two tensors whose header has been changed."""
    content = library_save({"a": torch.ones(4), "b": torch.zeros(4)})
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def set_offsets(name: str, start: int, end: int) -> Callable[[dict], object]:
    return lambda header: header[name].update(data_offsets=[start, end])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x01\x02", id="shorter than a length"),
        pytest.param((1 << 62).to_bytes(8, "little") + b"{}", id="a header of 2^62 bytes"),
        pytest.param((200_000_000).to_bytes(8, "little") + b"{}" + b" " * 200_000_000, id="a header beyond measure"),
        pytest.param((2).to_bytes(8, "little") + b"[]", id="a header that is a list"),
        pytest.param((2).to_bytes(8, "little") + b"{x", id="a header that is no JSON"),
        pytest.param(rewritten(set_offsets("b", 0, 16)), id="overlapping, whole"),
        pytest.param(rewritten(set_offsets("b", 8, 24)), id="overlapping, in part"),
        pytest.param(rewritten(set_offsets("b", 20, 36)), id="a gap, and beyond the end"),
        pytest.param(rewritten(set_offsets("b", 32, 16)), id="the end before the start"),
        pytest.param(rewritten(lambda h: h["b"].update(shape=[5])), id="a shape that does not fit"),
        pytest.param(rewritten(lambda h: h["b"].update(shape=[-2, -2])), id="negative lengths"),
        pytest.param(rewritten(lambda h: h["b"].update(dtype="F65")), id="an unknown type"),
        pytest.param(rewritten(lambda h: h["b"].pop("dtype")), id="no type"),
        pytest.param(rewritten(lambda h: h.pop("b")), id="bytes of no tensor"),
    ],
)
def test_a_malformed_file_is_refused_as_by_the_library(content: bytes) -> None:
    with pytest.raises(SafetensorError):
        library_load(content)
    with pytest.raises(DamagedCheckpoint):
        read(bytearray(content))
