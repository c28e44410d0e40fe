"""What training takes of the machine, as the trial sampled it, in lines of text."""

import math

from rich.text import Text

from tui import text
from tui.detail import TrialDetail


def system(detail: TrialDetail) -> Text:
    """The machine's metrics: the last value, and how it was lately."""
    page = Text()
    for name, series in detail.series.items():
        if name.startswith("system_") and series.values:
            label, shown = _measured(text.clean(name.removeprefix("system_"), 80), series.values[-1])
            lately = [v for v in series.values[-16:] if math.isfinite(v)]
            page.append(f"{label:<18.18}", text.DIM).append(f"{shown:>11} ").append(text.spark(lately), "cyan")
            page.append("\n")
    page.rstrip()
    return page


def _measured(name: str, number: float) -> tuple[str, str]:
    """What is measured, and its value with the unit that the name ends in."""
    for ending, write in (
        ("_bytes_per_second", lambda v: f"{text.size(v)}/s"),
        ("_bytes", text.size),
        ("_percent", lambda v: f"{v:.0f}%"),
        ("_per_second", lambda v: f"{text.value(v)}/s"),
        ("_seconds", lambda v: f"{text.value(v)} s"),
    ):
        if name.endswith(ending):
            return name.removesuffix(ending), write(number) if math.isfinite(number) else str(number)
    return name, text.value(number)
