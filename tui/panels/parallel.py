"""Parallel coordinates in braille: a vertical axis for each parameter, the objective's last, a line for each trial.

chart.py's canvas is not used, since hundreds of lines share few characters: the best and the highlighted lines replace
whole characters of those beneath, or they could not be followed. The others are dotted, so that the best stand out
without colours too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from .axis import Axis
from .chart import DOTS
from .text import DIM

APART = 13  # the least number of characters between two axes
STYLES = (DIM, "cyan", "bold magenta", "bold yellow", "bold green")
REST, FIFTH, PINNED, SELECTED, BEST = range(len(STYLES))


@dataclass(frozen=True)
class Path:
    """One trial's position on each axis, or None; its layer (the last one is on top), and its label."""

    places: Sequence[float | None]
    layer: int = REST
    label: str = ""


@dataclass(frozen=True)
class Parallel:
    """The axes, and the paths by layer, the topmost last. `empty` is shown if there are no paths."""

    axes: Sequence[Axis] = ()
    paths: Sequence[Path] = ()
    empty: str = ""


def fit(width: int) -> int:
    """The number of axes that fit beside the last one."""
    return max((width - 8) // APART, 1)


def draw(data: Parallel, width: int, height: int) -> Text:
    """Draw the axes and paths in `width` by `height` characters, as lines of text."""
    if not data.paths or len(data.axes) < 2 or width < 24 or height < 4:
        return Text(data.empty if width >= 12 and height >= 1 else "", DIM)
    margin = max(len(path.label) for path in data.paths) + 1
    last = width - margin - 1
    columns = [round(n * last / (len(data.axes) - 1)) for n in range(len(data.axes))]
    field = _Field(width, height - 1)
    for path in data.paths:
        field.path(columns, path)
    room = max(columns[1] - columns[0] - 3, 1)
    for column, axis in zip(columns, data.axes, strict=True):
        _axis(field, column, axis, room, left=column == last)
    _labels(field, last + 1, data.paths)
    page = _names(data.axes, columns, width)
    for row in range(field.height):
        page.append("\n")
        field.write(page, row)
    return page


def _names(axes: Sequence[Axis], columns: Sequence[int], width: int) -> Text:
    """The line of the axes' names, each starting at its axis; the last one ends at the line's end."""
    line = ""
    for axis, column, following in zip(axes[:-1], columns[:-1], columns[1:], strict=True):
        name = axis.name + (" (log)" if axis.log and len(axis.name) + 7 < following - column else "")
        line = line.ljust(column) + name[: following - column - 1]
    objective = axes[-1].name
    at = max(width - len(objective), columns[-2] + len(axes[-2].name[: columns[-1] - columns[-2] - 1]) + 1)
    return Text((line.ljust(at) + objective)[:width], "bold")


def _axis(field: "_Field", column: int, axis: Axis, room: int, left: bool) -> None:
    """Draw the axis, and its labels beside it if each has its own line."""
    for row in range(field.height):
        field.put(row, column, "│", DIM)
    free = -1
    for tick in sorted(axis.ticks, reverse=True):
        row = round((1 - tick) * (field.height - 1))
        if row <= free or (tick == 0.5 and not axis.words and field.height < 9):
            continue
        free = row
        label = axis.label(tick)[:room]
        field.put(row, column, "┤" if left else "├", "")
        field.put(row, column - len(label) if left else column + 1, label, "")


def _labels(field: "_Field", column: int, paths: Sequence[Path]) -> None:
    """Write the labels of the highlighted paths at their ends, or on the next free line."""
    taken: set[int] = set()
    for path in reversed(paths):
        if path.label and (place := path.places[-1]) is not None:
            row = round((1 - place) * (field.height - 1))
            rows = sorted(range(field.height), key=lambda other, row=row: abs(other - row))  # type: ignore[misc]
            if free := [other for other in rows if other not in taken][:1]:
                taken.add(free[0])
                field.put(free[0], column, f" {path.label}", STYLES[path.layer])


class _Field:
    """A field of characters: dots, each with its layer, and letters over them."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._dots = [0] * (width * height)
        self._layers = [REST] * (width * height)
        self._letters: dict[tuple[int, int], tuple[str, str]] = {}

    def path(self, columns: Sequence[int], path: Path) -> None:
        deepest = self.height * 4 - 1
        places = path.places
        for n in range(len(columns) - 1):
            here, there = places[n], places[n + 1]
            if here is not None and there is not None:
                ends = round((1 - here) * deepest), round((1 - there) * deepest)
                draw = self._dotted if path.layer == REST else self._solid
                draw(columns[n] * 2, ends[0], columns[n + 1] * 2, ends[1], path.layer)

    def _dotted(self, x0: int, y0: int, x1: int, y1: int, _layer: int) -> None:
        """One dot per character: a plain loop for speed, since there are hundreds of lines."""
        dots, width, slope, y = self._dots, self.width, 2 * (y1 - y0) / (x1 - x0), y0 + 0.5
        for column in range(x0 // 2, x1 // 2):
            row = int(y)
            dots[(row >> 2) * width + column] |= DOTS[row & 3][0]
            y += slope

    def _solid(self, x0: int, y0: int, x1: int, y1: int, layer: int) -> None:
        """All dots along the way, without gaps; covers what is beneath."""
        before = y0
        for x in range(x0, x1 + 1):
            row = y0 + round((y1 - y0) * (x - x0) / (x1 - x0))
            step = 1 if row >= before else -1
            for y in range(before if row == before else before + step, row + step, step):
                cell = (y >> 2) * self.width + (x >> 1)
                if self._layers[cell] < layer:
                    self._dots[cell], self._layers[cell] = 0, layer
                self._dots[cell] |= DOTS[y & 3][x & 1]
            before = row

    def put(self, row: int, column: int, letters: str, style: str) -> None:
        """Write letters over the dots."""
        for n, letter in enumerate(letters):
            if 0 <= column + n < self.width:
                self._letters[row, column + n] = letter, style

    def write(self, page: Text, row: int) -> None:
        run, style = "", DIM  # neighbours of the same style in one piece: fewer pieces to render
        for column in range(self.width):
            cell = row * self.width + column
            if letter := self._letters.get((row, column)):
                char, own = letter
            else:
                char, own = chr(0x2800 + self._dots[cell]) if self._dots[cell] else " ", STYLES[self._layers[cell]]
            if own != style:
                page.append(run, style)
                run, style = "", own
            run += char
        page.append(run, style)
