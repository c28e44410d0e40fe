"""The y axis of a chart: the range that a metric can have, limits and ticks at round numbers, and their labels."""

import itertools
import math
import re
from collections.abc import Callable, Sequence

from .text import size, value

Bounds = tuple[float, float] | None
Label = Callable[[float], str]

ROWS_PER_TICK = 3
MOST_TICKS = 6
JITTER = 1.1  # a share measured over a short time may be so much above the whole
# Parts of the names of metrics that are shares of 1. A name's other parts do not matter: val_f1_macro, test_pr_auc.
_SHARE = re.compile(
    r"(^|_)(f1|fbeta|accuracy|acc|precision|recall|specificity|sensitivity|auc|auroc|auprc|map|exact_match|jaccard|iou"
    r"|brier|ece)(_|$)"
)


def bounds(metric: str, values: Sequence[float] = ()) -> Bounds:
    """The lowest and the highest value that the metric can have; None if that is unknown, or a value is beyond it."""
    name = metric.lower()
    if name.endswith("_percent"):
        limits = 0.0, 100.0
    elif _SHARE.search(name) and "loss" not in name:
        limits = 0.0, 1.0
    else:
        return None
    finite = [v for v in values if math.isfinite(v)]
    return limits if all(limits[0] <= v <= limits[1] * JITTER for v in finite) else None


def unit(metric: str) -> Label | None:
    """How a metric whose name ends in a unit is written on an axis."""
    if metric.endswith("_bytes_per_second"):
        return lambda y: f"{size(y)}/s"
    return size if metric.endswith("_bytes") else None


def limits(low: float, high: float, rows: int, within: Bounds = None) -> tuple[float, float, float | None]:
    """Round numbers that contain the values from `low` to `high`, and the step between ticks.

    A single value of a bounded metric gets all of its range.
    """
    low, high = (min(max(y, -1e300), 1e300) for y in (low, high))
    if within:
        low, high = (min(max(y, within[0]), within[1]) for y in (low, high))
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        low, high = within or ((min(0.0, 2 * high), max(0.0, 2 * high)) if high else (0.0, 1.0))
    step = _step(high - low, rows)
    if step is None:
        return low, high, None
    return math.floor(low / step + 1e-6) * step, math.ceil(high / step - 1e-6) * step, step


def ticks(low: float, high: float, step: float | None) -> list[float]:
    """The multiples of the step from `low` to `high`, or the ends if there is none."""
    if step is None:
        return [low, high]
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [n * step for n in range(first, last + 1)] if 0 < last - first <= 4 * MOST_TICKS else [low, high]


def log_ticks(low: float, high: float, rows: int) -> list[float]:
    """The same where `low` and `high` are logarithms to base 10: powers of ten, or 1, 2 and 5 times them."""
    most = _most(rows) + 1
    for parts, every in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 5), ((1,), 20), ((1,), 100)):
        exponents = [n for n in range(math.floor(low), math.ceil(high) + 1) if n % every == 0]
        if len(exponents) > 4 * most:
            continue
        found = [n + math.log10(part) for n in exponents for part in parts]
        found = [y for y in found if low - 1e-9 <= y <= high + 1e-9]
        if 2 <= len(found) <= most:
            return found
    return [low, high]


def labelled(found: Sequence[float], write: Label | None = None) -> list[str]:
    """The ticks as text, all with as many decimals as they need to differ."""
    if write:
        return [write(y) for y in found]
    step = min((b - a for a, b in itertools.pairwise(found)), default=0.0)
    large = max(map(abs, found), default=0.0)
    if not step >= 1e-3 or large >= 1e5:
        return [value(y) if y else "0" for y in found]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    decimals += any(abs(y * 10**decimals - round(y * 10**decimals)) > 1e-6 for y in found)
    return [f"{y:.{min(decimals, 4)}f}" for y in found]


def _most(rows: int) -> int:
    return min(max(rows // ROWS_PER_TICK, 1), MOST_TICKS)


def _step(span: float, rows: int) -> float | None:
    """The least of 1, 2 and 5 times a power of ten of which few enough fit; None if the range is beyond measure."""
    if not 1e-290 < span < 1e290:
        return None
    least = span / (_most(rows) + 0.5)
    power = 10.0 ** math.floor(math.log10(least))
    return next((m * power for m in (1, 2, 5, 10) if m * power >= least), 10 * power)
