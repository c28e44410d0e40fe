"""A screen with a grid of charts: its keys, and the line for the filter."""

from textual import on
from textual.widgets import Input

from ..widgets.grid import ChartGrid
from .base import FolderScreen


class ChartsScreen(FolderScreen):
    def on_mount(self) -> None:
        super().on_mount()
        name = f"{type(self).__name__}.charts"
        self.host.memory.recall(self.grid, ("smooth", "log_axis", "axis"), called=name)

    @property
    def grid(self) -> ChartGrid:
        return self.query_one(ChartGrid)

    def line(self) -> Input:
        return Input(id="filter", compact=True)

    def action_grid(self, what: str, *how: object) -> None:
        getattr(self.grid, what)(*how)

    def action_filter(self) -> None:
        self.ask(self.grid.query_words, "part of a metric's name: val_f1, system_, ~^val")

    def ask(self, said: str, hint: str) -> None:
        """Open the filter line, with the last input."""
        line = self.query_one(Input)
        line.placeholder = hint
        with line.prevent(Input.Changed):
            line.value = said
        line.display = True
        line.focus()

    def typed(self, said: str) -> None:
        self.grid.filter(said)

    @on(Input.Changed, "#filter")
    def _changed(self, event: Input.Changed) -> None:
        self.typed(event.value[:100])

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.query_one(Input).display = bool(self.query_one(Input).value)
        self.set_focus(None)

    def action_back(self) -> None:
        """Leave the filter or the enlarged chart, or go back to the table."""
        if self.query_one(Input).display:
            self.query_one(Input).value = ""
            self.query_one(Input).display = False
            self.set_focus(None)
        elif self.grid.large:
            self.grid.enlarge()
        else:
            self.app.switch_mode("trials")
