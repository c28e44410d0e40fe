"""The table of trials as CSV: full keys, raw values, and no cell that a spreadsheet would run as a formula."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from redsm5.engine.jsonio import dumps, finite
from redsm5.engine.records import TrialRecord

from ..panels import text
from ..read.reader import Snapshot
from ..read.trials import score

LONGEST = 10_000  # characters per cell
RUN = tuple("=+-@＝＋－＠")  # characters that begin a formula in a spreadsheet


def place() -> Path:
    """The folder where the app was started, or else the temporary folder."""
    try:
        here = Path.cwd()
    except OSError:  # the folder was deleted
        return Path("/tmp")
    return here if os.access(here, os.W_OK) else Path("/tmp")


def write(folder: Path, snapshot: Snapshot, ids: Sequence[str], notes: Mapping[str, str]) -> Path:
    """Write these trials of the study in this order, into a new CSV file.

    Raises:
        OSError: it cannot be written.
    """
    study = snapshot.study
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text.clean(study.name, 60)) if study else "single"
    path = folder / f"redsm5-trials-{name}-{datetime.now():%Y%m%d-%H%M%S}.csv"
    keys = snapshot.trials.parameters
    metric = study.metric if study else "objective"
    own = ["number", "state", metric, "best_epoch", "epoch", "epochs", "created_at", "started_at", "finished_at"]
    own += ["active_seconds", "bytes", "resumes", "error"]
    with path.open("x", encoding="utf-8", newline="") as file:  # "x" never follows an existing link
        table = csv.writer(file)
        table.writerow([cell(title) for title in (*own, *keys, "id", "note")])
        for trial_id in ids:
            if trial := snapshot.trials.by_id.get(trial_id):
                values = [*_own(trial), *(trial.parameters.get(key) for key in keys), trial_id, notes.get(trial_id)]
                table.writerow([cell(value) for value in values])
    return path


def _own(trial: TrialRecord) -> tuple[object, ...]:
    return (
        trial.number,
        trial.state,
        score(trial),
        trial.best.epoch if trial.best else None,
        trial.epoch,
        trial.epochs,
        trial.created_at,
        trial.started_at,
        trial.finished_at,
        trial.active_seconds,
        trial.bytes,
        trial.resumes,
        f"{trial.error.kind}: {trial.error.message}" if trial.error else None,
    )


def cell(value: object) -> str:
    """A value for a cell: numbers and text unchanged, but text that a spreadsheet would run as a formula gets an
    apostrophe in front.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        shown = finite(value)
        return shown if isinstance(shown, str) else dumps(shown).decode()
    written = text.clean(value, LONGEST)
    return f"'{written}" if written.startswith(RUN) and not _number(written) else written


def _number(written: str) -> bool:
    try:
        float(written)
    except ValueError:
        return False
    return True
