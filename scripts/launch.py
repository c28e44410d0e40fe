"""Train one trial and ship its metrics: `just train [overrides]`; with trial.id=UUID, go on with that trial."""

import sys
from pathlib import Path

from redsm5 import paths
from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.errors import exit_with_message
from redsm5.files import make_dir, make_private
from redsm5.records import FINISHED
from redsm5.study.launch import dry_run, launch_trial
from redsm5.study.signals import StopRequest
from redsm5.study.trial import (
    allow_more_epochs,
    create_trial,
    finish_leftovers,
    note_killed,
    read_record,
    trial_config,
)
from redsm5.tracking.logs import open_logs
from redsm5.tracking.shipper import Shipper, tracking_uri


def main() -> int:
    make_private()
    stop = StopRequest()
    config = compose(sys.argv[1:])
    if config.dry_run:
        return dry_run(config)
    if config.trial.id is None:
        load_splits(config.data)  # refuses bad data before anything is written
        make_dir(Path(config.experiments))
        trial_id = create_trial(config).trial_id
    else:
        config = trial_config(sys.argv[1:])
        trial_id = config.trial.id or ""
        allow_more_epochs(paths.trial_dir(Path(config.experiments), trial_id), config)
    folder = paths.trial_dir(Path(config.experiments), trial_id)
    log = open_logs(folder / paths.LOGS)
    record = read_record(folder)
    if record and record.state in FINISHED:
        finish_leftovers(folder, config)
        log.info(f"trial {record.state} already: nothing to do", report=str(folder / paths.REPORT))
        return 0
    log.info(f"trial {trial_id}", folder=str(folder))

    launch_trial(config, trial_id, output=None).attend(stop)

    record = read_record(folder)
    assert record is not None
    if record.state not in FINISHED:
        record = note_killed(folder, record)
    shipper = Shipper(tracking_uri(config), Path(config.experiments) / paths.MLFLOW_ARTIFACTS, log.warning)
    shipper.watch(folder)
    shipper.start()
    left = shipper.close(hurried=lambda: stop.requested)
    if left or shipper.failing:
        log.warning("MLflow has not got everything: `just sync` ships the rest", rows=left)
    outcome = f"{record.error.kind}: {record.error.message}" if record.error else str(folder / paths.REPORT)
    log.info(f"trial {record.state}", outcome=outcome)
    return record.exit_code if record.exit_code is not None else 2


exit_with_message(main)
