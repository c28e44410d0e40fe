"""Train a trial again from its snapshot and compare every metric: `just reproduce ID [--into DIR] [--data-dir DIR]`.

There are two checks. The kept checkpoint is evaluated here, and its probabilities may differ from those on record by at
most 1e-4, on any machine. The trial is trained again, elsewhere, and every metric of every step is compared: with the
same machine and libraries all must be bit-identical; otherwise differences are reported, but do not fail the check. The
exit code is 0 if the checks pass, else 2.
"""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from redsm5.config import Config
from redsm5.engine import environment, files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import quoted
from redsm5.engine.spec import StudySpec
from redsm5.engine.study.again import folder_for_repetitions, saved_config, train_again
from redsm5.engine.study.ids import HELP, find_trial
from redsm5.engine.study.launch import note_ignored
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.study.trial import open_store, read_record
from redsm5.engine.tables import add_format, add_json, as_json
from redsm5.engine.task import Task
from redsm5.engine.terminal import Parser, show
from redsm5.engine.tracking.logs import open_logs
from redsm5.evaluation.reproduction import compare_predictions, compare_training, text, verdict
from redsm5.reports import EvaluationReport, PredictionsRecord
from redsm5.task import task_of


def main() -> int:
    parser = Parser(prog="just reproduce", description=__doc__)
    parser.add_argument("id", metavar="ID", help=f"a completed trial: {HELP}")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    parser.add_argument(
        "--into", type=Path, help="keep the repeated trial in this experiments folder; default: delete it"
    )
    parser.add_argument("--data-dir", help="the folder of the CSVs, if the trial read them from another one")
    parser.add_argument(
        "--launch", help="a launch configuration, by its name in accelerate_configs/; default: the trial's own"
    )
    add_format(parser, ("table", "json"))
    add_json(parser)
    arguments = parser.parse_args()
    files.make_private()
    stop = StopRequest()
    folder, report, task, config = recorded(arguments)
    log = open_logs(None)
    note_ignored(log)
    environment.start_over()  # the checkpoint is evaluated in this process

    checkpoint = compare_checkpoint(folder, config)
    with ExitStack() as stack:
        into = folder_for_repetitions(stack, arguments.into)
        training = compare_training(folder, report, train_again(config, into, task, stop, log))
    told = verdict(folder.name.removeprefix("trial_"), report, checkpoint, training)
    show(as_json(told) if arguments.format == "json" else text(told))
    return 0 if told["reproduced"] else 2


def recorded(
    arguments: argparse.Namespace,
) -> tuple[Path, EvaluationReport | None, Task[Any], StudySpec]:
    """The trial's folder, its report (a script's trial has none), its task, and the configuration for the repetition.

    Raises:
        InputError: the trial cannot be reproduced.
    """
    experiments = arguments.experiments
    folder, record = find_trial(experiments, arguments.id)
    trial_id = record.trial_id
    words = [f"trial.id={trial_id}", f"experiments={quoted(str(experiments))}"]
    task, _ = task_of(words)
    launch = [f"launch={arguments.launch}"] if arguments.launch else []
    config: StudySpec = saved_config(task, experiments, trial_id, arguments.data_dir, *launch)
    report = load(folder / paths.REPORT, EvaluationReport)
    if record.state != "completed" or (config.report_file and report is None):
        raise InputError(
            f"trial {trial_id} is {record.state} and has no report to compare with",
            remedy="Only a completed trial can be reproduced.",
        )
    return folder, report, task, config


def compare_checkpoint(folder: Path, config: StudySpec) -> dict[str, Any]:
    """Evaluate the kept checkpoint here, and compare its probabilities with those on record."""
    if not isinstance(config, Config):
        return {"compared": False, "reason": "a script of one's own evaluates its checkpoints itself"}
    before, record = load(folder / paths.PREDICTIONS, PredictionsRecord), read_record(folder)
    if before is None or record is None:
        return {"compared": False, "reason": f"{paths.PREDICTIONS} is missing"}
    if not (folder / paths.CHECKPOINTS / before.checkpoint).is_dir():
        return {"compared": False, "reason": f"checkpoint {before.checkpoint} was not kept"}
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            return {"compared": False, "reason": "another process is using the trial"}

        from redsm5.evaluation.report import evaluate_again  # takes seconds to import

        store = open_store(folder, config, log=open_logs(None).info)
        return compare_predictions(before, evaluate_again(record, config, store).predictions)


if __name__ == "__main__":
    exit_with_message(main)
