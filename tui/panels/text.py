"""Formatting: numbers with units, states with symbols, and no control characters.

The content of files may be hostile: `clean` removes every control character, and nothing is parsed as markup.
"""

import math
import re
from datetime import UTC, datetime
from functools import lru_cache

from rich.text import Text

from redsm5.engine.records import Event, TrialRecord
from redsm5.engine.tables import SHORT_NAMES

SYMBOLS = {
    "queued": "…",
    "preparing": "●",
    "running": "●",
    "finishing": "●",
    "completed": "✔",
    "failed": "✗",
    "pruned": "✂",
    "interrupted": "⊘",
    "paused": "⏸",
    "stopped": "■",
}
POINTS = SYMBOLS | {"completed": "•", "preparing": "○", "running": "○", "finishing": "○"}  # in a chart of trials
STYLES = {
    "preparing": "cyan",
    "running": "cyan",
    "finishing": "cyan",
    "completed": "green",
    "failed": "red",
    "pruned": "yellow",
    "interrupted": "magenta",
    "paused": "blue",
}
DIM = "dim"
LONGEST = 500  # the most characters of one value from a file
COMMAND = 1000  # characters of a command that can be pasted


def interval(bounds: tuple[float, float]) -> str:
    """A 95 % interval."""
    return f"[{value(bounds[0])}, {value(bounds[1])}]"


def clean(text: str, longest: int = LONGEST) -> str:
    """One line that is safe for the terminal: without control, format or surrogate characters, and of
    limited length.
    """
    return "".join(c for c in " ".join(text[: 4 * longest].split()) if c.isprintable())[:longest]


def shorter(reason: str, longest: int = 120) -> str:
    """A sentence with long decimals cut to four places."""
    return clean(re.sub(r"(\d\.\d{4})\d+", r"\1", reason[: 4 * longest]), longest)


def size(count: float) -> str:
    """Bytes in decimal units: 438 MB, 1.3 GB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    if abs(value) > 1e6:
        return f"{value:.1e} {unit}"
    return f"{value:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{value:.1f} {unit}"


def trials(count: int) -> str:
    return f"{count:,} trial" if count == 1 else f"{count:,} trials"


def duration(seconds: float) -> str:
    """4:12, 1:04:12, 2 d 3 h."""
    minutes, s = divmod(int(min(max(seconds, 0), 1e12)) if seconds == seconds else 0, 60)
    hours, m = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def value(number: float | None) -> str:
    """A metric: three decimals; very large and very small values with an exponent."""
    if number is None:
        return "–"
    if not math.isfinite(number):
        return str(number)
    return f"{number:.3f}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.2e}"


def number(trial: TrialRecord | Event) -> str:
    if isinstance(trial, Event):
        return f"#{trial.number}"
    return "–" if trial.number is None else f"#{trial.label}"


def parameter(setting: object) -> str:
    """A parameter's value in a few characters: 2.1e-05, gated, none."""
    if setting is None or setting in ("", [], {}):
        return "none"
    return f"{setting:.3g}" if isinstance(setting, float) else clean(str(setting), 60)


@lru_cache(maxsize=1000)
def parameter_name(key: str) -> str:
    """A parameter's name in a column or a line: its short name, or the last part of its key."""
    last = clean(key, 80).rsplit(".", 1)[-1]
    return SHORT_NAMES.get(last, last)


def state(name: str, *, word: bool = True) -> Text:
    return Text.assemble((f"{SYMBOLS[name]} {name}" if word else SYMBOLS[name], STYLES.get(name, "")))


def time_of(timestamp: str) -> datetime:
    """A record's time; 1970 if it is invalid."""
    try:
        time = datetime.fromisoformat(timestamp)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def clock(timestamp: str, today: datetime) -> str:
    """The local time of a record, with the date if it is not today."""
    try:
        at, here = time_of(timestamp).astimezone(), today.astimezone()
    except (OverflowError, ValueError, OSError):
        return "?"
    return f"{at:%H:%M:%S}" if at.date() == here.date() else f"{at:%b %d %H:%M:%S}"


def running_time(trial: TrialRecord, now: datetime) -> str:
    """The time from its start to its end, or until now; for a waiting trial, how long it ran."""
    if trial.started_at is None:
        return "–"
    if trial.state == "interrupted":
        return duration(trial.active_seconds)
    end = time_of(trial.finished_at) if trial.finished_at else now
    return duration((end - time_of(trial.started_at)).total_seconds())


def bar(share: float, width: int) -> Text:
    """A share from 0 to 1 as a bar; an invalid share is an empty bar."""
    cells = round(width * min(max(share, 0.0), 1.0)) if math.isfinite(share) else 0
    return Text.assemble(("━" * cells, "cyan"), ("─" * (width - cells), DIM))


EIGHTHS = " ▏▎▍▌▋▊▉█"


def fine_bar(share: float | None, width: int) -> str:
    """A share from 0 to 1 as a bar in eighths of a character, padded to the width."""
    if share is None or not math.isfinite(share):
        return " " * width
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    drawn = "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")
    return drawn.ljust(width)


SPARKS = "▁▂▃▄▅▆▇█"


def spark(values: list[float]) -> str:
    """A line of small bars, from zero to the highest."""
    values = [v if math.isfinite(v) else 0.0 for v in values]
    top = max(values, default=0.0)
    return "".join(SPARKS[int(min(max(v / top, 0), 0.99) * 8)] if top > 0 else SPARKS[0] for v in values)
