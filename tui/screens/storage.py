"""The Storage screen: bytes by kind and trial, next evictions, reclaimable files, recent moves."""

import asyncio
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from ..panels import machine, text
from ..panels.storage import going, kinds, largest, moves, usage
from ..read.view import View
from ..widgets.frame import head
from ..write import control
from .base import FolderScreen


class StorageScreen(FolderScreen):
    needs: ClassVar[str] = "storage"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "ask_cleanup", "Again"),
        Binding("K", "app.order('cleanup')", "Clean up", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, Any] | None = None
        self._said = "looking for reclaimable files…"
        self._asked_of: tuple[str, int] | None = None
        self._view: View | None = None

    def body(self) -> ComposeResult:
        with Container(id="storage-panels"):
            yield Static(id="gauge", classes="panel", markup=False)
            yield Static(id="kinds", classes="panel", markup=False)
            with VerticalScroll(id="next", classes="panel"):
                yield Static(id="next-text", markup=False)
            with VerticalScroll(id="moves", classes="panel"):
                yield Static(id="moves-text", markup=False)
            with VerticalScroll(id="largest", classes="panel"):
                yield Static(id="largest-text", markup=False)
            yield Static(id="machine", classes="panel", markup=False)

    def show(self, view: View) -> None:
        self._view = view
        study = view.snapshot.study.study_id if view.snapshot.study else ""
        if self._asked_of != (study, self.host.cleanups):
            self._asked_of = study, self.host.cleanups
            self.action_ask_cleanup()
        width = self.query_one("#gauge").size.width or 60
        now_ms = int(view.now.timestamp() * 1000)
        pending = (
            f"checked {view.storage.looked_at:,} of {len(view.snapshot.trials):,} trials"
            if view.storage.pending
            else ""
        )
        self.put("gauge", usage(view.snapshot, view.storage, width, now_ms, chart=False), "budget", pending)
        self.put("kinds", kinds(view), f"by kind: {text.trials(len(view.storage.by_trial))}")
        self.put("next-text", going(self._found, self._said, view))
        head(self.query_one("#next"), "evicted next, in this order")
        panel = self.query_one("#moves")
        page, highest = moves(view, panel.size.width or 60, now_ms)
        self.put("moves-text", page)
        head(panel, "writes and prunes, 6 h", highest)
        self.put("largest-text", largest(view, self.query_one("#largest").size.width or 60))
        head(self.query_one("#largest"), "by study, by trial")
        width = self.query_one("#machine").size.width
        if width:  # it fits on the screen
            self.put("machine", machine.strip(view.machine, width), machine.title(view.machine))

    def action_ask_cleanup(self) -> None:
        self.run_worker(self._ask(), exclusive=True, group="cleanup")

    async def _ask(self) -> None:
        """Run `just cleanup` as a dry run in a separate process, since it opens every checkpoint."""
        try:
            self._found = await asyncio.to_thread(control.cleanup, self.host.experiments)
        except OSError as error:
            self._found, self._said = None, f"cleanup failed: {text.clean(str(error))}"
        if self._view:
            self.show(self._view)
