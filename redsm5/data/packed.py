"""Encoded posts as a few flat arrays in a safetensors file, and the items and windows read from them.

The arrays are views of the file's bytes, which may be memory-mapped; items are created on access.

Shapes: N items, C outputs per item (9 or 1), S windows, T tokens of all windows, G spans, M sentences. A `starts` array
has one element more than there are rows: row i is [starts[i], starts[i + 1]).
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

_TYPES = {"I64": np.int64, "I32": np.int32, "I8": np.int8, "BOOL": np.bool_}  # safetensors' names

Numbers = Sequence[int] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """One pass of the encoder.

    Attributes:
        input_ids, type_ids: token and segment ids, special tokens included; no type_ids where the encoder has none.
        offsets: (start, end) in characters of the post for each token; (0, 0) where a token is none of the post's.
        text: the post's own tokens, [first, end).
        spans: (output, first token, last token) of each evidence span that lies whole in the window.
        known: for each output, whether its evidence in this window is known. It is not where the symptom is present
            but no sentence for it was found, or where a sentence is cut by the window's edge.
        sentences: (first token, last token) of the post's sentences; empty unless an evidence head wants them.
    """

    input_ids: Numbers
    type_ids: Numbers | None
    offsets: Sequence[tuple[int, int]] | NDArray[Any]
    text: tuple[int, int]
    spans: list[tuple[int, int, int]]
    known: list[bool]
    sentences: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Item:
    """What the model gives one answer for: `post` is a position, `symptoms` those of its outputs.

    Attributes:
        cut: whether the post was longer than the window, and is read in this one alone.
        lost: how many spans of aligned evidence lie whole in no window.
    """

    post: int
    symptoms: tuple[int, ...]
    labels: tuple[int, ...]
    windows: Sequence[Window]
    cut: bool = False
    lost: int = 0


def pack(items: Sequence[Item]) -> bytes:
    """The bytes that `PackedItems` reads; all items have equally many outputs."""
    windows = [window for item in items for window in item.windows]
    outputs = len(items[0].symptoms) if items else 0

    def table(rows: Iterable[Any], dtype: type, width: int) -> NDArray[Any]:
        return np.fromiter(chain.from_iterable(rows), dtype).reshape(-1, width)

    arrays = {
        "posts_N": np.array([item.post for item in items], np.int32),
        "symptoms_NC": table((item.symptoms for item in items), np.int8, outputs or 1),
        "labels_NC": table((item.labels for item in items), np.int8, outputs or 1),
        "cut_N": np.array([item.cut for item in items], np.bool_),
        "lost_N": np.array([item.lost for item in items], np.int32),
        "window_starts": _starts(item.windows for item in items),
        "text_S2": table((window.text for window in windows), np.int32, 2),
        "known_SC": table((window.known for window in windows), np.bool_, outputs or 1),
        "token_starts": _starts(window.input_ids for window in windows),
        "ids_T": np.fromiter(chain.from_iterable(window.input_ids for window in windows), np.int32),
        "offsets_T2": table((pair for window in windows for pair in window.offsets), np.int32, 2),
        "span_starts": _starts(window.spans for window in windows),
        "spans_G3": table((span for window in windows for span in window.spans), np.int32, 3),
        "sentence_starts": _starts(window.sentences for window in windows),
        "sentences_M2": table((pair for window in windows for pair in window.sentences), np.int32, 2),
    }
    typed = [window.type_ids for window in windows if window.type_ids is not None]
    if typed:
        arrays["types_T"] = np.fromiter(chain.from_iterable(typed), np.int8)
    return bytes(save(arrays))


class PackedItems(Sequence[Item]):
    """The items packed by `pack`, each created on access."""

    def __init__(self, content: Any) -> None:
        self._arrays = arrays = _arrays(memoryview(content))
        self._starts = arrays["window_starts"].tolist()
        columns = ("posts_N", "symptoms_NC", "labels_NC", "cut_N", "lost_N")
        self._posts, self._symptoms, self._labels, self._cut, self._lost = (arrays[name].tolist() for name in columns)

    def __len__(self) -> int:
        return len(self._posts)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        return Item(
            self._posts[index],
            tuple(self._symptoms[index]),
            tuple(self._labels[index]),
            [_window(self._arrays, row) for row in range(self._starts[index], self._starts[index + 1])],
            self._cut[index],
            self._lost[index],
        )


def _window(arrays: dict[str, NDArray[Any]], row: int) -> Window:
    def of(starts: str, values: str) -> NDArray[Any]:
        return arrays[values][arrays[starts][row] : arrays[starts][row + 1]]

    first, end = arrays["text_S2"][row].tolist()
    return Window(
        input_ids=of("token_starts", "ids_T"),
        type_ids=of("token_starts", "types_T") if "types_T" in arrays else None,
        offsets=of("token_starts", "offsets_T2"),
        text=(first, end),
        spans=[(c, a, b) for c, a, b in of("span_starts", "spans_G3").tolist()],
        known=arrays["known_SC"][row].tolist(),
        sentences=[(a, b) for a, b in of("sentence_starts", "sentences_M2").tolist()],
    )


def _starts(rows: Iterable[Sequence[Any] | NDArray[Any]]) -> NDArray[np.int64]:
    return np.array([0, *accumulate(len(row) for row in rows)], np.int64)


def _arrays(content: memoryview) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as views; the library would copy them unless they are in a file of their own.

    The format is https://huggingface.co/docs/safetensors: 8 bytes with the length of the header, the header in JSON,
    then the arrays.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(bytes(content[8:start])).items():
        begin, shape = start + entry["data_offsets"][0], entry["shape"]
        arrays[name] = np.frombuffer(content, _TYPES[entry["dtype"]], math.prod(shape), begin).reshape(shape)
    return arrays
