"""What the keys do and what the symbols mean."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.text import state

KEYS = {
    "1": "Overview: the study at a glance",
    "2": "Trials: all of them in a table; arrows move",
    "s": "the next study, where there are several",
    "?": "this page",
    "Ctrl+P": "command palette: themes and more",
    "q": "quit; the search goes on without this app",
}
STATES = ("queued", "running", "completed", "pruned", "failed", "interrupted")


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape,question_mark,q", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        page = Text("\n").join(Text.assemble((f"{key:>8}", "bold"), f"  {what}") for key, what in KEYS.items())
        page.append("\n\n  ★ best trial")
        for name in STATES:
            page.append("\n  ").append_text(state(name))
        yield Static(page, id="help", classes="panel")

    def on_mount(self) -> None:
        self.query_one("#help").border_title = "help"
        self.query_one("#help").border_subtitle = "Esc closes"
