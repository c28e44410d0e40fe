"""The app: keys, screens, and the snapshot of the folder that all of them show, taken anew each second."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.screen import Screen

from tui.reader import Reader, Snapshot
from tui.screens.help import HelpScreen
from tui.screens.overview import OverviewScreen
from tui.screens.trials import TrialsScreen

POLL_S = 1.0


class TerminalApp(App[None]):
    """Looks at one experiments folder; it need not exist yet."""

    TITLE = "redsm5"
    CSS_PATH = "app.tcss"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {"overview": OverviewScreen, "trials": TrialsScreen}
    DEFAULT_MODE = "overview"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "switch_mode('overview')", "Overview"),
        Binding("2", "switch_mode('trials')", "Trials"),
        Binding("s", "next_study", "Study"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    snapshot: reactive[Snapshot | None] = reactive(None)

    def __init__(self, experiments: Path) -> None:
        super().__init__()
        self._reader = Reader(experiments)
        self._study_id: str | None = None
        self._hurry = asyncio.Event()

    def on_mount(self) -> None:
        self.run_worker(self._watch_folder(), name="poll")

    async def _watch_folder(self) -> None:
        """Read, show, wait. One reading at a time, in a thread, so that a slow disk does not freeze the keys."""
        while True:
            self._hurry.clear()
            self.snapshot = await asyncio.to_thread(self._reader.read, self._study_id)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), POLL_S)

    def action_next_study(self) -> None:
        if self.snapshot and self.snapshot.study:
            ids = [study.study_id for study in self.snapshot.studies]
            self._study_id = ids[(ids.index(self.snapshot.study.study_id) + 1) % len(ids)]
            self._hurry.set()

    def action_help(self) -> None:
        self.push_screen(HelpScreen())
