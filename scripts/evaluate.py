"""Evaluate a trial's best checkpoints again: `just evaluate ID [--split test]`."""

import os
from pathlib import Path

from redsm5.config import Config
from redsm5.engine import environment, files, paths
from redsm5.engine.errors import ConfigError, LockedError, exit_with_message
from redsm5.engine.installed import quoted
from redsm5.engine.study.ids import HELP, find_trial
from redsm5.engine.study.launch import note_ignored
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.trial import open_store
from redsm5.engine.terminal import Parser, show
from redsm5.engine.tracking.logs import open_logs
from redsm5.evaluation.table import report_table
from redsm5.task import ReDSM5, task_of


def main() -> int:
    parser = Parser(prog="just evaluate", description=__doc__)
    trial = parser.add_mutually_exclusive_group(required=True)
    trial.add_argument("id", metavar="ID", nargs="?", help=f"the trial: {HELP}")
    trial.add_argument("--trial-id", metavar="ID", help="the same")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    arguments = parser.parse_args()
    files.make_private()
    log = open_logs(None)
    note_ignored(log)
    environment.start_over()
    folder, record = find_trial(arguments.experiments, arguments.id or arguments.trial_id)
    words = [f"trial.id={record.trial_id}", f"experiments={quoted(str(arguments.experiments))}"]
    if not isinstance(task_of(words)[0], ReDSM5):
        raise ConfigError(
            f"trial {record.trial_id} was trained by a script of its own, which this command cannot evaluate",
            remedy="Its metrics are in MLflow, and in the terminal app.",
        )
    config = trial_config(Config, words)
    if not config.retention.enabled:
        raise ConfigError(
            f"trial {record.trial_id} was trained with retention.enabled=false: it has no checkpoint to evaluate",
            remedy=f"Its metrics are in {folder / paths.REPORT}.",
        )
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            raise LockedError(f"trial {record.trial_id} is being trained", remedy="Wait for it to end.")

        # Imported here, since these imports take seconds and most errors are reported before.
        from redsm5.evaluation.page import write_page
        from redsm5.evaluation.report import evaluate_again, write_report

        store = open_store(folder, config, log=log.info)
        evaluation = evaluate_again(record, config, store, split=arguments.split)
        if arguments.split == "test":
            write_report(folder, evaluation)
            write_page(folder)
    show(report_table(evaluation.report))
    if arguments.split == "validation" and config.train.thresholds != "fixed":
        show("These scores are optimistic: the thresholds were chosen on the same posts.")
    return 0


if __name__ == "__main__":
    exit_with_message(main)
