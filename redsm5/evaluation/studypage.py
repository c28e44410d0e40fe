"""A study's summary as a self-contained HTML page, summary.html in its folder, with links to its trials' pages."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from redsm5.engine import paths
from redsm5.engine.sections import CategoricalParameter, Parameter, RangeParameter
from redsm5.engine.timeline import Moment
from redsm5.evaluation import plots
from redsm5.evaluation.metricnames import CRITERIA, EVIDENCE
from redsm5.evaluation.rendering import render, short_names, value_text
from redsm5.evaluation.studytables import confirmation_table, importance_table, trials_table, varying
from redsm5.noise import remarks
from redsm5.reports import StudySummary, SummaryTrial

MOST_LINES = 300  # trials in the parallel coordinates; if there are more, a sample evenly spaced by rank
MOST_LABELS = 12  # on an axis of choices
MOST_MOMENTS = 400
UNITS = {"minutes": 60_000, "hours": 3_600_000, "days": 86_400_000}


def render_summary(
    experiments: Path, summary: StudySummary, space: Mapping[str, Parameter], moments: Sequence[Moment]
) -> str:
    """The page of a summary; `space` is the search space, `moments` the storage over time."""
    completed = [row for row in summary.trials if row.state == "completed" and scored(row) is not None]
    fresh = [row for row in completed if row.duplicate_of is None]
    confirmed = summary.confirmation.configurations if summary.confirmation else []
    reports = [(row.trial_id, row.report) for row in summary.trials]
    reports += [(repeat.trial_id, repeat.report) for row in confirmed for repeat in row.trials]
    importance = sorted(
        summary.parameter_importance.items(), key=lambda item: (item[1].conditional, -(item[1].share or -1.0))
    )
    links = {trial_id: link for trial_id, report in reports if (link := _link(experiments, report))}
    baseline_link = _link(experiments, summary.baseline.report) if summary.baseline else None
    searched = list(dict.fromkeys([*space, *(key for row in summary.trials for key in row.parameters)]))
    shown = varying(summary.trials, searched)
    drawn = varying(fresh, list(space))
    return render(
        "study.html",
        heading=f"Study {summary.name}",
        summary=summary,
        best_row=next((row for row in summary.trials if summary.best and row.trial_id == summary.best.trial_id), None),
        best_metrics=_best_metrics(summary),
        remarks=remarks(summary.metric, summary.best, summary.baseline, [row.within_noise for row in summary.others]),
        baseline_link=baseline_link,
        links=links,
        numbers={row.trial_id: row.number for row in summary.trials},
        importance=importance_table(importance),
        untold=(
            [] if any(i.share is not None for _, i in importance) else sorted({i.reason or "" for _, i in importance})
        ),
        confirmed=confirmation_table(summary, links),
        trials=trials_table(summary, shown, searched, links, baseline_link),
        same=_told(summary.trials, [key for key in searched if key not in shown]),
        history=_history(summary, completed, fresh),
        parallel=_parallel(summary.metric, {key: space[key] for key in drawn}, fresh),
        constant=_told(fresh, [key for key in space if key not in drawn]),
        shown=min(len(fresh), MOST_LINES),
        of=len(fresh),
        storage=_storage(summary, moments),
        value_text=value_text,
    )


def _told(trials: Sequence[SummaryTrial], keys: Sequence[str]) -> list[str]:
    """These parameters, which do not vary, with their value."""
    names = short_names(keys)
    return [f"{names[key]} {value_text(trials[0].parameters.get(key))}" for key in keys] if trials else []


def _both(draw: Callable[[bool], str]) -> dict[str, Markup]:
    """A figure for wide pages and for narrow ones, of which the stylesheet shows one."""
    return {"wide": Markup(draw(False)), "narrow": Markup(draw(True))}


def scored(row: SummaryTrial) -> float | None:
    """A trial's value, if it is finite."""
    return row.value if row.value is not None and math.isfinite(row.value) else None


def _link(experiments: Path, report: str | None) -> str | None:
    """The path of a trial's page relative to the study's folder, or of its report if it has no page."""
    if report is None:
        return None
    page = Path(report).with_name(paths.REPORT_PAGE)
    return f"../{page if (experiments / page).exists() else report}"


def _best_metrics(summary: StudySummary) -> list[tuple[str, float | None]]:
    if summary.best is None or summary.best.test_metrics is None:
        return []
    criteria, evidence = summary.best.test_metrics.criteria_matching, summary.best.test_metrics.evidence_binding
    chosen = [(CRITERIA[name][0], getattr(criteria, name)) for name in ("f1_macro", "f1_micro", "macro_pr_auc")]
    return [*chosen, (f"Evidence: {EVIDENCE['f1'][0]}", evidence.f1)]


# ---------------------------------------------------------------------------------------------------------------------
# figures


def _history(
    summary: StudySummary, completed: Sequence[SummaryTrial], fresh: Sequence[SummaryTrial]
) -> dict[str, Markup] | None:
    def points(rows: Sequence[SummaryTrial]) -> list[plots.Point]:
        known = [(row.number, scored(row)) for row in rows]
        return sorted((float(x), y) for x, y in known if x is not None and y is not None)

    pruned = points([row for row in summary.trials if row.state == "pruned"])
    failed = sorted(row.number for row in summary.trials if row.state == "failed" and row.number is not None)
    if not (completed or pruned or failed):
        return None
    repeated = points([row for row in completed if row.duplicate_of is not None])
    values = [value for row in completed if (value := scored(row)) is not None]
    maximize = not values or values[0] >= values[-1]  # the trials come best first
    baseline = summary.baseline.value if summary.baseline else None
    told = (summary.metric, points(fresh), pruned, failed, repeated, baseline)
    return _both(lambda narrow: plots.history(*told, maximize=maximize, narrow=narrow))


def _parallel(metric: str, space: Mapping[str, Parameter], trials: Sequence[SummaryTrial]) -> dict[str, Markup] | None:
    """The parallel coordinates of the trials, which come best first."""
    if len(trials) < 2 or not space:
        return None
    step = max(math.ceil(len(trials) / MOST_LINES), 1)
    kept = [i for i in range(len(trials)) if i % step == 0]
    columns: list[tuple[str, list[float], list[tuple[float, str]]]] = []
    for key, parameter in space.items():
        values = [_drawn(parameter, row.parameters.get(key)) for row in trials]
        if any(value is not None for value in values):
            column = _range(values, log=parameter.log) if isinstance(parameter, RangeParameter) else _choices(values)
            columns.append((key, *column))
    if not columns:
        return None
    columns.insert(0, (metric, *_range([scored(row) for row in trials], log=False)))
    names = {metric: metric, **short_names([key for key, _, _ in columns[1:]])}
    lines = [[heights[i] for _, heights, _ in columns] for i in kept]
    marked = [place for place, i in enumerate(kept) if i < math.ceil(len(trials) / 10)]
    axes = [(names[key], labels) for key, _, labels in columns]
    return _both(lambda narrow: plots.parallel_coordinates(axes, lines, marked, narrow=narrow))


def _drawn(parameter: Parameter, value: Any) -> Any:
    """The value as an axis can show it; None if the trial does not have the parameter."""
    if isinstance(parameter, CategoricalParameter):
        return None if value is None and None not in parameter.choices else value_text(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _range(values: Sequence[float | None], *, log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """The height of each value between the lowest and the highest, and the labels of the axis."""
    known = [value for value in values if value is not None]
    log = log and min(known) > 0
    low, high = (math.log(end) if log else end for end in (min(known), max(known)))

    def height(value: float | None) -> float:
        if value is None:
            return plots.NOT_DRAWN
        return ((math.log(value) if log else value) - low) / (high - low) if high > low else 0.5

    places = (0.0, 0.5, 1.0) if high > low else (0.5,)
    ends = [(place, low + place * (high - low)) for place in places]
    labels = [(place, f"{math.exp(end) if log else end:.3g}") for place, end in ends]
    return [height(value) for value in values], labels + _absent(values)


def _choices(values: Sequence[str | None]) -> tuple[list[float], list[tuple[float, str]]]:
    names = sorted({value for value in values if value is not None})
    heights = {name: i / (len(names) - 1) if len(names) > 1 else 0.5 for i, name in enumerate(names)}
    step = math.ceil(len(names) / MOST_LABELS)
    labels = [(heights[name], f"{name[:16]}…" if len(name) > 17 else name) for name in names[::step]]
    return [plots.NOT_DRAWN if value is None else heights[value] for value in values], labels + _absent(values)


def _absent(values: Sequence[object]) -> list[tuple[float, str]]:
    return [(plots.NOT_DRAWN, "not drawn")] if None in values else []


def _storage(summary: StudySummary, moments: Sequence[Moment]) -> dict[str, Markup] | None:
    if not moments:
        return None
    step = math.ceil(len(moments) / MOST_MOMENTS)
    peak = max(range(len(moments)), key=lambda i: moments[i].on_disk)
    thinned = [moments[i] for i in sorted({*range(0, len(moments), step), peak, len(moments) - 1})]
    first, length = moments[0].time, moments[-1].time - moments[0].time
    unit = next((unit for unit in UNITS if length < 100 * UNITS[unit]), "days")
    on_disk, keep_all = (
        [((moment.time - first) / UNITS[unit], float(getattr(moment, name))) for moment in thinned]
        for name in ("on_disk", "keep_all")
    )
    budget = summary.storage.budget
    return _both(lambda narrow: plots.storage(unit, on_disk, keep_all, budget, narrow=narrow))
