"""Two to eight marked trials: a grid of charts with their curves, the parameters that differ, the symptoms."""

from functools import partial
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from ..panels import text
from ..panels.compare import compared, curves, parameters, symptoms
from ..panels.curves import ordered
from ..read.view import View
from ..widgets.frame import head
from ..widgets.grid import GRID_KEYS, ChartGrid
from .charts import ChartsScreen


class CompareScreen(ChartsScreen):
    needs: ClassVar[str] = "marked"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        *GRID_KEYS,
        Binding("M", "app.unmark", "Clear marks", show=False),
        Binding("escape", "back", "Back", show=False),
    ]

    def body(self) -> ComposeResult:
        yield self.line()
        with Container(id="compare"):
            yield ChartGrid(id="curves", axis="epoch", everywhere=True)
            with VerticalScroll(id="symptoms", classes="panel"):
                yield Static(id="symptoms-text", markup=False)
            with VerticalScroll(id="parameters", classes="panel"):
                yield Static(id="parameters-text", markup=False)

    def show(self, view: View) -> None:
        details = compared(view)
        if len(details) < 2:
            said = f"{len(details)} marked. Mark 2 to 8 trials: m in Trials (2) or on a trial (3)."
            self.grid.show("compare", (), partial(curves, ()), said)
            self.put("parameters-text", "")
            self.put("symptoms-text", "")
            return
        metric = view.snapshot.study.metric if view.snapshot.study else ""
        names = ordered({name for detail in details for name in detail.series}, metric)
        self.grid.show("compare", names, partial(curves, details))
        panel = self.query_one("#parameters").size
        self.put("parameters-text", parameters(details, view.standing, panel.width - 2, panel.height - 1))
        head(self.query_one("#parameters"), "parameters that differ")
        panel = self.query_one("#symptoms").size
        self.put("symptoms-text", symptoms(details, view.standing, panel.width - 2, panel.height))
        head(self.query_one("#symptoms"), f"F1 by symptom, difference to {text.number(details[0].record)}")
