"""A table of any length that draws only the visible lines.

Textual's DataTable measures and keeps every cell: 10,000 rows of 8 take it 4 s, and each refresh as long again.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ..panels.cells import Cell, Column, segments


class Table(ScrollView, can_focus=True):
    """Rows by key; the cursor stays on its row's key when other rows come and go."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "go(0)", "First", show=False),
        Binding("end,G", "go(-1)", "Last", show=False),
        Binding("left", "shift(-8)", "Left", show=False),
        Binding("right", "shift(8)", "Right", show=False),
        Binding("enter", "choose", "Open", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--header", "table--cursor"}

    class Moved(Message):
        """The cursor moved to another row."""

    class Chosen(Message):
        """A row was opened: Enter, or a click on the row of the cursor."""

    class Headed(Message):
        """A column's header was clicked."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, id: str | None = None, fixed: int = 0, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.columns: tuple[Column, ...] = ()
        self.keys: Sequence[str] = ()
        self.cursor = 0
        self._cells: Callable[[str], Sequence[Cell]] = lambda key: ()
        self._fixed = fixed
        self._places: dict[str, int] = {}
        self._strips: dict[str, tuple[Sequence[Cell], object, Strip]] = {}  # visible rows, as drawn

    @property
    def cursor_key(self) -> str | None:
        return self.keys[self.cursor] if 0 <= self.cursor < len(self.keys) else None

    def fill(self, columns: Sequence[Column], keys: Sequence[str], cells: Callable[[str], Sequence[Cell]]) -> None:
        """Show these rows; `cells` is called for a row only when it becomes visible."""
        here = self.cursor_key
        same = keys is self.keys
        self.columns, self.keys, self._cells = tuple(columns), keys, cells
        offset = self.cursor - self.scroll_offset.y  # before the size changes, which may move it
        self.virtual_size = Size(self._width(), len(keys) + 1)
        if not same:
            self._places = {key: place for place, key in enumerate(keys)}
            self.cursor = self._places.get(here or "", min(self.cursor, max(len(keys) - 1, 0)))
            if self.cursor_key != here:
                self._see()
            elif 0 <= offset < self.size.height:  # it stays at its position on the screen
                self._scroll(max(self.cursor - offset, 0))
        self.refresh()

    def put_cursor(self, key: str) -> None:
        if key in self._places and self._places[key] != self.cursor:
            self._go(self._places[key])

    def _width(self) -> int:
        return sum(column.width + 2 for column in self.columns)

    def render_line(self, y: int) -> Strip:
        width, shift = self.size.width, self.scroll_offset.x
        place, on = y - 1 + self.scroll_offset.y, False
        if y == 0:
            style = self.get_component_rich_style("table--header")
            cells: Sequence[Cell] = [column.label for column in self.columns]
        elif place < len(self.keys):
            on = place == self.cursor
            style = self.get_component_rich_style("table--cursor") if on else self.rich_style
            cells = self._cells(self.keys[place])
        else:
            return Strip.blank(width, self.rich_style)
        key, made_of = self.keys[place] if y else "", (style, width, shift, self.columns)
        if (drawn := self._strips.get(key)) and drawn[0] is cells and drawn[1] == made_of:
            return drawn[2]
        pieces = [segments(c, column, style, plain=on) for c, column in zip(cells, self.columns, strict=False)]
        fixed = Strip([s for piece in pieces[: self._fixed] for s in piece])
        rest = Strip([s for piece in pieces[self._fixed :] for s in piece])
        rest = rest.crop(shift, shift + max(width - fixed.cell_length, 0))
        strip = Strip([*fixed, *rest]).crop(0, width).extend_cell_length(width, style)
        if len(self._strips) > 4 * self.size.height:
            self._strips.clear()
        self._strips[key] = cells, made_of, strip
        return strip

    def action_move(self, by: int) -> None:
        self._go(self.cursor + by)

    def action_page(self, by: int) -> None:
        self._go(self.cursor + by * max(self.size.height - 2, 1))

    def action_go(self, to: int) -> None:
        self._go(len(self.keys) - 1 if to < 0 else to)

    def action_shift(self, by: int) -> None:
        self.scroll_to(x=self.scroll_offset.x + by, animate=False)

    def action_choose(self) -> None:
        if self.cursor_key is not None:
            self.post_message(self.Chosen())

    def _go(self, to: int) -> None:
        to = min(max(to, 0), max(len(self.keys) - 1, 0))
        if to != self.cursor:
            self.cursor = to
            self.post_message(self.Moved())
        self._see()
        self.refresh()

    def _see(self) -> None:
        """Scroll until the cursor's row is visible; the header covers the first line."""
        top, rows = self.scroll_offset.y, max(self.size.height - 1 - self.show_horizontal_scrollbar, 1)
        if self.cursor < top:
            self._scroll(self.cursor)
        elif self.cursor >= top + rows:
            self._scroll(self.cursor - rows + 1)

    def on_resize(self) -> None:
        self._see()

    def _scroll(self, y: int) -> None:
        self.scroll_to(y=y, animate=False, force=True)  # works also before the scrollbar of the new rows exists

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            if key := self._column_at(event.x):
                self.post_message(self.Headed(key))
            return
        place = event.y - 1 + self.scroll_offset.y
        if place < len(self.keys):
            if place == self.cursor:
                self.post_message(self.Chosen())
            self._go(place)

    def _column_at(self, x: int) -> str | None:
        at = 0
        fixed = sum(c.width + 2 for c in self.columns[: self._fixed])
        x += self.scroll_offset.x if x >= fixed else 0
        for column in self.columns:
            at += column.width + 2
            if x < at:
                return column.key
        return None
