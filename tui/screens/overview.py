"""The study at a glance: the objective over the trials, what happens now, what it costs, what happened lately."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from tui import panels, text
from tui.reader import Trials
from tui.screens.base import FolderScreen, head
from tui.view import View
from tui.widgets.plot import Chart, Line, Plot


class OverviewScreen(FolderScreen):
    needs: ClassVar[str] = "active"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("p", "app.order('pause')", "Pause")]

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
        head(objective, f"{panels.metric(snapshot)} over the trials: • completed  × other", panels.best(snapshot))
        objective.show(snapshot.trials, lambda: objective_chart(snapshot.trials))
        panel = self.query_one("#storage", Static)
        width = (panel.size.width or 46) - 2
        now_ms = int(view.now.timestamp() * 1000)
        self.put("storage", panels.storage(snapshot, view.storage, width, now_ms), "storage")
        self.put("now", panels.happening(view), "now")
        self.put("pace", panels.pace(view), "pace")
        self.put("best", panels.leader(snapshot), "best")
        lines = panels.lately(view)
        self.put("lately", Text("\n").join(lines) if lines else Text("nothing yet", text.DIM), "lately")


def objective_chart(trials: Trials) -> Chart:
    """Each trial's objective, and the best so far as a staircase."""
    first, last = (trials.points[0][0], trials.points[-1][0]) if trials.points else (0, 0)
    last = max([last, *(t.number or 0 for t in trials[-1:])])
    others = [(n, v) for n, v, completed in trials.points if not completed]
    done = [(n, v) for n, v, completed in trials.points if completed]
    best = trials.running_best
    lines = [
        Line([n for n, _ in best], [v for _, v in best], "green", "steps"),
        Line([n for n, _ in others], [v for _, v in others], "yellow", "points", marker="×"),
        Line([n for n, _ in done], [v for _, v in done], "cyan", "points"),
    ]
    return Chart(
        lines,
        x_range=(min(first, 0), max(last, 1)),
        x_label=lambda x: f"#{x:.0f}",
        empty="no trial has a score yet: it takes an epoch",
    )
