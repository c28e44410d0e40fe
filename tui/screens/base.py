"""What all screens share: the header, the footer, and showing each new snapshot of the folder."""

from typing import ClassVar, cast

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Static

from ..host import Host
from ..panels import study
from ..read.view import View
from ..widgets.frame import head
from ..widgets.header import Header
from ..widgets.keys import Keys


class FolderScreen(Screen[None]):
    """A screen that shows the folder. `needs`: the trials whose details it shows: "selected", "marked", "active" or
    none.
    """

    needs: ClassVar[str] = ""
    side: ClassVar[tuple[str, int]] = ("", 0)  # the grid whose right column can be resized, and its width
    kept: ClassVar[tuple[str, ...]] = ()  # the attributes saved across restarts, besides that width
    AUTO_FOCUS = ""

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static(id="empty", markup=False)
        with Container(id="body"):
            yield from self.body()
        yield Keys()

    def widen(self, by: int, *, keep: bool = False) -> None:
        """Make the right column wider by `by`, or reset it (0), or restore the saved width (`keep`)."""
        grid, _ = self.side
        if grid:
            self._wider = self._wider + by if by or keep else 0
            self.query_one(grid).styles.grid_columns = f"1fr {self._width()}"

    _wider = 0
    _dragging = False

    def _width(self) -> int:
        return min(max(self.side[1] + self._wider, 16), max(self.size.width - 30, 16))

    def _edge(self) -> int:
        """The x position at which the right column begins; -9 if there is none."""
        grid, _ = self.side
        return self.query_one(grid).region.right - self._width() if grid and self.has_class("-wide") else -9

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Start dragging the border between the columns."""
        if event.screen_x in (self._edge() - 1, self._edge()):
            self._dragging = True
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragging and (by := self._edge() - int(event.screen_x)):
            self._wider = self._width() - self.side[1] + by  # within the available width
            self.widen(0, keep=True)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if self._dragging:
            self._dragging = False
            self.capture_mouse(False)

    def body(self) -> ComposeResult:
        raise NotImplementedError

    def show(self, view: View) -> None:
        """Update everything visible; called about once a second, so it must be cheap if nothing has changed."""
        raise NotImplementedError

    @property
    def host(self) -> Host:
        return cast(Host, self.app)  # app.py states that the app is one

    def on_mount(self) -> None:
        self.host.memory.recall(self, (*self.kept, "_wider"))
        if self._wider:
            self.call_after_refresh(self.widen, 0, keep=True)
        self.watch(self.app, "view", self._on_view)

    def on_screen_resume(self) -> None:
        self._on_view(self.host.view)
        self.call_after_refresh(self.host.hurry)  # it may need data that the last view does not have

    def _on_view(self, view: View | None) -> None:
        if view is None or self.app.screen_stack[0] is not self:
            return
        self.query_one(Header).show(view)
        self.query_one("#body").display = not view.snapshot.empty
        self.query_one("#empty").display = view.snapshot.empty
        if view.snapshot.empty:
            self.query_one("#empty", Static).update(study.empty(view.snapshot))
        else:
            self.show(view)

    def action_fill(self, on: bool | None = None) -> None:
        """Show the screen's chart alone, or with the other panels again."""
        self.set_class(not self.has_class("-filled") if on is None else on, "-filled")

    def put(self, id: str, content: Text | str, title: str | None = None, subtitle: str | None = None) -> None:
        """Show text in a panel, if it has changed; markup in it is not parsed."""
        panel = self.query_one(f"#{id}", Static)
        shown = Text(content) if isinstance(content, str) else content
        before = getattr(panel, "shown", None)
        if before is None or before != shown:
            panel.shown = shown  # type: ignore[attr-defined]
            lengths = [len(line) for line in shown.plain.split("\n")]
            same = before is not None and lengths == [len(line) for line in before.plain.split("\n")]
            panel.update(shown, layout=not same)  # a running clock needs no new layout
        head(panel, title, subtitle)
