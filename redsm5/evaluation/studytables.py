"""The tables of a study's page: its trials, the importance of parameters, and the confirmation."""

from collections.abc import Mapping, Sequence

from jinja2.filters import do_filesizeformat
from markupsafe import Markup

from redsm5.engine.tables import duration_text
from redsm5.evaluation.pagetable import Cell, Column, PageTable
from redsm5.evaluation.rendering import figure, short_names, value_text
from redsm5.reports import ConfirmedConfiguration, ParameterImportance, RepeatSummary, StudySummary, SummaryTrial

MOST_COLUMNS = 4  # of parameters; more of them stand in one cell, in lines, so that no page is too narrow

Links = Mapping[str, str]
"""The addresses of the trials' pages, relative to the study's, by trial_id."""


def varying(trials: Sequence[SummaryTrial], keys: Sequence[str]) -> list[str]:
    """The parameters among `keys` that are not the same in all trials."""
    return [key for key in keys if len({value_text(row.parameters.get(key)) for row in trials}) > 1]


def trials_table(
    summary: StudySummary, keys: Sequence[str], searched: Sequence[str], links: Links, baseline_link: str | None
) -> PageTable:
    """The trials in the summary's order, after the baseline. `keys` are the parameters to show; CSV has all that are
    searched.
    """
    best = summary.best.trial_id if summary.best else None
    names = short_names(keys)
    columns = [Column("Trial", "word"), Column("State", "word")]
    columns += [Column("Validation", "number"), Column("Test F1 macro", "number")]
    columns += [Column("Epochs", "number"), Column("Duration", "number", "seconds")]
    columns += [Column("On disk", "number", "bytes"), Column("Resumes", "number")]
    in_lines = len(keys) > MOST_COLUMNS
    columns += [Column("Parameters", only="page")] if in_lines else [Column(names[key], only="page") for key in keys]
    columns += [Column(key, only="csv") for key in searched]
    rows: list[list[Cell]] = []
    if summary.baseline:
        scores = [Cell(summary.baseline.value), Cell(summary.baseline.test_f1_macro)]
        first = [Cell("baseline", link=baseline_link), Cell("TF-IDF, linear SVM"), *scores]
        rows.append([*first, *[Cell()] * 4, *[Cell(shown="")] * (len(columns) - 8)])
    marked = {len(rows) + place for place, row in enumerate(summary.trials) if row.trial_id == best}
    numbers = {row.trial_id: row.trial_id[:8] if row.number is None else str(row.number) for row in summary.trials}
    for row in summary.trials:
        if in_lines:
            told = [f"{names[key]} {_short(row.parameters[key])}" for key in keys if key in row.parameters]
            values = [Cell(" · ".join(told), _pairs(told))]
        else:
            values = [Cell(shown=_short(row.parameters.get(key))) for key in keys]
        values += [Cell(_plain(row.parameters.get(key))) for key in searched]
        rows.append([*_trial(row, best, numbers, links), *values])
    return PageTable("Trials", "trials", columns, rows, frozenset(marked))


def _trial(row: SummaryTrial, best: str | None, numbers: Mapping[str, str], links: Links) -> list[Cell]:
    notes = [row.error] if row.error else []
    if row.duplicate_of:
        notes.append(f"duplicate of trial {numbers.get(row.duplicate_of, row.duplicate_of[:8])}")
    near = bool(row.within_noise) and best is not None and row.trial_id != best
    return [
        Cell(numbers[row.trial_id], link=links.get(row.trial_id)),
        Cell(row.state, below="; ".join(notes) or None),
        Cell(
            row.value,
            f"≈ {figure(row.value)}" if near else None,
            interval=None if row.low is None or row.high is None else [row.low, row.high],
            title="within noise of the best" if near else None,
        ),
        Cell(row.test_f1_macro),
        Cell(row.epoch),
        Cell(row.seconds, "–" if row.seconds is None else duration_text(row.seconds)),
        Cell(row.bytes, do_filesizeformat(row.bytes)),
        Cell(row.resumes),
    ]


def _pairs(told: Sequence[str]) -> Markup:
    """Names with values, of which a line breaks between two, not inside one."""
    return Markup(" ").join(Markup('<span class="pair-of">{}</span>').format(pair) for pair in told)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else value_text(value)


def _plain(value: object) -> str | int | float | None:
    """A parameter's value for CSV: empty if the trial did not have it."""
    return value if value is None or isinstance(value, str | int | float) else value_text(value)


def importance_table(importance: Sequence[tuple[str, ParameterImportance]]) -> PageTable:
    """The parameters with their shares, in this order."""
    columns = [Column("Parameter"), Column("Share", "bar"), Column("Trials", "number")]
    rows = []
    for key, found in importance:
        notes = [*(["conditional"] if found.conditional else []), *([found.reason] if found.reason else [])]
        rows.append([Cell(key, below="; ".join(notes) or None), Cell(found.share), Cell(found.trials)])
    return PageTable("Parameter importance", "importance", columns, rows)


def confirmation_table(summary: StudySummary, links: Links) -> PageTable | None:
    """The confirmed configurations; None without a confirmation."""
    if summary.confirmation is None:
        return None
    numbers = ("SD", "Shrinkage")
    columns = [
        Column("Trial"),
        Column(f"{summary.metric} in the search", "number"),
        Column("Mean of repeats", "number"),
    ]
    columns += [Column(label, "number") for label in (*numbers, "Mean test F1 macro")]
    rows = [_configuration(row, links) for row in summary.confirmation.configurations]
    winners = {place for place, row in enumerate(summary.confirmation.configurations) if row.winner}
    columns += [Column("Repeats"), Column("Left the race")]
    return PageTable("Confirmation", "confirmation", columns, rows, frozenset(winners))


def _configuration(row: ConfirmedConfiguration, links: Links) -> list[Cell]:
    left = "" if row.left_after is None else f"after round {row.left_after}: "
    left += "" if row.left_after is None else "its repeat has no score" if row.failed else "it was behind"
    label = row.trial_id[:8] if row.number is None else str(row.number)
    return [
        Cell(label, link=links.get(row.trial_id), below="confirmed winner" if row.winner else None),
        Cell(row.value),
        Cell(row.mean, interval=_whole(row.low, row.high)),
        Cell(row.sd),
        Cell(row.shrinkage),
        Cell(row.test_f1_macro, interval=_whole(row.test_low, row.test_high)),
        Cell(
            ", ".join(map(_said, row.trials)),
            Markup(", ").join(_linked(_said(each), links.get(each.trial_id)) for each in row.trials),
        ),
        Cell(left),
    ]


def _said(repeat: RepeatSummary) -> str:
    return figure(repeat.value) if repeat.state == "completed" else repeat.state


def _linked(text: str, link: str | None) -> Markup:
    return Markup('<a href="{}">{}</a>').format(link, text) if link else Markup("{}").format(text)


def _whole(low: float | None, high: float | None) -> list[float] | None:
    return None if low is None or high is None else [low, high]
