"""A dialog for a one-line note on a trial."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from ..widgets.frame import head
from ..write.memory import LONGEST_NOTE


class NoteScreen(ModalScreen[str | None]):
    """Returns the input, which may be empty; None if the user left it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel")]

    def __init__(self, trial: str, note: str) -> None:
        super().__init__()
        self._trial, self._note = trial, note

    def compose(self) -> ComposeResult:
        with Vertical(id="note", classes="panel"):
            yield Input(self._note, max_length=LONGEST_NOTE, compact=True, select_on_focus=False)

    def on_mount(self) -> None:
        head(self.query_one("#note"), f"note on trial {self._trial}", "Enter saves, Esc cancels; empty deletes it")
        self.query_one(Input).focus()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)
