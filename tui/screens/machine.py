"""The Machine screen: the machine that the app runs on, over the last minutes, and the trials running on it."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from ..panels import machine as panels
from ..panels import text
from ..read.view import View
from ..widgets.frame import head
from .base import FolderScreen


class MachineScreen(FolderScreen):
    needs: ClassVar[str] = "machine"
    BINDINGS: ClassVar[list[BindingType]] = []

    def body(self) -> ComposeResult:
        with Container(id="machine-panels"):
            for name in ("cpu", "memory", "disk"):
                yield Static(id=name, classes="panel", markup=False)
            with VerticalScroll(id="gpus", classes="panel"):
                yield Static(id="gpus-text", markup=False)
            with VerticalScroll(id="at-work", classes="panel"):
                yield Static(id="at-work-text", markup=False)

    def show(self, view: View) -> None:
        machine, snapshot = view.machine, view.snapshot
        host = f" of {text.clean(machine.host, 30)}" if machine.host else ""
        cores = f", {machine.cores} cores" if machine.cores else ""
        free = f", {text.size(snapshot.disk_free)} free of {text.size(snapshot.disk_total)}"
        titles = {
            "cpu": f"CPU{host}{cores}",
            "memory": "memory",
            "disk": f"disk {text.clean(machine.disk, 20)}".rstrip() + free,
            "gpus": "GPU",
        }
        for name, title in titles.items():
            panel = self.query_one(f"#{name}")
            page, said = getattr(panels, name)(machine, panel.size.width or 36, panel.size.height or 5)
            self.put("gpus-text" if name == "gpus" else name, page)
            head(panel, title, said)
        panel = self.query_one("#at-work")
        page, named = panels.at_work(view, panel.size.width or 76)
        self.put("at-work-text", page)
        head(panel, named)
