"""Two to eight marked trials: their curves on one chart, the parameters in which they differ, symptom by symptom."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from tui import text
from tui.detail import TrialDetail
from tui.reader import score
from tui.screens.base import FolderScreen, head
from tui.view import View
from tui.widgets.plot import Chart, Line, Plot, smoothed

# A colour and a symbol each, so that the lines can be told apart without colours too.
STYLES = ("cyan", "magenta", "green", "yellow", "red", "blue", "white", "bright_black")
MARKERS = "●■▲◆○□△◇"


class CompareScreen(FolderScreen):
    needs: ClassVar[str] = "marked"
    kept: ClassVar[tuple[str, ...]] = ("smooth", "log_axis", "by_step")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "metric(1)", "Metric"),
        Binding("b", "metric(-1)", "Metric before", show=False),
        Binding("w", "flip('smooth')", "Smooth", show=False),
        Binding("l", "flip('log_axis')", "Log axis", show=False),
        Binding("a", "flip('by_step')", "Step or epoch", show=False),
        Binding("left", "inspect(-1)", "Point before", show=False),
        Binding("right", "inspect(1)", "Point after", show=False),
        Binding("M", "app.unmark", "Clear marks", show=False),
        Binding("escape", "app.switch_mode('trials')", "Back", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.smooth = self.log_axis = self.by_step = False
        self._metric: str | None = None
        self._at: int | None = None  # the place on the x axis that is looked at, of those that any trial has
        self._view: View | None = None

    def body(self) -> ComposeResult:
        with Container(id="compare"):
            yield Plot(id="curves", classes="panel")
            with VerticalScroll(id="symptoms", classes="panel"):
                yield Static(id="symptoms-text", markup=False)
            with VerticalScroll(id="parameters", classes="panel"):
                yield Static(id="parameters-text", markup=False)

    def show(self, view: View) -> None:
        self._view = view
        details = compared(view)
        plot = self.query_one("#curves", Plot)
        if len(details) < 2:
            said = f"{len(details)} marked. Mark 2 to 8 trials: m in Trials (2) or on a trial (3)."
            plot.show(said, lambda: Chart(empty=said))
            head(plot, "compare", "")
            self.put("parameters-text", "")
            self.put("symptoms-text", "")
            return
        names = self._names(details)
        metric = self._metric if self._metric in names else names[0] if names else ""
        self._metric = metric or self._metric
        at = self._position(details, metric)
        legend = " ".join(
            f"{MARKERS[n]} {text.number(d.record)}{self._value(d, metric, at)}" for n, d in enumerate(details)
        )
        word = "step" if self.by_step else "epoch"
        legend += "" if at is None else f"  at {word} {at}"
        how = "".join(f", {word}" for word, on in (("smoothed", self.smooth), ("log", self.log_axis)) if on)
        head(plot, f"{text.clean(metric, 50)} by {word}{how}", legend)
        seen = (metric, self.smooth, self.log_axis, self.by_step, at, [(d.folder, d.version) for d in details])
        plot.show(seen, lambda: self._chart(details, metric, at))
        self.put("parameters-text", parameters(details))
        head(self.query_one("#parameters"), "parameters that differ")
        self.put("symptoms-text", symptoms(details))
        head(self.query_one("#symptoms"), f"F1 by symptom, difference to {text.number(details[0].record)}")

    def _names(self, details: Sequence[TrialDetail]) -> list[str]:
        """The metrics that at least two have, the objective first."""
        counted = Counter(name for d in details for name in d.series)
        names = sorted((n for n in counted if counted[n] > 1), key=lambda n: (n.startswith("system_"), n))
        study = self._view.snapshot.study if self._view else None
        return sorted(names, key=lambda n: not (study and n == study.metric))

    def _xs(self, detail: TrialDetail, metric: str) -> Sequence[int]:
        series = detail.series.get(metric)
        return () if series is None else series.steps if self.by_step else series.epochs

    def _position(self, details: Sequence[TrialDetail], metric: str) -> int | None:
        """The step or epoch that is looked at; None where none is."""
        places = sorted({x for detail in details for x in self._xs(detail, metric)})
        if self._at is None or not places:
            return None
        self._at = min(max(self._at, 0), len(places) - 1)
        return places[self._at]

    def _value(self, detail: TrialDetail, metric: str, at: int | None) -> str:
        """The last value of a trial up to there."""
        xs = self._xs(detail, metric)
        past = bisect_right(xs, at) if at is not None else 0
        return f" {text.value(detail.series[metric].values[past - 1])}" if past else ""

    def action_inspect(self, by: int) -> None:
        self._at = 0 if self._at is None else self._at + by
        if self._view:
            self.show(self._view)

    def _chart(self, details: Sequence[TrialDetail], metric: str, at: int | None) -> Chart:
        lines = []
        for place, detail in enumerate(details):
            series = detail.series.get(metric)
            if series is None:
                continue
            xs = self._xs(detail, metric)
            values = smoothed(series.values) if self.smooth else series.values
            lines.append(Line(xs, values, STYLES[place]))
            every = max(len(xs) // 6, 1)
            lines.append(Line(xs[::every], values[::every], STYLES[place], "points", marker=MARKERS[place]))
        word = "step" if self.by_step else "epoch"
        return Chart(
            lines, log=self.log_axis, at=at, x_label=lambda x: f"{word} {x:g}", empty="no metric that two of them have"
        )

    def action_metric(self, by: int) -> None:
        if self._view:
            names = self._names(compared(self._view))
            if names:
                at = names.index(self._metric) if self._metric in names else 0
                self._metric = names[(at + by) % len(names)]
            self.show(self._view)

    def action_flip(self, what: str) -> None:
        setattr(self, what, not getattr(self, what))
        if self._view:
            self.show(self._view)


def compared(view: View) -> list[TrialDetail]:
    """The marked trials, as far as they have been read."""
    return [view.details[trial_id] for trial_id in view.marked if trial_id in view.details]


def parameters(details: Sequence[TrialDetail]) -> Text:
    """The parameters in which they differ, a column a trial; above them, how they stand."""
    page = Text(f"{'':<20}")
    for place, detail in enumerate(details):
        page.append(f"{MARKERS[place]} {text.number(detail.record):<11}", STYLES[place])
    rows: list[tuple[str, list[str]]] = [
        ("state", [d.record.state for d in details]),
        ("best", [text.value(score(d.record)) for d in details]),
        ("epochs", [f"{d.record.epoch}/{d.record.epochs}" for d in details]),
        ("bytes", [text.size(d.record.bytes) for d in details]),
    ]
    keys = sorted({key for d in details for key in d.record.parameters})
    for key in keys:
        settings = [d.record.parameters.get(key, "–") for d in details]
        if any(setting != settings[0] for setting in settings):
            rows.append((text.parameter_name(key), [text.parameter(setting) for setting in settings]))
    for name, cells in rows:
        page.append(f"\n{name:<20.19}", text.DIM).append("".join(f"{cell:<13.12}" for cell in cells))
    return page


def symptoms(details: Sequence[TrialDetail]) -> Text:
    """The first trial's F1 a symptom, and by how much the others differ from it."""
    first = details[0].report
    if first is None:
        return Text(
            f"trial {text.number(details[0].record)} has no report to compare with: mark another one first", text.DIM
        )
    others = [_by_symptom(detail) for detail in details[1:]]
    page = Text.assemble((f"{'':<18}{text.number(details[0].record):>7}", text.DIM))
    for detail in details[1:]:
        page.append(f"{text.number(detail.record):>8}", text.DIM)
    rows = [(row.id, row.f1) for row in first.test_metrics.criteria_matching.per_criterion]
    rows.append(("macro F1", first.test_metrics.criteria_matching.f1_macro))
    for name, f1 in rows:
        page.append(f"\n{text.clean(name, 18):<18}").append(f"{'–' if f1 is None else f'{f1:.2f}':>7}", "bold")
        for other in others:
            there = other.get(name)
            if f1 is None or there is None:
                page.append(f"{'–':>8}", text.DIM)
            else:
                change = there - f1
                style = "green" if change > 0.005 else "red" if change < -0.005 else text.DIM
                page.append(f"{change:>+8.2f}".replace("-", "−"), style)
    return page


def _by_symptom(detail: TrialDetail) -> dict[str, float | None]:
    if detail.report is None:
        return {}
    metrics = detail.report.test_metrics.criteria_matching
    return {row.id: row.f1 for row in metrics.per_criterion} | {"macro F1": metrics.f1_macro}
