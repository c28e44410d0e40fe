"""Marked trials side by side: their curves, the parameters that differ, F1 by symptom."""

from collections.abc import Sequence

from rich.text import Text

from ..read.detail import TrialDetail
from ..read.standing import Standing
from ..read.trials import score
from ..read.view import View
from . import text
from .curves import Curve

# A colour and a symbol per trial, so that lines can be distinguished without colours.
STYLES = ("cyan", "magenta", "green", "yellow", "red", "blue", "white", "bright_black")
MARKERS = "●■▲◆○□△◇"


def curves(details: Sequence[TrialDetail], name: str) -> list[Curve]:
    """The curves of one metric, one for each trial that has it."""
    return [
        Curve(series, STYLES[place], MARKERS[place], text.number(detail.record), start=detail.record.started_at or "")
        for place, detail in enumerate(details)
        if (series := detail.series.get(name))
    ]


def compared(view: View) -> list[TrialDetail]:
    """The marked trials whose details have been read."""
    return [view.details[trial_id] for trial_id in view.marked if trial_id in view.details]


def parameters(details: Sequence[TrialDetail], standing: Standing, width: int = 0, height: int = 0) -> Text:
    """The parameters in which they differ, one column per trial; above them, their states and scores, and whether these
    are within noise of the best.

    The columns take the width; what is the same in all trials follows where there is room.
    """
    each = min(max((width - 20) // max(len(details), 1), 13), 40)
    page = Text(f"{'':<20}")
    for place, detail in enumerate(details):
        page.append(f"{MARKERS[place]} {text.number(detail.record):<{each - 2}}", STYLES[place])
    rows: list[tuple[str, list[str]]] = [
        ("state", [d.record.state for d in details]),
        ("best", [text.value(score(d.record)) for d in details]),
        ("95 % interval", [_bounds(standing, d.record.trial_id) for d in details]),
        ("noise", ["≈ the best" if d.record.trial_id in standing.near else "" for d in details]),
        ("epochs", [f"{d.record.epoch}/{d.record.epochs}" for d in details]),
        ("bytes", [text.size(d.record.bytes) for d in details]),
    ]
    keys, first = sorted({key for d in details for key in d.record.parameters}), details[0].record.parameters
    for key in keys:
        settings = [d.record.parameters.get(key, "–") for d in details]
        if any(setting != settings[0] for setting in settings):
            rows.append((text.parameter_name(key), [text.parameter(setting) for setting in settings]))
    rows = [(name, cells) for name, cells in rows if any(cells)]
    for name, cells in rows:
        page.append(f"\n{name:<20.19}", text.DIM).append("".join(f"{cell:<{each}.{each - 1}}" for cell in cells))
    alike = [key for key in keys if text.parameter_name(key) not in {name for name, _ in rows}]
    for key in alike[: max(height - len(rows) - 2, 0)]:
        page.append(f"\n{text.parameter_name(key):<20.19}in all  {text.parameter(first.get(key, '–'))}", text.DIM)
    return page


def _bounds(standing: Standing, trial_id: str) -> str:
    bounds = standing.intervals.get(trial_id)
    return f"{bounds[0]:.2f}–{bounds[1]:.2f}" if bounds else ""


def symptoms(details: Sequence[TrialDetail], standing: Standing, width: int = 0, height: int = 0) -> Text:
    """The first trial's F1 per symptom, and the others' differences from it; with bars where there is room. Below, the
    baseline's macro F1.
    """
    first = details[0].report
    if first is None:
        return Text(
            f"trial {text.number(details[0].record)} has no report to compare with: first mark another one", text.DIM
        )
    others = [_by_symptom(detail) for detail in details[1:]]
    rows = [(row.id, row.f1) for row in first.test_metrics.criteria_matching.per_criterion]
    rows.append(("macro F1", first.test_metrics.criteria_matching.f1_macro))
    if width >= 40 and height >= len(rows) * (len(details) + 2):
        each = [(name, [f1, *(other.get(name) for other in others)]) for name, f1 in rows]
        return _with_bars(details, each, width).append_text(_baseline(standing))
    page = Text.assemble((f"{'':<18}{text.number(details[0].record):>7}", text.DIM))
    for detail in details[1:]:
        page.append(f"{text.number(detail.record):>8}", text.DIM)
    for name, f1 in rows:
        page.append(f"\n{text.clean(name, 18):<18}").append(f"{'–' if f1 is None else f'{f1:.2f}':>7}", "bold")
        for other in others:
            page.append_text(_change(other.get(name), f1))
    return page.append_text(_baseline(standing))


def _baseline(standing: Standing) -> Text:
    """The line of the baseline, if there is one."""
    f1 = standing.test_f1_macro
    return Text("" if f1 is None else f"\n{'baseline macro F1':<18}{f1:>7.2f}", text.DIM)


def _change(there: float | None, f1: float | None) -> Text:
    """A difference in eight characters."""
    if f1 is None or there is None:
        return Text(f"{'–':>8}", text.DIM)
    change = there - f1
    style = "green" if change > 0.005 else "red" if change < -0.005 else text.DIM
    return Text(f"{change:>+8.2f}".replace("-", "−"), style)


def _with_bars(details: Sequence[TrialDetail], rows: Sequence[tuple[str, list[float | None]]], width: int) -> Text:
    """Each symptom with a line per trial: F1, the difference from the first trial, and a bar."""
    page = Text()
    for name, scores in rows:
        page.append(f"{text.clean(name, 30)}\n", "bold")
        for place, (detail, f1) in enumerate(zip(details, scores, strict=True)):
            page.append(f"  {MARKERS[place]} {text.number(detail.record):<8}", STYLES[place])
            page.append(f"{'–' if f1 is None else f'{f1:.2f}':>5}")
            page.append_text(_change(f1, scores[0]) if place else Text(" " * 8))
            page.append(f" {text.fine_bar(f1, width - 27)}", STYLES[place]).append("\n")
        page.append("\n")
    page.rstrip()
    return page


def _by_symptom(detail: TrialDetail) -> dict[str, float | None]:
    if detail.report is None:
        return {}
    metrics = detail.report.test_metrics.criteria_matching
    return {row.id: row.f1 for row in metrics.per_criterion} | {"macro F1": metrics.f1_macro}
