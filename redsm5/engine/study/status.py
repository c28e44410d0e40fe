"""The status line of a study on a terminal; without a terminal, the log has a line for each change."""

import sys
from types import TracebackType

from rich.console import Console
from rich.status import Status

from redsm5.engine.records import TrialRecord
from redsm5.engine.study.registry import Scoreboard
from redsm5.engine.tables import left_text


def size_text(size: int) -> str:
    """A number of bytes for a person: 1.3 GB."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def status_text(board: Scoreboard, trial: TrialRecord) -> str:
    """Trial i of n, where it stands, the best so far, bytes on disk, time left."""
    counts, best, left = board.study.trials, board.study.best, board.time_left()
    place = f"trial {min(counts.finished + 1, counts.wanted)} of {counts.wanted}"
    if trial.confirms:
        place = f"confirming, trial {trial.label}"
    parts = [
        f"{place}: {trial.state}",
        f"epoch {trial.epoch} of {trial.epochs}",
        f"best {best.value:.4f} (trial {best.number})" if best else "no best yet",
        f"{size_text(board.bytes())} on disk",
        left_text(left),
    ]
    return " · ".join(parts)


class StatusLine:
    """The live line, while it is entered and the terminal is one."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._status = Status("", console=console) if sys.stderr.isatty() else None

    def show(self, board: Scoreboard, trial: TrialRecord) -> None:
        if self._status:
            self._status.update(status_text(board, trial))

    def __enter__(self) -> None:
        if self._status:
            self._status.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._status:
            self._status.stop()
