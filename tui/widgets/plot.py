"""Line charts in braille: each character is 2 dots wide and 4 high.

Drawn here and not by a library because many charts are redrawn at once while keys are answered: plotext takes 280 ms
for the objective of 10,000 trials and 50 ms for 1,000 points, this 5 ms for either, since no more than two points a
column are drawn.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.text import Text
from textual.widget import Widget

from tui.text import DIM, value

# The bit of each dot by (row, column) in its character, from U+2800.
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


@dataclass(frozen=True)
class Line:
    """What is drawn: points of rising x. `kind`: line, steps (a staircase) or points (a marker each)."""

    xs: Sequence[float]
    ys: Sequence[float]
    style: str = "cyan"
    kind: str = "line"
    marker: str = "•"


@dataclass(frozen=True)
class Chart:
    """Lines and their axes.

    Attributes:
        log: the y axis is logarithmic; values that are not above zero are left out.
        x_label: how a position on the x axis is written.
        x_range: from and to; else from the lines.
        at: where on the x axis a hairline stands.
        empty: what is said where there is nothing to draw.
    """

    lines: Sequence[Line] = ()
    log: bool = False
    x_label: Callable[[float], str] = field(default=lambda x: f"{x:g}")
    x_range: tuple[float, float] | None = None
    at: float | None = None
    empty: str = "nothing yet"


def draw(chart: Chart, width: int, height: int) -> Text:
    """The chart in so many characters, as lines of text."""
    lines = [_finite(line, chart.log) for line in chart.lines]
    lines = [line for line in lines if line.xs]
    if not lines or width < 12 or height < 3:
        return Text(chart.empty if width >= 12 and height >= 1 else "", DIM)
    low, high = _limits([y for line in lines for y in (min(line.ys), max(line.ys))])
    left, right = chart.x_range or (min(line.xs[0] for line in lines), max(line.xs[-1] for line in lines))
    if right <= left:
        left, right = left - 0.5, right + 0.5
    labels = [value(10 ** min(y, 308) if chart.log else y) for y in (high, (low + high) / 2, low)]
    margin = max(map(len, labels))
    canvas = _Canvas(max(width - margin - 1, 1), height - 1, (left, right), (low, high))
    for line in lines:
        canvas.add(line)
    if chart.at is not None:
        canvas.hairline(chart.at)
    page = Text()
    rows = height - 1
    marks = {0: labels[0], rows - 1: labels[2]} | ({rows // 2: labels[1]} if rows >= 5 else {})
    for row in range(rows):
        page.append(f"{marks.get(row, ''):>{margin}}│", DIM)
        canvas.write(page, row)
        page.append("\n")
    first, last = chart.x_label(left), chart.x_label(right)
    gap = width - margin - 1 - len(first) - len(last)
    page.append(" " * (margin + 1) + (first + " " * gap + last if gap > 0 else last[: width - margin - 1]), DIM)
    return page


def _finite(line: Line, log: bool) -> Line:
    """Only what can be drawn; on a logarithmic axis, its logarithms."""
    points = zip(line.xs, line.ys, strict=False)
    kept = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)]
    ys = [math.log10(y) if log else y for _, y in kept]
    return Line([x for x, _ in kept], ys, line.style, line.kind, line.marker)


def _limits(ys: Sequence[float]) -> tuple[float, float]:
    low, high = (min(max(y, -1e300), 1e300) for y in (min(ys), max(ys)))
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        pad = abs(high) * 0.1 or 0.5
        return low - pad, high + pad
    return low, high


def _dot(way: float, whole: float, last: int) -> int:
    """The dot that lies so far along the axis; what is beyond an end, or too large to tell, goes to the nearest one."""
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
        self._hair: int | None = None

    def _column(self, x: float) -> int:
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
            wide, high = last / across, rows / up  # one plain loop, since there may be thousands of points
            return [(int((x - left) * wide + 0.5), rows - int((y - low) * high + 0.5)) for x, y in points]
        return [(_dot(x - left, across, last), rows - _dot(y - low, up, rows)) for x, y in points]

    def add(self, line: Line) -> None:
        if line.kind == "points":
            marker = line.marker, line.style
            self._markers.update({(row // 4, column // 2): marker for column, row in self._places(line)})
            return
        before: tuple[int, int] | None = None
        for column, first, low, high, last in self._columns(line):
            if before and line.kind == "steps":
                self._stroke(before[0], before[1], column, before[1], line.style)
                self._stroke(column, before[1], column, first, line.style)
            elif before:
                self._stroke(before[0], before[1], column, first, line.style)
            self._stroke(column, low, column, high, line.style)
            before = column, last
        if before and line.kind == "steps":
            self._stroke(before[0], before[1], self.width * 2 - 1, before[1], line.style)

    def _columns(self, line: Line) -> list[tuple[int, int, int, int, int]]:
        """By column of dots: the first, lowest, highest and last row that the line has in it."""
        found: list[tuple[int, int, int, int, int]] = []
        for column, row in self._places(line):
            if found and found[-1][0] == column:
                _, first, low, high, _ = found[-1]
                found[-1] = column, first, min(low, row), max(high, row), row
            else:
                found.append((column, row, row, row, row))
        return found

    def _stroke(self, x0: int, y0: int, x1: int, y1: int, style: str) -> None:
        """A straight line of dots."""
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            x, y = x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)
            place = y // 4, x // 2
            self._dots[place] = self._dots.get(place, (0, ""))[0] | DOTS[y % 4][x % 2], style

    def hairline(self, x: float) -> None:
        self._hair = self._column(x) // 2

    def write(self, page: Text, row: int) -> None:
        run, style = "", DIM  # neighbours of one style in one piece: fewer of them to render
        for column in range(self.width):
            if marker := self._markers.get((row, column)):
                char, own = marker
            elif dots := self._dots.get((row, column)):
                char, own = chr(0x2800 + dots[0]), dots[1]
            else:
                char, own = ("│", DIM) if column == self._hair else (" ", DIM)
            if own != style:
                page.append(run, style)
                run, style = "", own
            run += char
        page.append(run, style)


def smoothed(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """The exponential moving average with bias correction (as in Adam: Kingma and Ba 2015, section 3)."""
    average, total, smooth = 0.0, 0.0, []
    for v in values:
        if math.isfinite(v):
            average, total = weight * average + (1 - weight) * v, weight * total + (1 - weight)
        smooth.append(average / total if total else v)
    return smooth


class Plot(Widget):
    """A chart as large as its place; drawn anew only when it or its size has changed."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._chart = Chart()
        self._seen: object = None

    def show(self, seen: object, make: Callable[[], Chart]) -> None:
        """Draw the chart, unless `seen`, which stands for all that is in it, is what it was."""
        if seen is not self._seen and seen != self._seen:
            self._chart, self._seen = make(), seen
            self.refresh()

    def render(self) -> Text:
        return draw(self._chart, self.size.width, self.size.height)
