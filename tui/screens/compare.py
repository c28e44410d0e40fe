"""Two to eight marked trials: a grid of charts with their curves, the parameters that differ, the symptoms."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from tui import text
from tui.detail import TrialDetail
from tui.reader import score
from tui.screens.base import head
from tui.screens.charts import ChartsScreen
from tui.view import View
from tui.widgets.grid import GRID_KEYS, ChartGrid, Curve, ordered

# A colour and a symbol per trial, so that lines can be distinguished without colours.
STYLES = ("cyan", "magenta", "green", "yellow", "red", "blue", "white", "bright_black")
MARKERS = "●■▲◆○□△◇"


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
            yield ChartGrid(id="curves", by_epoch=True, everywhere=True)
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
        self.put("parameters-text", parameters(details))
        head(self.query_one("#parameters"), "parameters that differ")
        self.put("symptoms-text", symptoms(details))
        head(self.query_one("#symptoms"), f"F1 by symptom, difference to {text.number(details[0].record)}")


def curves(details: Sequence[TrialDetail], name: str) -> list[Curve]:
    """The curves of one metric, one for each trial that has it."""
    return [
        Curve(series, STYLES[place], MARKERS[place], text.number(detail.record))
        for place, detail in enumerate(details)
        if (series := detail.series.get(name))
    ]


def compared(view: View) -> list[TrialDetail]:
    """The marked trials whose details have been read."""
    return [view.details[trial_id] for trial_id in view.marked if trial_id in view.details]


def parameters(details: Sequence[TrialDetail]) -> Text:
    """The parameters in which they differ, one column per trial; above them, their states and scores."""
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
    """The first trial's F1 per symptom, and the others' differences from it."""
    first = details[0].report
    if first is None:
        return Text(
            f"trial {text.number(details[0].record)} has no report to compare with: first mark another one", text.DIM
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
