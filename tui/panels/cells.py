"""A table's columns, and how a cell is drawn in one."""

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

Cell = str | Text


@dataclass(frozen=True)
class Column:
    """`key` names it for sorting; `width` is its least width, which the caller determines."""

    key: str
    label: str
    width: int
    right: bool = True


def segments(cell: Cell, column: Column, style: Style, *, plain: bool = False) -> list[Segment]:
    """A cell padded to its width, with a blank on each side; longer text ends in an ellipsis; `plain`: all of it in
    the one style, as on the bar of the cursor, where no other colour can be read.
    """
    text = cell if isinstance(cell, Text) else Text(cell)
    whole = text.plain
    long = cell_len(whole) > column.width
    shown = set_cell_size(whole, max(column.width - 1, 0)) + "…" if long else whole
    own = style + Style.parse(str(text.spans[0].style)) if text.spans and not plain else style
    gap = " " * (column.width - cell_len(shown))
    return [Segment(f" {gap}{shown} " if column.right else f" {shown}{gap} ", own)]
