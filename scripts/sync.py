"""Ship metrics that wait in the journals to MLflow: `just sync [--experiments DIR] [--tracking-uri URI]`."""

import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.errors import InputError, Interrupted, TrainingError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.records import StudyRecord
from redsm5.engine.redaction import REDACTED, redact
from redsm5.engine.spec import load_snapshot
from redsm5.engine.study.registry import read_studies
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.study.trial import read_record
from redsm5.engine.terminal import Parser, show
from redsm5.engine.tracking import local
from redsm5.engine.tracking.logs import open_logs
from redsm5.engine.tracking.shipper import Left, Shipper

SHOWN = 10


def trials_by_uri(experiments: Path, log: FilteringBoundLogger) -> tuple[dict[str, list[Path]], int]:
    """The trials' folders by MLflow address, and the number of unreadable ones; logs a warning for each of those.

    The address is that of the study's last run, or else that of the trial's own configuration.
    """
    records, _ = read_studies(experiments)
    studies = {record.study_id: record.config for record in records if isinstance(record.config.get("study"), dict)}
    by_uri: dict[str, list[Path]] = defaultdict(list)
    repeats: dict[str, list[Path]] = defaultdict(list)  # after the trials that they confirm, whose runs they belong to
    unreadable = 0
    for folder in paths.trial_dirs(experiments):
        try:
            record = read_record(folder)
            config = record and (studies.get(record.study_id or "") or load_snapshot(folder))
        except (InputError, OSError) as error:
            reason, where = (error.what, error.where) if isinstance(error, InputError) else (error.strerror, folder)
            log.warning("a trial cannot be shipped", reason=reason, where=str(where))
            unreadable += 1
            continue
        if config:
            config = paths.moved(config, experiments)
            of_kind = repeats if record and record.confirms else by_uri
            of_kind[config["study"].get("tracking_uri") or local.own_uri(experiments)].append(folder)
    for uri, folders in repeats.items():
        by_uri[uri] += folders
    return by_uri, unreadable


def complete_studies(experiments: Path, folders: Sequence[Path]) -> list[StudyRecord]:
    """The complete studies of these trials."""
    of = {record.study_id for folder in folders if (record := read_record(folder))}
    return [study for study in read_studies(experiments)[0] if study.study_id in of and study.state == "completed"]


def what_is_left(left: list[Left]) -> str:
    """What has not arrived, in a sentence, followed by each reason and the trials it applies to."""
    rows, reports = sum(trial.rows for trial in left), sum(trial.report for trial in left)
    ends = sum(not (trial.rows or trial.report) for trial in left)
    said = (
        [f"{rows} rows still wait in the journals" if rows > 1 else "1 row still waits in its journal"] if rows else []
    )
    said += [f"{reports} report{'s' * (reports > 1)} not sent"] if reports else []
    said += [f"the end of {ends} run{'s' * (ends > 1)} not recorded"] if ends else []
    by_reason: dict[str | None, list[str]] = defaultdict(list)
    for trial in left:
        by_reason[trial.reason].append(trial.what)
    lines = []
    for reason, trials in list(by_reason.items())[:SHOWN]:
        lines += [*trials[:SHOWN], *([f"and {len(trials) - SHOWN} more"] if len(trials) > SHOWN else [])]
        lines += [f"  {line}" for line in (reason or "not tried after the failures above").splitlines()]
    lines += [f"and {len(by_reason) - SHOWN} more reasons"] if len(by_reason) > SHOWN else []
    return "\n  ".join([", ".join(said), *lines])


def main() -> int:
    parser = Parser(prog="just sync", description=__doc__)
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    parser.add_argument("--tracking-uri", help="MLflow's address; default: the one that the study used last")
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    files.make_private()
    stop = StopRequest()
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
    log = open_logs(None)
    by_uri, unreadable = trials_by_uri(experiments, log)
    if arguments.tracking_uri:
        by_uri = {arguments.tracking_uri: [folder for folders in by_uri.values() for folder in folders]}
    again = redact(command("sync", *sys.argv[1:]))
    left: list[Left] = []
    away: list[str] = []
    for uri, folders in by_uri.items():
        if REDACTED in uri:
            raise InputError(
                f"the password of {uri} is not saved with the study", remedy="Pass the address with --tracking-uri."
            )
        shipper = Shipper(uri, experiments / paths.MLFLOW_ARTIFACTS, log.warning)
        for folder in folders:
            shipper.watch(folder)
        for study in complete_studies(experiments, folders):
            shipper.name_winner(study)
        shipper.start()
        shipper.close(hurried=lambda: stop.requested)
        left += shipper.left()
        away += [shipper.away or "it does not answer"] if shipper.failing and not left else []
    if stop.requested:
        raise Interrupted(
            f"{what_is_left(left) if left else 'not all trials were checked'}\n  Run `{again}` again to continue."
        )
    if left or away:
        said = what_is_left(left) if left else "MLflow cannot be reached: " + "\n    ".join(away[0].splitlines())
        raise TrainingError(
            f"some metrics or reports are not in MLflow yet: {said}",
            remedy=f"Start MLflow, or fix the causes above, and run `{again}` again: it tries everything again.",
        )
    if unreadable:
        raise InputError(
            f"{unreadable} of the trials cannot be read (named above); all others are in MLflow",
            remedy="Restore their files from a copy, or move their folders out of the experiments folder.",
        )
    show(f"{sum(map(len, by_uri.values()))} trials: every metric is in MLflow")
    return 0


if __name__ == "__main__":
    exit_with_message(main)
