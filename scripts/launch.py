"""Train one trial and ship its metrics: `just train [overrides]`; trial.id=UUID resumes that trial.

just train train.epochs=10 train.learning_rate=1e-3     a trial with these values
just train trial.id=UUID                                resumes a trial, or, with train.epochs=20, extends it
just train dry_run=true                                 a few steps, of which only a log is written
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from redsm5.engine import paths
from redsm5.engine.compose import compose
from redsm5.engine.errors import LockedError, exit_with_message
from redsm5.engine.files import make_dir, make_private, try_lock
from redsm5.engine.installed import command
from redsm5.engine.owned import refuse_links
from redsm5.engine.records import FINISHED
from redsm5.engine.redaction import REDACTED
from redsm5.engine.script import check_values
from redsm5.engine.spec import StudySpec
from redsm5.engine.study.launch import dry_run, launch_trial, note_ignored
from redsm5.engine.study.outcomes import draw_report, existing_record, finish_leftovers, note_killed, store_smaller
from redsm5.engine.study.resuming import allow_more_epochs, trial_config
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.study.trial import create_trial, read_record
from redsm5.engine.surroundings import note_open_to_all
from redsm5.engine.terminal import help_asked
from redsm5.engine.tracking.logs import open_logs
from redsm5.engine.tracking.shipper import Shipper, tracking_uri
from redsm5.task import task_of


def main() -> int:
    if help_asked(sys.argv[1:], "just train", __doc__):
        return 0
    make_private()
    stop = StopRequest()
    task, words = task_of(sys.argv[1:])
    config = compose(task.spec, words)
    if config.dry_run:
        return dry_run(task, config)
    remarks: Sequence[tuple[str, dict[str, Any]]] = ()
    if config.trial.id is None:
        remarks = task.check_data(config).remarks  # refuses bad data before anything is written
        check_values(config)
        task.check_machine(config)
        make_dir(Path(config.experiments))
        trial_id = create_trial(config).trial_id
    else:
        config = trial_config(task.spec, words)
        trial_id = config.trial.id or ""
        allow_more_epochs(paths.trial_dir(Path(config.experiments), trial_id), config)
    folder = paths.trial_dir(Path(config.experiments), trial_id)
    log = open_logs(folder / paths.LOGS)
    record = read_record(folder)
    if record and record.state in FINISHED:
        finish_leftovers(folder, config)
        store_smaller(folder, config, log)
        if not (folder / paths.REPORT_PAGE).exists():  # a scheduler started the training processes
            draw_report(folder, task, log)
        ship(folder, config, stop, log)
        log.info(f"the trial is already {record.state}: nothing to do", report=str(folder / (config.report_file or "")))
        return 0
    with try_lock(folder / paths.LOCK) as free:
        if not free:
            raise LockedError(f"trial {trial_id} is in use by another process", remedy="Wait for it to end.")
    refuse_links(folder, begins=record is not None and record.started_at is None)
    log.info(f"trial {trial_id}", folder=str(folder))
    note_open_to_all(folder.parent, log.warning)
    for remark, facts in remarks:
        log.warning(remark, **facts)
    note_ignored(log)

    launch_trial(config, trial_id).attend(stop)

    record = existing_record(folder)
    with try_lock(folder / paths.LOCK) as free:
        if free and record.state not in FINISHED | {"paused"}:
            record = note_killed(folder, record)
    store_smaller(folder, config, log)
    draw_report(folder, task, log)
    ship(folder, config, stop, log)
    outcome = (
        f"{record.error.kind}: {record.error.message}" if record.error else str(folder / (config.report_file or ""))
    )
    log.info(f"trial {record.state}", outcome=outcome)
    return record.exit_code if record.exit_code is not None else 2


def ship(folder: Path, config: StudySpec, stop: StopRequest, log: FilteringBoundLogger) -> None:
    """Ship the trial's metrics to MLflow, and report what is not shipped."""
    uri = tracking_uri(config)
    if REDACTED in uri:
        again = command("sync", "--tracking-uri", "URI", experiments=config.experiments)
        log.warning(f"the password in MLflow's address is not saved: `{again}` ships the metrics")
        return
    shipper = Shipper(uri, Path(config.experiments) / paths.MLFLOW_ARTIFACTS, log.warning)
    shipper.watch(folder)
    shipper.start()
    left = shipper.close(hurried=lambda: stop.requested)
    if left or shipper.failing:
        again = command("sync", experiments=config.experiments)
        log.warning(
            f"some metrics or reports are not in MLflow yet: `{again}` ships them",
            rows=left,
            reports=shipper.reports,
        )


if __name__ == "__main__":
    exit_with_message(main)
