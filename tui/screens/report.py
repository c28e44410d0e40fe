"""The Report screen: headline metrics, one line per symptom, evidence, the tied best checkpoints."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from ..panels import text
from ..panels.report import missing, report
from ..read.view import View
from ..widgets.frame import head
from .base import FolderScreen


class ReportScreen(FolderScreen):
    needs: ClassVar[str] = "selected"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "app.neighbour(-1)", "Previous", show=False),
        Binding("right_square_bracket", "app.neighbour(1)", "Next", show=False),
        Binding("m", "app.mark", "Mark", show=False),
        Binding("N", "app.note", "Note", show=False),
        Binding("escape", "app.switch_mode('trial')", "Back", show=False),
    ]

    def body(self) -> ComposeResult:
        with VerticalScroll(id="report", classes="panel"):
            yield Static(id="report-text", markup=False)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.query_one("#report").focus()  # so that the arrows scroll

    def show(self, view: View) -> None:
        detail = view.detail
        panel = self.query_one("#report")
        if detail is None:
            self.put("report-text", "No trial yet." if view.selected is None else "…")
            return
        note = view.notes.get(detail.record.trial_id)
        title = f"trial {text.number(detail.record)}: {detail.record.state}" + (f"  ✎ {note[:60]}" if note else "")
        head(panel, title, text.clean(detail.record.trial_id, 60))
        if detail.report is None:
            self.put("report-text", missing(view))
            return
        self.put("report-text", report(detail.report, view.standing, self.size.width - 6, self.size.height))
