"""The Trials screen: all trials in a live table, sorted and filtered; below it, details of the selected one."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input, Static

from redsm5.engine.records import TrialRecord
from tui import export, text
from tui.files import LARGEST
from tui.query import matcher
from tui.reader import ACTIVE, Trials, score
from tui.screens.base import FolderScreen
from tui.view import View
from tui.widgets.table import Cell, Column, Table

PAUSE_S = 0.1  # pause in typing before thousands of trials are filtered
SAMPLE = 200  # rows used to measure a column's width
MOST_ROWS = 500  # rows whose cells are cached
Sortable = tuple[bool, float, str]


class TrialsScreen(FolderScreen):
    kept: ClassVar[tuple[str, ...]] = ("_query", "_sort", "_falling")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "leave_filter", "Clear filter", show=False),
        Binding("o", "sort(1)", "Sort", show=False),
        Binding("O", "sort(-1)", "Sort by previous", show=False),
        Binding("i", "reverse", "Reverse the order", show=False),
        Binding("m", "app.mark", "Mark", show=False),
        Binding("N", "app.note", "Note", show=False),
        Binding("W", "write", "Write as CSV", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._query = ""
        self._sort, self._falling = "#", False
        self._made_of: tuple[object, ...] = ()
        self._texts: dict[str, tuple[TrialRecord, dict[str, object]]] = {}
        self._rows: dict[str, tuple[tuple[object, ...], list[Cell]]] = {}
        self._columns: tuple[Column, ...] = ()
        self._view: View | None = None
        self._typing: Timer | None = None

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
        made_of = (trials, self._query, self._sort, self._falling, view.marked, view.pinned, view.notes)
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
        self._columns = await asyncio.to_thread(columns, view.snapshot.trials, metric, view.notes)
        keys = await asyncio.to_thread(self._chosen, view)
        told = matcher(self._query).told
        self.put("told", text.clean(told))
        self.query_one("#told").display = bool(told)
        table = self.query_one(Table)
        table.fill(self._columns, table.keys if keys == table.keys else keys, self._cells)
        if chosen := self.owner.selected:  # not the view's, which may be older than the last key
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
        known[1]["note"] = notes.get(trial.trial_id, "")
        return known[1]

    def _cells(self, key: str) -> Sequence[Cell]:
        assert self._view is not None
        trial = self._view.snapshot.trials.by_id.get(key)
        if trial is None:
            return ()
        best, clock = self._view.snapshot.trials.best, self._view.now if trial.state in ACTIVE else None
        marks = (best and best.trial_id == key, key == self._view.pinned, key in self._view.marked)
        made_of = (trial, clock, marks, self._view.notes.get(key), self._columns)
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
        keys = [column.key for column in self._columns if column.label]
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

    def action_reverse(self) -> None:
        self._falling = not self._falling
        self._again()

    @on(Table.Headed)
    def _headed(self, event: Table.Headed) -> None:
        if event.key == self._sort:
            self._falling = not self._falling
            self._again()
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
        self.owner.select(self.query_one(Table).cursor_key)
        self._detail()

    @on(Table.Chosen)
    def _opened(self) -> None:
        self.owner.select(self.query_one(Table).cursor_key)
        self.app.switch_mode("trial")

    def _detail(self) -> None:
        key = self.query_one(Table).cursor_key
        trial = self._view.snapshot.trials.by_id.get(key or "") if self._view else None
        if trial:
            self.put("detail", detail(trial))
        else:
            self.put("detail", "No trial matches: Esc clears the filter." if self._query else "")


def columns(trials: Trials, metric: str, notes: Mapping[str, str]) -> tuple[Column, ...]:
    """The columns, with the widths that the first and last rows need."""
    sample = [*trials[:SAMPLE], *trials[-SAMPLE:]]
    of_parameters = [
        Column(key, name, max([len(name), *(len(text.parameter(t.parameters.get(key, "–"))) for t in sample)]))
        for key in trials.parameters
        if (name := text.parameter_name(key))
    ]
    errors = [len(reason(t)) for t in sample if t.error]
    noted = [len(note) for trial_id, note in notes.items() if trial_id in trials.by_id]
    return (
        Column("", "", 2, right=False),
        Column("#", "#", max(3, len(str(len(trials))))),
        Column("state", "state", 13, right=False),
        Column("objective", metric, max(6, len(metric))),
        Column("epoch", "epoch", 7),
        Column("time", "time", 8),
        Column("bytes", "bytes", 8),
        Column("again", "again", 5),
        *of_parameters,
        *([Column("error", "error", min(max([5, *errors]), 80), right=False)] if errors else []),
        *([Column("note", "note", min(max([4, *noted]), 80), right=False)] if noted else []),
    )


def reason(trial: TrialRecord) -> str:
    return text.clean(trial.error.message, 80) if trial.error else ""


def values(trial: TrialRecord, metric: str) -> dict[str, object]:
    """The values by which to filter, with both the short and the full names of parameters."""
    row: dict[str, object] = {
        "#": trial.number,
        "number": trial.number,
        "state": trial.state,
        metric: score(trial),
        "objective": score(trial),
        "epoch": trial.epoch,
        "bytes": trial.bytes,
        "again": trial.resumes,
        "id": trial.trial_id,
        "error": trial.error.message if trial.error else "",
    }
    for key, setting in trial.parameters.items():
        row[key] = row[text.parameter_name(key)] = setting
    return row


def sorting(key: str, notes: Mapping[str, str]) -> Callable[[TrialRecord], Sortable]:
    """A trial's sort key: (False, number, text), or (True, …) if it has no such value."""
    of: dict[str, Callable[[TrialRecord], Any]] = {
        "#": lambda t: t.number,
        "state": lambda t: t.state,
        "objective": score,
        "epoch": lambda t: t.epoch,
        "time": lambda t: t.seconds if t.seconds is not None else t.active_seconds or None,
        "bytes": lambda t: t.bytes,
        "again": lambda t: t.resumes,
        "error": lambda t: t.error.message if t.error else None,
        "note": lambda t: notes.get(t.trial_id),
    }

    def by(trial: TrialRecord) -> Sortable:
        found = of[key](trial) if key in of else trial.parameters.get(key)
        if found is None or found != found:
            return True, 0.0, ""
        if isinstance(found, int | float) and abs(found) < LARGEST:
            return False, float(found), ""
        return False, 0.0, str(found)[:200]

    return by


def counts(view: View, shown: int) -> Text:
    """The number of trials in the table."""
    trials, study = view.snapshot.trials, view.snapshot.study
    of = f" of {study.trials.wanted:,}" if study else ""
    return Text(f"{len(trials):,}{of} trials" if shown == len(trials) else f"{shown:,} of {text.trials(len(trials))}")


def states(view: View, *, word: bool) -> Text:
    """The number of trials in each state."""
    found, line = view.snapshot.trials.counts, Text()
    for name in text.SYMBOLS:
        if found[name]:
            line.append(f"   {found[name]:,} ").append_text(text.state(name, word=word))
    return line


def cells(trial: TrialRecord, view: View, columns: Sequence[Column]) -> list[Cell]:
    """A row: a star for the best, a diamond for the pinned one, a dot for marked ones."""
    best = view.snapshot.trials.best
    sign = "★" if best and best.trial_id == trial.trial_id else "◆" if trial.trial_id == view.pinned else " "
    sign += "•" if trial.trial_id in view.marked else " "
    own: dict[str, Cell] = {
        "": Text.assemble((sign, "bold yellow")),
        "#": "–" if trial.number is None else str(trial.number),
        "state": text.state(trial.state),
        "objective": text.value(trial.best.value if trial.best else None),
        "epoch": f"{trial.epoch}/{trial.epochs}",
        "time": text.running_time(trial, view.now),
        "bytes": text.size(trial.bytes),
        "again": str(trial.resumes),
        "error": Text.assemble((reason(trial), "red")),
        "note": text.clean(view.notes.get(trial.trial_id, "")),
    }
    return [own[c.key] if c.key in own else text.parameter(trial.parameters.get(c.key, "–")) for c in columns]


def detail(trial: TrialRecord) -> Text:
    """All of one trial: its uuid, its error or the trial it duplicates, and its parameters."""
    line = Text.assemble(
        (text.number(trial), "bold"), "  ", text.state(trial.state), f"  {text.clean(trial.trial_id, 60)}"
    )
    if trial.error:
        line.append(f"\n{text.clean(trial.error.kind, 60)}: {text.clean(trial.error.message)}", text.STYLES["failed"])
    elif trial.duplicate_of:
        line.append(f"\nduplicate of {text.clean(trial.duplicate_of, 60)}, not trained again")
    elif trial.best:
        line.append(f"\nbest {text.value(trial.best.value)} after epoch {trial.best.epoch} of {trial.epochs}")
    else:
        line.append("\nno score yet", text.DIM)
    for key, setting in [*trial.parameters.items()][:50]:
        line.append(f" · {text.parameter_name(key)} {text.parameter(setting)}", text.DIM)
    return line
