"""Line charts in braille: each character is 2 dots wide and 4 high.

No library is used because many charts are redrawn at once while keys are pressed: plotext takes 280 ms for the
objective of 10,000 trials and 50 ms for 1,000 points, this module 2 ms for either, since it draws at most four points
of a line per column.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from rich.text import Text

from .text import DIM, value
from .ticks import Bounds, Label, labelled, limits, log_ticks, ticks

# The bit of each braille dot by (row, column) in its character, from U+2800; and the bits of a column from a row
# downwards.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
BELOW = tuple(tuple(sum(DOTS[y][x] for y in range(top, 4)) for top in range(5)) for x in range(2))

LABELS = 4  # usual number of characters before the chart


@dataclass(frozen=True)
class Line:
    """A line of points with rising x. `kind`: line, steps (a staircase) or points (a marker each, in any order)."""

    xs: Sequence[float]
    ys: Sequence[float]
    style: str = "cyan"
    kind: str = "line"
    marker: str = "•"


@dataclass(frozen=True)
class Chart:
    """Lines and their axes.

    Attributes:
        log: whether the y axis is logarithmic; values that are not above zero are left out.
        x_label: formats a position on the x axis.
        within: the range that the values can have; None: unknown.
        y_label: formats a position on the y axis; None: as a number.
        x_range: the visible range of the x axis; None: all of the lines. The y axis fits the visible part.
        empty: the text if there is nothing to draw.
    """

    lines: Sequence[Line] = ()
    log: bool = False
    x_label: Callable[[float], str] = field(default=lambda x: f"{x:g}")
    x_range: tuple[float, float] | None = None
    empty: str = "nothing yet"
    within: Bounds = None
    y_label: Label | None = None


def draw(chart: Chart, width: int, height: int, at: float | None = None) -> Text:
    """Draw the chart in `width` by `height` characters, as lines of text; `at`: the x position of a hairline."""
    return Drawing(chart, width, height).text(at)


class Drawing:
    """A chart laid out in `width` by `height` characters. The hairline is added later, so it moves without a new
    layout.
    """

    def __init__(self, chart: Chart, width: int, height: int) -> None:
        self.chart, self.size = chart, (width, height)
        self._canvas: _Canvas | None = None
        lines = [line for line in (_finite(line, chart.log) for line in chart.lines) if line.xs]
        if not lines or width < 12 or height < 3:
            return
        self.left, self.right = _window(chart.x_range, lines)
        lines = [_in_sight(line, self.left, self.right, chart.log) for line in lines]
        columns = max(width - LABELS, 1)
        thin = [_thinned(line, self.left, self.right, columns) for line in lines]
        ys = [math.log10(y) if chart.log else y for line in thin if line.xs for y in (min(line.ys), max(line.ys))]
        if not ys:
            return
        rows = height - 1
        if chart.log:
            low, high = _limits(ys)
            found = log_ticks(low, high, rows)
        else:
            low, high, step = limits(min(ys), max(ys), rows, chart.within)
            found = ticks(low, high, step)
        self._marks = _marks(chart, found, low, high, rows)
        self._margin = max(map(len, self._marks.values()))
        if width - self._margin - 1 != columns:  # the labels are longer than usual
            columns = max(width - self._margin - 1, 1)
            thin = [_thinned(line, self.left, self.right, columns) for line in lines]
        if chart.log:
            thin = [replace(line, ys=[math.log10(y) for y in line.ys]) for line in thin]
        elif chart.within:  # a measurement may be a little beyond
            thin = [replace(line, ys=[min(max(y, low), high) for y in line.ys]) for line in thin]
        self._canvas = _Canvas(columns, rows, (self.left, self.right), (low, high))
        for line in thin:
            self._canvas.add(line)

    def text(self, at: float | None = None) -> Text:
        (width, height), canvas = self.size, self._canvas
        if canvas is None:
            return Text(self.chart.empty if width >= 12 and height >= 1 else "", DIM)
        hair = canvas.column(at) // 2 if at is not None and self.left <= at <= self.right else None
        page = Text()
        for row in range(height - 1):
            page.append(f"{self._marks.get(row, ''):>{self._margin}}│", DIM)
            canvas.write(page, row, hair)
            page.append("\n")
        first, last = self.chart.x_label(self.left), self.chart.x_label(self.right)
        gap = canvas.width - len(first) - len(last)
        if gap <= 0:
            first, gap, last = "", 0, last[: canvas.width]
        between = " " * gap
        label = "" if at is None or hair is None else self.chart.x_label(at)
        if label not in ("", first, last) and len(label) <= gap - 2:
            start = min(max((hair or 0) - len(label) // 2 - len(first), 1), gap - len(label) - 1)
            between = between[:start] + label + between[start + len(label) :]
        page.append(" " * (self._margin + 1) + first + between + last, DIM)
        return page

    def x(self, column: int) -> float | None:
        """The x position at the middle of this column of characters; None if nothing is drawn."""
        if self._canvas is None:
            return None
        share = (2 * (column - self._margin - 1) + 0.5) / max(self._canvas.width * 2 - 1, 1)
        share = min(max(share, 0.0), 1.0)
        return self.left * (1 - share) + self.right * share


def zoomed(
    window: tuple[float, float], whole: tuple[float, float], around: float, factor: float
) -> tuple[float, float] | None:
    """The window narrowed or widened by a factor, with `around` at the same place in it; None if it covers the whole
    axis.
    """
    left, right = window
    width = (right - left) * factor
    if not width < whole[1] - whole[0]:
        return None
    around = min(max(around, left), right)
    left = min(max(around - (around - left) * factor, whole[0]), whole[1] - width)
    return left, left + width


def panned(window: tuple[float, float], whole: tuple[float, float], at: float) -> tuple[float, float]:
    """The window moved so that it contains `at`, a tenth of the window from its edge if possible."""
    left, right = window
    if left <= at <= right:
        return window
    width = right - left
    left = min(max(at - width * (0.1 if at < left else 0.9), whole[0]), whole[1] - width)
    return left, left + width


def _sound(values: Sequence[float]) -> bool:
    """Whether all are finite, by their sum, which is 20 times faster than testing each."""
    return bool(-1e300 < sum(values) < 1e300)


def _finite(line: Line, log: bool) -> Line:
    """Only the points that can be drawn."""
    n = min(len(line.xs), len(line.ys))
    xs = line.xs if len(line.xs) == n else line.xs[:n]
    ys = line.ys if len(line.ys) == n else line.ys[:n]
    if not n or (_sound(xs) and _sound(ys) and (not log or min(ys) > 0)):
        return replace(line, xs=xs, ys=ys)
    points = zip(xs, ys, strict=True)
    kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)]
    return replace(line, xs=[x for x, _ in kept], ys=[y for _, y in kept])


def _window(x_range: tuple[float, float] | None, lines: Sequence[Line]) -> tuple[float, float]:
    left, right = x_range or (0.0, 0.0)
    if not (math.isfinite(left) and math.isfinite(right) and left < right):
        left, right = min(min(line.xs) for line in lines), max(max(line.xs) for line in lines)
    if not left < right:  # a single position: in the middle, however large its number
        pad = max(abs(left) * 1e-9, 0.5)
        left, right = left - pad, right + pad
    return left, right


def _in_sight(line: Line, left: float, right: float, log: bool) -> Line:
    """The part of the line between two positions, with the points at which it crosses them."""
    xs, ys = line.xs, line.ys
    if line.kind == "points":
        kept = [(x, y) for x, y in zip(xs, ys, strict=True) if left <= x <= right]
        return replace(line, xs=[x for x, _ in kept], ys=[y for _, y in kept])
    if left <= xs[0] and xs[-1] <= right:
        return line
    start, end = bisect_left(xs, left), bisect_right(xs, right)
    xs_in, ys_in = list(xs[start:end]), list(ys[start:end])
    if start and (start == len(xs) or xs[start] != left) and (end < len(xs) or xs_in or line.kind == "steps"):
        level = line.kind == "steps" or start == len(xs)
        y = ys[start - 1] if level else _between(xs[start - 1], ys[start - 1], xs[start], ys[start], left, log)
        xs_in, ys_in = [left, *xs_in], [y, *ys_in]
    if 0 < end < len(xs) and xs[end - 1] != right and line.kind == "line":
        y = _between(xs[end - 1], ys[end - 1], xs[end], ys[end], right, log)
        xs_in, ys_in = [*xs_in, right], [*ys_in, y]
    return replace(line, xs=xs_in, ys=ys_in)


def _between(x0: float, y0: float, x1: float, y1: float, x: float, log: bool) -> float:
    """The y value at x on the straight line between two points."""
    share = (x - x0) / (x1 - x0) if x1 > x0 else 0.0
    share = share if 0 <= share <= 1 else 0.5
    if log:
        return float(10 ** (math.log10(y0) * (1 - share) + math.log10(y1) * share))
    return y0 * (1 - share) + y1 * share


def _thinned(line: Line, left: float, right: float, width: int) -> Line:
    """A line reduced to the first, lowest, highest and last point in each column of dots: it looks the same."""
    xs, ys, dots = line.xs, line.ys, width * 2
    if line.kind == "points" or len(xs) <= 4 * dots:
        return line
    column = (right - left) / (dots - 1)
    thin_xs: list[float] = []
    thin_ys: list[float] = []
    start = 0
    for n in range(dots):
        end = bisect_left(xs, left + (n + 0.5) * column, start) if n < dots - 1 else len(xs)
        if end > start:
            part = ys[start:end]
            thin_xs += [xs[start], xs[start], xs[end - 1], xs[end - 1]]
            thin_ys += [part[0], min(part), max(part), part[-1]]
            start = end
    return replace(line, xs=thin_xs, ys=thin_ys)


def _limits(ys: Sequence[float]) -> tuple[float, float]:
    low, high = (min(max(y, -1e300), 1e300) for y in (min(ys), max(ys)))
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        pad = abs(high) * 0.1 or 0.5
        return low - pad, high + pad
    return low, high


def _marks(chart: Chart, found: Sequence[float], low: float, high: float, rows: int) -> dict[int, str]:
    """The labels of the y axis by row."""
    shown = [10 ** min(y, 308) for y in found] if chart.log else found
    labels = [(chart.y_label or value)(y) for y in shown] if chart.log else labelled(shown, chart.y_label)
    return {
        (rows * 4 - 1 - _dot(y - low, high - low, rows * 4 - 1)) // 4: said
        for y, said in zip(found, labels, strict=True)
    }


def _dot(way: float, whole: float, last: int) -> int:
    """The dot at a position along the axis; positions beyond an end, or too large, get the nearest dot."""
    share = way / whole if whole > 0 else 0.5
    return round(min(max(share, 0.0), 1.0) * last) if share == share else last


class _Canvas:
    """Characters of dots and markers, each in the colour of the last line that touched it."""

    def __init__(self, width: int, height: int, xs: tuple[float, float], ys: tuple[float, float]) -> None:
        self.width, self.height = width, height
        self._left, self._across = xs[0], xs[1] - xs[0]
        self._low, self._up = ys[0], ys[1] - ys[0]
        self._dots: dict[tuple[int, int], tuple[int, str]] = {}
        self._markers: dict[tuple[int, int], tuple[str, str]] = {}

    def column(self, x: float) -> int:
        return _dot(x - self._left, self._across, self.width * 2 - 1)

    def _places(self, line: Line) -> list[tuple[int, int]]:
        """The column and row of dots of each point."""
        last, rows = self.width * 2 - 1, self.height * 4 - 1
        left, low, across, up = self._left, self._low, self._across, self._up
        points = zip(line.xs, line.ys, strict=True)
        if (
            min(across, up) > 1e-100
            and max(across, up) < 1e100
            and left <= min(line.xs)
            and max(line.xs) <= left + across
        ):
            wide, high = last / across, rows / up  # a plain loop for speed, since there may be thousands of points
            return [(int((x - left) * wide + 0.5), rows - int((y - low) * high + 0.5)) for x, y in points]
        return [(_dot(x - left, across, last), rows - _dot(y - low, up, rows)) for x, y in points]

    def add(self, line: Line) -> None:
        if not line.xs:
            return
        if line.kind == "points":
            marker = line.marker, line.style
            self._markers.update({(row // 4, column // 2): marker for column, row in self._places(line)})
            return
        bars: list[tuple[int, int, int]] = []  # one per column, over the extent of the line in it
        before: tuple[int, int] | None = None
        for column, first, low, high, last in self._columns(line):
            if before and line.kind == "steps":
                self._stroke(before[0], before[1], column, before[1], line.style)
                low, high = min(low, before[1]), max(high, before[1])
            elif before and before[0] == column - 1:  # each of the two columns gets half of the way
                way = (first > before[1]) - (first < before[1])
                middle = before[1] + way * (max(abs(first - before[1]), 1) // 2)
                there, lowest, highest = bars[-1]
                bars[-1] = there, min(lowest, middle), max(highest, middle)
                low, high = min(low, middle + way), max(high, middle + way)
            elif before:
                self._stroke(before[0], before[1], column, first, line.style)
            bars.append((column, low, high))
            before = column, last
        if before and line.kind == "steps":
            self._stroke(before[0], before[1], self.width * 2 - 1, before[1], line.style)
        for column, low, high in bars:
            self._bar(column, low, high, line.style)

    def _columns(self, line: Line) -> list[tuple[int, int, int, int, int]]:
        """By column of dots: the first, lowest, highest and last row of the line in it."""
        found: list[tuple[int, int, int, int, int]] = []
        here = first = low = high = last = -1
        for column, row in self._places(line):
            if column == here:
                low = row if row < low else low
                high = row if row > high else high
            else:
                if here >= 0:
                    found.append((here, first, low, high, last))
                here, first, low, high = column, row, row, row
            last = row
        found.append((here, first, low, high, last))
        return found

    def _bar(self, x: int, low: int, high: int, style: str) -> None:
        """The dots of one column between two rows."""
        place, below, dots = x // 2, BELOW[x % 2], self._dots
        top, bottom = low // 4, high // 4
        for row in range(top, bottom + 1):
            bits = below[low % 4 if row == top else 0]
            if row == bottom:
                bits &= ~below[high % 4 + 1]
            before = dots.get((row, place))
            dots[row, place] = (before[0] | bits if before else bits), style

    def _stroke(self, x0: int, y0: int, x1: int, y1: int, style: str) -> None:
        """A straight line of dots."""
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            x, y = x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)
            place = y // 4, x // 2
            self._dots[place] = self._dots.get(place, (0, ""))[0] | DOTS[y % 4][x % 2], style

    def write(self, page: Text, row: int, hair: int | None) -> None:
        run, style = "", DIM  # neighbours of one style in one piece: fewer of them to render
        for column in range(self.width):
            if marker := self._markers.get((row, column)):
                char, own = marker
            elif dots := self._dots.get((row, column)):
                char, own = chr(0x2800 + dots[0]), dots[1]
            else:
                char, own = ("│", DIM) if column == hair else (" ", DIM)
            if own != style:
                page.append(run, style)
                run, style = "", own
            run += char
        page.append(run, style)


def smoothed(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """The exponential moving average with bias correction (as in Adam: Kingma and Ba 2015, section 3)."""
    if _sound(values):
        averages = [*accumulate(values, lambda average, v: weight * average + (1 - weight) * v, initial=0.0)][1:]
        for place in range(len(averages)):
            total = 1 - weight ** (place + 1)
            if total == 1:  # from here on the correction is below float precision
                break
            averages[place] /= total
        return averages
    average, total = 0.0, 0.0
    smooth: list[float] = []
    for v in values:
        if math.isfinite(v):
            average, total = weight * average + (1 - weight) * v, weight * total + (1 - weight)
        smooth.append(average / total if total else v)
    return smooth
