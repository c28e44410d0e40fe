"""The format of model.delta: the bytes of a safetensors file, losslessly and smaller, as the difference to another one.

A fine-tuned weight differs from the pretrained one that it began as in its last bits only. Both are taken as unsigned
integers of their width, and subtracted; the difference is mapped to small numbers whatever its sign (0, -1, 1, -2, …
become 0, 1, 2, 3, …: zigzag, as in Protocol Buffers). What begins with no pretrained weights stays as it is. Then the
first bytes of all elements stand together, then all second ones, and so on (byte shuffle), and Zstandard compresses
that; both are Blosc's (https://www.blosc.org), by the library numcodecs.

The file is one line of JSON (`Header`), then pieces, each with its length before it (8 bytes, little-endian), which
Blosc decodes to the next bytes of the file. Then each of `differences`, [width, at, base_at, size], is undone: the
`size` bytes from `at` are integers of `width` bytes, to which those of the base file from `base_at` are added.
docs/storage.md reads it with 20 lines of Python.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from redsm5.engine import files
from redsm5.engine.jsonio import dumps, loads

PIECE = 1 << 24  # bytes of the file in one piece
BLOCK = 1 << 20  # bytes that Blosc shuffles and compresses together; smaller ones compress less, by measurement
LEVEL = 1  # of Zstandard: higher ones are slower and no smaller here, since what remains is noise
CODEC = "blosc zstd"
SAMPLE, SAMPLES = 1 << 19, 8  # bytes and number of the samples that tell the best base, and whether it is worth it
HEADER_AT_MOST = 1 << 22  # bytes: a difference takes some 30, and models have thousands of tensors at the most
WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}

Bytes = NDArray[np.uint8]


class Source(Protocol):
    """Bytes that are read in slices: a buffer in memory, or `FileBytes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


class FileBytes:
    """The bytes of a file, each slice of which is read when it is asked for: a map of the file into memory would end
    the process where the disk fails.
    """

    def __init__(self, path: Path) -> None:
        self._file = files.open_regular(path)
        self._size = os.fstat(self._file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice, /) -> bytes:
        first, last, _ = part.indices(self._size)
        self._file.seek(first)
        return self._file.read(last - first)


Differences = list[tuple[int, int, int, int]]


@dataclass(frozen=True)
class Header:
    """The first line of a model.delta.

    Attributes:
        bytes, sha256: of the file that is restored.
        base: the base file's path in the experiments folder; null where there are no differences.
        base_sha256: its SHA-256.
        differences: [width, at, base_at, size] of each tensor that is stored as a difference.
    """

    bytes: int
    sha256: str
    base: str | None = None
    base_sha256: str | None = None
    differences: Differences = field(default_factory=list)
    format: int = 1
    codec: str = CODEC


class _Tensor(NamedTuple):
    """Where a tensor is in a safetensors file: `size` bytes from `at`, of elements of `width`."""

    dtype: str
    width: int
    at: int
    size: int


def layout(content: Source) -> dict[str, _Tensor]:
    """The tensors of a safetensors file by name, in the order of their place.

    Raises:
        ValueError: it is no such file.
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    if not 8 < begin <= len(content):
        raise ValueError("it is no safetensors file")
    header = loads(bytes(content[8:begin]))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        found[name] = _Tensor(entry["dtype"], WIDTHS.get(entry["dtype"], 1), begin + first, last - first)
    return found


def differences(content: Source, base: Source) -> Differences:
    """Which tensors can be stored as a difference: those of the same name, type and size in the base."""
    others = layout(base)
    found = []
    for name, tensor in layout(content).items():
        other = others.get(name)
        if other and (other.dtype, other.size) == (tensor.dtype, tensor.size) and tensor.size and tensor.width > 1:
            found.append((tensor.width, tensor.at, other.at, tensor.size))
    return found


def encode(content: Source, header: Header, base: Source | None) -> Iterator[bytes]:
    """The parts of a model.delta, one after the other."""
    codec = _codec()
    yield dumps(asdict(header)) + b"\n"
    for width, first, last in _ranges(content):
        encoded = codec(_piece(content, base, header.differences, width, first, last), width)
        yield len(encoded).to_bytes(8, "little") + encoded


def read_header(delta: bytes | bytearray) -> tuple[Header, int]:
    """The header of a model.delta, of which this may be only the beginning, and the number of its bytes.

    Raises:
        ValueError: it is malformed, or of another format.
    """
    end = delta.find(b"\n")
    if end < 0:
        raise ValueError("it has no header")
    try:
        header = Header(**loads(bytes(delta[:end])))
    except TypeError as error:
        raise ValueError(f"its header is malformed: {error}") from error
    if (header.format, header.codec) != (1, CODEC):
        raise ValueError(f"it has the format {header.format} with {header.codec}, which this version does not read")
    return header, end + 1


def decode(delta: Source, base: Source | None) -> Iterator[Bytes]:
    """The pieces of the bytes that were encoded. The caller has verified `delta` and `base`, and verifies the pieces.

    Raises:
        ValueError: it is malformed.
    """
    from numcodecs import Blosc

    codec, done = Blosc(), 0
    header, at = read_header(bytes(delta[:HEADER_AT_MOST]))
    while at < len(delta):
        size = int.from_bytes(delta[at : at + 8], "little")
        piece = np.frombuffer(codec.decode(delta[at + 8 : at + 8 + size]), np.uint8).copy()
        if base is not None:
            for _, values, others in _overlaps(piece, done, header.differences, base):
                values[:] = ((values >> 1) ^ (0 - (values & 1))) + others
        yield piece
        at, done = at + 8 + size, done + len(piece)
    if done != header.bytes:
        raise ValueError(f"it has {done} bytes of {header.bytes}")


def gain(content: Source, base: Source | None) -> float:
    """The share of the bytes that encoding leaves, by some samples."""
    found = [] if base is None else differences(content, base)
    ranges = [r for r in _ranges(content, SAMPLE) if r[0] > 1] or [*_ranges(content, SAMPLE)]
    codec, before, after = _codec(), 0, 0
    for width, first, last in ranges[:: max(len(ranges) // SAMPLES, 1)]:
        before += last - first
        after += len(codec(_piece(content, base, found, width, first, last), width))
    return after / max(before, 1)


def _codec() -> Callable[[Bytes, int], bytes]:
    """Encodes a piece of elements of a width."""
    from numcodecs import Blosc, blosc  # here, since only few processes need it

    blosc.use_threads = False  # its threads are shared by the whole process
    codec = Blosc(cname="zstd", clevel=LEVEL, shuffle=Blosc.SHUFFLE, blocksize=BLOCK)
    return lambda piece, width: bytes(codec.encode(piece.view(f"<u{width}")))


def _ranges(content: Source, size: int = PIECE) -> Iterator[tuple[int, int, int]]:
    """The file in pieces of elements of one width: width, first byte, and the one after the last."""
    tensors = layout(content)
    begin = min((tensor.at for tensor in tensors.values()), default=len(content))
    runs = [(1, 0, begin)]
    for tensor in tensors.values():
        width, first, _ = runs[-1]
        if len(runs) > 1 and width == tensor.width:
            runs[-1] = (width, first, tensor.at + tensor.size)
        else:
            runs.append((tensor.width, tensor.at, tensor.at + tensor.size))
    for width, first, last in runs:
        for at in range(first, last, size):
            yield width, at, min(at + size, last)


def _piece(content: Source, base: Source | None, found: Differences, width: int, first: int, last: int) -> Bytes:
    """These bytes of the file, with the differences in the place of the tensors that have one."""
    piece = np.frombuffer(content[first:last], np.uint8).copy()
    if base is not None:
        for bits, values, others in _overlaps(piece, first, found, base):
            signed = (values - others).view(f"<i{bits // 8}")
            values[:] = ((signed << 1) ^ (signed >> (bits - 1))).view(values.dtype)
    return piece


def _overlaps(piece: Bytes, first: int, found: Differences, base: Source) -> Iterator[tuple[int, Any, Any]]:
    """The parts of a piece from `first` that are differences: bits of an element, its elements, and the base's."""
    for width, start, base_start, length in found:
        low, high = max(start, first), min(start + length, first + len(piece))
        if low < high:
            others = np.frombuffer(base[base_start + low - start : base_start + high - start], f"<u{width}")
            yield 8 * width, piece[low - first : high - first].view(f"<u{width}"), others
