"""The Overview screen: the objective over the trials, the current trial, storage and pace, recent events."""

import math
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from tui import panels, text
from tui.reader import Trials, score
from tui.screens.base import FolderScreen, head
from tui.view import View
from tui.widgets.plot import Chart, Line, Plot

NUMBER, TIME = "the trials", "time"


class OverviewScreen(FolderScreen):
    needs: ClassVar[str] = "active"
    kept: ClassVar[tuple[str, ...]] = ("_axis",)
    side: ClassVar[tuple[str, int]] = ("#panels", 52)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "app.order('pause')", "Pause"),
        Binding("a", "axis(1)", "Axis", show=False),
        Binding("A", "axis(-1)", "Previous axis", show=False),
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
        head(objective, f"{panels.metric(snapshot)} over {over}: • completed  × other", panels.best(snapshot))
        objective.show((self._axis, snapshot.trials), lambda: chart(snapshot.trials, self._axis))
        panel = self.query_one("#storage", Static)
        width = (panel.size.width or 46) - 2
        now_ms = int(view.now.timestamp() * 1000)
        self.put("storage", panels.storage(snapshot, view.storage, width, now_ms), "storage")
        self.put("now", panels.happening(view), "now")
        self.put("pace", panels.pace(view), "pace")
        self.put("best", panels.leader(snapshot), "best")
        lines = panels.lately(view)
        self.put("lately", Text("\n").join(lines) if lines else Text("nothing yet", text.DIM), "lately")

    def action_axis(self, by: int) -> None:
        """Draw the objective over the next axis."""
        if view := self.owner.view:
            known = axes(view.snapshot.trials)
            at = known.index(self._axis) if self._axis in known else 0
            self._axis = known[(at + by) % len(known)]
            self.show(view)


def axes(trials: Trials) -> list[str]:
    """The choices for the x axis of the objective."""
    return [NUMBER, TIME, *trials.parameters]


def chart(trials: Trials, axis: str) -> Chart:
    return objective_chart(trials) if axis == NUMBER else slice_chart(trials, axis)


def slice_chart(trials: Trials, axis: str) -> Chart:
    """The objective over one parameter, or over the hours since the first trial began; words are side by side."""
    first = text.time_of(trials.span[1]).timestamp()
    found: list[tuple[object, float, bool]] = []
    for trial in trials:
        value = score(trial)
        ended = trial.finished_at or trial.created_at
        at = (text.time_of(ended).timestamp() - first) / 3600 if axis == TIME else trial.parameters.get(axis)
        if isinstance(at, int | float) and not abs(at) < 1e15:
            continue  # it has no position on the axis
        if value is not None and at is not None:
            found.append((at, value, trial.state == "completed"))
    words = sorted({str(at) for at, _, _ in found if isinstance(at, bool) or not isinstance(at, int | float)})[:50]
    numbers = [float(at) for at, _, _ in found if isinstance(at, int | float)] if not words else []
    log = bool(numbers) and axis != TIME and min(numbers) > 0 and max(numbers) / min(numbers) > 20
    lines = []
    for completed, style, marker in ((False, "yellow", "×"), (True, "cyan", "•")):
        points = []
        for at, value, done in found:
            if done == completed and (not words or str(at) in words):
                x = words.index(str(at)) if words else float(str(at))
                points.append((math.log10(x) if log else x, value))
        points.sort()
        lines.append(Line([x for x, _ in points], [y for _, y in points], style, "points", marker=marker))

    def label(x: float) -> str:
        if words:
            return text.parameter(words[min(max(round(x), 0), len(words) - 1)])
        return f"{10**x if log else x:.3g}{' h' if axis == TIME else ''}"

    return Chart(lines, x_label=label, empty="no trial with a score has this parameter")


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
        empty="no trial has a score yet: the first comes after an epoch",
    )
