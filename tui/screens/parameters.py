"""The Parameters screen: importance, parallel coordinates, and what the best trials have in common."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from ..panels import study as study_panels
from ..panels import text
from ..panels.parallel import fit
from ..panels.parameters import Ranked, bars, best_tenth, drawn, in_common, newest, ordered, parallel, ranked
from ..read.reports import Importance
from ..read.trials import score
from ..read.view import View
from ..widgets.frame import head
from ..widgets.plot import ParallelPlot
from ..write import control
from .base import FolderScreen


class ParametersScreen(FolderScreen):
    needs: ClassVar[str] = "parameters"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "importance", "Importance"),
        Binding("n", "page(1)", "More parameters", show=False),
        Binding("b", "page(-1)", "Previous parameters", show=False),
        Binding("enter", "fill", "Fill the screen", show=False),
        Binding("escape", "fill(False)", "Back", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._computed: dict[str, Importance] = {}  # by study; not saved
        self._asked: str | None = None  # the study for which the command runs
        self._failed: dict[str, str] = {}
        self._page = 0
        self._known: tuple[object, list[Ranked]] = (None, [])
        self._drawn: list[Ranked] = []
        self._shared: tuple[object, Text] = (None, Text())

    def body(self) -> ComposeResult:
        with Container(id="parameter-panels"):
            yield ParallelPlot(id="parallel", classes="panel")
            with VerticalScroll(id="importance", classes="panel"):
                yield Static(id="importance-text", markup=False)
            with VerticalScroll(id="common", classes="panel"):
                yield Static(id="common-text", markup=False)

    def show(self, view: View) -> None:
        trials, study = view.snapshot.trials, view.snapshot.study.study_id if view.snapshot.study else ""
        told = newest(view.importance, self._computed.get(study))
        # Finished trials do not change, so only their points are compared, not thousands of records.
        known = study, trials.parameters, [point for point in trials.points if point[2] == "completed"]
        if known != self._known[0]:
            found = ranked(trials)
            self._known, self._drawn = (known, found), drawn(found)
        found, keys = self._known[1], ordered(trials.parameters, told)
        self._show_importance(study, told, keys, view)
        self._show_parallel(view, found, keys)
        width = self.query_one("#common").size.width or 76
        if self._shared[0] != (seen := (id(found), keys, width)):
            self._shared = seen, in_common(found, keys, width)
        self.put("common-text", self._shared[1])
        head(self.query_one("#common"), f"what the best {len(best_tenth(found))} of {len(found):,} have in common")

    def _show_importance(self, study: str, told: Importance | None, keys: Sequence[str], view: View) -> None:
        panel = self.query_one("#importance")
        if self._asked == study:
            said = "computing…"
        elif told:
            of = f"{told.completed:,} of {text.trials(view.snapshot.trials.counts['completed'])}"
            said = f"{text.clock(told.generated_at, view.now)}, of {of} · i: anew"
        else:
            said = "i computes it"
        self.put("importance-text", bars(told, keys, panel.size.width or 76, self._failed.get(study, "")))
        head(panel, "importance (fANOVA)", said)

    def _show_parallel(self, view: View, found: list[Ranked], keys: Sequence[str]) -> None:
        plot = self.query_one("#parallel", ParallelPlot)
        room = fit(plot.size.width or 76)
        pages = max(-(-len(keys) // room), 1)
        self._page %= pages
        chosen = keys[self._page * room :][:room]
        lines = self._drawn
        which = text.trials(len(found))
        if len(lines) < len(found):
            which = f"{len(lines)} of {len(found):,} trials, the best and the newest"
        page = f" · parameters {self._page + 1} of {pages}: n b" if pages > 1 else ""
        head(plot, f"parallel coordinates: {which}{page}", "━ best fifth ┈ others ★ best ▸ selected ◆ pinned")
        highlighted = tuple((i, score(view.snapshot.trials.by_id[i])) for i in (view.selected, view.pinned) if i)
        seen = (id(found), chosen, highlighted, view.pinned, study_panels.metric(view.snapshot))
        plot.show(seen, lambda: parallel(view, lines, chosen))

    def action_page(self, by: int) -> None:
        """Turn `by` pages of parameters."""
        self._page += by
        self._again()

    def action_importance(self) -> None:
        """Have `just summary` compute it for the trials as they are now."""
        view = self.host.view
        if view and view.snapshot.study and self._asked is None:
            self._asked = view.snapshot.study.study_id
            self._again()
            self.run_worker(self._ask(self._asked), group="importance")

    async def _ask(self, study: str) -> None:
        """Compute it in a separate process, which takes seconds and writes nothing."""
        self._failed.pop(study, None)
        try:
            self._computed[study] = await asyncio.to_thread(control.importance, self.host.experiments, study)
        except OSError as error:
            self._failed[study] = f"it cannot be computed: {text.clean(str(error))}"
        self._asked = None
        self._again()

    def _again(self) -> None:
        if (view := self.host.view) and not view.snapshot.empty:
            self.show(view)
