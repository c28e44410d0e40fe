"""A line of the log, whole."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from ..widgets.frame import head


class LineScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "dismiss", "Close")]

    def __init__(self, line: Text) -> None:
        super().__init__()
        self._line = line

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="line", classes="panel"):
            yield Static(self._line, markup=False)

    def on_mount(self) -> None:
        head(self.query_one("#line"), "a line of the log", "Esc closes")
        self.query_one("#line").focus()
