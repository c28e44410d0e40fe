"""A trial's metric journal: one JSON object per line, append-only, durable before the checkpoint of the same epoch.

For each (metric, step) the first line wins, so steps that are repeated after a crash add nothing. A repeated value that
differs is logged as a determinism fault, except for `system_*`, which depends on the clock.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import SupportsFloat

from redsm5.engine import files, paths
from redsm5.engine.documents import load_lines, now, parse, unreadable
from redsm5.engine.errors import NotFiniteError
from redsm5.engine.records import MetricRow

TRAIN_LOSS = "train_loss"  # the metric of every optimizer step


def read_metrics(trial_dir: Path) -> list[MetricRow]:
    """The journal's rows, one a (metric, step), in the order in which they were written.

    Raises:
        InputError: a line is damaged.
    """
    rows: dict[tuple[str, int], MetricRow] = {}
    for row in load_lines(trial_dir / paths.METRICS, MetricRow):
        rows.setdefault((row.metric, row.step), row)
    return list(rows.values())


class JournalReader:
    """Reads a journal piece by piece while another process writes it: one row a (metric, step), the first.

    `rows` and `bytes` say how far it is: how many rows lie behind, and at which byte of the file they end.

    Raises:
        InputError: from `look`, at a line that is damaged, once all before it lie behind.
    """

    def __init__(self, trial_dir: Path) -> None:
        self._path = trial_dir / paths.METRICS
        self._seen: set[tuple[str, int]] = set()
        self._next: dict[tuple[str, int], MetricRow] = {}
        self._next_bytes = 0
        self.bytes = 0

    @property
    def rows(self) -> int:
        return len(self._seen)

    @property
    def piece(self) -> list[MetricRow]:
        """The rows that the last `look` found."""
        return list(self._next.values())

    def look(self, limit: int) -> bool:
        """Whether whole lines follow; their rows, at most `limit`, are `piece`. Looking again sees the same ones.

        Raises:
            InputError: a line is damaged.
        """
        self._next, self._next_bytes = {}, self.bytes
        if not self._path.exists():
            return False
        with files.open_regular(self._path) as file:
            file.seek(self.bytes)
            for line in files.whole_lines(file):
                if len(self._next) == limit:
                    break
                try:
                    row = parse(line, MetricRow)
                except ValueError as error:
                    if self._next_bytes > self.bytes:  # what is before it first
                        break
                    raise unreadable(self._path, error, line=self._line()) from None
                if (row.metric, row.step) not in self._seen:
                    self._next.setdefault((row.metric, row.step), row)
                self._next_bytes = file.tell()
        return self._next_bytes > self.bytes

    def _line(self) -> int:
        """The number of the line that comes next."""
        with files.open_regular(self._path) as file:
            return 1 + file.read(self.bytes).count(b"\n")

    def advance(self) -> None:
        """Leave the piece behind."""
        self._seen.update(self._next)
        self.bytes, self._next = self._next_bytes, {}


class Journal:
    """The writer's side. Whoever opens it holds the trial's lock.

    Args:
        trial_dir: the trial's folder.
        trial_id: its uuid.
        log: called with a sentence and its facts for every determinism fault.
        writes: whether this process writes it; of several that train a trial, only the first does.
    """

    def __init__(self, trial_dir: Path, trial_id: str, log: Callable[..., object], *, writes: bool = True) -> None:
        self._path = trial_dir / paths.METRICS
        self._trial_id, self._log, self._writes = trial_id, log, writes
        self._values: dict[tuple[str, int], float] = {}
        if writes:
            files.cut_torn_tail(self._path)
            self._path.touch()
            files.fsync_dir(trial_dir)
            self._values = {(row.metric, row.step): row.value for row in read_metrics(trial_dir)}
        self._pending: list[bytes] = []

    def add(self, metric: str, value: float, *, step: int, epoch: int, timestamp: str | None = None) -> None:
        """Note a value, of this time or else of now; it is durable after the next `commit`."""
        known = self._values.get((metric, step))
        if known is None:
            timestamp = timestamp or now()
            row = MetricRow(
                trial_id=self._trial_id, metric=metric, step=step, epoch=epoch, value=value, timestamp=timestamp
            )
            self._values[(metric, step)] = value
            self._pending.append(row.to_line())
        elif known != value and not (math.isnan(known) and math.isnan(value)) and not metric.startswith("system_"):
            self._log("determinism fault: a replayed value differs", metric=metric, step=step, first=known, now=value)

    def commit(self) -> None:
        """Write what was noted; when this returns, it is on disk."""
        if self._writes:
            files.append_durable(self._path, b"".join(self._pending))
        self._pending.clear()


class StepLosses:
    """The training loss of each optimizer step, on its way to the journal.

    A loss stays where it was computed for LOOK_EVERY steps, so that the loop does not wait for the device.

    Raises:
        NotFiniteError: from `end_of_step` and `commit`, when a loss is NaN or infinite.
    """

    LOOK_EVERY = 20

    def __init__(self, journal: Journal, *, epochs_done: int) -> None:
        self._journal, self._epochs_done = journal, epochs_done
        self._current: list[SupportsFloat] = []
        self._steps: dict[int, tuple[str, list[SupportsFloat]]] = {}
        self.last = math.nan

    def add(self, loss: SupportsFloat) -> None:
        """The loss of one batch of the step at hand."""
        self._current.append(loss)

    def end_of_step(self, step: int) -> None:
        """The batches since the last call were those of this optimizer step."""
        self._steps[step], self._current = (now(), self._current), []
        if len(self._steps) >= self.LOOK_EVERY:
            self._look()

    def commit(self) -> None:
        """Every step so far is in the journal and on disk."""
        self._look()
        self._journal.commit()

    def _look(self) -> None:
        for step, (timestamp, losses) in self._steps.items():
            self.last = sum(map(float, losses)) / len(losses)
            if not math.isfinite(self.last):
                raise NotFiniteError(
                    f"the loss is {self.last} at step {step}", remedy="Lower train.learning_rate or max_grad_norm."
                )
            self._journal.add(TRAIN_LOSS, self.last, step=step, epoch=self._epochs_done, timestamp=timestamp)
        self._steps.clear()
