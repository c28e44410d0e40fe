"""A trial's log as lines of a table, and one line whole, with bytes and durations for people."""

import textwrap
from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from ..read.detail import LogLine
from . import text
from .cells import Cell, Column

STYLES = {"WARNING": "yellow", "ERROR": "red", "DEBUG": "dim"}
LONGEST = 2000  # of a line, as it is found, wrapped and shown in the table
MOST_PIECES = 60
# Names of facts that are bytes without saying so.
BYTES = frozenset({"on_disk", "budget", "reserved", "needed", "free", "freed", "size"})


def fact(key: str, value: object) -> str:
    """A fact's value: bytes and durations with their units, other numbers with four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return str(value)
    if key in BYTES or key.endswith("bytes"):
        return text.size(value)
    if key.endswith(("seconds", "_s")):
        return text.duration(value) if abs(value) >= 60 else f"{value:.3g} s"
    if key.startswith("minutes") or key.endswith("minutes"):
        return text.duration(60 * value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def said(line: LogLine) -> str:
    """The message and its facts, in one line."""
    facts = (f"{key}={fact(key, value)}" for key, value in line.facts[:20] if key != "exception")
    return text.clean(" ".join([line.message, *facts]), LONGEST)


def _room(width: int) -> int:
    """Of the message, beside the other columns and the scrollbar."""
    return max(width - 23, 10)


def columns(width: int) -> tuple[Column, ...]:
    return (
        Column("time", "time", 8, right=False),
        Column("severity", "severity", 8, right=False),
        Column("message", "message", _room(width), right=False),
    )


def rows(lines: Sequence[LogLine], width: int, wrapped: bool) -> dict[str, tuple[LogLine, str]]:
    """The rows of the table by key: a line each, or as many as it needs where lines are wrapped."""
    found: dict[str, tuple[LogLine, str]] = {}
    for line in lines:
        whole = said(line)
        room = _room(width)
        pieces = textwrap.wrap(whole, room)[:MOST_PIECES] if wrapped and len(whole) > room else [whole]
        for place, piece in enumerate(pieces or [""]):
            found[f"{id(line)}:{place}"] = line, piece
    return found


def cells(key: str, row: tuple[LogLine, str], now: datetime) -> list[Cell]:
    line, piece = row
    if not key.endswith(":0"):
        return ["", "", piece]
    clock = text.clock(line.timestamp, now)[-8:]
    return [Text.assemble((clock, text.DIM)), Text.assemble((line.severity, STYLES.get(line.severity, ""))), piece]


def whole(line: LogLine, now: datetime) -> Text:
    """A line with its date, and each of its facts on a line; sizes and durations also as they were written."""
    page = Text.assemble((text.clock(line.timestamp, now), text.DIM), f"  {text.clean(line.timestamp, 40)}  ")
    page.append(line.severity, STYLES.get(line.severity, "")).append(f"\n\n{text.clean(line.message, 16 * LONGEST)}\n")
    for key, value in line.facts:
        shown, written = fact(key, value), str(value)
        page.append(f"\n{text.clean(key, 60)}  ", "bold").append(
            "\n".join(text.clean(part, LONGEST) for part in shown.split("\n")[:200])
        )
        if shown != written:
            page.append(f"  ({text.clean(written, 60)})", text.DIM)
    return page
