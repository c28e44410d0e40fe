"""Asynchronous successive halving of the promotion type: which paused trial goes on, and when a new one is drawn.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), algorithm 2. A trial is paused at
each *rung*, after `min_epochs * reduction_factor**k` epochs, or as many folds. The best `1/reduction_factor` of a rung
are promoted: they go on from their checkpoints to the next rung, and from the last one to their end. A worker that is
free promotes a trial of the highest rung that has one to promote, and else draws a new one.

Two things are added, since a search has an end. Once all trials are drawn and none is at work, a bracket in which none
has completed promotes its best paused trial, so that a search of few trials has a result. And what is then still
paused ends as pruned.

All of this follows from the rows of rungs.jsonl alone: `Rungs` is what they say, `confirm` repeats each decision.
"""

import binascii
import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from redsm5.engine import paths
from redsm5.engine.documents import load_lines
from redsm5.engine.records import RungRow

HORIZON = 500  # of what is still to come to a rung, so many are looked at


def bracket_shares(brackets: int, reduction_factor: int) -> list[int]:
    """In which proportion brackets get trials: those of hyperband (Li et al. 2018, algorithm 1), lowest rung first."""
    tops = range(brackets - 1, -1, -1)
    return [math.ceil(brackets * reduction_factor**s / (s + 1)) for s in tops]


def bracket_of(number: int, seed: int, shares: list[int]) -> int:
    """The bracket of trial `number`, by its number and the study's seed alone."""
    left = binascii.crc32(f"{seed}_{number}".encode()) % sum(shares)
    bracket = 0
    while left >= shares[bracket]:
        left -= shares[bracket]
        bracket += 1
    return bracket


@dataclass(frozen=True)
class Ladder:
    """Where the trials of a study pause.

    Attributes:
        epochs: the most that a trial trains.
        unit: what reduction_factor and min_epochs count, in epochs: 1, or those of a fold.
        brackets: how many; trials of bracket b pause from rung b on.
        seed: the study's, which deals trials out to brackets.
        maximize: whether a higher score is better.
    """

    epochs: int
    reduction_factor: int = 3
    min_epochs: int = 1
    brackets: int = 1
    seed: int = 0
    maximize: bool = True
    unit: int = 1

    @property
    def rungs(self) -> list[int]:
        """After how many epochs the rungs are, lowest first."""
        found: list[int] = []
        while (epochs := self.epochs_at(len(found))) < self.epochs:
            found.append(epochs)
        return found

    def epochs_at(self, rung: int) -> int:
        return int(self.unit * self.min_epochs * self.reduction_factor**rung)

    def bracket(self, number: int) -> int:
        return bracket_of(number, self.seed, bracket_shares(self.brackets, self.reduction_factor))

    def expected_epochs(self, trials: int) -> float:
        """About how many epochs a search of so many trials trains in all."""
        shares = bracket_shares(self.brackets, self.reduction_factor)
        total = 0.0
        for bracket, share in enumerate(shares):
            here, before = trials * share / sum(shares), 0
            for epochs in [*self.rungs[bracket:], self.epochs]:
                total += here * (epochs - before)
                here, before = here / self.reduction_factor, epochs
        return total

    def rung_after(self, number: int, epoch: int) -> int | None:
        """The rung at which this trial pauses after this epoch; None if it goes on."""
        above = (rung for rung, epochs in enumerate(self.rungs) if epochs == epoch and rung >= self.bracket(number))
        return next(above, None)


class Place(NamedTuple):
    """A rung of a bracket; `max` is the highest rung, and of its brackets the last."""

    rung: int
    bracket: int


class Promotion(NamedTuple):
    """That a paused trial goes on: it is `rank` of `of` scores at its place.

    Attributes:
        closing: it is the best of its bracket, in which none has completed when all trials are drawn.
    """

    number: int
    place: Place
    rank: int
    of: int
    closing: bool = False


class Rungs:
    """What the rows of a study's rungs.jsonl say, in their order.

    Attributes:
        drawn, at_work, paused: numbers of trials; of the paused ones, where.
        came_from: the rung from which a trial was promoted last.
    """

    def __init__(self, ladder: Ladder, rows: Iterable[RungRow] = ()) -> None:
        self._ladder = ladder
        self._ranking: dict[Place, list[tuple[float, int]]] = defaultdict(list)  # best first
        self._completed: set[int] = set()  # brackets in which a trial has completed
        self.drawn: set[int] = set()
        self.at_work: set[int] = set()
        self.paused: dict[int, Place] = {}
        self.came_from: dict[int, int] = {}
        for row in rows:
            self.add(row)

    def add(self, row: RungRow) -> None:
        """Take in the next row.

        Raises:
            ValueError: it does not follow from what came before: says why.
        """
        number = row.number
        match row.action:
            case "draw":
                if number in self.drawn:
                    raise ValueError(f"trial {number} is drawn a second time")
                self.drawn.add(number)
                self.at_work.add(number)
            case "pause":
                if number not in self.at_work or row.rung is None:
                    raise ValueError(f"trial {number} pauses, but was not at work")
                self.at_work.remove(number)
                self.paused[number] = place = Place(row.rung, row.bracket)
                insort(self._ranking[place], (self._cost(row.value), number))
            case "promote":
                if number not in self.paused:
                    raise ValueError(f"trial {number} is promoted, but was not paused")
                self.came_from[number] = self.paused.pop(number).rung
                self.at_work.add(number)
            case "end":
                if number not in self.at_work and (row.state != "pruned" or number not in self.paused):
                    raise ValueError(f"trial {number} is {row.state}, but was not at work")
                self.at_work.discard(number)
                self.paused.pop(number, None)
                if row.state == "completed":
                    self._completed.add(row.bracket)

    def _cost(self, value: float | None) -> float:
        """Lower is better; what is not finite is worst."""
        if value is None or not math.isfinite(value):
            return math.inf
        return -value if self._ladder.maximize else value

    def promotion(self) -> Promotion | None:
        """The next paused trial to go on, if one is among the best of its rung; of the highest rung first."""
        for place in sorted(self._ranking, reverse=True):
            ranking = self._ranking[place]
            for rank, (cost, number) in enumerate(ranking[: len(ranking) // self._ladder.reduction_factor], 1):
                if self.paused.get(number) == place and math.isfinite(cost):
                    return Promotion(number, place, rank, len(ranking))
        return None

    def closing_promotion(self) -> Promotion | None:
        """The best paused trial of the highest rung of a bracket in which none has completed; all trials are drawn."""
        for place in sorted(self._ranking, reverse=True):
            if place.bracket in self._completed:
                continue
            ranking = self._ranking[place]
            for rank, (cost, number) in enumerate(ranking, 1):
                if self.paused.get(number) == place and math.isfinite(cost):
                    return Promotion(number, place, rank, len(ranking), closing=True)
        return None

    def rank(self, number: int) -> tuple[int, int]:
        """The rank of a paused trial at its rung, from 1, and how many scores there are."""
        ranking = self._ranking[self.paused[number]]
        return next(rank for rank, (_, other) in enumerate(ranking, 1) if other == number), len(ranking)

    def chance(self, number: int, wanted: int) -> float:
        """The estimated probability that this trial goes on, from what has been seen; 1 if it is not paused.

        If the scores come in no particular order, the next of them is better than the r-th best of n with probability
        r / (n + 1). The trial goes on if, with one of the next HORIZON that are still to come to its rung, it is among
        the best third of all.

        Args:
            wanted: the number of trials that the study is to draw.
        """
        if number not in self.paused:
            return 1.0
        place = self.paused[number]
        rank, seen = self.rank(number)
        if not math.isfinite(self._ranking[place][rank - 1][0]):
            return 0.0
        to_come = min(max(self._expected(place, wanted) - seen, 0), HORIZON)
        return _chance_to_rise(rank, seen, to_come, self._ladder.reduction_factor)

    def _expected(self, place: Place, wanted: int) -> int:
        """How many trials will have come to this place by the end: each rung has a third of the one below."""
        ladder = self._ladder
        shares = bracket_shares(ladder.brackets, ladder.reduction_factor)
        in_bracket = wanted * shares[place.bracket] / sum(shares)
        return int(in_bracket / ladder.reduction_factor ** (place.rung - place.bracket) + 0.5)


def _chance_to_rise(rank: int, seen: int, to_come: int, factor: int) -> float:
    """The probability that the rank-th best of so many scores is among the best 1/factor at some time."""
    if rank <= seen // factor:
        return 1.0
    most = (seen + to_come) // factor - rank  # with more better ones among those to come, it never is
    better = np.arange(most + 1)
    mass, risen = np.where(better == 0, 1.0, 0.0), 0.0
    for count in range(seen + 1, seen + to_come + 1):
        moved = mass * (rank + better) / count  # the next one is better
        mass -= moved
        mass[1:] += moved[:-1]
        among = rank + better <= count // factor
        risen += float(mass[among].sum())
        mass[among] = 0.0
    return risen


def chances(study: Path, settings: Mapping[str, Any]) -> Callable[[int], float]:
    """The estimated probability that a trial of a study goes on, by its number (`Rungs.chance`), from its rungs.jsonl.

    Args:
        study: the study's folder.
        settings: the section `study` of its configuration.
    """
    found = Rungs(ladder(settings), load_lines(study / paths.RUNGS, RungRow))
    return lambda number: found.chance(number, settings["trials"])


def ladder(settings: Mapping[str, Any], epochs: int = 0, fold: int = 1) -> Ladder:
    """Where the trials of a study pause.

    Args:
        settings: the section `study` of its configuration.
        epochs: the most of a trial.
        fold: the epochs of a fold.
    """
    known = {key: settings[key] for key in ("reduction_factor", "min_epochs", "brackets", "seed")}
    unit = fold if settings["rungs"] == "folds" else 1
    return Ladder(epochs, **known, maximize=settings["direction"] == "maximize", unit=unit)


def confirm(where: Ladder, rows: Iterable[RungRow]) -> Iterator[tuple[RungRow, str | None]]:
    """Repeat each decision of a study: every row, and what is wrong with it, or None."""
    rungs = Rungs(where)
    for row in rows:
        fault = _fault(rungs, where, row)
        if fault is None:
            try:
                rungs.add(row)
            except ValueError as error:
                fault = str(error)
        yield row, fault


def _fault(rungs: Rungs, where: Ladder, row: RungRow) -> str | None:
    if row.bracket != where.bracket(row.number):
        return f"trial {row.number} is of bracket {where.bracket(row.number)}, not {row.bracket}"
    match row.action:
        case "draw":
            if due := rungs.promotion():
                return f"trial {row.number} is drawn, though trial {due.number} was to be promoted"
        case "pause":
            if row.epoch is None or where.rung_after(row.number, row.epoch) != row.rung:
                return f"trial {row.number} pauses after epoch {row.epoch}, which is not rung {row.rung}"
        case "promote":
            due = rungs.closing_promotion() if row.closing else rungs.promotion()
            if row.closing and (rungs.at_work or rungs.promotion()):
                return f"trial {row.number} is promoted as the last of its bracket, though others were to go first"
            if due is None:
                return f"trial {row.number} is promoted, though none was among the best of its rung"
            found = Promotion(row.number, Place(row.rung or 0, row.bracket), row.rank or 0, row.of or 0, row.closing)
            if due != found:
                return f"trial {row.number} is promoted, though trial {due.number} came first"
        case "end" if row.number in rungs.paused and row.rank is not None:
            if rungs.at_work or rungs.promotion() or rungs.closing_promotion():
                return f"trial {row.number} is pruned at its rung, though the search was not over"
    return None
