"""The Trials screen: all trials in a live table, sorted and filtered; below it, details of the selected one."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input, Static

from redsm5.engine.records import TrialRecord

from ..panels import text
from ..panels.cells import Cell, Column
from ..panels.trials import (
    EXTRA,
    NEVER,
    cells,
    columns,
    counts,
    detail,
    offered,
    sorting,
    starred,
    states,
    tags,
    values,
    with_star_changed,
)
from ..read.query import matcher
from ..read.trials import ACTIVE
from ..read.view import View
from ..widgets.table import Table
from ..write import export
from .base import FolderScreen
from .columns import ColumnsScreen

PAUSE_S = 0.1  # pause in typing before thousands of trials are filtered
MOST_ROWS = 500  # rows whose cells are cached


class TrialsScreen(FolderScreen):
    kept: ClassVar[tuple[str, ...]] = ("_query", "_sort", "_falling", "_chosen_columns")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "leave_filter", "Clear filter", show=False),
        Binding("o", "sort(1)", "Sort", show=False),
        Binding("O", "sort(-1)", "Sort by previous", show=False),
        Binding("i", "reverse", "Reverse the order", show=False),
        Binding("m", "app.mark", "Mark", show=False),
        Binding("N", "app.note", "Note", show=False),
        Binding("L", "columns", "Columns", show=False),
        Binding("asterisk", "star", "Star", show=False, key_display="*"),
        Binding("W", "write", "Write as CSV", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._query = ""
        self._sort, self._falling = "#", False
        self._chosen_columns = ""  # keys: of the usual columns that are hidden, and of the others that are shown
        self._made_of: tuple[object, ...] = ()
        self._texts: dict[str, tuple[TrialRecord, dict[str, object]]] = {}
        self._rows: dict[str, tuple[tuple[object, ...], list[Cell]]] = {}
        self._columns: tuple[Column, ...] = ()
        self._view: View | None = None
        self._typing: Timer | None = None

    @property
    def _changed(self) -> frozenset[str]:
        return frozenset(self._chosen_columns.split())

    @property
    def needs(self) -> str:  # type: ignore[override]
        """The reports are read only while their column is shown."""
        return "tests" if "test" in self._changed else ""

    def body(self) -> ComposeResult:
        yield Static(id="counts", markup=False)
        with Horizontal(id="filter-line"):
            yield Input(id="filter", placeholder="gated   head=mlp_*   lr<5e-5 or failed   !head~^mlp", compact=True)
            yield Static(id="told", markup=False)
        yield Table(id="trials", fixed=3)
        yield Static(id="detail", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        line = self.query_one(Input)
        with line.prevent(Input.Changed):
            line.value = self._query  # the saved query
        line.display = bool(self._query)

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if not self.query_one(Input).has_focus:
            self.query_one(Table).focus()

    def show(self, view: View) -> None:
        self._view = view
        trials, table = view.snapshot.trials, self.query_one(Table)
        made_of = (
            trials,
            self._query,
            self._sort,
            self._falling,
            view.marked,
            view.pinned,
            view.notes,
            view.tests,
            self._chosen_columns,
        )
        if made_of[0] is not (self._made_of or (None,))[0] or made_of[1:] != self._made_of[1:]:
            self._made_of = made_of
            self.run_worker(self._arrange(view), exclusive=True, group="rows")
        elif trials.active:
            table.refresh()  # running times change
        self.put("counts", self._counts(view))
        self._detail()

    async def _arrange(self, view: View) -> None:
        """Filter and sort in a thread, so that thousands of trials do not delay a key; then fill the table."""
        metric = text.clean(view.snapshot.study.metric, 12) if view.snapshot.study else "best"
        metric = metric.removesuffix("_macro")
        self._columns = await asyncio.to_thread(columns, view.snapshot.trials, metric, view.notes, self._changed)
        keys = await asyncio.to_thread(self._chosen, view)
        told = matcher(self._query).told
        self.put("told", text.clean(told))
        self.query_one("#told").display = bool(told)
        table = self.query_one(Table)
        table.fill(self._columns, table.keys if keys == table.keys else keys, self._cells)
        if chosen := self.host.selected:  # not the view's, which may be older than the last key
            table.put_cursor(chosen)
        self.put("counts", self._counts(view))
        self._detail()

    def _chosen(self, view: View) -> list[str]:
        """The ids of the trials that match the filter, sorted as chosen."""
        shown: Sequence[TrialRecord] = view.snapshot.trials
        if self._query:
            shown = matcher(self._query).those(shown, lambda trial: self._values(trial, view.notes))
        if self._sort != "#" or self._falling:
            by = sorting(self._sort, view.notes)
            keyed = [(by(trial), trial) for trial in shown]
            known = sorted((p for p in keyed if not p[0][0]), key=lambda p: p[0], reverse=self._falling)
            shown = [t for _, t in known] + [t for key, t in keyed if key[0]]  # trials without a value always come last
        keys = [trial.trial_id for trial in shown]
        if view.pinned in keys:
            keys.remove(view.pinned)
            keys.insert(0, view.pinned)  # the pinned trial is always on top
        return keys

    def _values(self, trial: TrialRecord, notes: Mapping[str, str]) -> dict[str, object]:
        """A trial's values for the filter, by column; cached until the trial changes."""
        known = self._texts.get(trial.trial_id)
        if known is None or known[0] is not trial:
            known = self._texts[trial.trial_id] = trial, values(trial, self._columns[3].label)
        note = notes.get(trial.trial_id, "")
        known[1].update(note=note, tags=tags(note), star="★" if starred(note) else "")
        return known[1]

    def _cells(self, key: str) -> Sequence[Cell]:
        assert self._view is not None
        trial = self._view.snapshot.trials.by_id.get(key)
        if trial is None:
            return ()
        best, clock = self._view.snapshot.trials.best, self._view.now if trial.state in ACTIVE else None
        marks = (best and best.trial_id == key, key == self._view.pinned, key in self._view.marked)
        made_of = (trial, clock, marks, self._view.notes.get(key), self._columns, self._view.tests.get(key))
        known = self._rows.get(key)
        if known is None or known[0] != made_of:
            if len(self._rows) > MOST_ROWS:
                self._rows.clear()
            known = self._rows[key] = made_of, cells(trial, self._view, self._columns)
        return known[1]

    def _counts(self, view: View) -> Text:
        line = counts(view, len(self.query_one(Table).keys))
        arrow = "▼" if self._falling else "▲"
        label = next((c.label for c in self._columns if c.key == self._sort), text.parameter_name(self._sort))
        line.append(f"   sorted by {label} {arrow}", text.DIM)
        if "test" in self._changed:
            line.append(f"   test F1: {NEVER}", "yellow")
        if view.marked:
            line.append(f"   {len(view.marked)} marked", "bold")
        return line.append_text(states(view, word=self.size.width >= 120))

    # -----------------------------------------------------------------------------------------------------------------
    # keys

    def action_filter(self) -> None:
        self.query_one(Input).display = True
        self.query_one(Input).focus()

    def action_leave_filter(self) -> None:
        self.query_one(Input).value = ""
        self.query_one(Input).display = False
        self.query_one(Table).focus()

    @on(Input.Changed, "#filter")
    def _typed(self, event: Input.Changed) -> None:
        self._query = event.value
        if self._typing:
            self._typing.stop()
        self._typing = self.set_timer(PAUSE_S, self._again)  # the input is painted first

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.query_one(Input).display = bool(self._query)
        self.query_one(Table).focus()

    def action_sort(self, by: int) -> None:
        keys = [column.key for column in self._columns if column.label and column.key != "test"]
        at = keys.index(self._sort) if self._sort in keys else 0
        self._order(keys[(at + by) % len(keys)])

    async def action_write(self) -> None:
        """Save the trials in the table, with all columns, for a spreadsheet."""
        if self._view is None:
            return
        ids, view = [*self.query_one(Table).keys], self._view
        try:
            path = await asyncio.to_thread(export.write, export.place(), view.snapshot, ids, view.notes)
        except OSError as error:
            self.notify(f"the table cannot be saved: {error.strerror}", severity="error", markup=False)
        else:
            self.notify(text.clean(str(path), 4096), title=f"{text.trials(len(ids))} written", markup=False)

    def action_columns(self) -> None:
        """Ask which columns to show."""
        if self._view is None:
            return
        choices = offered(self._view.snapshot.trials)
        extra, changed = frozenset(EXTRA), self._changed
        usual = frozenset(key for key, _ in choices) - extra

        def answered(shown: frozenset[str] | None) -> None:
            if shown is not None:
                elsewhere = changed - usual - extra  # of other studies' parameters
                self._chosen_columns = " ".join(sorted((usual - shown) | (extra & shown) | elsewhere))
                self._again()
                self.host.hurry()

        self.app.push_screen(ColumnsScreen(choices, (usual - changed) | (extra & changed)), answered)

    def action_star(self) -> None:
        """Give the trial a star of the user's, or take it away."""
        if trial_id := self.query_one(Table).cursor_key:
            memory = self.host.memory
            if not memory.note(trial_id, with_star_changed(memory.notes.get(trial_id, ""))):
                self.notify("There are too many notes: delete some others.", severity="warning")
            self.host.hurry()

    def action_reverse(self) -> None:
        self._falling = not self._falling
        self._again()

    @on(Table.Headed)
    def _headed(self, event: Table.Headed) -> None:
        if event.key == self._sort:
            self._falling = not self._falling
            self._again()
        elif event.key == "test":
            self.notify(f"Trials are not sorted by their test score: {NEVER}.", severity="warning")
        elif event.key:
            self._order(event.key)

    def _order(self, key: str) -> None:
        self._sort, self._falling = key, key not in ("#", "state")  # numbers start with the highest
        self._again()

    def _again(self) -> None:
        if self._view:
            self.show(self._view)

    @on(Table.Moved)
    def _moved(self) -> None:
        self.host.select(self.query_one(Table).cursor_key)
        self._detail()

    @on(Table.Chosen)
    def _opened(self) -> None:
        self.host.select(self.query_one(Table).cursor_key)
        self.app.switch_mode("trial")

    def _detail(self) -> None:
        key = self.query_one(Table).cursor_key
        view = self._view
        trial = view.snapshot.trials.by_id.get(key or "") if view else None
        if view and trial:
            self.put("detail", detail(trial, view))
        else:
            self.put("detail", "No trial matches: Esc clears the filter." if self._query else "")
