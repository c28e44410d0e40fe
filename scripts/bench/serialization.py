"""Cost of reading and writing our JSON files: `just bench serialization [--trials 10000] [--keep DIR]`.

The folder is generated as by `just bench terminal` and is in the page cache; on some disks deleting it takes longer
than everything else, which `--keep` avoids. Every figure is the median of all rounds: the time, and the CPU time, which
does not depend on the disk. A row "without fsync" is the same work without fsync. There is no contender: compare the
figures of two versions on one machine.

- poll: the app's refresh of the folder, once a second, while four trials write;
- open: the first refresh, which reads the index;
- first count: the bytes of every trial's files by kind, with its retention journal;
- trial records: every trial.json, read one by one, as by a driver without an index;
- journal: an epoch of 100 steps and its five metrics, noted and committed; then the journal is read again;
- index: the driver's index of its trials when four of them have changed; the first time, all are serialized;
- just studies: the whole command.
"""

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from results import Result, arguments_of, digits, finish
from terminal import METRICS, STEPS, WRITERS, Writers, folders, generate

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.errors import exit_with_message
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.records import StudyRecord
from redsm5.engine.study.registry import Scoreboard
from redsm5.engine.study.trial import read_record
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show
from redsm5.engine.tracking.journal import Journal
from tui.read.reader import Reader
from tui.read.storage import StorageReader

POLLS = 20
EPOCHS = 50  # in the journal
SMALL = 1000  # trials in the smaller index


class Figures:
    """Seconds of each kind of work: wall-clock and CPU."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[float]]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure a block, after collecting earlier garbage."""
        gc.collect()
        cpu, clock = time.process_time(), time.perf_counter()
        yield
        self.add(name, time.perf_counter() - clock, time.process_time() - cpu)

    def add(self, name: str, clock: float, cpu: float) -> None:
        figures = self.found.setdefault(name, {"time, ms": [], "CPU, ms": []})
        for column, seconds in zip(figures, (clock, cpu), strict=True):
            figures[column].append(1000 * seconds)

    def rows(self) -> list[Row]:
        return [
            {"": name, **{column: digits(statistics.median(values)) for column, values in figures.items()}}
            for name, figures in self.found.items()
        ]


@contextmanager
def without_fsync() -> Iterator[None]:
    real = os.fsync
    os.fsync = lambda fd: None
    try:
        yield
    finally:
        os.fsync = real


def record_of(study: Path) -> StudyRecord:
    record = load(study / paths.STUDY, StudyRecord)
    assert record
    return record


def measure_app(figures: Figures, root: Path, study: Path) -> None:
    reader, study_id = Reader(root), record_of(study).study_id
    with figures.of("open"):
        trials = reader.read(study_id).trials
    with figures.of("first count"):
        assert StorageReader(root).look(study_id, trials, float("inf")).pending == 0
    writers = Writers(root, study, [*trials[-WRITERS:]])
    for _ in range(POLLS):
        writers.step()
        with figures.of("poll"):
            reader.read(study_id)


def measure_records(figures: Figures, root: Path) -> None:
    with figures.of("trial records"):
        assert all(map(read_record, paths.trial_dirs(root)))


def measure_journal(figures: Figures, name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="redsm5-") as scratch:
        journal = Journal(Path(scratch), "0", log=lambda *_, **__: None)
        for epoch in range(EPOCHS):
            with figures.of(f"journal, an epoch{name}"):
                for step in range(epoch * STEPS, (epoch + 1) * STEPS):
                    journal.add("train_loss", 1 / (1 + step), step=step, epoch=epoch)
                for metric in METRICS:
                    journal.add(f"{metric}_of_epoch", 1 / (1 + epoch), step=(epoch + 1) * STEPS, epoch=epoch)
                journal.commit()
        if not name:
            with figures.of(f"journal, {EPOCHS} epochs opened again"):
                Journal(Path(scratch), "0", log=lambda *_, **__: None)


def measure_index(figures: Figures, root: Path, study: Path, name: str) -> None:
    board = Scoreboard(root, record_of(study))
    size = f"index of {len(board.trials):,}"
    with figures.of(f"{size}, first time{name}"):
        board.write()
    records = sorted(board.trials.values(), key=lambda record: record.number or 0)
    writers = Writers(root, study, records[-WRITERS:])
    for _ in range(POLLS):
        writers.step()
        with figures.of(f"{size}{name}"):
            board.write()


def measure_studies(figures: Figures, root: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "studies.py"), "--experiments", str(root), "--format", "json"]
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    figures.add("just studies", took, used)


def both(measure: Callable[[str], object]) -> None:
    """Call `measure` with and without fsync."""
    measure("")
    with without_fsync():
        measure(", without fsync")


def main() -> int:
    parser = arguments_of("serialization", __doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="generate into this folder and keep it, or use an existing one")
    arguments = parser.parse_args()
    figures = Figures()
    for folder in folders(arguments):
        root, other = folder / "large", folder / "small"
        study = next(root.glob("study_*"), None) or generate(root, arguments.trials, arguments.epochs)
        small = next(other.glob("study_*"), None) or generate(other, min(SMALL, arguments.trials), 1)
        measure_app(Figures(), root, study)  # fills the page cache
        for turn in range(arguments.rounds):
            measure_app(figures, root, study)
            measure_records(figures, root)
            both(partial(measure_journal, figures))
            both(partial(measure_index, figures, other, small))
            both(partial(measure_index, figures, root, study))
            measure_studies(figures, root)
            show(f"round {turn + 1} of {arguments.rounds}", error=True)
    title = f"Reading and writing the files of {arguments.trials:,} trials of {arguments.epochs} epochs"
    return finish(Result(title, figures.rows(), measured=figures.found), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
