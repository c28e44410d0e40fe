"""The Studies screen: all studies of the folder, and the best so far of those with the same metric."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from ..panels import many, study, text
from ..panels.compare import MARKERS
from ..read.view import View
from ..widgets.frame import head
from ..widgets.plot import Plot
from ..widgets.table import Table
from .base import FolderScreen


class StudiesScreen(FolderScreen):
    needs: ClassVar[str] = "studies"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.switch_mode('overview')", "Back", show=False),
    ]

    def body(self) -> ComposeResult:
        with Container(id="studies-panels"):
            yield Table(id="studies", classes="panel")
            yield Plot(id="best-so-far", classes="panel")

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        self.query_one(Table).focus()

    def show(self, view: View) -> None:
        lines = {line.record.study_id: line for line in view.studies}
        shown = many.drawn(view.studies, view)
        marks = {line.record.study_id: MARKERS[place] for place, line in enumerate(shown)}
        table = self.query_one(Table)
        first = not table.keys
        table.fill(
            many.study_columns(view.studies),
            [*lines],
            lambda key: many.study_cells(lines[key], view, marks.get(key, "")) if key in lines else (),
        )
        if first and view.snapshot.study:
            table.put_cursor(view.snapshot.study.study_id)
        head(table, f"studies: {len(view.snapshot.studies)}", "Enter opens one")
        plot = self.query_one("#best-so-far", Plot)
        metric = study.metric(view.snapshot)
        others = sum(bool(line.best) for line in view.studies) - len(shown)
        left_out = f"without {others} of other metrics" if others > 0 else ""
        head(plot, f"best {metric} so far: {', '.join(self._names(view))}", left_out)
        seen = tuple((line.record.study_id, line.best, line.last) for line in shown)
        plot.show(seen, lambda: many.best_so_far(shown, metric))

    def _names(self, view: View) -> list[str]:
        shown = many.drawn(view.studies, view)
        return [f"{MARKERS[place]} {text.clean(line.record.name, 24)}" for place, line in enumerate(shown)]

    @on(Table.Chosen)
    def _chosen(self) -> None:
        if key := self.query_one(Table).cursor_key:
            self.host.choose(key)
            self.app.switch_mode("overview")
