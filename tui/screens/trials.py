"""All trials of the study in a table, in the order of their numbers; below it, the one under the cursor in full."""

from datetime import UTC, datetime
from itertools import chain

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from redsm5.records import TrialRecord
from tui import text
from tui.header import Header
from tui.reader import Snapshot


class TrialsScreen(Screen[None]):
    _study: str | None = None
    _columns: tuple[str, ...] = ()
    _rows: dict[str, tuple[Text, ...]]

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static(id="empty")
        yield Static(id="counts")
        yield DataTable[Text](id="trials", cursor_type="row", fixed_columns=3, zebra_stripes=True)
        yield Static(id="detail")
        yield Footer()

    def on_mount(self) -> None:
        self._rows = {}
        self.watch(self.app, "snapshot", self.show)

    def show(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        self.query_one("#empty").display = snapshot.empty
        for name in ("#counts", "#trials", "#detail"):
            self.query_one(name).display = not snapshot.empty
        if snapshot.empty:
            self.query_one("#empty", Static).update(text.empty(snapshot))
            return
        self.query_one("#counts", Static).update(counts(snapshot))
        self._fill(snapshot)
        self._detail(snapshot)

    def _fill(self, snapshot: Snapshot) -> None:
        """Change only the cells that differ, so that cursor and scroll position stay where they are."""
        table = self.query_one(DataTable)
        parameters = tuple(sorted(set(chain.from_iterable(t.parameters for t in snapshot.trials))))
        rows = {t.trial_id: cells(t, snapshot, parameters) for t in snapshot.trials}
        columns: tuple[str, ...] = ("", "#", "state", text.metric(snapshot), "epoch", "time", "bytes", "again")
        columns += tuple(key.rsplit(".", 1)[-1] for key in parameters)
        study = snapshot.study.study_id if snapshot.study else None
        if (study, columns) != (self._study, self._columns) or [*self._rows] != [*rows][: len(self._rows)]:
            at = table.cursor_row if study == self._study else 0
            table.clear(columns=True)
            for n, label in enumerate(columns):
                table.add_column(label, key=str(n))
            self._study, self._columns, self._rows = study, columns, {}
        else:
            at = -1
        for trial_id, row in rows.items():
            if trial_id not in self._rows:
                table.add_row(*row, key=trial_id)
            elif row != self._rows[trial_id]:
                for n, (cell, before) in enumerate(zip(row, self._rows[trial_id], strict=True)):
                    if cell != before:
                        table.update_cell(trial_id, str(n), cell, update_width=True)
        self._rows = rows
        if at > 0:
            table.move_cursor(row=at)

    def on_data_table_row_highlighted(self) -> None:
        self._detail(getattr(self.app, "snapshot", None))

    def _detail(self, snapshot: Snapshot | None) -> None:
        table = self.query_one(DataTable)
        trial_ids = [*self._rows]
        if snapshot is None or not 0 <= table.cursor_row < len(trial_ids):
            return
        trial = next((t for t in snapshot.trials if t.trial_id == trial_ids[table.cursor_row]), None)
        if trial:
            self.query_one("#detail", Static).update(detail(trial))


def counts(snapshot: Snapshot) -> Text:
    """How many trials the table holds, and in which states."""
    wanted = f" of {snapshot.study.trials.wanted}" if snapshot.study else ""
    line = Text(f"{len(snapshot.trials)}{wanted} trials  ")
    for name in text.SYMBOLS:
        if snapshot.counts[name]:
            line.append(f"  {snapshot.counts[name]} ").append_text(text.state(name))
    return line


def cells(trial: TrialRecord, snapshot: Snapshot, parameters: tuple[str, ...]) -> tuple[Text, ...]:
    score = text.value(trial.best.value if trial.best else None)
    right = (
        score,
        f"{trial.epoch}/{trial.epochs}",
        text.running_time(trial, datetime.now(UTC)),
        text.size(trial.bytes),
        str(trial.resumes),
        *(text.parameter(trial.parameters.get(key, "–")) for key in parameters),
    )
    is_best = snapshot.best is not None and snapshot.best.trial_id == trial.trial_id
    return (
        Text("★" if is_best else " ", "bold yellow"),
        Text("–" if trial.number is None else str(trial.number), justify="right"),
        text.state(trial.state),
        *(Text(cell, justify="right") for cell in right),
    )


def detail(trial: TrialRecord) -> Text:
    """One trial in full: its uuid, what went wrong or what it repeats, its parameters."""
    line = Text.assemble((text.number(trial), "bold"), "  ", text.state(trial.state), f"  {trial.trial_id}")
    if trial.error:
        line.append(f"\n{text.clean(trial.error.kind)}: {text.clean(trial.error.message)}", text.STYLES["failed"])
    elif trial.duplicate_of:
        line.append(f"\nthe same configuration as {trial.duplicate_of}, so not trained again")
    elif trial.best:
        line.append(f"\nbest {text.value(trial.best.value)} after epoch {trial.best.epoch} of {trial.epochs}")
    return line
