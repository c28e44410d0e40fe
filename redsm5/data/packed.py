"""Encoded posts as an Arrow table, an item a row, and the items and windows read from it.

They are read from views of the table's flat arrays, which may be memory-mapped; an item is created on access. So an
item of a training split of 963 posts, in random order, takes as long as from flat arrays in a format of our own (9 µs),
while pyarrow's rows take 5 times and those of the datasets library 8 to 130 times as long. To open the file takes 1 ms
of CPU time more for 1,185 posts than our format did, and aligned posts 7 ms less than from JSON. All was measured in
one run on 2 cores; `just bench posts` measures it again, without the formats that are gone.

Shapes: N items, C outputs per item (9 or 1), S windows, T tokens of all windows, G spans, M sentences. A `starts` array
has one element more than there are rows: row i is [starts[i], starts[i + 1]).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from redsm5.data import arrow

Numbers = Sequence[int] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """One pass of the encoder.

    Attributes:
        input_ids, type_ids: token and segment ids, special tokens included; no type_ids if the encoder has none.
        offsets: (start, end) in characters of the post for each token; (0, 0) for a token that is not of the post.
        text: the post's own tokens, [first, end).
        spans: (output, first token, last token) of each evidence span that the window contains completely.
        known: for each output, whether its evidence in this window is known. It is unknown if the symptom is present
            but no sentence for it was found, or if the window's edge cuts a sentence.
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
    """What the model gives one prediction for: `post` is the position of its post, `symptoms` those of its outputs.

    Attributes:
        cut: whether the post was longer than the window, and is read only as far as this window.
        lost: the number of aligned evidence spans that no window contains completely.
    """

    post: int
    symptoms: tuple[int, ...]
    labels: tuple[int, ...]
    windows: Sequence[Window]
    cut: bool = False
    lost: int = 0


def pack(items: Sequence[Item]) -> bytes:
    """The bytes that `PackedItems` reads; all items have the same number of outputs."""
    windows = [window for item in items for window in item.windows]
    outputs = len(items[0].symptoms) if items else 1
    of_windows = {
        "input_ids": arrow.lists_of([window.input_ids for window in windows], np.int32),
        "offsets": arrow.lists_of([window.offsets for window in windows], np.int32, 2),
        "text": arrow.numbers((window.text for window in windows), np.int32, 2),
        "spans": arrow.lists_of([window.spans for window in windows], np.int32, 3),
        "known": arrow.numbers((window.known for window in windows), np.int8, outputs),
        "sentences": arrow.lists_of([window.sentences for window in windows], np.int32, 2),
    }
    typed = [window.type_ids for window in windows if window.type_ids is not None]
    if typed:
        of_windows["type_ids"] = arrow.lists_of(typed, np.int8)
    columns = {
        "post": arrow.numbers((item.post for item in items), np.int32),
        "symptoms": arrow.numbers((item.symptoms for item in items), np.int8, outputs),
        "labels": arrow.numbers((item.labels for item in items), np.int8, outputs),
        "cut": arrow.numbers((item.cut for item in items), np.int8),
        "lost": arrow.numbers((item.lost for item in items), np.int32),
        "windows": arrow.lists([item.windows for item in items], arrow.struct(of_windows)),
    }
    return arrow.to_bytes(columns)


class PackedItems(Sequence[Item]):
    """The items packed by `pack`, each created on access."""

    def __init__(self, content: Any) -> None:
        table = arrow.from_bytes(content)
        self._arrays = _arrays(table.column("windows").values)
        self._starts = arrow.starts_of(table.column("windows")).tolist()
        names = ("post", "symptoms", "labels", "lost")
        self._posts, self._symptoms, self._labels, self._lost = (
            arrow.view(table.column(name)).tolist() for name in names
        )
        self._cut = arrow.view(table.column("cut"), np.bool_).tolist()

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


def _arrays(windows: Any) -> dict[str, NDArray[Any]]:
    """The flat arrays of a column of windows, as views."""
    arrays = {"text_S2": arrow.view(windows.field("text")), "known_SC": arrow.view(windows.field("known"), np.bool_)}
    lists = {
        "input_ids": ("token_starts", "ids_T"),
        "offsets": ("token_starts", "offsets_T2"),
        "type_ids": ("token_starts", "types_T"),
        "spans": ("span_starts", "spans_G3"),
        "sentences": ("sentence_starts", "sentences_M2"),
    }
    for name, (starts, values) in lists.items():
        if windows.type.get_field_index(name) >= 0:
            column = windows.field(name)
            arrays |= {starts: arrow.starts_of(column), values: arrow.view(column)}
    return arrays
