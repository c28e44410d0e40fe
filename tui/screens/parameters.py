"""The Parameters screen: importance, parallel coordinates, and what the best trials have in common."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from tui import control, panels, text
from tui.parameters import FEWEST, Common, Importance, Ranked, axis_of, best_tenth, common, drawn, ordered, ranked
from tui.reader import score
from tui.screens.base import FolderScreen, head
from tui.view import View
from tui.widgets.parallel import BEST, FIFTH, PINNED, REST, SELECTED, Parallel, ParallelPlot, Path, fit

STRIP = 16  # characters for a parameter's range
NAME = 14


class ParametersScreen(FolderScreen):
    needs: ClassVar[str] = "parameters"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "importance", "Importance"),
        Binding("n", "page(1)", "More parameters", show=False),
        Binding("b", "page(-1)", "Previous parameters", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._computed: dict[str, Importance] = {}  # by study; not saved
        self._asked: str | None = None  # the study for which the command runs
        self._failed: dict[str, str] = {}
        self._page = 0
        self._known: tuple[object, list[Ranked]] = (None, [])
        self._drawn: list[Ranked] = []
        self._shared: tuple[object, Text] = (None, Text())

    def body(self) -> ComposeResult:
        with Container(id="parameter-panels"):
            yield ParallelPlot(id="parallel", classes="panel")
            with VerticalScroll(id="importance", classes="panel"):
                yield Static(id="importance-text", markup=False)
            with VerticalScroll(id="common", classes="panel"):
                yield Static(id="common-text", markup=False)

    def show(self, view: View) -> None:
        trials, study = view.snapshot.trials, view.snapshot.study.study_id if view.snapshot.study else ""
        told = newest(view.importance, self._computed.get(study))
        # Finished trials do not change, so only their points are compared, not thousands of records.
        known = study, trials.parameters, [point for point in trials.points if point[2]]
        if known != self._known[0]:
            found = ranked(trials)
            self._known, self._drawn = (known, found), drawn(found)
        found, keys = self._known[1], ordered(trials.parameters, told)
        self._show_importance(study, told, keys, view)
        self._show_parallel(view, found, keys)
        width = self.query_one("#common").size.width or 76
        if self._shared[0] != (seen := (id(found), keys, width)):
            self._shared = seen, in_common(found, keys, width)
        self.put("common-text", self._shared[1])
        head(self.query_one("#common"), f"what the best {len(best_tenth(found))} of {len(found):,} have in common")

    def _show_importance(self, study: str, told: Importance | None, keys: Sequence[str], view: View) -> None:
        panel = self.query_one("#importance")
        if self._asked == study:
            said = "computing…"
        elif told:
            of = f"{told.completed:,} of {text.trials(view.snapshot.trials.counts['completed'])}"
            said = f"{text.clock(told.generated_at, view.now)}, of {of} · i: anew"
        else:
            said = "i computes it"
        self.put("importance-text", bars(told, keys, panel.size.width or 76, self._failed.get(study, "")))
        head(panel, "importance (fANOVA)", said)

    def _show_parallel(self, view: View, found: list[Ranked], keys: Sequence[str]) -> None:
        plot = self.query_one("#parallel", ParallelPlot)
        room = fit(plot.size.width or 76)
        pages = max(-(-len(keys) // room), 1)
        self._page %= pages
        chosen = keys[self._page * room :][:room]
        lines = self._drawn
        which = text.trials(len(found))
        if len(lines) < len(found):
            which = f"{len(lines)} of {len(found):,} trials, the best and the newest"
        page = f" · parameters {self._page + 1} of {pages}: n b" if pages > 1 else ""
        head(plot, f"parallel coordinates: {which}{page}", "━ best fifth ┈ others ★ best ▸ selected ◆ pinned")
        highlighted = tuple((i, score(view.snapshot.trials.by_id[i])) for i in (view.selected, view.pinned) if i)
        seen = (id(found), chosen, highlighted, view.pinned, panels.metric(view.snapshot))
        plot.show(seen, lambda: parallel(view, lines, chosen))

    def action_page(self, by: int) -> None:
        """Turn `by` pages of parameters."""
        self._page += by
        self._again()

    def action_importance(self) -> None:
        """Have `just summary` compute it for the trials as they are now."""
        view = self.owner.view
        if view and view.snapshot.study and self._asked is None:
            self._asked = view.snapshot.study.study_id
            self._again()
            self.run_worker(self._ask(self._asked), group="importance")

    async def _ask(self, study: str) -> None:
        """Compute it in a separate process, which takes seconds and writes nothing."""
        self._failed.pop(study, None)
        try:
            self._computed[study] = await asyncio.to_thread(control.importance, self.owner.experiments, study)
        except OSError as error:
            self._failed[study] = f"it cannot be computed: {text.clean(str(error))}"
        self._asked = None
        self._again()

    def _again(self) -> None:
        if (view := self.owner.view) and not view.snapshot.empty:
            self.show(view)


def newest(*found: Importance | None) -> Importance | None:
    """The latest one; the text of times sorts chronologically."""
    return max((one for one in found if one), key=lambda one: one.generated_at, default=None)


def bars(told: Importance | None, keys: Sequence[str], width: int, failed: str) -> Text:
    """A line for each parameter: its share of the variance, or why it is unknown."""
    page = Text.assemble((f"{failed}\n" if failed else "", "yellow"))
    if told is None:
        page.append("No summary of this study yet: i computes the importance, as `just summary` does.", text.DIM)
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
    axes.append(axis_of(panels.metric(view.snapshot), [one.value for one in whole]))
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
