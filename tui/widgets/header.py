"""The first line of every screen: which study, how far it is, what time it is."""

from datetime import datetime

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from tui import panels
from tui.view import View


class Header(Horizontal):
    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="status", markup=False)
        yield Static(id="clock", markup=False)

    def on_mount(self) -> None:
        self.tick()
        self.set_interval(1, self.tick)

    def tick(self) -> None:
        self.query_one("#clock", Static).update(f"{datetime.now():%H:%M:%S}")

    def show(self, view: View) -> None:
        self.query_one("#title", Static).update(panels.title(view.snapshot))
        self.query_one("#status", Static).update(panels.status(view.snapshot))
