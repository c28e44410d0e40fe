"""The curves of metrics, and positions on their common x axis: steps or epochs."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..read.detail import Series
from .text import duration, time_of


@dataclass(frozen=True)
class Curve:
    """One trial's values of a metric. `marker`: drawn along it, and before its value; `behind`: for comparison only;
    `start`: when the trial began, from which its time counts.
    """

    series: Series
    style: str
    marker: str = ""
    number: str = ""
    behind: bool = False
    start: str = ""


def ordered(names: Iterable[str], metric: str) -> list[str]:
    """The study's metric first, then the losses, the machine's metrics last. Test metrics, which have one value each,
    are in the report.
    """
    there = sorted(
        (name for name in names if not name.startswith("test_")), key=lambda name: (name.startswith("system_"), name)
    )
    first = [name for name in dict.fromkeys((metric, "val_loss", "train_loss")) if name in there]
    return first + [name for name in there if name not in first]


AXES = ("step", "epoch", "time")


def place(x: float, axis: str = "step") -> str:
    """The label of an x position: all digits of a step, four digits of a fractional epoch, a time as 4.2 s or 4:12."""
    if axis == "time":
        return f"{x:.1f} s" if x < 60 else duration(x)
    return f"{x:.0f}" if abs(x) >= 1000 or x == int(x) else f"{x:.4g}"


def ends(rows: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    there = [xs for xs in rows if xs]
    return (min(xs[0] for xs in there), max(xs[-1] for xs in there)) if there else None


def nearest(rows: Sequence[Sequence[float]], at: float) -> float:
    """The position nearest to `at` in the sorted rows, not all of which are empty."""
    near = [xs[i] for xs in rows for i in {bisect_left(xs, at) - 1, bisect_left(xs, at)} if 0 <= i < len(xs)]
    return min(near, key=lambda x: (abs(x - at), x))


def beside(rows: Sequence[Sequence[float]], at: float, by: int) -> float:
    """The next position after `at` (by 1) or before it (by -1) in any of the sorted rows; at the end, the last one."""
    if by > 0:
        after = [xs[i] for xs in rows if (i := bisect_right(xs, at)) < len(xs)]
        return min(after) if after else nearest(rows, at)
    before = [xs[i - 1] for xs in rows if (i := bisect_left(xs, at))]
    return max(before) if before else nearest(rows, at)


def elapsed(times: Sequence[str], start: str) -> list[float]:
    """The seconds on the clock from the trial's start to each time, pauses included; they never go back."""
    began = time_of(start or (times[0] if times else "")).timestamp()
    return [*accumulate((max(time_of(time).timestamp() - began, 0.0) for time in times), max)]


def spread(epochs: Sequence[float]) -> Sequence[float]:
    """Spread the steps of the same epoch evenly: the k-th of n after epoch e is at e + k/n."""
    if len(set(epochs)) == len(epochs):
        return list(epochs)
    places: list[float] = []
    start = 0
    while start < len(epochs):
        end = bisect_right(epochs, epochs[start], start)
        places += [epochs[start] + k / (end - start) for k in range(end - start)]
        start = end
    return places
