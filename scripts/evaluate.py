"""Evaluate a trial's kept best checkpoints again: `just evaluate --trial-id UUID [--split test]`."""

import argparse
import os
import re
from pathlib import Path

from redsm5 import files, paths
from redsm5.errors import ConfigError, LockedError, exit_with_message
from redsm5.evaluation.table import report_table
from redsm5.study.launch import quoted
from redsm5.study.trial import open_store, read_record, trial_config
from redsm5.tracking.logs import open_logs


def main() -> int:
    parser = argparse.ArgumentParser(prog="just evaluate", description=__doc__)
    parser.add_argument("--trial-id", required=True, help="the uuid in the name of the trial's folder")
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    arguments = parser.parse_args()
    files.make_private()
    folder = paths.trial_dir(arguments.experiments, arguments.trial_id)
    record = read_record(folder)
    if not re.fullmatch(r"[0-9a-f-]{36}", arguments.trial_id) or record is None:
        raise ConfigError(
            f"there is no trial {arguments.trial_id} in {arguments.experiments}",
            remedy="The trials are the folders trial_<uuid> there.",
        )
    config = trial_config([f"trial.id={arguments.trial_id}", f"experiments={quoted(str(arguments.experiments))}"])
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            raise LockedError(f"trial {arguments.trial_id} is being trained", remedy="Wait for it to end.")

        # Here, since these take seconds to import, and most errors are told before.
        from redsm5.evaluation.page import write_page
        from redsm5.evaluation.report import evaluate_again, write_report

        store = open_store(folder, config, log=open_logs(None).info)
        evaluation = evaluate_again(record, config, store, split=arguments.split)
        if arguments.split == "test":
            write_report(folder, evaluation)
            write_page(folder)
    print(report_table(evaluation.report))
    return 0


exit_with_message(main)
