"""What the checkpoints of a study took over time, from the retention journals of its trials.

A row says `keep` with a checkpoint's bytes, or `strip`, `delete` with the bytes that go; one that keeps more than the
checkpoint was known to hold is a new save. What keeping everything would hold counts each checkpoint once, whole.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from redsm5.records import RetentionRow, milliseconds


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
    rows = [(milliseconds(row.timestamp), trial, row) for trial, journal in journals.items() for row in journal]
    held: dict[tuple[str, str], int] = defaultdict(int)
    whole: dict[tuple[str, str], int] = defaultdict(int)
    kept = written = keep_all = 0
    moments = []
    for time, trial, row in sorted(rows, key=lambda entry: entry[0]):  # stable: a trial's rows keep their order
        key = trial, row.checkpoint
        before = held[key]
        if row.action == "keep":
            held[key] = row.bytes
            if row.bytes > before:
                written += row.bytes
                keep_all += max(row.bytes - whole[key], 0)
                whole[key] = max(row.bytes, whole[key])
        elif row.action == "strip":
            held[key] = max(before - row.bytes, 0)
        else:  # deleted, or damaged and set aside
            held[key] = 0
        kept += held[key] - before
        moments.append(Moment(time, kept, written, keep_all))
    return moments
