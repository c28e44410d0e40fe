"""All studies of a folder side by side: their progress, bytes, and best score so far, from each one's index."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.records import StudyIndex, StudyRecord

from .driver import driven
from .files import MAX_INDEX, Documents, plausible
from .trials import Trials

MOST = 100  # studies that are listed, the newest ones
SHARE = 20  # an index is read again after so many times the time that it took


@dataclass(frozen=True)
class StudyLine:
    """A study in the list.

    Attributes:
        driven: whether a driver runs it.
        best: (number, score) of each completed trial that was better than all before it.
        bytes: of its checkpoints, as last recorded by the trials; None if it has no index.
        last: the highest number of its trials.
    """

    record: StudyRecord
    driven: bool
    best: tuple[tuple[int, float], ...] = ()
    bytes: int | None = None
    last: int = 0


class StudiesReader:
    """Reads the indexes; a large one that changes all the time is read seldom."""

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments
        self._documents = Documents()
        self._known: dict[str, tuple[float, StudyLine]] = {}

    def look(self, studies: Sequence[StudyRecord], seconds: float) -> tuple[StudyLine, ...]:
        """The newest studies, newest first, after reading indexes until so many seconds are over; without any, none."""
        deadline = time.monotonic() + seconds if seconds > 0 else 0.0
        return tuple(self._line(study, deadline) for study in reversed(studies[-MOST:]))

    def _line(self, study: StudyRecord, deadline: float) -> StudyLine:
        again, known = self._known.get(study.study_id, (0.0, None))
        runs = driven(self._experiments, study)
        began = time.monotonic()
        if began > deadline and not known:
            return StudyLine(study, runs)
        if known and (began > deadline or began < again or (known.record is study and not runs)):
            return StudyLine(study, runs, known.best, known.bytes, known.last)
        path = paths.study_dir(self._experiments, study.study_id) / paths.INDEX
        index = self._documents.get(path, StudyIndex, MAX_INDEX)
        self._documents.forget(path)  # it may be large
        line = StudyLine(study, runs)
        if index is not None and index.study_id == study.study_id:
            trials = Trials(sorted((t for t in index.trials if plausible(t)), key=lambda t: t.number or 0))
            trials.sign = 1 if study.maximize else -1
            last = max((t.number or 0 for t in trials), default=0)
            line = StudyLine(study, runs, tuple(trials.running_best), trials.bytes, last)
        self._known[study.study_id] = time.monotonic() + SHARE * (time.monotonic() - began), line
        return line
