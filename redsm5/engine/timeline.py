"""A study in time: the disk usage of its checkpoints so far, from its trials' retention journals, and the time left.

A row of a journal says `keep` with a checkpoint's bytes, or `strip` or `delete` with the bytes freed; a `keep` row with
more bytes than the checkpoint had before is a new save. After a save the journal lists older checkpoints first,
although the new one was on disk before they were deleted; here the new one comes first. The figure for keeping
everything counts each checkpoint once, in full.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from redsm5.engine.documents import milliseconds
from redsm5.engine.records import FINISHED, RetentionRow, StudyRecord, TrialRecord

ONE_PLAN_MS = 60_000  # rows within it come from one save


class Moment(NamedTuple):
    """After a row, in bytes: `on_disk`, `written` so far, and what everything written would take.

    `time` in milliseconds since 1970.
    """

    time: int
    on_disk: int
    written: int
    keep_all: int


class Change(NamedTuple):
    """By how much a row changes each of these figures."""

    time: int
    on_disk: int
    written: int
    keep_all: int


class Row(Protocol):
    """What is needed of a RetentionRow."""

    @property
    def timestamp(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def checkpoint(self) -> str: ...
    @property
    def bytes(self) -> int: ...


def storage_over_time(journals: Mapping[str, Sequence[RetentionRow]]) -> list[Moment]:
    """The bytes after each row of all trials' journals, in the order of time.

    Args:
        journals: by trial, the rows of its retention.jsonl.
    """
    steps = [change for journal in journals.values() for change in changes(journal)]
    steps.sort(key=lambda change: change.time)  # stable: a trial's rows keep their order
    sums = (accumulate(column) for column in zip(*(change[1:] for change in steps), strict=True))
    return [Moment(change.time, *totals) for change, totals in zip(steps, zip(*sums, strict=True), strict=True)]


def changes(journal: Sequence[Row]) -> list[Change]:
    """What each row of a trial's journal adds, each new save before the deletions that it caused."""
    sizes: dict[str, int] = defaultdict(int)  # of each checkpoint, bytes on disk
    full_sizes: dict[str, int] = defaultdict(int)  # the most that it ever had
    found: list[Change] = []
    deleted: list[str] = []  # the checkpoints of the rows since the last save
    for row in journal:
        time, before, full_before = milliseconds(row.timestamp), sizes[row.checkpoint], full_sizes[row.checkpoint]
        saved = row.action == "keep" and row.bytes > before
        remaining = {"keep": row.bytes, "strip": max(before - row.bytes, 0)}  # else deleted, or quarantined as damaged
        sizes[row.checkpoint] = remaining.get(row.action, 0)
        place = len(found)
        if saved:
            full_sizes[row.checkpoint] = max(row.bytes, full_before)
            while deleted and deleted.pop() != row.checkpoint and time - found[place - 1].time < ONE_PLAN_MS:
                place -= 1
        deleted = [] if row.action == "keep" else [*deleted, row.checkpoint]
        time = found[place].time if place < len(found) else time
        on_disk, written = sizes[row.checkpoint] - before, row.bytes if saved else 0
        found.insert(place, Change(time, on_disk, written, full_sizes[row.checkpoint] - full_before))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# time left

AT_WORK = frozenset({"preparing", "running", "finishing"})
SPREAD, KNOWN_AS = 0.5, 2  # before any is known: the relative spread of trials' times, which counts as so many trials
NINE_OF_TEN = 1.645  # standard deviations
FEWEST_REPEATS = 2  # of a configuration that is confirmed


class TimeLeft(NamedTuple):
    """Seconds until a study is done, with as many trials at a time as now, and about nine of ten times between `low`
    and `high`; and how many trials an hour it finishes, None before the first.
    """

    seconds: float
    low: float
    high: float
    trials_per_hour: float | None


class _Known(NamedTuple):
    """What the trials of a search say of the next ones, in seconds of work.

    Attributes:
        each: a trial's. variance: of a trial's, as a share of it squared. of: how many trials say so.
        open: what is left of each unfinished trial. at_work: of each that is trained now.
        finished: how many. worked: all seconds so far.
    """

    each: float
    variance: float
    of: int
    open: list[float]
    at_work: list[float]
    finished: int
    worked: float


def time_left(study: StudyRecord, trials: Iterable[TrialRecord]) -> TimeLeft | None:
    """The time that a study still takes, from its trials' own records; None before the first epoch has ended.

    Counted is what trials really ran: no pause between two starts, and nothing twice. Of an unfinished trial its epochs
    so far are subtracted. Trials that run side by side share the work. Repeats that confirm the best are part of it.
    """
    searched: list[TrialRecord] = []
    repeats: list[TrialRecord] = []
    for trial in trials:
        (repeats if trial.confirms else searched).append(trial)
    if study.state == "completed":
        return TimeLeft(0.0, 0.0, 0.0, None)
    try:
        return _time_left(study, searched, repeats)
    except (ArithmeticError, KeyError, TypeError, ValueError):  # the files of somebody else, which no version wrote
        return None


def _time_left(study: StudyRecord, searched: Sequence[TrialRecord], repeats: Sequence[TrialRecord]) -> TimeLeft | None:
    if (known := _known(searched)) is None:
        return None
    work, deviation = _of_rungs(study, searched, known) or _of_trials(study, known)
    fewest, most = _of_repeats(study, searched, repeats, known)
    at_work = [*known.at_work, *(known.each for repeat in repeats if repeat.state in AT_WORK)]
    workers = max(len(at_work), 1)
    factor = math.exp(NINE_OF_TEN * deviation / work) if work > 0 else 1.0
    longest = max(known.at_work, default=0.0) if work > 0 else 0.0
    low, middle, high = (
        max(seconds / workers, longest)
        for seconds in (work / factor + fewest, work + (fewest + most) / 2, work * factor + most)
    )
    rate = 3600 * workers * known.finished / known.worked if known.finished and known.worked > 0 else None
    return TimeLeft(middle, min(low, middle), high, rate)


def _cost(trial: TrialRecord) -> float:
    """The seconds that a trial was trained; older versions noted none, and for their trials it is start to end."""
    return max(trial.active_seconds - trial.repeated_seconds, 0.0) or trial.seconds or 0.0


def _known(searched: Sequence[TrialRecord]) -> _Known | None:
    costs, whole, begun = [], [], []
    for trial in searched:
        if trial.state in FINISHED:
            costs.append(_cost(trial))
        else:
            begun.append((trial, pace := _cost(trial) / trial.epoch if trial.epoch else 0.0))
            whole += [pace * trial.epochs] if pace else []
    said = costs if any(costs) else whole
    if not said:
        return None
    each, variance = _mean_and_variance(said)
    left = [pace * (trial.epochs - trial.epoch) if pace else each for trial, pace in begun]
    at_work = [seconds for (trial, _), seconds in zip(begun, left, strict=True) if trial.state in AT_WORK]
    worked = sum(map(_cost, searched))
    return _Known(each, variance, len(said), left, at_work, len(costs), worked)


def _mean_and_variance(said: Sequence[float]) -> tuple[float, float]:
    """The mean, and the variance as a share of its square; of few values, mostly what is assumed beforehand."""
    mean = sum(said) / len(said)
    apart = sum((value / mean - 1) ** 2 for value in said)
    return mean, (KNOWN_AS * SPREAD**2 + apart) / (KNOWN_AS + len(said) - 1)


def _of_trials(study: StudyRecord, known: _Known) -> tuple[float, float]:
    """The seconds of work that are left, and their standard deviation: trials differ, and their mean is not certain."""
    new = max(study.trials.wanted - known.finished - len(known.open), 0)
    apart = sum(seconds**2 for seconds in known.open) + known.each**2 * (new + new**2 / known.of)
    return sum(known.open) + known.each * new, math.sqrt(known.variance * apart)


def _of_rungs(study: StudyRecord, searched: Sequence[TrialRecord], known: _Known) -> tuple[float, float] | None:
    """The same of a search whose trials pause at rungs, by its epochs; None of another one."""
    section, train = study.config.get("study"), study.config.get("train")
    if not (isinstance(section, dict) and isinstance(train, dict) and section.get("pruner") == "asha"):
        return None
    from redsm5.engine.rungs import ladder  # imports NumPy

    epochs = sum(trial.epoch for trial in searched)
    paces = [pace for trial in searched if trial.epoch and (pace := _cost(trial) / trial.epoch)]
    if not paces or known.finished >= study.trials.wanted:
        return 0.0, 0.0
    _, variance = _mean_and_variance(paces)
    expected = ladder(section, max(trial.epochs for trial in searched), train["epochs"])
    left = max(expected.expected_epochs(study.trials.wanted) - epochs, 0.0) * known.worked / epochs
    return left, left * math.sqrt(variance * (1 / len(paces) + 1 / study.trials.wanted))


def _of_repeats(
    study: StudyRecord, searched: Sequence[TrialRecord], repeats: Sequence[TrialRecord], known: _Known
) -> tuple[float, float]:
    """The fewest and most seconds of work of the repeats that study.confirm still asks for."""
    section = study.config.get("study")
    confirm = section.get("confirm") if isinstance(section, dict) else None
    if not (isinstance(confirm, dict) and confirm.get("top")):
        return 0.0, 0.0
    full = [cost for trial in searched if trial.state == "completed" and (cost := _cost(trial))]
    each = sum(full) / len(full) if full else known.each
    done = sum(1.0 if repeat.state in FINISHED else repeat.epoch / repeat.epochs for repeat in repeats)
    most = confirm["top"] * confirm["repeats"]
    fewest = min(confirm["top"] * FEWEST_REPEATS + confirm["repeats"] - FEWEST_REPEATS, most)
    return max(fewest - done, 0.0) * each, max(most - done, 0.0) * each
