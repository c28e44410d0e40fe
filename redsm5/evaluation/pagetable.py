"""The tables of the HTML pages. One description of a table gives what the page shows and what it offers to download."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from redsm5.evaluation.downloads import csv_address, latex_address
from redsm5.evaluation.rendering import figure

Value = str | int | float | None
Kind = Literal["text", "word", "number", "bar", "range"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: its heading on the page.
        kind: text; a word, of which no line breaks inside; a number, to the right; a bar from 0 to 1 under the number;
            a picture of the number to its left with its interval, which narrow screens leave out and downloads
            lack.
        name: its heading as CSV; default: the label.
        only: what it is for, the page (and LaTeX) or CSV; default: both.
    """

    label: str
    kind: Kind = "text"
    name: str | None = None
    only: Literal["page", "csv"] | None = None


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

    @property
    def in_line(self) -> str:
        """What the page shows, in a line, with the interval."""
        text = self.text if not isinstance(self.text, Markup) else str(self.value)
        return f"{text} [{figure(self.interval[0])}, {figure(self.interval[1])}]" if self.interval else text


@dataclass(frozen=True)
class PageTable:
    """A table: `name` is that of its downloads' files. The rows in `marked` are in bold type."""

    title: str
    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    marked: frozenset[int] = field(default_factory=frozenset)

    @property
    def csv(self) -> str:
        """The address of the table as CSV: values with all digits, the ends of intervals in columns of their own."""
        names: list[str] = []
        rows: list[dict[str, Value]] = [{} for _ in self.rows]
        for place, column in enumerate(self.columns):
            if column.only == "page" or column.kind == "range":
                continue
            name = column.name or column.label
            ends = any(row[place].interval for row in self.rows)
            names += [name, f"{name} low", f"{name} high"] if ends else [name]
            for told, row in zip(rows, self.rows, strict=True):
                told[name] = row[place].value
                if ends:
                    told[f"{name} low"], told[f"{name} high"] = row[place].interval or (None, None)
        return csv_address(names, rows)

    @property
    def latex(self) -> str:
        """The address of the table as LaTeX, with what the page shows."""
        columns = [(place, column) for place, column in self.on_page if column.kind != "range"]
        told = [[row[place].in_line for place, _ in columns] for row in self.rows]
        right = [column.kind in ("number", "bar") for _, column in columns]
        return latex_address([column.label for _, column in columns], told, right)

    @property
    def on_page(self) -> list[tuple[int, Column]]:
        """The columns that the page shows, with their places."""
        return [(place, column) for place, column in enumerate(self.columns) if column.only != "csv"]


def scores(name: str, title: str, rows: Sequence[tuple[str, str, float | None, Sequence[float] | None]]) -> PageTable:
    """A table of (label, definition, value, interval), with a picture of each value between 0 and 1."""
    columns = [Column("Metric"), Column("Value", "number"), Column("0 to 1", "range")]
    cells = [
        [Cell(label, below=definition), Cell(value, interval=interval), Cell(value, interval=interval)]
        for label, definition, value, interval in rows
    ]
    return PageTable(title, name, columns, cells)
