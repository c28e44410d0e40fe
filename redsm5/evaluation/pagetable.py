"""The tables of the HTML pages. One description of a table gives what the page shows and what it offers to download."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from redsm5.evaluation.rendering import figure

Value = str | int | float | None
Kind = Literal["text", "word", "number", "bar", "range"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: its heading on the page.
        kind: text; a word, of which no line breaks inside; a number, to the right; a bar from 0 to 1 under the number;
            a picture of the number to its left with its interval, which narrow screens leave out and downloads lack.
        name: its heading in downloads; default: the label.
    """

    label: str
    kind: Kind = "text"
    name: str | None = None


@dataclass(frozen=True)
class Cell:
    """A value of a table.

    Attributes:
        value: what downloads have.
        shown: what the page shows; default: the value, a score to three places. Markup is not escaped again.
        below: a note in small print under it, on the page only.
        interval: [low, high], shown under the value; downloads have both as columns.
        link: an address, relative to the page.
        title: what a pointer at rest shows.
    """

    value: Value = None
    shown: str | None = None
    below: str | None = None
    interval: Sequence[float] | None = None
    link: str | None = None
    title: str | None = None

    @property
    def text(self) -> str:
        """What the page shows."""
        if self.shown is not None:
            return self.shown
        return figure(self.value) if isinstance(self.value, float) or self.value is None else str(self.value)


@dataclass(frozen=True)
class PageTable:
    """A table: `name` is that of its downloads' files. The rows in `marked` are in bold type."""

    title: str
    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    marked: frozenset[int] = field(default_factory=frozenset)


def scores(name: str, title: str, rows: Sequence[tuple[str, str, float | None, Sequence[float] | None]]) -> PageTable:
    """A table of (label, definition, value, interval), with a picture of each value between 0 and 1."""
    columns = [Column("Metric"), Column("Value", "number"), Column("0 to 1", "range")]
    cells = [
        [Cell(label, below=definition), Cell(value, interval=interval), Cell(value, interval=interval)]
        for label, definition, value, interval in rows
    ]
    return PageTable(title, name, columns, cells)
