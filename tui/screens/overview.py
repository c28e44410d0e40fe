"""The Overview screen: the objective over the trials, the current trial, storage and pace, recent events."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from ..panels import many, overview, storage, study, text
from ..panels.objective import NUMBER, TIME, axes, chart, legend
from ..read.view import View
from ..widgets.frame import head
from ..widgets.keys import Keys
from ..widgets.plot import Plot
from .base import FolderScreen

VIEWS = ("objective", "curves", "timeline")


class OverviewScreen(FolderScreen):
    kept: ClassVar[tuple[str, ...]] = ("_axis", "_view")
    side: ClassVar[tuple[str, int]] = ("#panels", 52)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "app.order('pause')", "Pause"),
        Binding("a", "axis(1)", "Axis", show=False),
        Binding("A", "axis(-1)", "Previous axis", show=False),
        Binding("v", "view", "Curves, timeline", show=False),
        Binding("enter", "fill", "Fill the screen", show=False),
        Binding("escape", "fill(False)", "Back", show=False),
    ]

    _axis = NUMBER
    _view = VIEWS[0]

    @property
    def needs(self) -> str:  # type: ignore[override]
        """What all trials did is read only while it is shown."""
        return "active" if self._view == VIEWS[0] else "many"

    def body(self) -> ComposeResult:
        with Container(id="panels"):
            with Container(id="left"):
                yield Plot(id="objective", classes="panel")
                yield Static(id="timeline", classes="panel", markup=False)
                yield Static(id="now", classes="panel", markup=False)
            with Container(id="right"):
                for name in ("storage", "pace", "best"):
                    yield Static(id=name, classes="panel", markup=False)
            yield Static(id="lately", classes="panel", markup=False)

    def show(self, view: View) -> None:
        snapshot = view.snapshot
        self._draw(view)
        self.query_one(Keys).reword(p="Resume" if study.waits(snapshot) else "Pause")
        panel = self.query_one("#storage", Static)
        width = (panel.size.width or 46) - 2
        now_ms = int(view.now.timestamp() * 1000)
        self.put("storage", storage.usage(snapshot, view.storage, width, now_ms), "storage")
        self.put("now", overview.happening(view), "now")
        self.put("pace", overview.pace(view), "pace")
        best = self.query_one("#best").size.width
        self.put("best", overview.leader(view, max(best - 2, 20)), "best")
        lines = overview.lately(view)
        self.put("lately", Text("\n").join(lines) if lines else Text("nothing yet", text.DIM), "lately")

    def _draw(self, view: View) -> None:
        """Draw the objective, all curves, or the timeline."""
        snapshot = view.snapshot
        objective, metric = self.query_one("#objective", Plot), snapshot.study.metric if snapshot.study else ""
        self.set_class(self._view == "timeline", "-timeline")
        if self._view == "timeline":
            panel = self.query_one("#timeline")
            page = many.timeline(view.many, view, panel.size.width or 70, panel.size.height or 8)
            self.put("timeline", page, "timeline: ━ runs ┄ waits", "v: objective")
            return
        if self._view == "curves":
            title = many.curves_title(view.many, snapshot.trials, metric)
            head(objective, title, "v: timeline")
            seen = ("curves", snapshot.trials, view.many.version, view.many.pending)
            objective.show(seen, lambda: many.curves(view.many, snapshot.trials, metric))
            return
        if self._axis not in axes(snapshot.trials):
            self._axis = NUMBER
        over = self._axis if self._axis in (NUMBER, TIME) else text.parameter_name(self._axis)
        marks = legend(snapshot.trials)
        title = f"{study.metric(snapshot)} over {over}" + (f": {marks}" if marks else "")
        head(objective, title, study.best(view))
        objective.show((self._axis, snapshot.trials), lambda: chart(snapshot.trials, self._axis, metric))

    def action_view(self) -> None:
        """Show the objective, the curves of all trials, or when each of them ran."""
        self._view = VIEWS[(VIEWS.index(self._view) + 1) % len(VIEWS)] if self._view in VIEWS else VIEWS[0]
        if view := self.host.view:
            self.show(view)
        self.host.hurry()

    def action_axis(self, by: int) -> None:
        """Draw the objective over the next axis."""
        if view := self.host.view:
            known = axes(view.snapshot.trials)
            at = known.index(self._axis) if self._axis in known else 0
            self._axis = known[(at + by) % len(known)]
            self.show(view)
