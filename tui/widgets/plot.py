"""The widgets that fill their space with a drawing; it is made again only if its content or the size has changed."""

from collections.abc import Callable

from rich.text import Text
from textual.widget import Widget

from ..panels import parallel
from ..panels.chart import Chart, Drawing
from ..panels.parallel import Parallel


class Plot(Widget):
    """A chart that fills its space; laid out again only if it or its size has changed."""

    ALLOW_SELECT = False  # dots are not text; a click selects a point

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._chart = Chart()
        self._seen: object = None
        self._at: float | None = None
        self._drawing: Drawing | None = None

    def show(self, seen: object, make: Callable[[], Chart], at: float | None = None) -> None:
        """Draw the chart, unless `seen`, which identifies its content, is unchanged; and the hairline."""
        if seen is not self._seen and seen != self._seen:
            self._chart, self._seen, self._drawing = make(), seen, None
        elif at == self._at:
            return
        self._at = at
        self.refresh()

    def x(self, column: int) -> float | None:
        """The x position under a column of the widget's content; None if nothing is drawn."""
        return self._drawing.x(column) if self._drawing else None

    def render(self) -> Text:
        if self._drawing is None or self._drawing.size != tuple(self.size):
            self._drawing = Drawing(self._chart, self.size.width, self.size.height)
        return self._drawing.text(self._at)


class ParallelPlot(Widget):
    """Fills its space; redrawn only if its content or size has changed."""

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._data = Parallel()
        self._seen: object = None
        self._drawn: tuple[Parallel, int, int, Text] | None = None

    def show(self, seen: object, make: Callable[[], Parallel]) -> None:
        """Draw the result of `make`, unless `seen`, which identifies its content, is unchanged."""
        if seen != self._seen:
            self._data, self._seen = make(), seen
            self.refresh()

    def render(self) -> Text:
        width, height = self.size
        if self._drawn is None or self._drawn[:3] != (self._data, width, height):
            self._drawn = self._data, width, height, parallel.draw(self._data, width, height)
        return self._drawn[3]
