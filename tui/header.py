"""The first line of every screen: which study, how far it is, what time it is."""

from datetime import datetime

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from tui import text
from tui.reader import Snapshot


class Header(Horizontal):
    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield Static(id="status")
        yield Static(id="clock")

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self.show)
        self.tick()
        self.set_interval(1, self.tick)

    def tick(self) -> None:
        self.query_one("#clock", Static).update(f"{datetime.now():%H:%M:%S}")

    def show(self, snapshot: Snapshot | None) -> None:
        if snapshot:
            self.query_one("#title", Static).update(text.title(snapshot))
            self.query_one("#status", Static).update(text.status(snapshot))
