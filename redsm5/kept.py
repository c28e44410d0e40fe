"""Disk usage of a study's checkpoints over time, from the retention journals of its trials.

A row says `keep` with a checkpoint's bytes, or `strip` or `delete` with the bytes freed; a `keep` row with more bytes
than the checkpoint had before is a new save. After a save the journal lists older checkpoints first, although the new
one was on disk before they were deleted; here the new one comes first. The figure for keeping everything counts each
checkpoint once, in full.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from redsm5.documents import milliseconds
from redsm5.records import RetentionRow

ONE_PLAN_MS = 60_000  # what is told within it belongs together


class Moment(NamedTuple):
    """After a row, in bytes: `kept` on disk, `written` so far, and what everything written would take.

    `time` in milliseconds since 1970.
    """

    time: int
    kept: int
    written: int
    keep_all: int


def storage_over_time(journals: Mapping[str, Sequence[RetentionRow]]) -> list[Moment]:
    """The bytes after each row of all trials' journals, in the order of time.

    Args:
        journals: by trial, the rows of its retention.jsonl.
    """
    steps = [change for journal in journals.values() for change in changes(journal)]
    steps.sort(key=lambda change: change.time)  # stable: a trial's rows keep their order
    sums = (accumulate(column) for column in zip(*(change[1:] for change in steps), strict=True))
    return [Moment(change.time, *totals) for change, totals in zip(steps, zip(*sums, strict=True), strict=True)]


def changes(journal: Sequence[RetentionRow]) -> list[Moment]:
    """What each row of a trial's journal adds, each new save before what went because of it."""
    held: dict[str, int] = defaultdict(int)
    whole: dict[str, int] = defaultdict(int)
    found: list[Moment] = []
    gone: list[str] = []  # the checkpoints of the rows since the last save
    for row in journal:
        time, before, whole_before = milliseconds(row.timestamp), held[row.checkpoint], whole[row.checkpoint]
        saved = row.action == "keep" and row.bytes > before
        left = {"keep": row.bytes, "strip": max(before - row.bytes, 0)}  # else deleted, or damaged and quarantined
        held[row.checkpoint] = left.get(row.action, 0)
        at = len(found)
        if saved:
            whole[row.checkpoint] = max(row.bytes, whole_before)
            while gone and gone.pop() != row.checkpoint and time - found[at - 1].time < ONE_PLAN_MS:
                at -= 1
        gone = [] if row.action == "keep" else [*gone, row.checkpoint]
        time = found[at].time if at < len(found) else time
        change = held[row.checkpoint] - before, row.bytes if saved else 0, whole[row.checkpoint] - whole_before
        found.insert(at, Moment(time, *change))
    return found
