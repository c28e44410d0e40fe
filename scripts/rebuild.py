"""Train a trial again whose weights were evicted or deleted, and put them back: `just rebuild ID`.

The receipt in the trial's trial.json says what the weights were, and with which data, libraries and machine. Where one
of them is another one here, nothing is trained (`--anyway` trains and compares). The weights are put back only if every
metric and their SHA-256 are those of the trial; the exit code is 0 then, else 2. They count in the study's budget.
"""

import argparse
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import ConfigError, DiskError, InputError, LockedError, exit_with_message
from redsm5.engine.installed import command, quoted
from redsm5.engine.records import Receipt, StudyRecord, TrialRecord
from redsm5.engine.spec import StudySpec, with_parameters
from redsm5.engine.storage.store import OVERHEAD, load_verified, read_verified
from redsm5.engine.study.again import folder_for_repetitions, saved_config, train_again
from redsm5.engine.study.ids import HELP, find_trial
from redsm5.engine.study.launch import note_ignored
from redsm5.engine.study.outcomes import store_smaller
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.study.trial import open_budget, open_store, read_record, write_record
from redsm5.engine.task import Task
from redsm5.engine.terminal import Parser, show
from redsm5.engine.tracking.logs import open_logs
from redsm5.evaluation.reproduction import compare_training
from redsm5.reports import EvaluationReport
from redsm5.task import task_of

THREADS = "OMP_NUM_THREADS"


def main() -> int:
    parser = Parser(prog="just rebuild", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", metavar="ID", help=f"a completed trial: {HELP}")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    parser.add_argument("--data-dir", help="the folder of the CSVs, if the trial read them from another one")
    parser.add_argument("--anyway", action="store_true", help="train and compare, whatever has changed since")
    arguments = parser.parse_args()
    files.make_private()
    stop = StopRequest()
    folder, record = find_trial(arguments.experiments, arguments.id)
    if record.state != "completed":
        raise InputError(f"trial {record.trial_id} is {record.state}", remedy="Only a completed trial is rebuilt.")
    if list(folder.glob(f"{paths.CHECKPOINTS}/*/{paths.SUMS}")):
        show(f"trial {record.trial_id} has its weights: nothing to rebuild")
        return 0
    task, _ = task_of([f"trial.id={record.trial_id}", f"experiments={quoted(str(arguments.experiments))}"])
    config: StudySpec = saved_config(task, arguments.experiments, record.trial_id, arguments.data_dir)
    check(record, config, task, folder.parent, anyway=arguments.anyway)
    log = open_logs(None)
    note_ignored(log)
    receipt = record.receipt
    if receipt and (threads := receipt.versions.get("threads")):
        os.environ[THREADS] = threads  # sums have other last digits with another number
    lock = files.Lock(folder / paths.LOCK)
    if not lock.acquire():
        raise LockedError(f"trial {record.trial_id} is in use by another process", remedy="Wait for it to end.")
    with ExitStack() as stack:
        stack.callback(lock.release)
        again = train_again(config, folder_for_repetitions(stack, None), task, stop, log)
        different = differences(folder, again, receipt)
        for line in different:
            show(line)
        if different:
            show(f"trial {record.trial_id} was NOT rebuilt: nothing was put back")
            return 2
        put_back(folder, record, config, again, log)
    store_smaller(folder, config, log)
    show(f"trial {record.trial_id} is rebuilt: every metric and the weights are bit-identical")
    return 0


def check(record: TrialRecord, config: StudySpec, task: Task[Any], experiments: Path, *, anyway: bool) -> None:
    """Refuse what could not give the same weights.

    Raises:
        ConfigError: the trial has no receipt, or data, libraries or machine are others; says which.
    """
    if not config.retention.enabled:
        raise ConfigError(f"trial {record.trial_id} never kept weights: retention.enabled=false", remedy="Train anew.")
    if anyway:
        return
    again = command("rebuild", record.trial_id, "--anyway", experiments=experiments)
    compare = f"`{again}` trains it and compares."
    if record.receipt is None:
        raise ConfigError(
            f"trial {record.trial_id} has no receipt, since an older version completed it: its weights are not known",
            remedy=compare,
        )
    import torch  # takes seconds, as the next one does

    from redsm5.engine.receipts import changed, versions

    device = torch.device("cuda" if torch.cuda.is_available() and not config.on_cpu else "cpu")
    found = changed(record.receipt, versions(device), task.check_data(config).fingerprint)
    if found:
        lines = "".join(f"\n    {name}: {before} then, {now} now" for name, (before, now) in found.items())
        raise ConfigError(f"what trial {record.trial_id} was trained with has changed:{lines}", remedy=compare)


def differences(folder: Path, again: Path, receipt: Receipt | None) -> list[str]:
    """What of the repeated training is not as it was, in words."""
    training = compare_training(folder, load(folder / paths.REPORT, EvaluationReport), again)
    if not training["completed"]:
        return [f"the repeated training did not complete: {training['reason']}"]
    found = []
    if training["metrics_different"]:
        gaps = ", ".join(f"{name} by up to {gap:.3g}" for name, gap in [*training["largest_differences"].items()][:5])
        found.append(f"{training['metrics_different']} of {training['metrics']} metrics differ: {gaps}")
    repeated = read_record(again)
    if receipt and repeated and repeated.receipt and repeated.receipt.weights_sha256 != receipt.weights_sha256:
        found.append("the weights differ")
    return found


def put_back(folder: Path, record: TrialRecord, config: StudySpec, again: Path, log: FilteringBoundLogger) -> None:
    """Copy the repeated trial's checkpoints into the trial's folder, within its study's budget. The caller holds the
    trial's lock.

    Raises:
        DiskError: they do not fit.
    """
    store = open_store(folder, config, log=log.info)
    budget = open_budget(store, record, config_of_study(folder, record, config), log.info)
    for path in sorted(again.glob(f"{paths.CHECKPOINTS}/epoch-*")):
        manifest, contents = load_verified(read_verified(path), path)
        size = sum(map(len, contents.values())) + OVERHEAD
        if not budget.spare(size):
            budget.release()
            evict = command("cleanup", "--execute", "--evict", experiments=folder.parent)
            raise DiskError(
                f"the weights were trained again and are the same, but {size:,} bytes do not fit into the budget",
                remedy=f"Free space: `{evict}`; or raise retention.max_total_size of its study.",
            )
        others = {name: content for name, content in contents.items() if name != paths.MANIFEST}
        store.commit(manifest.model_copy(update={"trial_id": record.trial_id}), others)
    store.finish()
    repeated = read_record(again)
    receipt = record.receipt or (repeated and repeated.receipt)
    write_record(folder, record.model_copy(update={"bytes": store.size(), "receipt": receipt}))
    budget.release()


def config_of_study(folder: Path, record: TrialRecord, config: StudySpec) -> StudySpec:
    """The trial's configuration with its study's budget, which may be another one now."""
    study = record.study_id and load(paths.study_dir(folder.parent, record.study_id) / paths.STUDY, StudyRecord)
    if not study:
        return config
    limit = study.config["retention"]["max_total_size"]
    return with_parameters(config, {"retention.max_total_size": limit})


if __name__ == "__main__":
    exit_with_message(main)
