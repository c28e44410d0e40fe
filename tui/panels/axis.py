"""A parameter's axis: numbers, which may be logarithmic, or words side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from . import text

MOST_WORDS = 50
LOG_FROM = 20  # ratio of the highest to the lowest value from which an axis is logarithmic, as in the overview's chart
LARGEST_NUMBER = 1e15
NUMBERS = frozenset({int, float, type(None)})  # types of the values on a numeric axis


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
