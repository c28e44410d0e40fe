"""What an experiments folder says, read without a lock while others write it.

A file may be missing, half written or replaced at any moment. What cannot be read is counted and otherwise left out;
what could be read a moment ago keeps its last content. Files that have not changed are not read again.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from redsm5 import paths
from redsm5.documents import Record
from redsm5.records import Event, MetricRow, RetentionRow, StudyIndex, StudyRecord, TrialRecord

TAIL_BYTES = 1 << 16
LATELY = 50
ACTIVE = frozenset({"preparing", "running", "finishing"})
SETTLED = frozenset({"completed", "failed", "pruned"})

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Snapshot:
    """An experiments folder at one moment.

    Attributes:
        studies: all that can be read, oldest first.
        study: the one that is looked at; None where there is none, then `trials` are those without a study.
        trials: of that study, by number.
        events: its last ones, oldest first.
        latest: of each active trial, the newest row of the metric that the study maximizes.
        disk_free, disk_total: bytes of the file system.
        unreadable: files that are there but are not what they should be.
    """

    experiments: Path
    exists: bool = False
    studies: tuple[StudyRecord, ...] = ()
    study: StudyRecord | None = None
    trials: tuple[TrialRecord, ...] = ()
    events: tuple[Event, ...] = ()
    latest: dict[str, MetricRow] = field(default_factory=dict)
    disk_free: int = 0
    disk_total: int = 0
    unreadable: int = 0

    @property
    def empty(self) -> bool:
        return self.study is None and not self.trials

    @cached_property
    def counts(self) -> Counter[str]:
        """How many trials are in each state."""
        return Counter(trial.state for trial in self.trials)

    @cached_property
    def bytes(self) -> int:
        """What the checkpoints of all trials hold, as the trials noted it last."""
        return sum(trial.bytes for trial in self.trials)

    @cached_property
    def best(self) -> TrialRecord | None:
        """The completed trial with the highest objective, the first of equals."""
        scored = [t for t in self.trials if t.state == "completed" and t.best and t.best.value == t.best.value]
        return max(scored, key=lambda t: t.best.value if t.best else 0.0, default=None)

    def active(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.state in ACTIVE]


class Reader:
    """Reads one folder again and again; keeps what it read of files that stay the same."""

    def __init__(self, experiments: Path) -> None:
        self.experiments = experiments
        self._cache: dict[Path, tuple[tuple[int, int, int], Record | None]] = {}
        self._unreadable: set[Path] = set()

    def read(self, study_id: str | None = None) -> Snapshot:
        """The folder now, looking at this study, or at the newest where it is None or gone."""
        self._unreadable.clear()
        if not self.experiments.is_dir():
            return Snapshot(self.experiments)
        found = [self._document(d / paths.STUDY, StudyRecord) for d in paths.study_dirs(self.experiments)]
        studies = sorted((s for s in found if s), key=lambda s: s.created_at)
        study = next((s for s in studies if s.study_id == study_id), studies[-1] if studies else None)
        events = self._events(study) if study else []
        trials = self._trials(study, events)
        latest = {t.trial_id: row for t in trials if t.state in ACTIVE and study and (row := self._latest(t, study))}
        disk = shutil.disk_usage(self.experiments)
        return Snapshot(
            experiments=self.experiments,
            exists=True,
            studies=tuple(studies),
            study=study,
            trials=tuple(trials),
            events=tuple(events),
            latest=latest,
            disk_free=disk.free,
            disk_total=disk.total,
            unreadable=len(self._unreadable),
        )

    def _trials(self, study: StudyRecord | None, events: list[Event]) -> list[TrialRecord]:
        """Those of the study, or where there is none, those without one.

        The index spares opening every folder, but lags: a trial that had not settled is looked up in its own, and one
        that only the events know as well.
        """
        index = None
        if study:
            index = self._document(paths.study_dir(self.experiments, study.study_id) / paths.INDEX, StudyIndex)
        if index:
            trials = [t if t.state in SETTLED else self._trial(t.trial_id) or t for t in index.trials]
            newer = {e.trial_id for e in events} - {t.trial_id for t in trials}
            trials += [t for trial_id in newer if (t := self._trial(trial_id))]
        else:
            folders = paths.trial_dirs(self.experiments)
            everything = (self._document(folder / paths.TRIAL, TrialRecord) for folder in folders)
            trials = [t for t in everything if t and t.study_id == (study.study_id if study else None)]
        return sorted(trials, key=lambda t: (t.number is None, t.number or 0, t.created_at))

    def _trial(self, trial_id: str) -> TrialRecord | None:
        return self._document(paths.trial_dir(self.experiments, trial_id) / paths.TRIAL, TrialRecord)

    def _events(self, study: StudyRecord) -> list[Event]:
        return list(_tail(paths.study_dir(self.experiments, study.study_id) / paths.EVENTS, Event))[-LATELY:]

    def _latest(self, trial: TrialRecord, study: StudyRecord) -> MetricRow | None:
        rows = _tail(paths.trial_dir(self.experiments, trial.trial_id) / paths.METRICS, MetricRow)
        return max((r for r in rows if r.metric == study.metric), key=lambda r: r.step, default=None)

    def _document(self, path: Path, kind: type[R]) -> R | None:
        try:
            status = path.stat()
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._cache.get(path)
            if known is None or known[0] != signature:
                known = (signature, kind.model_validate_json(path.read_bytes()))
                self._cache[path] = known
        except FileNotFoundError:
            self._cache.pop(path, None)
            return None
        except (OSError, ValidationError):
            self._unreadable.add(path)
            known = self._cache.get(path)
        return known[1] if known and isinstance(known[1], kind) else None


def read_metrics(trial_dir: Path) -> dict[str, list[MetricRow]]:
    """Each metric's rows by step. The first line of a (metric, step) counts: later ones are a stretch trained again."""
    rows: dict[str, dict[int, MetricRow]] = {}
    for row in _whole(trial_dir / paths.METRICS, MetricRow):
        rows.setdefault(row.metric, {}).setdefault(row.step, row)
    return {metric: [by_step[step] for step in sorted(by_step)] for metric, by_step in rows.items()}


def read_retention(trial_dir: Path) -> list[RetentionRow]:
    """What became of the trial's checkpoints lately, oldest first."""
    return list(_tail(trial_dir / paths.RETENTION, RetentionRow))


def _whole(path: Path, kind: type[R]) -> Iterator[R]:
    try:
        content = path.read_bytes()
    except OSError:
        return
    yield from _rows(content, kind)


def _tail(path: Path, kind: type[R]) -> Iterator[R]:
    """The lines in the last 64 KiB."""
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, 2) - TAIL_BYTES)
            file.seek(start)
            content = file.read()
    except OSError:
        return
    yield from _rows(content[content.find(b"\n") + 1 :] if start else content, kind)


def _rows(content: bytes, kind: type[R]) -> Iterator[R]:
    """The lines that are whole; a torn one, or a stranger's, is skipped."""
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            yield kind.model_validate_json(line)
        except ValidationError:
            continue
