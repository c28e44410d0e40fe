"""All trials of a study at once: their curves, a timeline of when each ran, and the best so far of several studies."""

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from ..read.detail import Series
from ..read.many import Many, Span
from ..read.studies import StudyLine
from ..read.trials import ACTIVE, Trials
from ..read.view import View
from . import text
from .cells import Cell, Column
from .chart import Chart, Line
from .compare import MARKERS, STYLES
from .curves import spread
from .text import DIM
from .ticks import bounds

FAINT = ("pruned", "paused", "interrupted", "failed")  # drawn first, and darker


def curves(many: Many, trials: Trials, metric: str) -> Chart:
    """The metric over the epochs of all trials: faint of those that did not end by themselves, the best one on top."""
    best = trials.best
    lines, ends = [], []
    known = [(trial, many.curves[trial.trial_id]) for trial in trials if trial.trial_id in many.curves]

    def rank(state: str, is_best: bool) -> int:
        return 3 if is_best else 0 if state in FAINT else 2 if state in ACTIVE else 1

    for trial, series in sorted(known, key=lambda pair: rank(pair[0].state, pair[0] is best)):
        if series.values:
            place = rank(trial.state, trial is best)
            style = ("bright_black", "cyan", "bold white", "bold green")[place]
            lines.append(_line(series, style))
            ends += [min(series.values), max(series.values)]
    said = "reading the curves…" if many.pending else "no trial has a score yet: the first comes after an epoch"
    return Chart(lines, x_label=lambda x: f"epoch {x:g}", empty=said, within=bounds(metric, ends))


def _line(series: Series, style: str) -> Line:
    xs = spread(series.epochs)
    return Line(xs, series.values, style, "points" if len(xs) == 1 else "line")


def curves_title(many: Many, trials: Trials, metric: str) -> str:
    count = sum(trial.trial_id in many.curves for trial in trials)
    of = f" of {len(trials):,}" if count < len(trials) else ""
    return f"{text.clean(metric, 40)} by epoch: {count:,}{of} trials, pruned and paused ones faint, the best on top"


# ---------------------------------------------------------------------------------------------------------------------
# the timeline


def timeline(many: Many, view: View, width: int, height: int) -> Text:
    """A line for each of the newest trials: when it ran, and a faint line while it waited."""
    rows = [(t, many.spans[t.trial_id]) for t in view.snapshot.trials if many.spans.get(t.trial_id)]
    rows = rows[-max(height - 1, 1) :]
    if not rows or width < 24 or height < 2:
        return Text("no trial has begun" if width >= 24 else "", DIM)
    now = view.now.timestamp()
    first = min(text.time_of(spans[0].start).timestamp() for _, spans in rows)
    last = max(now if s.end is None else text.time_of(s.end).timestamp() for _, spans in rows for s in spans)
    names = max(len(text.number(trial)) for trial, _ in rows) + 3
    room = max(width - names - 1, 8)
    seconds = max(last - first, 1.0)

    def column(at: float) -> int:
        return min(max(int((at - first) / seconds * room), 0), room - 1)

    page = Text()
    for trial, spans in rows:
        page.append(f"{text.number(trial):<{names - 2}}").append_text(text.state(trial.state, word=False)).append(" ")
        page.append_text(_bar(spans, room, column, now, text.STYLES.get(trial.state, ""))).append("\n")
    begin, end = (f"{text.time_of(_iso(at, view)).astimezone():%b %d %H:%M}" for at in (first, last))
    page.append(" " * names + begin + f"{end:>{max(room - len(begin), len(end) + 1)}}"[: room - len(begin) + 1], DIM)
    return page


def _iso(at: float, view: View) -> str:
    return view.now.fromtimestamp(at, view.now.tzinfo).isoformat()


def _bar(spans: Sequence[Span], room: int, column, now: float, style: str) -> Text:  # type: ignore[no-untyped-def]
    cells = [" "] * room
    begun = column(text.time_of(spans[0].start).timestamp())
    until = spans[-1].end
    ended = column(now if until is None else text.time_of(until).timestamp())
    cells[begun : ended + 1] = "┄" * (ended + 1 - begun)
    for span in spans:
        left = column(text.time_of(span.start).timestamp())
        right = column(now if span.end is None else text.time_of(span.end).timestamp())
        cells[left : right + 1] = "━" * (right + 1 - left)
    return Text("".join(cells[:room]), style)


# ---------------------------------------------------------------------------------------------------------------------
# the studies


def study_columns(lines: Sequence[StudyLine]) -> tuple[Column, ...]:
    names = max([5, *(len(text.clean(line.record.name, 30)) for line in lines)])
    return (
        Column("", "", 2, right=False),
        Column("name", "study", names, right=False),
        Column("state", "state", 11, right=False),
        Column("best", "best", 7),
        Column("progress", "trials", 9),
        Column("bytes", "bytes", 8),
        Column("metric", "metric", 14, right=False),
        Column("created", "started", 15),
    )


def study_cells(line: StudyLine, view: View, mark: str) -> list[Cell]:
    study = line.record
    here = view.snapshot.study is not None and view.snapshot.study.study_id == study.study_id
    alone = study.state == "running" and not line.driven
    return [
        Text.assemble((f"{'▸' if here else ' '}{mark or ' '}", "bold")),
        text.clean(study.name, 30),
        Text.assemble(("■ no driver", "yellow")) if alone else text.state(study.state),
        text.value(study.best.value) if study.best else "–",
        f"{study.trials.finished}/{study.trials.wanted}",
        "–" if line.bytes is None else text.size(line.bytes),
        text.clean(study.metric, 14),
        text.clock(study.created_at, view.now),
    ]


def drawn(lines: Sequence[StudyLine], view: View) -> list[StudyLine]:
    """The studies on the chart: of the same metric and direction as the chosen one, which comes first."""
    chosen = view.snapshot.study
    if chosen is None:
        return []
    alike = [s for s in lines if (s.record.metric, s.record.maximize) == (chosen.metric, chosen.maximize) and s.best]
    return sorted(alike, key=lambda s: s.record.study_id != chosen.study_id)[: len(STYLES)]


def best_so_far(lines: Sequence[StudyLine], metric: str) -> Chart:
    """The best score so far over the number of trials, a staircase with a marker for each study."""
    found = []
    for place, line in enumerate(lines):
        xs, ys = [float(n) for n, _ in line.best], [score for _, score in line.best]
        whole = Line([*xs, float(max(line.last, int(xs[-1])))], [*ys, ys[-1]], STYLES[place], "line")
        stairs = _stairs(whole)
        found += [stairs, replace(whole, xs=xs, ys=ys, kind="points", marker=MARKERS[place])]
    scores = [score for line in lines for _, score in line.best]
    return Chart(found, x_label=lambda x: f"#{x:.0f}", empty="no completed trial yet", within=bounds(metric, scores))


def _stairs(line: Line) -> Line:
    """A staircase that ends with the study's last trial, not with the chart."""
    xs, ys = [line.xs[0]], [line.ys[0]]
    for x, before, y in zip(line.xs[1:], line.ys, line.ys[1:], strict=False):
        xs += [x, x]
        ys += [before, y]
    return replace(line, xs=xs, ys=ys)
