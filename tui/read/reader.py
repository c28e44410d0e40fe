"""Reads an experiments folder without a lock while others write it.

The index of a large study is read once; afterwards the study's events say which trials changed, and only those and the
running ones are read again.
"""

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.records import FINISHED, BudgetLedger, Event, MetricRow, StudyIndex, StudyRecord, TrialRecord
from redsm5.engine.timeline import TimeLeft, time_left

from .driver import driven
from .files import LARGEST, MAX_INDEX, Documents, Lines, plausible, records
from .trials import Trials

EVENTS_TAIL = 1 << 16
QUICK_INDEX = 1 << 24  # bytes of the largest index that is read before the first paint
LATELY = 50


@dataclass(frozen=True)
class Snapshot:
    """An experiments folder at one moment.

    Attributes:
        studies: all readable studies, oldest first.
        study: the chosen study; None if there is none: then `trials` are those without a study.
        events: its latest events, oldest first.
        latest: the newest row of the study's metric, by active trial.
        ledger: the study's byte budget; None if it has none yet.
        orders: the names of the files in the study's control folder.
        driven: whether a driver runs the study now, and obeys orders.
        disk_free, disk_total: bytes of the file system.
        unreadable: files that exist but are not valid.
        error: why the folder cannot be read at all.
        time_left: of the study; None before its first epoch.
        reading: whether its trials are still to be read: then `trials` is empty.
    """

    experiments: Path
    exists: bool = False
    studies: tuple[StudyRecord, ...] = ()
    study: StudyRecord | None = None
    trials: Trials = field(default_factory=Trials)
    events: tuple[Event, ...] = ()
    latest: dict[str, MetricRow] = field(default_factory=dict)
    ledger: BudgetLedger | None = None
    orders: frozenset[str] = frozenset()
    driven: bool = False
    disk_free: int = 0
    disk_total: int = 0
    unreadable: tuple[Path, ...] = ()
    error: str | None = None
    time_left: TimeLeft | None = None
    reading: bool = False

    @property
    def empty(self) -> bool:
        return self.study is None and not self.trials

    @property
    def budget(self) -> int | None:
        """The limit in bytes on the study's checkpoints; None if there is no study."""
        if self.ledger:
            return self.ledger.max_total_size
        retention = self.study.config.get("retention") if self.study else None
        most = retention.get("max_total_size") if isinstance(retention, dict) else None
        return most if isinstance(most, int) and 0 < most < LARGEST else None

    @property
    def reserved(self) -> int:
        """The bytes that active trials have reserved beyond what they use."""
        entries = self.ledger.entries if self.ledger else {}
        at_work = [(entries[t.trial_id], t) for t in self.trials.active if t.trial_id in entries]
        return sum(max(entry.reserved - max(entry.bytes, t.bytes), 0) for entry, t in at_work if plausible(entry))


class Reader:
    """Reads one experiments folder repeatedly; files that have not changed are not read again."""

    def __init__(self, experiments: Path) -> None:
        self.experiments = experiments
        self._documents = Documents()
        self._names: tuple[int, list[str]] = (-1, [])
        self._left: tuple[StudyRecord | None, Trials | None, TimeLeft | None] = (None, None, None)
        self._study: _Study | None = None
        self._latest: dict[str, tuple[Lines, MetricRow | None]] = {}

    def read(self, study_id: str | None = None, *, quick: bool = False) -> Snapshot:
        """A snapshot of the folder with this study, or with the newest one if it is None or gone.

        With `quick`, a large study is shown without its trials: reading an index of 100,000 trials takes seconds.
        """
        try:
            names = self._listing()
            disk = shutil.disk_usage(self.experiments)
        except (FileNotFoundError, NotADirectoryError):
            self._study = None  # a study that appears later is a new one
            return Snapshot(self.experiments)
        except OSError as error:
            return Snapshot(self.experiments, exists=True, error=error.strerror or str(error))
        found = [
            (name, self._documents.get(self.experiments / name / paths.STUDY, StudyRecord))
            for name in names
            if name.startswith("study_")
        ]
        own = (s for name, s in found if s and name == f"study_{s.study_id}")  # no record may name another folder
        studies = sorted(own, key=lambda s: (s.created_at, s.study_id))
        study = next((s for s in studies if s.study_id == study_id), studies[-1] if studies else None)
        chosen = study.study_id if study else None
        if self._study is None or self._study.study_id != chosen:
            self._study = _Study(self.experiments, chosen, self._documents)
        reading = quick and self._study.large
        trials = Trials() if reading else self._study.follow(names, 1 if study is None or study.maximize else -1)
        folder = paths.study_dir(self.experiments, chosen) if chosen else None
        return Snapshot(
            experiments=self.experiments,
            exists=True,
            studies=tuple(studies),
            study=study,
            trials=trials,
            events=tuple(self._study.events),
            latest=self._scores(trials.active, study.metric if study else None),
            ledger=self._documents.get(folder / paths.BUDGET, BudgetLedger) if folder else None,
            orders=_orders(folder / paths.CONTROL) if folder else frozenset(),
            driven=study is not None and driven(self.experiments, study),
            disk_free=disk.free,
            disk_total=disk.total,
            unreadable=tuple(sorted(self._documents.unreadable)),
            time_left=None if reading else self._time_left(study, trials),
            reading=reading,
        )

    def _time_left(self, study: StudyRecord | None, trials: Trials) -> TimeLeft | None:
        """Computed anew only after a change: it is a loop over all trials."""
        if self._left[0] is not study or self._left[1] is not trials:
            self._left = study, trials, time_left(study, trials) if study else None
        return self._left[2]

    def _listing(self) -> list[str]:
        """The names of the study and trial folders; listed again only after one was added or removed."""
        changed = self.experiments.stat().st_mtime_ns
        if changed != self._names[0]:
            with os.scandir(self.experiments) as found:
                names = [e.name for e in found if paths.is_ours(e.name) and e.is_dir(follow_symlinks=False)]
            # Two changes in quick succession may have the same timestamp, so a recently changed folder is listed again.
            young = time.time_ns() - changed < 2_000_000_000
            self._names = (-1 if young else changed, sorted(names))
        return self._names[1]

    def _scores(self, active: Iterable[TrialRecord], metric: str | None) -> dict[str, MetricRow]:
        """The newest row of this metric by active trial."""
        followed = {}
        for trial in active:
            path = paths.trial_dir(self.experiments, trial.trial_id) / paths.METRICS
            lines, row = self._latest.get(trial.trial_id, (Lines(path, EVENTS_TAIL), None))
            for new in records(lines.look(), MetricRow):
                if new.metric == metric and (row is None or new.step >= row.step):
                    row = new
            followed[trial.trial_id] = lines, row
        self._latest = followed
        return {trial_id: row for trial_id, (_, row) in followed.items() if row}


class _Study:
    """The trials of one study (or those without one) as they change."""

    def __init__(self, experiments: Path, study_id: str | None, documents: Documents) -> None:
        self.study_id = study_id
        self.events: list[Event] = []
        self._experiments, self._documents = experiments, documents
        self._folder = paths.study_dir(experiments, study_id) if study_id else None
        self._lines = Lines(self._folder / paths.EVENTS, EVENTS_TAIL) if self._folder else None
        self._by_id: dict[str, TrialRecord] = {}
        self._open: set[str] = set()  # trials that are not finished
        self._indexed = False
        self._trials = Trials()
        self._next_scan = 0.0

    @property
    def large(self) -> bool:
        """Whether its index is still to be read, and reading it takes long."""
        try:
            return (
                not self._by_id
                and self._folder is not None
                and ((self._folder / paths.INDEX).stat().st_size > QUICK_INDEX)
            )
        except OSError:
            return False

    def follow(self, names: list[str], sign: int) -> Trials:
        """All current trials; the same object as before if none has changed.

        Args:
            names: of the folders. sign: that of the trials.
        """
        told = list(records(self._lines.look(), Event)) if self._lines else []
        if self._lines and self._lines.restarted:  # the file was replaced: everything read before may be out of date
            self._by_id, self._open, self.events = {}, set(), []
        self.events = (self.events + told)[-LATELY:]
        changed = False
        if not self._by_id:
            for trial in self._index():
                changed |= self._note(trial)
            self._indexed = changed
        if not self._indexed and time.monotonic() >= self._next_scan:
            changed |= self._scan(names)
        for trial_id in {e.trial_id for e in told} | self._open:
            if found := self._trial(trial_id):
                changed |= self._note(found)
        if changed or len(self._trials) > len(self._by_id):
            self._trials = (self._renewed() or self._sorted(sign)).ready()
        return self._trials

    def _renewed(self) -> Trials | None:
        """The trials of the last look, updated; None if some were added or removed."""
        if len(self._trials) != len(self._by_id):
            return None
        return self._trials.with_changed(
            trial for trial_id, trial in self._by_id.items() if self._trials.by_id.get(trial_id) is not trial
        )

    def _sorted(self, sign: int) -> Trials:
        known = self._by_id.values()
        found = Trials(sorted(known, key=lambda t: (t.number is None, t.number or 0, t.created_at, t.trial_id)))
        found.sign = sign
        return found

    def _note(self, trial: TrialRecord) -> bool:
        """Store a trial's record; return whether it is new."""
        (self._open.discard if trial.state in FINISHED else self._open.add)(trial.trial_id)
        if self._by_id.get(trial.trial_id) is trial:
            return False
        self._by_id[trial.trial_id] = trial
        return True

    def _index(self) -> list[TrialRecord]:
        """The trials in the driver's index, which may be out of date or missing."""
        if self._folder is None:
            return []
        path = self._folder / paths.INDEX
        index = self._documents.get(path, StudyIndex, MAX_INDEX)
        self._documents.forget(path)  # it is large, and not needed again
        return [t for t in index.trials if plausible(t) and _is_name(t.trial_id)] if index else []

    def _scan(self, names: list[str]) -> bool:
        """Read every trial's record if there is no index; takes at most a twentieth of the time."""
        began, changed = time.monotonic(), False
        for name in names:
            if name.startswith("trial_"):
                trial = self._documents.get(self._experiments / name / paths.TRIAL, TrialRecord)
                if trial and trial.study_id == self.study_id and name == f"trial_{trial.trial_id}":
                    changed |= self._note(trial)
        self._next_scan = time.monotonic() + 20 * (time.monotonic() - began)
        return changed

    def _trial(self, trial_id: str) -> TrialRecord | None:
        if not _is_name(trial_id):
            return None
        trial = self._documents.get(paths.trial_dir(self._experiments, trial_id) / paths.TRIAL, TrialRecord)
        own = trial and (trial.trial_id, trial.study_id) == (trial_id, self.study_id)
        return trial if own else None  # no record may name another folder


def _is_name(trial_id: str) -> bool:
    """Whether it is a valid part of a folder's name, and no path."""
    return "/" not in trial_id and "\0" not in trial_id


def _orders(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder)[:1000])
    except OSError:
        return frozenset()
