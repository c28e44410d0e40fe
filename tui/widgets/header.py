"""The first line of every screen: the study, its progress, the time."""

from datetime import datetime

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from ..panels import study
from ..read.view import View


class Header(Horizontal):
    _seen: tuple[Text, Text] | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="status", markup=False)
        yield Static(id="clock", markup=False)

    def on_mount(self) -> None:
        self.tick()
        self.set_interval(1, self.tick)

    def tick(self) -> None:
        self.query_one("#clock", Static).update(f"{datetime.now():%H:%M:%S}", layout=False)

    def show(self, view: View) -> None:
        """Update the header; without a change there is no new layout."""
        seen = study.title(view.snapshot), study.status(view.snapshot)
        if seen != self._seen:
            self._seen = seen
            self.query_one("#title", Static).update(seen[0])
            self.query_one("#status", Static).update(seen[1])
