"""An epoch's progress bar on a terminal; without a terminal, the log has a line for each epoch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar(Protocol):
    def advance(self) -> None: ...


class _NoBar:
    def advance(self) -> None:
        return


class _RichBar:
    def __init__(self, progress: Progress, description: str, total: int, done: int) -> None:
        self._progress, self._task = progress, progress.add_task(description, total=total, completed=done)

    def advance(self) -> None:
        self._progress.advance(self._task)


@contextmanager
def epoch_progress(epoch: int, epochs: int, batches: int, done: int, *, shown: bool = True) -> Iterator[Bar]:
    """A bar over the batches of one epoch, of which `done` were trained before an interruption."""
    if not (shown and sys.stderr.isatty()):
        yield _NoBar()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        yield _RichBar(progress, f"epoch {epoch} of {epochs}", batches, done)
