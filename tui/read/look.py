"""One look at the folder and at the machine: all that the visible screen needs, as one view."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from redsm5.engine import paths

from .detail import TrialReader
from .files import Documents
from .machine import Machine, MachineView
from .many import Many, ManyReader
from .reader import Reader, Snapshot
from .reports import Importance
from .scores import ScoresReader
from .standing import StandingReader
from .storage import StorageReader, StorageView
from .studies import StudiesReader
from .view import View

MOST_AT_WORK = 8  # trials whose newest metrics are shown beside the machine's
MANY_S = 0.1  # for reading all studies, or the curves or the test scores of all trials, in each look
STANDING_S = 0.02  # for reading the scores of the best trials, likewise
FOLLOWED = 16  # trials whose folders stay in memory


@dataclass(frozen=True)
class Wanted:
    """What to look at; studies and trials by their ids, which need not exist.

    Attributes:
        needs: the `needs` of the visible screen.
        counting_s: seconds for counting bytes.
    """

    needs: str = ""
    study: str | None = None
    selected: str | None = None
    pinned: str | None = None
    marked: tuple[str, ...] = ()
    counting_s: float = 0.0


class Looker:
    """Looks repeatedly. The first look is the fastest: it reads no more than the study, and its trials if they are not
    very many.
    """

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments
        self._reader = Reader(experiments)
        self._storage = StorageReader(experiments)
        self._machine = Machine(experiments)
        self._studies, self._many = StudiesReader(experiments), ManyReader(experiments)
        self._scores, self._standing = ScoresReader(experiments), StandingReader(experiments)
        self._summaries = Documents()
        self._trials: dict[str, TrialReader] = {}
        self._first = True

    def look(self, wanted: Wanted) -> View:
        """A view in which all trials exist. Without a selected one it is the active, else the best, else the newest."""
        first, self._first = self._first, False
        snapshot = self._reader.read(wanted.study, quick=first)
        trials, study = snapshot.trials, snapshot.study.study_id if snapshot.study else None
        selected = wanted.selected
        if selected not in trials.by_id:
            chosen = (trials.active or ((trials.best,) if trials.best else trials[-1:]))[:1]
            selected = chosen[0].trial_id if chosen else None
        pinned = wanted.pinned if wanted.pinned in trials.by_id else None
        reference = pinned or (trials.best.trial_id if trials.best else None)
        marked = [trial_id for trial_id in wanted.marked if trial_id in trials.by_id]
        marked.sort(key=lambda trial_id: trial_id != pinned)  # the pinned one first
        by_need: dict[str, list[str | None]] = {
            "selected": [selected, reference],
            "marked": [*marked],
            "many": [trial.trial_id for trial in trials.active[:1]],
            "active": [trial.trial_id for trial in trials.active[:1]],
            "machine": [trial.trial_id for trial in trials.active[:MOST_AT_WORK]],
        }
        details = {i: self._follow(i).read(trials.by_id[i]) for i in by_need.get(wanted.needs, []) if i}
        many_s, standing_s = (0.0, 0.0) if first else (MANY_S, STANDING_S)
        return View(
            snapshot=snapshot,
            selected=selected,
            pinned=pinned,
            marked=tuple(marked),
            details=details,
            storage=(
                StorageView()
                if snapshot.reading
                else self._storage.look(study, trials, 0.0 if first else wanted.counting_s)
            ),
            studies=self._studies.look(snapshot.studies, many_s) if wanted.needs == "studies" else (),
            many=self._look_at_many(snapshot, many_s) if wanted.needs == "many" else Many(),
            tests=self._scores.look(trials, many_s) if wanted.needs == "tests" else {},
            standing=self._standing.look(snapshot.study, trials, standing_s),
            importance=self._importance(study) if wanted.needs == "parameters" else None,
            machine=MachineView() if first else self._measure(wanted.needs, details),
        )

    def _look_at_many(self, snapshot: Snapshot, seconds: float) -> Many:
        study = snapshot.study
        if study is None:
            return Many()
        return self._many.look(study.study_id, study.metric, snapshot.trials, seconds)

    def _importance(self, study: str | None) -> Importance | None:
        path = paths.study_dir(self._experiments, study) / paths.SUMMARY if study else None
        return self._summaries.get(path, Importance) if path else None

    def _measure(self, needs: str, at_work: Iterable[str]) -> MachineView:
        seen = needs in ("machine", "storage")
        return self._machine.look(seen, at_work if needs == "machine" else ())

    def _follow(self, trial_id: str) -> TrialReader:
        reader = self._trials.pop(trial_id, None) or TrialReader(self._experiments, trial_id)
        self._trials[trial_id] = reader  # the last used one comes last
        while len(self._trials) > FOLLOWED:
            del self._trials[next(iter(self._trials))]
        return reader
