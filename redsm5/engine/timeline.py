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

from redsm5.engine.documents import milliseconds
from redsm5.engine.records import RetentionRow

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


def storage_over_time(journals: Mapping[str, Sequence[RetentionRow]]) -> list[Moment]:
    """The bytes after each row of all trials' journals, in the order of time.

    Args:
        journals: by trial, the rows of its retention.jsonl.
    """
    steps = [change for journal in journals.values() for change in changes(journal)]
    steps.sort(key=lambda change: change.time)  # stable: a trial's rows keep their order
    sums = (accumulate(column) for column in zip(*(change[1:] for change in steps), strict=True))
    return [Moment(change.time, *totals) for change, totals in zip(steps, zip(*sums, strict=True), strict=True)]


def changes(journal: Sequence[RetentionRow]) -> list[Change]:
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
