"""Metrics as a grid of charts: pages, a filter by name, one chart enlarged, a shared hairline and x range.

The hairline and the range are positions on the x axis, steps, epochs or times, so that they mean the same in each
chart.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from ..panels import text
from ..panels.chart import Chart, Line, panned, smoothed, zoomed
from ..panels.curves import AXES, Curve, beside, elapsed, ends, nearest, place, spread
from ..panels.ticks import bounds, unit
from ..read.query import words
from .frame import head
from .plot import Plot

T = TypeVar("T")
SLOTS = 12  # the most charts visible at once
CHART_WIDTH, CHART_HEIGHT = 34, 8  # the minimum, with the border
BY_KEY, BY_WHEEL = 2.0, 1.25  # zoom factor per key press or wheel step

# The key bindings of a screen with a grid; the screen's `action_grid` passes them on.
GRID_KEYS: list[BindingType] = [
    Binding("n,pagedown", "grid('turn', 1)", "Next charts", show=False),
    Binding("b,pageup", "grid('turn', -1)", "Previous charts", show=False),
    Binding("enter", "grid('enlarge')", "Enlarge", show=False),
    Binding("left", "grid('inspect', -1)", "Previous point", show=False),
    Binding("right", "grid('inspect', 1)", "Next point", show=False),
    Binding("up", "grid('choose', -1)", "Previous chart", show=False),
    Binding("down", "grid('choose', 1)", "Next chart", show=False),
    Binding("plus,equals_sign", f"grid('zoom', {1 / BY_KEY})", "Zoom in", show=False),
    Binding("minus", f"grid('zoom', {BY_KEY})", "Zoom out", show=False),
    Binding("z", "grid('whole')", "Zoom to fit", show=False),
    Binding("w", "grid('flip', 'smooth')", "Smooth", show=False),
    Binding("l", "grid('flip', 'log_axis')", "Log axis", show=False),
    Binding("a", "grid('next_axis')", "Step, epoch or time", show=False),
]


class ChartGrid(Container):
    """Draws only charts that are visible and have changed.

    `everywhere`: the hairline is shown in all charts of the grid, else only in the enlarged one.
    """

    def __init__(self, *, axis: str = "step", everywhere: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self.everywhere = everywhere
        self.large = False
        self.query_words = ""
        self.smooth = self.log_axis = False
        self.axis = axis
        self._page = self._chosen = 0
        self._at: float | None = None  # the x position of the hairline
        self._window: tuple[float, float] | None = None  # the visible part of the x axis; None: all
        self._of: object = None
        self._all: Sequence[str] = ()
        self._curves: Callable[[str], Sequence[Curve]] = lambda name: ()
        self._empty = "no metric yet"
        self._shapes: dict[tuple[str, int], tuple[Sequence[object], int, Sequence[float]]] = {}

    def compose(self) -> ComposeResult:
        for slot in range(SLOTS):
            yield Plot(id=f"plot-{slot}", classes="panel")

    def show(
        self, of: object, names: Sequence[str], curves: Callable[[str], Sequence[Curve]], empty: str = "no metric yet"
    ) -> None:
        """Show the metrics of `of`, each with its curves, the last one on top; a new `of` resets the window."""
        if of != self._of:
            self._of, self._at, self._window = of, None, None
        self._all, self._curves, self._empty = names, curves, empty
        self._again()

    def on_resize(self) -> None:
        self._again()

    # -----------------------------------------------------------------------------------------------------------------
    # drawing

    @property
    def names(self) -> list[str]:
        """The metrics that match the filter."""
        wanted = words(self.query_words)
        return [name for name in self._all if wanted(name)]

    def _again(self) -> None:
        if not self.size.width or not self.size.height:  # not visible; it gets a size later
            return
        names, on_page, pages = self._sight()
        across, down = self._places()
        if self.large or pages == 1:  # the visible charts take all the space
            across = min(across, max(len(on_page), 1))
            down = max(-(-len(on_page) // across), 1)
        self.styles.grid_size_columns, self.styles.grid_size_rows = across, down
        for slot, plot in enumerate(self.query(Plot)):
            plot.display = slot < max(len(on_page), 1)
            if slot < len(on_page):
                last = slot == len(on_page) - 1 and not self.large and pages > 1
                page = f"page {self._page + 1} of {pages}: n, b" if last else ""
                self._draw(plot, on_page[slot], on_page[slot] == names[self._chosen], page)
            elif slot == 0:
                said = "no metric matches: Esc clears the filter" if self._all else self._empty
                head(plot, "metrics", "")
                plot.set_class(False, "chosen")
                plot.show(said, partial(Chart, empty=said))

    def _places(self) -> tuple[int, int]:
        """The number of charts that fit, across and down."""
        across = min(max(self.size.width // CHART_WIDTH, 1), 4)
        return across, min(max(self.size.height // CHART_HEIGHT, 1), SLOTS // across)

    def _sight(self) -> tuple[list[str], Sequence[str], int]:
        """All metrics, the visible ones, and the number of pages."""
        names = self.names
        self._chosen = min(self._chosen, max(len(names) - 1, 0))
        across, down = self._places()
        shown = across * down
        pages = max(-(-len(names) // shown), 1)
        self._page = min(self._page, pages - 1)
        if self.large:
            return names, names[self._chosen : self._chosen + 1], pages
        return names, names[self._page * shown : (self._page + 1) * shown], pages

    def _draw(self, plot: Plot, name: str, chosen: bool, page: str) -> None:
        curves = self._curves(name)
        at = self._at if self.large or self.everywhere else None
        how = [word for word, on in (("smoothed", self.smooth), ("log", self.log_axis)) if on]
        if self._window:
            left, right = self._window
            how.append(f"{self._at_x(left)} to {place(right, self._axis)}")
        plot.set_class(chosen, "chosen")
        title = text.clean(name, 60) + (f" ({', '.join(how)})" if how else "")
        head(plot, title, page if page and at is None else self._legend(curves, at))
        drawn = [(id(c.series), len(c.series.values), c.series.values[-1:], c.style, c.behind) for c in curves]
        seen = (self._of, name, self.smooth, self.log_axis, self._axis, self._window, drawn)
        plot.show(seen, lambda: self._chart(name, curves), at)

    @property
    def _axis(self) -> str:
        return self.axis if self.axis in AXES else AXES[0]  # it may be from a file

    @property
    def _word(self) -> str:
        return "after" if self._axis == "time" else self._axis

    def _at_x(self, x: float) -> str:
        return f"{self._word} {place(x, self._axis)}"

    def _legend(self, curves: Sequence[Curve], at: float | None) -> str:
        """The last value of each trial up to the hairline, and its position."""
        said = []
        for curve in curves:
            xs, values = self._xs(curve), curve.series.values
            last = (len(xs) if at is None else bisect_right(xs, at, 0, len(xs))) - 1
            if curve.marker:
                number = f"{curve.number} " if self.large else ""
                said.append(f"{curve.marker} {number}{text.value(values[last]) if last >= 0 else '–'}")
            elif not curve.behind and at is not None and last >= 0:
                step, epoch = curve.series.steps[last], curve.series.epochs[last]
                when = f"{self._at_x(xs[last])}, step" if self._axis == "time" else "at step"
                return f"{text.value(values[last])} {when} {step}, epoch {epoch}"
            elif not curve.behind and last >= 0:
                return text.value(values[last])
        return " ".join(said) + (
            f"  {'' if self._axis == 'time' else 'at '}{self._at_x(at)}"
            if said and at is not None and self.large
            else ""
        )

    def _chart(self, name: str, curves: Sequence[Curve]) -> Chart:
        lines = []
        for curve in curves:
            xs, values = self._xs(curve), curve.series.values
            smooth = self._shape("smoothed", smoothed, values) if self.smooth else values
            if curve.behind and len(xs) < 2:
                continue
            if self.smooth and not curve.behind and not curve.marker:
                lines.append(Line(xs, values, "bright_black"))
            lines.append(Line(xs, smooth, curve.style, "points" if len(xs) == 1 else "line", curve.marker or "•"))
            if curve.marker:
                left, right = self._window or (float("-inf"), float("inf"))
                sight = slice(bisect_left(xs, left), bisect_right(xs, right))
                some = slice(sight.start, sight.stop, max((sight.stop - sight.start) // 6, 1))
                lines.append(Line(xs[some], smooth[some], curve.style, "points", curve.marker))
        window = self._window
        empty = "nothing in this range: z zooms to fit" if window else "nothing to draw"
        within = bounds(name, [end for line in lines if line.ys for end in (min(line.ys), max(line.ys))])
        return Chart(lines, self.log_axis, self._at_x, window, empty, within, unit(name))

    def _xs(self, curve: Curve) -> Sequence[float]:
        """The x positions, as many as there are values: the trial may be writing meanwhile."""
        n = len(curve.series.values)
        xs: Sequence[float] = curve.series.steps
        if self._axis == "epoch":
            xs = self._shape("epoch", spread, curve.series.epochs)
        elif self._axis == "time":
            xs = self._shape("time", partial(elapsed, start=curve.start), curve.series.times)
        return xs if len(xs) == n else xs[:n]

    def _shape(self, name: str, make: Callable[[Sequence[T]], Sequence[float]], values: Sequence[T]) -> Sequence[float]:
        """`make(values)`, cached under this name until there are more values."""
        key = name, id(values)
        known = self._shapes.get(key)
        if known is None or known[0] is not values or known[1] != len(values):
            if len(self._shapes) > 1000:
                self._shapes.clear()
            known = self._shapes[key] = values, len(values), make(values)
        return known[2]

    # -----------------------------------------------------------------------------------------------------------------
    # keys

    def filter(self, said: str) -> None:
        self.query_words, self._page, self._chosen = said, 0, 0
        self._again()

    def flip(self, what: str) -> None:
        """Toggle a way to draw."""
        setattr(self, what, not getattr(self, what))
        self._again()

    def next_axis(self) -> None:
        """Draw over the next x axis; the hairline and the window move to the same points on it."""
        curves = self._chosen_curves()
        before = self._xs(curves[-1]) if curves else ()
        self.axis = AXES[(AXES.index(self._axis) + 1) % len(AXES)]
        after = self._xs(curves[-1]) if curves else ()

        def there(x: float) -> float:
            return after[min(bisect_left(before, x), len(after) - 1)]

        self._at = there(self._at) if self._at is not None and after else None
        window = (there(self._window[0]), there(self._window[1])) if self._window and after else None
        self._window = window if window and window[0] < window[1] else None
        self._again()

    def turn(self, by: int) -> None:
        """Turn to another page."""
        _, _, pages = self._sight()
        across, down = self._places()
        self._page = (self._page + by) % pages
        self._chosen = self._page * across * down
        self._snap()
        self._again()

    def choose(self, by: int) -> None:
        across, down = self._places()
        self._chosen = (self._chosen + by) % max(len(self.names), 1)
        self._page = self._chosen // (across * down)
        self._snap()
        self._again()

    def enlarge(self) -> None:
        self.large = not self.large
        self.screen.set_class(self.large, "-filled")  # the other panels make way
        if not self.everywhere:
            self._at = None
        self._again()

    def inspect(self, by: int) -> None:
        """Move the hairline to the next point; at first, to the last or first visible one."""
        if not self.large and not self.everywhere:
            self.choose(by)
            return
        rows = self._inspected()
        whole = ends(rows)
        if whole is None:
            return
        if self._at is None:
            left, right = self._window or whole
            wanted = nearest(rows, right if by < 0 else left)
        else:
            wanted = beside(rows, self._at, by)
        self._look(wanted)

    def zoom(self, factor: float, around: float | None = None) -> None:
        """Zoom the x axis of all charts by a factor, around this position, the hairline, or else the middle."""
        rows = [self._xs(curve) for curve in self._chosen_curves()]
        whole = ends(rows)
        if whole is None or whole[0] >= whole[1]:
            return
        window = self._window or whole
        inside = max(bisect_right(xs, window[1]) - bisect_left(xs, window[0]) for xs in rows)
        if factor < 1 and inside <= 2:
            return
        if around is None:
            hairline = self._at if self.large or self.everywhere else None
            around = (window[0] + window[1]) / 2 if hairline is None else hairline
        self._window = zoomed(window, whole, around, factor)
        self._again()

    def whole(self) -> None:
        """Show the whole x axis, without the hairline."""
        self._window = self._at = None
        self._again()

    def _look(self, at: float) -> None:
        self._at = at
        whole = ends(self._inspected())
        if self._window and whole:
            self._window = panned(self._window, whole, at)
        self._again()

    def _snap(self) -> None:
        """If only one chart shows the hairline, move it to a point of the chart that is now chosen."""
        rows = self._inspected()
        if self._at is not None and ends(rows) and not self.everywhere:
            self._at = nearest(rows, self._at)

    def _chosen_curves(self) -> Sequence[Curve]:
        names = self.names
        return self._curves(names[min(self._chosen, len(names) - 1)]) if names else ()

    def _inspected(self) -> list[Sequence[float]]:
        return [self._xs(curve) for curve in self._chosen_curves() if not curve.behind]

    # -----------------------------------------------------------------------------------------------------------------
    # the mouse

    def on_click(self, event: events.Click) -> None:
        """Choose the chart and move the hairline to its nearest point; double click: enlarge it, or go back to the
        grid.
        """
        at = self._pointed(event)
        if event.chain == 2:
            self.enlarge()
        elif at is not None and (self.large or self.everywhere) and ends(rows := self._inspected()):
            self._look(nearest(rows, at))
        else:
            self._again()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._scrolled(event, 1 / BY_WHEEL)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._scrolled(event, BY_WHEEL)

    def _scrolled(self, event: events.MouseEvent, factor: float) -> None:
        event.stop()
        at = self._pointed(event)
        if at is not None:
            self.zoom(factor, at)

    def _pointed(self, event: events.MouseEvent) -> float | None:
        """Choose the chart under the pointer; return the position on its x axis."""
        plot, _ = self.screen.get_widget_at(event.screen_x, event.screen_y)
        names, on_page, _ = self._sight()
        slot = int((plot.id or "").removeprefix("plot-")) if isinstance(plot, Plot) else SLOTS
        if not isinstance(plot, Plot) or slot >= len(on_page):
            return None
        self._chosen = names.index(on_page[slot])
        return plot.x(int(event.screen_x) - plot.content_region.x)
