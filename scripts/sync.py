"""Ship the metrics that wait in the journals to MLflow: `just sync [--experiments DIR] [--tracking-uri URI]`."""

import os
from collections import defaultdict
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from redsm5 import files, paths
from redsm5.config import validate
from redsm5.errors import ConfigError, InputError, Interrupted, TrainingError, exit_with_message
from redsm5.redaction import REDACTED
from redsm5.study.signals import StopRequest
from redsm5.study.trial import read_record
from redsm5.terminal import Parser, show
from redsm5.tracking.logs import open_logs
from redsm5.tracking.shipper import Shipper, tracking_uri


def trials_by_uri(experiments: Path, log: FilteringBoundLogger) -> dict[str, list[Path]]:
    """The trials' folders by where they go: where their study's last run said, or else their own configuration.

    One whose record is damaged is named and left out.
    """
    studies = {folder.name: files.read_json(folder / paths.STUDY) for folder in paths.study_dirs(experiments)}
    by_uri: dict[str, list[Path]] = defaultdict(list)
    for folder in paths.trial_dirs(experiments):
        try:
            document, record = files.read_json(folder / paths.CONFIG), read_record(folder)
            if document and record:
                study = studies.get(f"study_{record.study_id}")
                config = validate({**(study["config"] if study else document), "experiments": str(experiments)})
                by_uri[tracking_uri(config)].append(folder)
        except (InputError, ConfigError) as error:
            log.warning("a trial cannot be shipped", reason=error.what, where=error.where or folder.name)
    return by_uri


def main() -> int:
    parser = Parser(prog="just sync", description=__doc__)
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    parser.add_argument("--tracking-uri", help="where to ship; without it, where the study's last run shipped")
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    files.make_private()
    stop = StopRequest()
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
    log = open_logs(None)
    by_uri = trials_by_uri(experiments, log)
    if arguments.tracking_uri:
        by_uri = {arguments.tracking_uri: [folder for folders in by_uri.values() for folder in folders]}
    left, failing = 0, False
    for uri, folders in by_uri.items():
        if REDACTED in uri:
            raise InputError(
                f"the password of {uri} is not saved with the study", remedy="Give the address with --tracking-uri."
            )
        shipper = Shipper(uri, experiments / paths.MLFLOW_ARTIFACTS, log.warning)
        for folder in folders:
            shipper.watch(folder)
        shipper.start()
        left += shipper.close(hurried=lambda: stop.requested)
        failing |= shipper.failing
    if stop.requested:
        raise Interrupted(f"{left} rows still wait in the journals; run `just sync` again to go on")
    if left or failing:
        raise TrainingError(
            f"MLflow has not got everything: {left} rows still wait in the journals",
            remedy="Start MLflow, or mend what it says above, and run `just sync` again.",
        )
    show(f"{sum(map(len, by_uri.values()))} trials: every metric is in MLflow")
    return 0


exit_with_message(main)
