"""Summarize a study (default: the newest) as JSON and as a page: `just summary [STUDY] [--format table|json|csv]`."""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from redsm5.engine import files, paths
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.jsonio import dumps
from redsm5.engine.study.ids import find_study
from redsm5.engine.tables import Row, add_format, add_json, as_csv, as_json, as_table
from redsm5.engine.terminal import Parser, one_line, show
from redsm5.noise import remarks
from redsm5.reports import StudySummary, SummaryTrial

COLUMNS = ("trial", "state", "validation", "95_%_interval", "near", "test_f1_macro", "epoch", "bytes", "report")
SHOWN = 10


TRIAL_COLUMNS = tuple(SummaryTrial.model_fields)


def flat(trial: Mapping[str, Any]) -> Row:
    """A trial as a row of CSV: its parameters are one cell, as JSON."""
    return {**trial, "parameters": dumps(trial["parameters"]).decode()}


def table(summary: StudySummary) -> str:
    """The best trials by validation, and the summary lines of the page."""
    best = summary.best
    counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items()) or "no trials yet"
    lines = [f"study {one_line(summary.name)} · {summary.state} · {counts}"]
    if best:
        test = best.test_metrics.criteria_matching.f1_macro if best.test_metrics else None
        beside = "" if test is None else f"; its F1 macro on the test split: {test:.4f}"
        lines.append(f"best {summary.metric} on validation: {best.value:.4f}, trial {best.number}{beside}")
    lines += remarks(summary.metric, best, summary.baseline, [row.within_noise for row in summary.others])
    if left := summary.time_left:
        lines.append(str(left))
    lines += _confirmation(summary)
    rows: list[Row] = [
        {
            "trial": row.number,
            "state": row.error or ("repeat" if row.duplicate_of else row.state),
            "validation": row.value,
            "95_%_interval": _interval(row.low, row.high),
            "near": "≈" if best and row.within_noise and row.trial_id != best.trial_id else None,
            "test_f1_macro": row.test_f1_macro,
            "epoch": row.epoch,
            "bytes": row.bytes,
            "report": row.report,
        }
        for row in summary.trials[:SHOWN]
    ]
    if rows and summary.baseline:
        rows.append(
            {
                **dict.fromkeys(COLUMNS),
                "trial": "-",
                "state": "baseline",
                "validation": summary.baseline.value,
                "test_f1_macro": summary.baseline.test_f1_macro,
                "report": summary.baseline.report,
            }
        )
    lines += ["", as_table(COLUMNS, rows), ""] if rows else []
    if len(summary.trials) > SHOWN:
        lines.append(f"and {len(summary.trials) - SHOWN} more, on the page")
    return "\n".join([*lines, summary.note])


def _confirmation(summary: StudySummary) -> list[str]:
    """The confirmed winner, what of the search's best was luck, and a row for each configuration."""
    found = summary.confirmation
    if found is None:
        return []
    first = found.configurations[0]
    lines = [f"confirming: {found.rounds} of {found.repeats} rounds are done"]
    if winner := next((row for row in found.configurations if row.winner), None):
        said = f"{_spread(winner.mean, winner.low, winner.high)} over {winner.repeats} repeats"
        lines = [f"confirmed winner: trial {winner.number}, mean {summary.metric} on validation {said}"]
    elif found.rounds == found.repeats:
        lines = ["no configuration was confirmed: a repeat of each failed"]
    if first.mean is not None and first.shrinkage is not None:
        luck = f"{first.shrinkage:.4f} was luck" if first.shrinkage > 0 else "none of it was luck"
        lines.append(
            f"the search's best, trial {first.number}: {first.value:.4f} there, {first.mean:.4f} when repeated; {luck}"
        )
    rows: list[Row] = [
        {
            "configuration": f"{row.number}{' *' if row.winner else ''}",
            "search": row.value,
            "mean": row.mean,
            "sd": row.sd,
            "95_%_interval": _interval(row.low, row.high),
            "shrinkage": row.shrinkage,
            "mean_test_f1_macro": _spread(row.test_f1_macro, row.test_low, row.test_high),
            "left": None if row.left_after is None else f"after round {row.left_after}{', failed' * row.failed}",
        }
        for row in found.configurations
    ]
    return [*lines, "", as_table([*rows[0]], rows)]


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"[{low:.4f}, {high:.4f}]"


def _spread(mean: float | None, low: float | None, high: float | None) -> str:
    return " ".join(filter(None, ["-" if mean is None else f"{mean:.4f}", _interval(low, high)]))


def write_missing_pages(experiments: Path, study_id: str) -> None:
    """Write the pages of trials that have a report but no page, since they were killed or come from another version."""
    from redsm5.evaluation.page import write_page

    for folder in paths.trial_dirs(experiments):
        if (folder / paths.REPORT).exists() and not (folder / paths.REPORT_PAGE).exists():
            record = files.read_json(folder / paths.TRIAL)
            with files.try_lock(folder / paths.LOCK) as held, suppress(InputError):
                if held and record and record.get("study_id") == study_id:
                    write_page(folder)


def main() -> int:
    parser = Parser(prog="just summary", description=__doc__)
    parser.add_argument("study", nargs="?", help="its name, its uuid or the first digits of it; default: the newest")
    add_format(parser, what="json, csv: print summary.json, or its trials, and write nothing; default: table")
    add_json(parser)
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    study = find_study(experiments, arguments.study)
    # takes seconds, so imported after the quick checks
    from redsm5.evaluation.summary import make_summary, write_summary

    files.make_private()
    if arguments.format != "table":
        made = make_summary(experiments, study)[0].model_dump(mode="json")
        show(as_json(made) if arguments.format == "json" else as_csv(TRIAL_COLUMNS, list(map(flat, made["trials"]))))
        return 0
    try:
        write_missing_pages(experiments, study.study_id)
        summary = write_summary(experiments, study)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        printed = command("summary", study.name, "--format", "json", experiments=experiments)
        raise InputError(
            f"the summary cannot be written: {error.strerror}",
            where=str(error.filename),
            remedy=f"`{printed}` prints it and writes nothing.",
        ) from None
    show(table(summary))
    for name in (paths.SUMMARY_PAGE, paths.SUMMARY):
        show(one_line(paths.study_dir(experiments, study.study_id) / name))
    for problem in summary.problems:
        show(f"warning: {one_line(problem)}", error=True)
    return 0


if __name__ == "__main__":
    exit_with_message(main)
