"""The Overview screen: the objective over the trials, the current trial, storage and pace, recent events."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from ..panels import overview, storage, study, text
from ..panels.objective import NUMBER, TIME, axes, chart, legend
from ..read.view import View
from ..widgets.frame import head
from ..widgets.keys import Keys
from ..widgets.plot import Plot
from .base import FolderScreen


class OverviewScreen(FolderScreen):
    needs: ClassVar[str] = "active"
    kept: ClassVar[tuple[str, ...]] = ("_axis",)
    side: ClassVar[tuple[str, int]] = ("#panels", 52)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "app.order('pause')", "Pause"),
        Binding("a", "axis(1)", "Axis", show=False),
        Binding("A", "axis(-1)", "Previous axis", show=False),
        Binding("enter", "fill", "Fill the screen", show=False),
        Binding("escape", "fill(False)", "Back", show=False),
    ]

    _axis = NUMBER

    def body(self) -> ComposeResult:
        with Container(id="panels"):
            with Container(id="left"):
                yield Plot(id="objective", classes="panel")
                yield Static(id="now", classes="panel", markup=False)
            with Container(id="right"):
                for name in ("storage", "pace", "best"):
                    yield Static(id=name, classes="panel", markup=False)
            yield Static(id="lately", classes="panel", markup=False)

    def show(self, view: View) -> None:
        snapshot = view.snapshot
        objective = self.query_one("#objective", Plot)
        if self._axis not in axes(snapshot.trials):
            self._axis = NUMBER
        over = self._axis if self._axis in (NUMBER, TIME) else text.parameter_name(self._axis)
        marks = legend(snapshot.trials)
        title = f"{study.metric(snapshot)} over {over}" + (f": {marks}" if marks else "")
        head(objective, title, study.best(snapshot))
        metric = snapshot.study.metric if snapshot.study else ""
        objective.show((self._axis, snapshot.trials), lambda: chart(snapshot.trials, self._axis, metric))
        panel = self.query_one("#storage", Static)
        width = (panel.size.width or 46) - 2
        now_ms = int(view.now.timestamp() * 1000)
        self.query_one(Keys).reword(p="Resume" if study.waits(snapshot) else "Pause")
        self.put("storage", storage.usage(snapshot, view.storage, width, now_ms), "storage")
        self.put("now", overview.happening(view), "now")
        self.put("pace", overview.pace(view), "pace")
        self.put("best", overview.leader(snapshot), "best")
        lines = overview.lately(view)
        self.put("lately", Text("\n").join(lines) if lines else Text("nothing yet", text.DIM), "lately")

    def action_axis(self, by: int) -> None:
        """Draw the objective over the next axis."""
        if view := self.host.view:
            known = axes(view.snapshot.trials)
            at = known.index(self._axis) if self._axis in known else 0
            self._axis = known[(at + by) % len(known)]
            self.show(view)
