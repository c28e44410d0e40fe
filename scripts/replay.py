"""Repeat every decision of a search with study.pruner=asha, from its rungs.jsonl: `just replay STUDY`.

Each draw, pause, promotion and end must follow from what came before by the rule of redsm5/engine/rungs.py, and each
score must be the one in its trial's journal. The exit code is 0 if all are confirmed, else 2.
"""

import argparse
import math
import os
from pathlib import Path

from redsm5.config import Config
from redsm5.engine import paths
from redsm5.engine.documents import load, load_lines
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.records import MetricRow, RungRow, StudyIndex, StudyRecord
from redsm5.engine.rungs import confirm
from redsm5.engine.script import ScriptSpec
from redsm5.engine.spec import from_snapshot
from redsm5.engine.study.ids import find_study
from redsm5.engine.study.space import ladder_of
from redsm5.engine.tables import Row, add_format, render
from redsm5.engine.terminal import Parser, one_line, show

COLUMNS = ("row", "decision", "trial", "bracket", "rung", "epoch", "score", "rank", "of", "confirmed")
DECISIONS = {"draw": "a new trial", "pause": "paused", "promote": "promoted"}


def main() -> int:
    parser = Parser(prog="just replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", help="its name, its uuid or the first digits of it; default: the newest")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    add_format(parser)
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    study = find_study(experiments, arguments.study)
    rows, faults = replay(experiments, study)
    show(render(arguments.format, COLUMNS, rows, empty="no decision yet"))
    for fault in faults:
        show(f"not confirmed: {one_line(fault)}", error=True)
    if not faults:
        show(f"all {len(rows)} decisions of study {one_line(study.name)} are confirmed", error=True)
    return 2 if faults else 0


def replay(experiments: Path, study: StudyRecord) -> tuple[list[Row], list[str]]:
    """The decisions of a study as rows, and what is wrong with them, in words.

    Raises:
        InputError: the study has none, since its pruner is another.
    """
    config = from_snapshot(ScriptSpec if study.config["study"].get("script") else Config, study.config)
    if config.study.pruner != "asha":
        raise InputError(
            f"study {study.name} has study.pruner={config.study.pruner}, which promotes no trials: nothing to replay",
            remedy="Only a study with study.pruner=asha can be replayed.",
        )
    folder = paths.study_dir(experiments, study.study_id)
    index = load(folder / paths.INDEX, StudyIndex)
    searched = [record for record in index.trials if record.confirms is None] if index else []
    ids = {record.number: record.trial_id for record in searched}
    rows: list[Row] = []
    faults: list[str] = []
    for line, (row, fault) in enumerate(confirm(ladder_of(config), load_lines(folder / paths.RUNGS, RungRow)), 1):
        if fault is None and row.action == "pause":
            fault = _other_score(paths.trial_dir(experiments, ids.get(row.number, "")), study.metric, row)
        if fault:
            faults.append(f"line {line} of {paths.RUNGS}: {fault}")
        rows.append(
            {
                "row": line,
                "decision": DECISIONS.get(row.action, row.state),
                "trial": row.number,
                "bracket": row.bracket,
                "rung": row.rung,
                "epoch": row.epoch,
                "score": row.value,
                "rank": row.rank,
                "of": row.of,
                "confirmed": "yes" if fault is None else "no",
            }
        )
    return rows, faults


def _other_score(folder: Path, metric: str, row: RungRow) -> str | None:
    """What is wrong with the score of a pause, next to the trial's journal, or None."""
    found = next(
        (
            told.value
            for told in load_lines(folder / paths.METRICS, MetricRow)
            if (told.metric, told.epoch) == (metric, row.epoch)
        ),
        None,
    )
    if found == row.value or (row.value is None and (found is None or not math.isfinite(found))):
        return None
    return f"the score of trial {row.number} after epoch {row.epoch} is {found} in its journal, not {row.value}"


if __name__ == "__main__":
    exit_with_message(main)
