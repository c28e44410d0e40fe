"""What a trial's retention journal says of its bytes, without an object for each row: there are a million of them.

A journal whose rows all look as this version writes them is read by one regular expression; any other, row by row.
"""

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, get_args

from redsm5.engine.documents import timestamp
from redsm5.engine.files import open_regular
from redsm5.engine.records import RetentionAction, RetentionRow
from redsm5.engine.timeline import changes

from .files import MAX_TAIL, Lines, Signature, records

_ACTIONS = "|".join(get_args(RetentionAction)).encode()
_ROW = re.compile(
    rb'^\{"schema":1,"timestamp":"([^"\\\n]*)","action":"(%b)",' % _ACTIONS
    + rb'"checkpoint":"([^"\\\n]*)","epoch":\d+,"step":\d+,"score":[^,\n]*,"bytes":(\d{1,18}),"reason":"[^\n]*"\}$',
    re.MULTILINE,
)


Match = tuple[bytes, bytes, bytes, bytes]  # timestamp, action, checkpoint, bytes


class Row(NamedTuple):
    """Of a RetentionRow, what bytes over time are computed from."""

    timestamp: str
    action: str
    checkpoint: str
    bytes: int


class Move(NamedTuple):
    """At `time` (ms since 1970) the checkpoints of a trial grew by `bytes`, or shrank."""

    time: int
    bytes: int
    number: int | None


class Told(NamedTuple):
    """What a journal says.

    Attributes:
        signature: of the file, which changes with it; None if it could not be read.
        keep_all: the bytes if everything written had been kept.
        moves: those after the given time, oldest first.
    """

    signature: Signature | None = None
    keep_all: int = 0
    moves: tuple[Move, ...] = ()


NOTHING = Told()


class Since(NamedTuple):
    """The time of the first move that counts, in ms since 1970 and as in our files."""

    ms: float
    text: bytes

    @classmethod
    def of(cls, time_ms: float) -> "Since":
        return cls(time_ms, timestamp(datetime.fromtimestamp(time_ms / 1000, UTC)).encode())


def told(path: str, number: int | None, since: Since, before: Told = NOTHING) -> Told:
    """What the journal of the trial of this number says; the file is opened only if it is not as `before`."""
    try:
        status = os.stat(path)
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        if signature == before.signature:
            return before
        rows = _rows(path)
    except OSError:
        return NOTHING
    full: dict[bytes, int] = {}  # the most bytes that each checkpoint ever had
    for _, action, checkpoint, size in rows:
        if action == b"keep" and (held := int(size)) > full.get(checkpoint, 0):
            full[checkpoint] = held
    recent = bool(rows) and max(rows)[0] >= since.text  # the times in our files sort as text
    return Told(signature, sum(full.values()), _moves(rows, number, since.ms) if recent else ())


def _rows(path: str) -> list[Match]:
    """The complete rows of a journal.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(MAX_TAIL + 1)
    content = content[: content.rfind(b"\n") + 1]
    if len(content) <= MAX_TAIL and len(matched := _ROW.findall(content)) == content.count(b"\n"):
        return matched
    return [
        (_bytes(row.timestamp), _bytes(row.action), _bytes(row.checkpoint), b"%d" % row.bytes)
        for row in records(Lines(Path(path)).look(), RetentionRow)
    ]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _moves(rows: list[Match], number: int | None, oldest_ms: float) -> tuple[Move, ...]:
    """None at all if a time is invalid."""
    journal = [Row(t.decode(errors="replace"), a.decode(), c.decode(errors="replace"), int(b)) for t, a, c, b in rows]
    try:
        found = changes(journal)
    except (ValueError, OverflowError):
        return ()
    return tuple(Move(c.time, c.on_disk, number) for c in found if c.time >= oldest_ms and c.on_disk)
