"""The objective over the trials, over time, or over a parameter, as a chart."""

import math

from ..read.reader import Trials, score
from . import text
from .chart import Chart, Line

NUMBER, TIME = "the trials", "time"


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
        value = None if trial.confirms else score(trial)
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
