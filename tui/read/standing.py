"""How the best trials of a study stand: to each other, within noise, and to the baseline of the same posts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path
from time import monotonic

from redsm5.engine import paths
from redsm5.engine.errors import InputError
from redsm5.engine.records import StudyRecord, TrialRecord
from redsm5.noise import Scores, beside_baseline, best_of, remarks, scores_of, with_test, within_noise

from .trials import Trials, score

MOST = 100  # trials, the best ones
AGAIN_S = 30.0  # between two looks for a baseline


@dataclass(frozen=True)
class Standing:
    """Of the best trials; all empty where they left no samples.

    Attributes:
        intervals: the 95 % interval of each one's score on the validation posts, by trial id.
        near: those that are within noise of the best, which is not among them.
        remarks: what to know of the best trial, a sentence each.
        value, test_f1_macro: the baseline's score on the validation posts, and its macro F1 on the test posts.
    """

    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    near: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()
    value: float | None = None
    test_f1_macro: float | None = None


class StandingReader:
    """Reads each trial's scores once, a few in each look."""

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments
        self._scores: dict[str, Scores] = {}
        self._within: dict[tuple[str, str], bool | None] = {}
        self._trials, self._top, self._read = Trials(), list[TrialRecord](), 0
        self._last, self._looked = Standing(), -AGAIN_S

    def look(self, study: StudyRecord | None, trials: Trials, seconds: float) -> Standing:
        """What is known after so many seconds of reading; without any, nothing is read."""
        best = trials.best
        if study is None or best is None or seconds <= 0:
            return Standing()
        if trials is not self._trials:
            completed = [t for t in trials if t.state == "completed" and t.confirms is None and score(t) is not None]
            self._top = nlargest(MOST, completed, key=lambda trial: trials.sign * (score(trial) or 0.0))
        now = monotonic()
        until = now + seconds
        read = sum(self._of(trial, until) for trial in self._top) + self._compare(best, until)
        if trials is not self._trials or read != self._read or now > self._looked + AGAIN_S:
            self._trials, self._read, self._looked = trials, read, now
            self._last = self._standing(study, best, [t for t in self._top if t.trial_id in self._scores])
        return self._last

    def _compare(self, best: TrialRecord, until: float) -> int:
        """Compare the best trial with the others; return how many have been."""
        own, compared = self._scores.get(best.trial_id, Scores()).validation, 0
        for trial in self._top:
            pair, scores = (best.trial_id, trial.trial_id), self._scores.get(trial.trial_id)
            if pair not in self._within and scores and scores.validation and monotonic() < until:
                self._within[pair] = within_noise(own, scores.validation)
            compared += pair in self._within
        return compared

    def _of(self, trial: TrialRecord, until: float) -> bool:
        """Whether its scores are known, or nothing can be."""
        if trial.trial_id in self._scores:
            return True
        if monotonic() > until:
            return False
        try:
            found = scores_of(paths.trial_dir(self._experiments, trial.duplicate_of or trial.trial_id))
        except (InputError, OSError):
            found = Scores()
        self._scores[trial.trial_id] = found
        return True

    def _standing(self, study: StudyRecord, best: TrialRecord, top: list[TrialRecord]) -> Standing:
        seen = {t.trial_id: s for t in top if (s := self._scores[t.trial_id].validation)}
        own = self._scores.get(best.trial_id, Scores())
        pairs = {trial_id: (best.trial_id, trial_id) for trial_id in seen}
        near = {trial_id: self._within[pair] for trial_id, pair in pairs.items() if pair in self._within}
        baseline = beside_baseline(self._experiments, study, own)
        named = with_test(best_of(best), own, maximize=study.maximize)
        others = {trial_id: within for trial_id, within in near.items() if trial_id != best.trial_id}
        return Standing(
            intervals={trial_id: (samples.low, samples.high) for trial_id, samples in seen.items()},
            near=frozenset(trial_id for trial_id, within in others.items() if within),
            remarks=tuple(remarks(study.metric, named, baseline, [*others.values()])),
            value=baseline.value if baseline else None,
            test_f1_macro=baseline.test_f1_macro if baseline else None,
        )
