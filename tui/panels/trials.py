"""The table of trials: its columns and rows, the values by which it is filtered and sorted, and the selected trial."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.text import Text

from redsm5.engine.records import TrialRecord

from ..read.files import LARGEST
from ..read.trials import Trials, score
from ..read.view import View
from . import text
from .cells import Cell, Column

STAR = "★"  # a note that begins with it marks its trial
NEVER = "never choose by this"
SAMPLE = 200  # rows used to measure a column's width
Sortable = tuple[bool, float, str]


# Columns that are hidden unless they are asked for, with their meaning.
EXTRA = {
    "star": "★ of your own: * gives and takes it",
    "tags": "tags: the words of the note that begin with #",
    "started": "start time",
    "test": f"test F1 ({NEVER})",
}
USUAL = {"epoch": "epoch", "time": "time", "bytes": "bytes", "again": "times resumed", "error": "error", "note": "note"}


def offered(trials: Trials) -> list[tuple[str, str]]:
    """The columns that can be shown or hidden, with their meaning."""
    return [*USUAL.items(), *EXTRA.items(), *((key, text.clean(key, 60)) for key in trials.parameters)]


def columns(
    trials: Trials, metric: str, notes: Mapping[str, str], changed: frozenset[str] = frozenset()
) -> tuple[Column, ...]:
    """The columns, with the widths that the first and last rows need; parameters that vary come first.

    Args:
        changed: the keys of the usual ones that are hidden, and of the others that are shown.
    """
    sample = [*trials[:SAMPLE], *trials[-SAMPLE:]]
    varying: list[Column] = []
    constant: list[Column] = []
    for key in trials.parameters:
        name, found = text.parameter_name(key), [text.parameter(t.parameters.get(key, "–")) for t in sample]
        column = Column(key, name, max([len(name), *map(len, found)]))
        (varying if len(set(found)) > 1 else constant).append(column)
    errors = [len(reason(t)) for t in sample if t.error]
    noted = [notes[t.trial_id] for t in sample if t.trial_id in notes]
    tagged = [len(tags(note)) for note in noted]
    fixed = [
        Column("", "", 2, right=False),
        Column("#", "#", max(3, len(str(len(trials))) + (2 if trials.searched < len(trials) else 0))),
        Column("state", "state", 13, right=False),
        Column("objective", metric, max(6, len(metric))),
    ]
    rest = [
        Column("star", "★", 1, right=False),
        *varying,
        Column("epoch", "epoch", 7),
        Column("time", "time", 8),
        Column("test", "test F1!", 8),
        Column("started", "started", 15),
        Column("bytes", "bytes", 8),
        Column("again", "again", 5),
        *constant,
        *([Column("error", "error", min(max([5, *errors]), 80), right=False)] if errors else []),
        Column("tags", "tags", min(max([4, *tagged]), 40), right=False),
        *([Column("note", "note", min(max([4, *map(len, noted)]), 80), right=False)] if noted else []),
    ]
    return (*fixed, *(column for column in rest if (column.key in EXTRA) == (column.key in changed)))


def tags(note: str) -> str:
    """The words of a note that begin with #."""
    return " ".join(word for word in note.split() if word.startswith("#") and len(word) > 1)


def starred(note: str) -> bool:
    return note.startswith(STAR)


def with_star_changed(note: str) -> str:
    """The note with a star before it, or without the one that it had."""
    return note.removeprefix(STAR).strip() if starred(note) else f"{STAR} {note}".strip()


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
        "#": lambda t: t.number if t.repeat is None or t.number is None else t.number + t.repeat / 1000,
        "state": lambda t: t.state,
        "objective": score,
        "epoch": lambda t: t.epoch,
        "time": lambda t: t.seconds if t.seconds is not None else t.active_seconds or None,
        "bytes": lambda t: t.bytes,
        "again": lambda t: t.resumes,
        "error": lambda t: t.error.message if t.error else None,
        "note": lambda t: notes.get(t.trial_id),
        "star": lambda t: starred(notes.get(t.trial_id, "")) or None,
        "tags": lambda t: tags(notes.get(t.trial_id, "")) or None,
        "started": lambda t: t.started_at,
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
    repeats = len(trials) - trials.searched
    more = f" and {repeats:,} repeat{'s' * (repeats > 1)}" if repeats else ""
    return Text(
        f"{trials.searched:,}{of} trials{more}" if shown == len(trials) else f"{shown:,} of {text.trials(len(trials))}"
    )


def states(view: View, *, word: bool) -> Text:
    """The number of trials in each state."""
    found, line = view.snapshot.trials.counts, Text()
    for name in text.SYMBOLS:
        if found[name]:
            line.append(f"   {found[name]:,} ").append_text(text.state(name, word=word))
    return line


def cells(trial: TrialRecord, view: View, columns: Sequence[Column]) -> list[Cell]:
    """A row: ★ for the best, ≈ if it is within noise of it, a diamond for the pinned one, a dot for marked ones."""
    best = view.snapshot.trials.best
    sign = "★" if best and best.trial_id == trial.trial_id else "◆" if trial.trial_id == view.pinned else " "
    sign = "≈" if sign == " " and trial.trial_id in view.standing.near else sign
    sign += "•" if trial.trial_id in view.marked else " "
    note = view.notes.get(trial.trial_id, "")
    own: dict[str, Cell] = {
        "": Text.assemble((sign, "bold yellow")),
        "#": trial.label,
        "state": text.state(trial.state),
        "objective": text.value(trial.best.value if trial.best else None),
        "epoch": f"{trial.epoch}/{trial.epochs}",
        "time": text.running_time(trial, view.now),
        "bytes": text.size(trial.bytes),
        "again": str(trial.resumes),
        "error": Text.assemble((reason(trial), "red")),
        "note": text.clean(note.removeprefix(STAR).strip()),
        "star": Text.assemble((STAR if starred(note) else "", "bold yellow")),
        "tags": text.clean(tags(note), 40),
        "started": text.clock(trial.started_at, view.now) if trial.started_at else "–",
        "test": text.value(view.tests.get(trial.trial_id)),
    }
    return [own[c.key] if c.key in own else text.parameter(trial.parameters.get(c.key, "–")) for c in columns]


def detail(trial: TrialRecord, view: View) -> Text:
    """All of one trial: its uuid, its error or the trial it duplicates, and its parameters."""
    line = Text.assemble(
        (text.number(trial), "bold"), "  ", text.state(trial.state), f"  {text.clean(trial.trial_id, 60)}"
    )
    if trial.error:
        line.append(f"\n{text.clean(trial.error.kind, 60)}: {text.clean(trial.error.message)}", text.STYLES["failed"])
    elif trial.duplicate_of:
        line.append(f"\nduplicate of {text.clean(trial.duplicate_of, 60)}, not trained again")
    elif trial.confirms:
        line.append(f"\nrepeat of {text.clean(trial.confirms, 60)}, to confirm its score")
    elif trial.best:
        line.append(f"\nbest {text.value(trial.best.value)} after epoch {trial.best.epoch} of {trial.epochs}")
        if bounds := view.standing.intervals.get(trial.trial_id):
            line.append(f", 95 % interval {text.interval(bounds)}")
        if trial.trial_id in view.standing.near:
            line.append(", within noise of the best")
    else:
        line.append("\nno score yet", text.DIM)
    for key, setting in [*trial.parameters.items()][:50]:
        line.append(f" · {text.parameter_name(key)} {text.parameter(setting)}", text.DIM)
    return line
