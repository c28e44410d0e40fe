"""A dialog for the columns of the table of trials."""

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from ..panels.cells import Cell, Column
from ..widgets.frame import head
from ..widgets.table import Table


class ColumnsScreen(ModalScreen[frozenset[str] | None]):
    """Returns the keys of the columns to show; None if the user left it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "switch", "Show or hide"),
        Binding("escape", "leave", "Cancel"),
    ]

    def __init__(self, offered: Sequence[tuple[str, str]], shown: frozenset[str]) -> None:
        """Args:
        offered: the key and the meaning of each column. shown: the keys of those in the table.
        """
        super().__init__()
        self._offered, self._shown = dict(offered), set(shown)

    def compose(self) -> ComposeResult:
        yield Table(id="columns", classes="panel")

    def on_mount(self) -> None:
        table = self.query_one(Table)
        head(table, "columns of the table", "space shows or hides · Enter keeps · Esc leaves")
        width = max([10, *map(len, self._offered.values())])
        columns = (Column("on", "", 3, right=False), Column("name", "column", min(width, 60), right=False))
        table.fill(columns, [*self._offered], self._cells)
        table.focus()

    def _cells(self, key: str) -> list[Cell]:
        return ["[x]" if key in self._shown else "[ ]", self._offered[key]]

    def action_switch(self) -> None:
        if key := self.query_one(Table).cursor_key:
            self._shown ^= {key}
            self.query_one(Table).refresh()

    @on(Table.Chosen)
    def _entered(self) -> None:
        self.dismiss(frozenset(self._shown))

    def action_leave(self) -> None:
        self.dismiss(None)
