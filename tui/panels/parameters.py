"""What completed trials say about the parameters: their importance, and the values of the best trials.

The importance is that of `just summary` (fANOVA; see redsm5/evaluation/importance.py), from the study's summary.json or
from that command; it is not computed here.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from rich.text import Text

from redsm5.engine.records import TrialRecord

from ..read.reports import Importance
from ..read.trials import Trials, score
from ..read.view import View
from . import study, text
from .axis import Axis, axis_of, is_number
from .parallel import BEST, FIFTH, PINNED, REST, SELECTED, Parallel, Path

MOST_DRAWN = 500
FEWEST = 10  # completed trials; with fewer, the best ones say little
T = TypeVar("T")


def ordered(keys: Sequence[str], importance: Importance | None) -> list[str]:
    """The keys, the most important first; keys without an importance in their own order."""
    if importance is None:
        return [*keys]
    shares = {key: importance.share(key) for key in keys}
    return sorted(keys, key=lambda key: -1.0 if (share := shares[key]) is None else -1.0 - share)


class Ranked(NamedTuple):
    value: float
    trial: TrialRecord


def ranked(trials: Trials) -> list[Ranked]:
    """The completed trials that are not duplicates, best first."""
    found = [
        Ranked(value, trial)
        for trial in trials
        if trial.state == "completed"
        and not (trial.duplicate_of or trial.confirms)
        and (value := score(trial)) is not None
    ]
    found.sort(key=lambda one: -trials.sign * one.value)
    return found


def drawn(found: Sequence[Ranked]) -> list[Ranked]:
    """At most MOST_DRAWN of them, best first: half of them are the best, the rest are the newest others."""
    if len(found) <= MOST_DRAWN:
        return [*found]
    half = MOST_DRAWN // 2
    newest = sorted(range(half, len(found)), key=lambda place: found[place].trial.number or 0)[-half:]
    return [*found[:half], *(found[place] for place in sorted(newest))]


@dataclass(frozen=True)
class Common:
    """One parameter's values among the best trials, compared with all trials.

    Attributes:
        axis: the axis for the values of all trials.
        low, high: the range of the best, if the values are numbers; None if none of the best has the parameter.
        best, all: the count of each value among the best and among all, if the values are words.
        have: the number of the best that have the parameter.
    """

    axis: Axis
    low: float | None
    high: float | None
    best: Counter[str]
    all: Counter[str]
    have: int


def best_tenth(found: Sequence[T]) -> Sequence[T]:
    return found[: max(math.ceil(len(found) / 10), 1)]


def common(settings: Sequence[Mapping[str, Any]], key: str) -> Common:
    """A parameter's values in the best ten per cent of trials; `settings` are all trials' parameters, best first."""
    values = [setting.get(key) for setting in settings]
    best = [v for v in values[: len(best_tenth(settings))] if v is not None]
    axis = axis_of(text.parameter_name(key), values)
    if axis.words:
        told = Counter(map(str, values))
        return Common(axis, None, None, Counter(map(str, best)), told, len(best))
    numbers = [float(v) for v in best if is_number(v)]
    return Common(axis, min(numbers, default=None), max(numbers, default=None), Counter(), Counter(), len(best))


# ---------------------------------------------------------------------------------------------------------------------
# panels

STRIP = 16  # characters for a parameter's range
NAME = 14


def newest(*found: Importance | None) -> Importance | None:
    """The latest one; the text of times sorts chronologically."""
    return max((one for one in found if one), key=lambda one: one.generated_at, default=None)


def bars(told: Importance | None, keys: Sequence[str], width: int, failed: str) -> Text:
    """A line for each parameter: its share of the variance, or why it is unknown."""
    page = Text.assemble((f"{failed}\n" if failed else "", "yellow"))
    if told is None:
        page.append("No summary of this study yet: i computes the importance, as the summary's page does.", text.DIM)
        return page
    told_keys = [*keys, *(key for key in told.parameter_importance if key not in keys)][:200]
    room = max(width - NAME - 8, 8)
    for key in told_keys:
        found, share = told.parameter_importance.get(key), told.share(key)
        page.append(f"{text.parameter_name(key)[: NAME - 1]:<{NAME}}")
        if share is None:
            why = found.reason if found and found.reason else "not searched"
            page.append(f"   –  {text.clean(why, 80)[: room + 2]}\n", text.DIM)
        else:
            few = f" in {text.trials(found.trials)}" if found and found.conditional and room > 40 else ""
            bar = text.fine_bar(share, room - len(few)).rstrip()
            page.append(f"{share:>5.1%} ").append(f"{bar}", "cyan").append(f"{few}\n", text.DIM)
    page.rstrip()
    if page:
        page.append("\nfANOVA gives categorical and conditional parameters too small a share.", text.DIM)
    return page or Text("no parameter was searched", text.DIM)


def parallel(view: View, lines: Sequence[Ranked], keys: Sequence[str]) -> Parallel:
    """The trials as paths, the topmost last; `lines` are best first."""
    trials = view.snapshot.trials
    best = lines[0].trial.trial_id if lines else None
    layers = {view.pinned: PINNED, view.selected: SELECTED, best: BEST}
    marks = ((best, "★"), (view.selected, "▸"), (view.pinned, "◆"))
    shown = {one.trial.trial_id: one for one in lines}
    for trial_id in (view.selected, view.pinned):  # it may not be completed
        trial = trials.by_id.get(trial_id or "")
        if trial and trial.trial_id not in shown and (value := score(trial)) is not None:
            shown[trial.trial_id] = Ranked(value, trial)
    whole = [*shown.values()]
    axes = [axis_of(text.parameter_name(key), [one.trial.parameters.get(key) for one in whole]) for key in keys]
    axes.append(axis_of(study.metric(view.snapshot), [one.value for one in whole]))
    fifth = -(-len(lines) // 5)
    paths = []
    for n, (value, trial) in enumerate(whole):
        layer = layers.get(trial.trial_id, FIFTH if n < fifth else REST)
        symbols = "".join(mark for trial_id, mark in marks if trial_id == trial.trial_id)
        places = [axis.place(trial.parameters.get(key)) for axis, key in zip(axes, keys, strict=False)]
        label = f"{symbols} {text.number(trial)}" if symbols else ""
        paths.append(Path([*places, axes[-1].place(value)], layer, label))
    paths.sort(key=lambda path: path.layer)
    return Parallel(axes, paths if lines else (), "no completed trial with a score yet")


def in_common(found: Sequence[Ranked], keys: Sequence[str], width: int) -> Text:
    """A line for each parameter: the values of the best tenth, compared with all."""
    if len(found) < FEWEST:
        return Text(f"fewer than {FEWEST} completed trials: too few to compare", text.DIM)
    best = len(best_tenth(found))
    settings = [one.trial.parameters for one in found]
    page = Text()
    for key in keys:
        seen = common(settings, key)
        page.append(f"{seen.axis.name[: NAME - 1]:<{NAME}}")
        line = _words(seen, best, len(found)) if seen.axis.words else _range(seen)
        if seen.have < best:
            line.append(f"  ({seen.have} of {best} have it)", text.DIM)
        line.truncate(max(width - NAME, 10), overflow="ellipsis")
        page.append_text(line).append("\n")
    page.rstrip()
    return page or Text("no parameter was searched", text.DIM)


def _range(seen: Common) -> Text:
    """The range of the best within that of all, drawn and in numbers."""
    axis = seen.axis
    if seen.low is None or seen.high is None:
        return Text("–", text.DIM)
    first, last = (round((axis.place(v) or 0.0) * (STRIP - 1)) for v in (seen.low, seen.high))
    line = Text.assemble(("─" * first, text.DIM), ("━" * (last - first + 1), "bold green"))
    line.append("─" * (STRIP - 1 - last), text.DIM)
    span = f"{seen.low:.3g}" if seen.low == seen.high else f"{seen.low:.3g} – {seen.high:.3g}"
    line.append(f"  {span}", "bold")
    return line.append(f"  of {axis.label(0)} – {axis.label(1)}{' (log)' if axis.log else ''}", text.DIM)


def _words(seen: Common, best: int, everything: int) -> Text:
    """The words of the best, the most frequent first, each with its share among all."""
    line = Text()
    for word, count in Counter(seen.best).most_common(6):
        line.append(", " if line else "", text.DIM).append(f"{text.parameter(word)} {count}/{best}", "bold")
        line.append(f" (all {seen.all[word] / everything:.0%})", text.DIM)
    return line or Text("–", text.DIM)
