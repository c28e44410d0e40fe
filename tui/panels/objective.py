"""The objective over the trials, over time, or over a parameter, as a chart."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ..read.trials import ACTIVE, Trials, score
from . import text
from .chart import Chart, Line
from .ticks import bounds

NUMBER, TIME = "the trials", "time"


def axes(trials: Trials) -> list[str]:
    """The choices for the x axis of the objective."""
    return [NUMBER, TIME, *trials.parameters]


def chart(trials: Trials, axis: str, metric: str = "") -> Chart:
    made = objective_chart(trials) if axis == NUMBER else slice_chart(trials, axis)
    return replace(made, within=bounds(metric, [value for _, value, _ in trials.points]))


def legend(trials: Trials) -> str:
    """The marks of the states that the chart shows: one state for each mark."""
    there = {text.POINTS[state]: _word(state) for _, _, state in trials.points}
    return "  ".join(f"{mark} {there[mark]}" for mark in dict.fromkeys(text.POINTS.values()) if mark in there)


def _word(state: str) -> str:
    return "running" if state in ACTIVE else state


def _points(found: Sequence[tuple[float, float, str]]) -> list[Line]:
    """A line of marks for each state, those of completed trials on top."""
    lines = []
    for state in sorted({state for _, _, state in found}, key=lambda state: (state == "completed", state)):
        own = sorted((x, y) for x, y, its in found if its == state)
        style = "cyan" if state == "completed" else "bold white" if state in ACTIVE else text.STYLES.get(state, "")
        lines.append(Line([x for x, _ in own], [y for _, y in own], style, "points", marker=text.POINTS[state]))
    return lines


def slice_chart(trials: Trials, axis: str) -> Chart:
    """The objective over one parameter, or over the hours since the first trial began; words are side by side."""
    first = text.time_of(trials.span[1]).timestamp()
    found: list[tuple[object, float, str]] = []
    for trial in trials:
        value = None if trial.confirms else score(trial)
        ended = trial.finished_at or trial.created_at
        at = (text.time_of(ended).timestamp() - first) / 3600 if axis == TIME else trial.parameters.get(axis)
        if isinstance(at, int | float) and not abs(at) < 1e15:
            continue  # it has no position on the axis
        if value is not None and at is not None:
            found.append((at, value, trial.state))
    words = sorted({str(at) for at, _, _ in found if isinstance(at, bool) or not isinstance(at, int | float)})[:50]
    numbers = [float(at) for at, _, _ in found if isinstance(at, int | float)] if not words else []
    log = bool(numbers) and axis != TIME and min(numbers) > 0 and max(numbers) / min(numbers) > 20
    points = []
    for at, value, state in found:
        if not words or str(at) in words:
            x = words.index(str(at)) if words else float(str(at))
            points.append((math.log10(x) if log else x, value, state))

    def label(x: float) -> str:
        if words:
            return text.parameter(words[min(max(round(x), 0), len(words) - 1)])
        return f"{10**x if log else x:.3g}{' h' if axis == TIME else ''}"

    return Chart(_points(points), x_label=label, empty="no trial with a score has this parameter")


def objective_chart(trials: Trials) -> Chart:
    """Each trial's objective, and the best so far as a staircase."""
    first, last = (trials.points[0][0], trials.points[-1][0]) if trials.points else (0, 0)
    last = max([last, *(t.number or 0 for t in trials[-1:])])
    best = trials.running_best
    lines = [Line([n for n, _ in best], [v for _, v in best], "green", "steps"), *_points(trials.points)]
    return Chart(
        lines,
        x_range=(min(first, 0), max(last, 1)),
        x_label=lambda x: f"#{x:.0f}",
        empty="no trial has a score yet: the first comes after an epoch",
    )
