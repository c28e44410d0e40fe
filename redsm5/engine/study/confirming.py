"""Is the winner of a search luck? Which configurations are trained again, which of them is dropped, and which one wins.

The best of many noisy scores is too good: it was chosen for its luck, too. So the best configurations are trained
again, with new seeds and other splits, in rounds. In each round every configuration in the race has one repeat; all
repeats of a round have the same split, so that their scores are paired. After a whole round, configurations that are
behind are dropped; after the last one, the winner is named.

All of it is a function of the trials' records, so that a run after a kill, and every worker, decides the same.

The test by which a configuration is dropped is a paired t-test of its scores against those of the configuration with
the best mean, two-sided at 5 %. With so few repeats there is hardly another: the least p-value of Wilcoxon's signed
rank test over five pairs is 0.0625, so it never drops any. A bootstrap over posts needs each post's predictions, which
only some tasks have, and tells how scores vary over posts, not over seeds and splits, which is what luck is here
(Bouthillier et al. 2021, "Accounting for Variance in Machine Learning Benchmarks"). A race by repeated t-tests without
a correction for their number is that of Birattari et al. 2002 and irace (López-Ibáñez et al. 2016, "t-test").

The repeats share their posts, so their scores are not independent (Nadeau & Bengio 2003): the intervals are those over
seeds and splits of these posts; over other posts, scores vary more.
"""

import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, median, stdev
from typing import NamedTuple

from redsm5.engine.records import FINISHED, Confirmed, SearchBest, TrialRecord

# The first round after which a configuration may be dropped. Simulated with five configurations whose true means lie
# within 0.06, with a standard deviation of 0.02: after 3, the truly best is dropped in 1.3 % of the races, and of 25
# repeats 2.6 are saved; after 2, in 3.0 %, and 3.5 are saved.
FIRST_DROP = 3
ALIKE = 1.1  # times to train that differ by less than this factor count as equal


class Estimate(NamedTuple):
    """The mean of scores, their standard deviation, and the 95 % interval of the mean; of one score, the mean alone."""

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Racer:
    """A configuration in the race.

    Attributes:
        trial: that of the search.
        scores: those of its repeats in whole rounds, in their order.
        seconds: how long each of these trained, and whether without an interruption.
        left: the round after which it left the race; None: it is in it.
        failed: whether it left because its repeat in that round has no score, and not because it was behind.
    """

    trial: TrialRecord
    scores: tuple[float, ...] = ()
    seconds: tuple[tuple[float, bool], ...] = ()
    left: int | None = None
    failed: bool = False

    @property
    def estimate(self) -> Estimate | None:
        return estimate(self.scores) if self.scores else None

    @property
    def cost(self) -> float:
        """The median of the seconds that its repeats trained; without the interrupted ones, which train some steps
        twice, if there are others.
        """
        return median([took for took, whole in self.seconds if whole] or [took for took, _ in self.seconds])


@dataclass(frozen=True)
class Race:
    """How the race stands.

    Attributes:
        racers: all, as the search ranks them.
        rounds: the number of whole rounds. repeats: those of a whole race.
        open: the repeats of the current round that are not finished; none once the race is over.
        sign: 1 if a higher score is better, -1 if a lower one is.
    """

    racers: tuple[Racer, ...]
    rounds: int
    repeats: int
    open: tuple[tuple[TrialRecord, int], ...]
    sign: int

    @property
    def over(self) -> bool:
        return not self.open

    @property
    def winner(self) -> Racer | None:
        """Of the configurations with all repeats, the cheapest within one standard error of the best mean; None as long
        as the race is on, or if no configuration has all repeats.

        The standard error is the best one's (the rule of Breiman et al. 1984). The cheapest takes the least time to
        train (`Racer.cost`); times within a tenth of each other count as equal, and then the better mean decides, and
        at last the lower number.
        """
        whole = [racer for racer in self.racers if racer.left is None] if self.over else []
        if not whole:
            return None
        best = min(whole, key=self._by_mean)
        error = stdev(best.scores) / math.sqrt(len(best.scores))
        near = [r for r in whole if self.sign * (fmean(best.scores) - fmean(r.scores)) <= error]
        least = min(racer.cost for racer in near)
        return min((racer for racer in near if racer.cost <= ALIKE * least), key=self._by_mean)

    def _by_mean(self, racer: Racer) -> tuple[float, int]:
        return -self.sign * fmean(racer.scores), racer.trial.number or 0

    def shrinkage(self, racer: Racer) -> float | None:
        """By how much a configuration's score in the search is better than the mean of its repeats: what of it was
        luck. None if it has no repeat.
        """
        assert racer.trial.best
        return self.sign * (racer.trial.best.value - racer.estimate.mean) if racer.estimate else None


def chosen(trials: Iterable[TrialRecord], *, top: int, maximize: bool) -> list[TrialRecord]:
    """The trials of a search whose configurations are confirmed, best first: the best `top` of those that completed."""
    sign = 1 if maximize else -1
    completed = [
        (-sign * trial.best.value, trial.number or 0, trial)
        for trial in trials
        if trial.state == "completed" and not (trial.duplicate_of or trial.confirms) and trial.best
    ]
    finite = sorted((row for row in completed if math.isfinite(row[0])), key=lambda row: row[:2])
    return [trial for _, _, trial in finite[:top]]


def repeat_id(study_id: str, trial_id: str, repeat: int) -> str:
    """The trial_id of a repeat, always the same: whoever makes it again makes no second one."""
    return str(uuid.uuid5(uuid.UUID(study_id), f"{trial_id} {repeat}"))


def race(trials: Iterable[TrialRecord], *, top: int, repeats: int, maximize: bool) -> Race:
    """How the race stands, by the records of a study's trials, repeats among them. Later repeats than the current
    round's do not count.
    """
    trials, sign = list(trials), 1 if maximize else -1
    repeated = {(trial.confirms, trial.repeat): trial for trial in trials if trial.confirms}
    racers = {t.trial_id: Racer(t) for t in chosen(trials, top=top, maximize=maximize)}
    for number in range(1, repeats + 1):
        racing = [racer for racer in racers.values() if racer.left is None]
        found = {racer.trial.trial_id: repeated.get((racer.trial.trial_id, number)) for racer in racing}
        waiting = [r.trial for r in racing if (trial := found[r.trial.trial_id]) is None or trial.state not in FINISHED]
        if waiting:
            return Race(tuple(racers.values()), number - 1, repeats, tuple((t, number) for t in waiting), sign)
        for trial_id, trial in found.items():
            if trial is not None:
                racers[trial_id] = _after(racers[trial_id], trial, number)
        if FIRST_DROP <= number < repeats:
            racers |= {r.trial.trial_id: r for r in _without_those_behind(list(racers.values()), number, sign)}
    return Race(tuple(racers.values()), repeats, repeats, (), sign)


def _after(racer: Racer, repeat: TrialRecord, number: int) -> Racer:
    """The racer once its repeat of this round has ended."""
    if repeat.state != "completed" or repeat.best is None or not math.isfinite(repeat.best.value):
        return replace(racer, left=number, failed=True)
    took = repeat.active_seconds, repeat.resumes == 0
    return replace(racer, scores=(*racer.scores, repeat.best.value), seconds=(*racer.seconds, took))


def _without_those_behind(racers: list[Racer], number: int, sign: int) -> list[Racer]:
    racing = [racer for racer in racers if racer.left is None]
    if not racing:
        return []
    leader = max(racing, key=lambda racer: sign * fmean(racer.scores))
    behind = [racer for racer in racing if is_behind(racer.scores, leader.scores, sign)]
    return [replace(racer, left=number) for racer in behind]


def is_behind(scores: Sequence[float], leading: Sequence[float], sign: int) -> bool:
    """Whether a paired t-test shows, two-sided at 5 %, that these scores are worse than the leading ones: the 95 %
    interval of the mean difference has no 0 in it.
    """
    gap = estimate([sign * (best - score) for best, score in zip(leading, scores, strict=True)])
    return gap.low is not None and gap.low > 0


def estimate(scores: Sequence[float]) -> Estimate:
    """The mean of one score or more, its deviation, and its 95 % interval by Student's t."""
    mean = fmean(scores)
    if len(scores) < 2:
        return Estimate(mean)
    sd = stdev(scores)
    half = _t975(len(scores) - 1) * sd / math.sqrt(len(scores))
    return Estimate(mean, sd, mean - half, mean + half)


@cache
def _t975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # not needed without a confirmation

    return float(stdtrit(freedom, 0.975))


def confirmed(race: Race) -> Confirmed | None:
    """What study.json says of a race that is over; None if nobody won."""
    winner = race.winner
    if winner is None or winner.estimate is None:
        return None
    mean, sd, low, high = winner.estimate
    if sd is None or low is None or high is None:  # never: a race has two rounds or more
        return None
    first = race.racers[0]
    assert first.trial.best, "it completed"
    return Confirmed(
        trial_id=winner.trial.trial_id,
        number=winner.trial.number or 0,
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        repeats=len(winner.scores),
        raw_best=SearchBest(
            trial_id=first.trial.trial_id,
            number=first.trial.number or 0,
            value=first.trial.best.value,
            repeats=len(first.scores),
            **(first.estimate._asdict() if first.estimate else {}),
        ),
        shrinkage=race.shrinkage(first),
    )
