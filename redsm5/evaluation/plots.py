"""The figures of the HTML pages, as inline SVG.

matplotlib draws them without pyplot, so that the process keeps no global state. Text stays text. Colours are roles
(`INK`, `ACCENT`, …) that the page's stylesheet defines for light, dark and print. The same data give the same bytes.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

Point = tuple[float, float]

# Placeholder colours, replaced by the stylesheet's variables after the figure is drawn.
INK, MUTED, LINE, ACCENT, SECOND, BAD = (f"#0{n}fe0{n}" for n in range(1, 7))
VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", SECOND: "second", BAD: "bad"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "redsm5",
    "text.parse_math": False,  # a $ in a name is literal
    "text.color": INK,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": 9,
}
MOST_POINTS = 400  # points per line: more than a screen shows
LARGEST = 1e30  # matplotlib finds no ticks for larger values; a comparison with NaN is False
PIXELS = 96  # CSS pixels per inch


def finite(points: Sequence[Point]) -> list[Point]:
    """The points that can be drawn."""
    return [point for point in points if all(abs(value) <= LARGEST for value in point)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[list[Point], int]:
    """At most `most` points, each the mean of `size` neighbours (the last one of the remaining points); and `size`."""
    size = max(math.ceil(len(points) / most), 1)
    pieces = [np.asarray(points[i : i + size]) for i in range(0, len(points), size)]
    return [(float(x), float(y)) for x, y in (piece.mean(axis=0) for piece in pieces)], size


# ---------------------------------------------------------------------------------------------------------------------
# a trial


def loss_curves(train: Sequence[Point], validation: Sequence[Point]) -> str:
    """(step, loss) of both splits."""
    line, size = thinned(finite(train))

    def draw(axes: Axes) -> None:
        label = "training" if size == 1 else f"training, means of {size} steps"
        axes.plot(*_columns(line), color=MUTED, linewidth=1, label=label)
        axes.plot(*_columns(finite(validation)), color=ACCENT, marker="o", markersize=3, label="validation")
        axes.set(xlabel="optimizer step", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(loc="upper right")

    return _svg("losses", "Training and validation loss over the optimizer steps", (5.0, 2.9), draw)


def objective_curve(name: str, points: Sequence[Point], evaluated: Sequence[int]) -> str:
    """(epoch, score) on the validation split; rings mark the epochs whose checkpoints were evaluated."""
    line = finite(points)

    def draw(axes: Axes) -> None:
        axes.plot(*_columns(line), color=ACCENT, marker="o", markersize=3)
        ringed = [point for point in line if point[0] in evaluated]
        axes.plot(
            *_columns(ringed), "o", markersize=9, markerfacecolor="none", markeredgecolor=SECOND, label="evaluated"
        )
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.margins(y=0.15)
        if ringed:
            axes.legend(loc="best")

    return _svg("objective", f"{name} on the validation split after each epoch", (5.0, 2.9), draw)


def pr_curve(name: str, title: str, points: Sequence[Point], *, prevalence: float | None, chosen: Point | None) -> str:
    """Precision over recall; the prevalence is the precision of guessing, `chosen` the point at the
    decision threshold.
    """

    def draw(axes: Axes) -> None:
        axes.plot(*_columns(sorted(finite(points), key=lambda p: (p[0], -p[1]))), color=ACCENT, drawstyle="steps-pre")
        if prevalence is not None:
            axes.axhline(prevalence, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        if chosen is not None:
            axes.plot(*chosen, "o", markersize=7, markerfacecolor="none", markeredgecolor=SECOND, clip_on=False)
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])

    return _svg(name, title, (2.4, 2.1), draw)


def reliability(name: str, title: str, points: Sequence[Point], counts: Sequence[int]) -> str:
    """(mean probability, share of positives) of each bin, larger the more posts it has; on the diagonal they agree."""
    most = max(counts, default=1) or 1

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(*_columns(points), color=ACCENT, linewidth=1)
        sizes = [8 + 60 * count / most for count in counts]
        axes.scatter(*_columns(points), s=sizes, color=ACCENT, zorder=3, clip_on=False)
        axes.set(xlabel="mean probability", ylabel="share with it", xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])

    return _svg(name, title, (2.4, 2.1), draw)


# ---------------------------------------------------------------------------------------------------------------------
# a study


def history(
    metric: str,
    completed: Sequence[Point],
    pruned: Sequence[Point],
    failed: Sequence[int],
    duplicates: Sequence[Point],
    baseline: float | None = None,
    *,
    maximize: bool = True,
    narrow: bool = False,
) -> str:
    """(trial number, value) by outcome, and the best so far; failed trials have no value and are drawn
    at the bottom. The baseline's value is a dashed line.
    """

    def draw(axes: Axes) -> None:
        axes.plot(*_columns(completed), "o", color=ACCENT, markersize=4, label="completed")
        if best := _running_best(sorted(completed), maximize):
            end = max((x for x, _ in [*completed, *pruned, *duplicates]), default=best[-1][0])
            axes.plot(*_columns([*best, (max(end, *failed, 0), best[-1][1])]), color=SECOND, drawstyle="steps-post")
            axes.lines[-1].set_label("best so far")
        if duplicates:
            axes.plot(
                *_columns(duplicates), "o", markerfacecolor="none", markeredgecolor=ACCENT, markersize=5, label="repeat"
            )
        if pruned:
            axes.plot(*_columns(pruned), "x", color=MUTED, markersize=5, label="pruned, its best epoch")
        if failed:
            axes.plot(
                failed,
                [0.02] * len(failed),
                "^",
                color=BAD,
                markersize=5,
                transform=axes.get_xaxis_transform(),
                label="failed",
            )
        if baseline is not None and abs(baseline) <= LARGEST:
            axes.axhline(baseline, color=INK, linestyle="--", linewidth=1.0, label="baseline")
        axes.set(xlabel="trial", ylabel=metric)
        axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 8, integer=True, min_n_ticks=1))
        _legend_below(axes, narrow)

    return _svg(_name("history", narrow), f"{metric} of each trial, and the best so far", _size(narrow), draw)


def storage(
    unit: str, kept: Sequence[Point], keep_all: Sequence[Point], budget: int | None, *, narrow: bool = False
) -> str:
    """(time in `unit`, bytes), logarithmic: the bytes kept, the bytes if everything had been kept, and the budget."""

    def draw(axes: Axes) -> None:
        axes.plot(*_columns(keep_all), color=MUTED, drawstyle="steps-post", label="if everything were kept")
        axes.plot(*_columns(kept), color=ACCENT, drawstyle="steps-post", label="kept")
        if budget is not None:
            axes.axhline(budget, color=BAD, linewidth=1.2, linestyle=(0, (4, 3)), label="budget")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(EngFormatter(unit="B", sep=" "))
        axes.yaxis.set_minor_formatter(NullFormatter())
        low = min((y for _, y in [*kept, *keep_all] if y > 0), default=1.0)
        high = max(max((y for _, y in keep_all), default=1.0), budget or 1.0)
        axes.set_ylim(low / 1.5, high * 1.8)
        axes.set(xlabel=f"{unit} since the first checkpoint", ylabel="bytes of checkpoints")
        if narrow:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        _legend_below(axes, narrow)

    title = "Bytes of checkpoints over time, against keeping everything"
    return _svg(_name("storage", narrow), title, _size(narrow), draw)


def parallel_coordinates(
    axes: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    lines: Sequence[Sequence[float]],
    marked: Sequence[int],
    *,
    narrow: bool = False,
) -> str:
    """One line per trial, across one vertical axis for the value and one per parameter.

    The axes stand in as many rows as they need; each row begins with the axis of the value, so that it is read with
    every parameter.

    Args:
        axes: the name of each of the K axes, the value's first, with heights in [0, 1] and their labels; NOT_DRAWN is
            below 0.
        lines: the K heights of each trial, the best trial first.
        marked: which lines belong to the best tenth.
    """
    most = 2 if narrow else 7  # parameters in a row
    rows = max(math.ceil((len(axes) - 1) / most), 1)
    size = math.ceil((len(axes) - 1) / rows)
    row_axes = [[0, *range(first, min(first + size, len(axes)))] for first in range(1, len(axes), size)] or [[0]]

    def draw(figure: Figure) -> None:
        for place, k in zip(np.ravel(figure.subplots(rows, squeeze=False)), row_axes, strict=True):
            picked = [[line[i] for i in k] for line in lines]
            _parallel_row(place, [axes[i] for i in k], picked, marked, size + 1)

    inches = 3.75 if narrow else 1.2 * (size + 1)
    title = "Parameters and value of each completed trial"
    return _figure(_name("parallel", narrow), title, (inches, (2.9 if narrow else 3.5) * rows), draw)


def _parallel_row(
    axes: Axes,
    columns: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    lines: Sequence[Sequence[float]],
    marked: Sequence[int],
    room: int,
) -> None:
    """The lines across these columns, in a row with room for so many."""
    xs = range(len(columns))
    rest = [i for i in range(1, len(lines)) if i not in set(marked)]
    for chosen, colour, width, alpha in (
        (rest, MUTED, 0.7, 0.35),
        ([i for i in marked if i], ACCENT, 1.1, 0.85),
        ([0] if lines else [], SECOND, 2.2, 1.0),
    ):
        paths = [list(zip(xs, lines[i], strict=True)) for i in chosen]
        axes.add_collection(LineCollection(paths, color=colour, linewidths=width, alpha=alpha))
    for x, (_, labels) in zip(xs, columns, strict=True):
        axes.axvline(x, color=INK, linewidth=0.8)
        for height, label in labels:
            axes.plot([x - 0.03, x], [height, height], color=INK, linewidth=0.8)
            axes.annotate(label, (x, height), (-5, 0), textcoords="offset points", ha="right", va="center", fontsize=8)
    axes.set(xlim=(-0.9, room - 0.5), ylim=(-0.2, 1.06))
    axes.set_yticks([])
    axes.set_xticks(list(xs), [_wrapped(name) for name, _ in columns], color=INK)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _wrapped(name: str, longest: int = 16) -> str:
    """A name in lines that break after dots and underscores, or where they are too long."""
    lines = [""]
    for part in re.findall(rf"[^._]{{1,{longest - 1}}}[._]?|[._]", name):
        if len(lines[-1]) + len(part) > longest:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines[:4])


NOT_DRAWN = -0.13  # the height of a parameter that a trial did not have

# ---------------------------------------------------------------------------------------------------------------------
# SVG


def _name(name: str, narrow: bool) -> str:
    return f"{name}-narrow" if narrow else name


def _size(narrow: bool) -> tuple[float, float]:
    """Inches; a narrow figure fits into the 360 pixels that a telephone leaves without being made smaller."""
    return (3.75, 3.3) if narrow else (9.2, 3.6)


def _svg(name: str, title: str, inches: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """A figure of one pair of axes; see `_figure`."""
    return _figure(name, title, inches, lambda figure: draw(figure.add_subplot()))


def _figure(name: str, title: str, inches: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """The figure as an <svg> with its title for screen readers; its ids begin with `name`, unique on the page."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser's fonts draw the text, not matplotlib's
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=no_metadata)
    drawn = out.getvalue()
    body = drawn[drawn.index(">", drawn.index("<svg ")) + 1 :]
    body = re.sub(r"\s*<style [^>]*>[^<]*</style>| font-family: [^;<>]*;", "", body)  # the page's styles apply
    body = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    width, height = (round(side * 72, 1) for side in inches)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{inches[0] * PIXELS:.0f}px" role="img" '
        f'aria-labelledby="{name}-title"><title id="{name}-title">{escape(title)}</title>{body}'
    )


def _legend_below(axes: Axes, narrow: bool) -> None:
    figure = axes.get_figure(root=True)
    assert figure
    figure.legend(loc="outside lower center", ncols=2 if narrow else 5, columnspacing=1.4, handletextpad=0.5)


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _running_best(points: Sequence[Point], maximize: bool) -> list[Point]:
    best: list[Point] = []
    for x, y in points:
        if not best or (y > best[-1][1] if maximize else y < best[-1][1]):
            best.append((x, y))
    return best
