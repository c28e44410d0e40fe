"""What completed trials say about the parameters: their importance, and the values of the best trials.

The importance is that of `just summary` (fANOVA; see redsm5/evaluation/importance.py), from the study's summary.json or
from that command; it is not computed here.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard, TypeVar

from pydantic import ConfigDict

from redsm5.engine.documents import Document
from redsm5.engine.records import TrialRecord
from redsm5.reports import ParameterImportance, StudySummary
from tui import text
from tui.files import LARGEST
from tui.reader import Trials, score

MOST_DRAWN = 500
FEWEST = 10  # completed trials; with fewer, the best ones say little
MOST_WORDS = 50
LOG_FROM = 20  # ratio of the highest to the lowest value from which an axis is logarithmic, as in the overview's chart
LARGEST_NUMBER = 1e15
T = TypeVar("T")
NUMBERS = frozenset({int, float, type(None)})  # types of the values on a numeric axis


class Importance(Document):
    """The parts of summary.json that are read: its time, its trials, and each parameter's importance."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    study_id: str
    generated_at: str
    counts: dict[str, int]
    parameter_importance: dict[str, ParameterImportance]

    @classmethod
    def form(cls) -> str:
        return StudySummary.form()

    @property
    def completed(self) -> int:
        """The number of completed trials on which it is based."""
        return min(max(self.counts.get("completed", 0), 0), LARGEST)

    def share(self, key: str) -> float | None:
        """The parameter's share of the variance; None if it is unknown."""
        found = self.parameter_importance.get(key)
        share = found.share if found else None
        return share if share is not None and 0 <= share <= 1 else None


def ordered(keys: Sequence[str], importance: Importance | None) -> list[str]:
    """The keys, the most important first; keys without an importance in their own order."""
    if importance is None:
        return [*keys]
    shares = {key: importance.share(key) for key in keys}
    return sorted(keys, key=lambda key: -1.0 if (share := shares[key]) is None else -1.0 - share)


class Ranked(NamedTuple):
    value: float
    trial: TrialRecord


def ranked(trials: Trials) -> list[Ranked]:
    """The completed trials that are not duplicates, best first."""
    found = [
        Ranked(value, trial)
        for trial in trials
        if trial.state == "completed" and trial.duplicate_of is None and (value := score(trial)) is not None
    ]
    found.sort(key=lambda one: -one.value)
    return found


def drawn(found: Sequence[Ranked]) -> list[Ranked]:
    """At most MOST_DRAWN of them, best first: half of them are the best, the rest are the newest others."""
    if len(found) <= MOST_DRAWN:
        return [*found]
    half = MOST_DRAWN // 2
    newest = sorted(found[half:], key=lambda one: one.trial.number or 0)[-half:]
    return [*found[:half], *sorted(newest, key=lambda one: -one.value)]


@dataclass(frozen=True)
class Axis:
    """The axis of a parameter: numbers between `low` and `high`, or words side by side.

    Attributes:
        low, high: on a logarithmic axis, the logarithms to base 10.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    words: tuple[str, ...] = ()

    def place(self, value: object) -> float | None:
        """The value's position on the axis, 0 to 1; None if it has none."""
        if self.words:
            word = None if value is None else str(value)
            if word not in self.words:
                return None
            return self.words.index(word) / (len(self.words) - 1) if len(self.words) > 1 else 0.5
        if not is_number(value) or (self.log and value <= 0):
            return None
        at = math.log10(value) if self.log else float(value)
        return min(max((at - self.low) / (self.high - self.low), 0.0), 1.0) if self.high > self.low else 0.5

    def label(self, place: float) -> str:
        """The label at a position on the axis."""
        if self.words:
            return text.parameter(self.words[round(place * (len(self.words) - 1))])
        at = self.low + place * (self.high - self.low)
        return f"{10**at if self.log else at:.3g}"

    @property
    def ticks(self) -> list[float]:
        """The places that have a label: each word, or both ends and the middle."""
        if self.words:
            return [0.5] if len(self.words) == 1 else [n / (len(self.words) - 1) for n in range(len(self.words))]
        return [0.0, 0.5, 1.0] if self.high > self.low else [0.5]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a numeric axis can show it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def axis_of(name: str, values: Sequence[object]) -> Axis:
    """The axis for all these values; None and non-finite numbers have no position on it."""
    if not NUMBERS.issuperset(map(type, values)):
        return Axis(name, words=tuple(sorted({str(v) for v in values if v is not None})[:MOST_WORDS]))
    numbers = [v for v in values if v is not None and -LARGEST_NUMBER < v < LARGEST_NUMBER]  # type: ignore[operator]
    if not numbers:
        return Axis(name)
    low, high = float(min(numbers)), float(max(numbers))  # type: ignore[type-var,arg-type]
    if low > 0 and high / low > LOG_FROM:
        return Axis(name, math.log10(low), math.log10(high), log=True)
    return Axis(name, low, high)


@dataclass(frozen=True)
class Common:
    """One parameter's values among the best trials, compared with all trials.

    Attributes:
        axis: the axis for the values of all trials.
        low, high: the range of the best, if the values are numbers; None if none of the best has the parameter.
        best, all: the count of each value among the best and among all, if the values are words.
        have: the number of the best that have the parameter.
    """

    axis: Axis
    low: float | None
    high: float | None
    best: Counter[str]
    all: Counter[str]
    have: int


def best_tenth(found: Sequence[T]) -> Sequence[T]:
    return found[: max(math.ceil(len(found) / 10), 1)]


def common(settings: Sequence[Mapping[str, Any]], key: str) -> Common:
    """A parameter's values in the best ten per cent of trials; `settings` are all trials' parameters, best first."""
    values = [setting.get(key) for setting in settings]
    best = [v for v in values[: len(best_tenth(settings))] if v is not None]
    axis = axis_of(text.parameter_name(key), values)
    if axis.words:
        told = Counter(map(str, values))
        return Common(axis, None, None, Counter(map(str, best)), told, len(best))
    numbers = [float(v) for v in best if is_number(v)]
    return Common(axis, min(numbers, default=None), max(numbers, default=None), Counter(), Counter(), len(best))
