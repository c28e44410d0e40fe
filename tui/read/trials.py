"""The trials of a study by number, with what the screens ask of all of them at once."""

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

from redsm5.engine.records import FINISHED, TrialRecord

INFINITY = float("inf")
ACTIVE = frozenset({"preparing", "running", "finishing"})


class Trials(tuple[TrialRecord, ...]):
    """The trials of a study by number, with cached results; replaced only when a trial has changed.

    Attributes:
        sign: 1 if a higher score is better, -1 if a lower one is.
    """

    sign: int = 1

    @cached_property
    def by_id(self) -> dict[str, TrialRecord]:
        return {trial.trial_id: trial for trial in self}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {trial.trial_id: place for place, trial in enumerate(self)}

    @property
    def counts(self) -> Counter[str]:
        """The number of trials in each state."""
        return self._facts.counts

    @property
    def bytes(self) -> int:
        """The bytes of all checkpoints, as last recorded by the trials."""
        return self._facts.bytes

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the best finite score, the first of equals."""
        return self._facts.best

    @property
    def span(self) -> tuple[int, str, str]:
        """The number of finished trials of the search, its first start and its last end; the times may be empty."""
        return self._facts.ended, self._facts.first, self._facts.last

    @property
    def searched(self) -> int:
        """The number of trials without those that repeat one to confirm it."""
        return len(self) - self._facts.repeats

    @property
    def active(self) -> tuple[TrialRecord, ...]:
        return self._facts.active

    @property
    def points(self) -> list[tuple[int, float, str]]:
        """(number, objective, state) of each trial with a finite score."""
        return self._facts.points

    @cached_property
    def _facts(self) -> "_Facts":
        """One plain loop for speed: it runs over thousands of trials each time one has changed."""
        states, active, best, highest = [], [], None, -INFINITY
        points: list[tuple[int, float, str]] = []
        size, ended, first, last, repeats = 0, 0, "", "", 0
        for place, trial in enumerate(self):
            states.append(state := trial.state)
            size += trial.bytes
            if state in ACTIVE:
                active.append(trial)
            if trial.confirms is not None:  # a repeat is no result of the search
                repeats += 1
                continue
            if (began := trial.started_at) and (began < first or not first):
                first = began
            if state in FINISHED and (finished := trial.finished_at):
                ended += 1
                if finished > last:
                    last = finished
            if trial.best is not None and -INFINITY < (value := trial.best.value) < INFINITY:
                points.append((place if trial.number is None else trial.number, value, state))
                if state == "completed" and self.sign * value > highest:
                    best, highest = trial, self.sign * value
        return _Facts(Counter(states), size, tuple(active), points, best, ended, first, last, repeats)

    @cached_property
    def running_best(self) -> list[tuple[int, float]]:
        """(number, score) of each completed trial that was better than all before it."""
        found: list[tuple[int, float]] = []
        for number, value, state in self.points:
            if state == "completed" and (not found or self.sign * value > self.sign * found[-1][1]):
                found.append((number, value))
        return found

    def ready(self) -> "Trials":
        """Compute the cached results now, in the reading thread, and not when they are shown."""
        for name in ("by_id", "running_best", "parameters"):
            getattr(self, name)
        return self

    def with_changed(self, changed: Iterable[TrialRecord]) -> "Trials | None":
        """The same trials with changed records; None if one is new or its place has changed."""
        trials, by_id = list(self), dict(self.by_id)
        for new in changed:
            old = by_id.get(new.trial_id)
            if old is None or (old.number, old.created_at) != (new.number, new.created_at):
                return None
            if not new.parameters.keys() <= old.parameters.keys():
                return None
            trials[self._places[new.trial_id]] = by_id[new.trial_id] = new
        made = Trials(trials)
        made.__dict__ |= {"sign": self.sign, "by_id": by_id, "_places": self._places, "parameters": self.parameters}
        return made

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The parameter keys of all trials, at most 200."""
        return tuple(sorted({key for trial in self for key in trial.parameters})[:200])


class _Facts(NamedTuple):
    counts: Counter[str]
    bytes: int
    active: tuple[TrialRecord, ...]
    points: list[tuple[int, float, str]]
    best: TrialRecord | None
    ended: int
    first: str
    last: str
    repeats: int


def score(trial: TrialRecord) -> float | None:
    """A trial's best objective; None if there is none or it is not finite."""
    value = trial.best.value if trial.best else None
    return value if value is not None and abs(value) < INFINITY else None
