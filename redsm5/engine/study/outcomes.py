"""Outcomes recorded from outside after a trial's process has exited: by the driver, and by `just train`."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, owned, paths
from redsm5.engine.documents import load_lines, now
from redsm5.engine.errors import InputError, Interrupted, TrainingError
from redsm5.engine.records import FINISHED, Decision, ErrorRecord, TrialRecord
from redsm5.engine.spec import StudySpec
from redsm5.engine.storage.compaction import compact
from redsm5.engine.study.trial import open_budget, open_store, read_record, write_record
from redsm5.engine.task import Task


def existing_record(folder: Path) -> TrialRecord:
    """The record of a trial that was created.

    Raises:
        InputError: it is damaged, or somebody has removed it.
    """
    if (record := read_record(folder)) is None:
        raise InputError(
            "the trial's record was removed while the trial was running",
            where=str(folder / paths.TRIAL),
            remedy="Run the same command again: a study starts the trial anew.",
        )
    return record


def note_killed(folder: Path, record: TrialRecord, **changes: Any) -> TrialRecord:
    """The record of a trial whose process exited unfinished: without an outcome it counts as killed."""
    if record.state == "interrupted":
        return record
    error = ErrorRecord(kind="killed", message="the process exited without recording an outcome")
    changes |= {"state": "interrupted", "exit_code": Interrupted.exit_code, "error": error}
    record = record.model_copy(update=changes)
    write_record(folder, record)
    return record


def note_failed(folder: Path, record: TrialRecord, kind: str, message: str, **changes: Any) -> TrialRecord:
    """Record the failure of a trial whose process cannot record it."""
    error = ErrorRecord(kind=kind, message=message)
    outcome = {"state": "failed", "exit_code": TrainingError.exit_code, "error": error, "finished_at": now()}
    record = record.model_copy(update=outcome | changes)
    write_record(folder, record)
    return record


def note_pruned(folder: Path, record: TrialRecord, reason: str) -> TrialRecord:
    """Record that a trial is pruned at its current epoch: as a decision, like a pruner's, and then as its outcome."""
    decided = [d for d in load_lines(folder / paths.DECISIONS, Decision) if d.epoch == record.epoch]
    if not decided or decided[-1].rung is not None:  # else what the pruner said of the epoch stands
        append_decision(folder, Decision(epoch=record.epoch, prune=True, reason=reason))
    changes = {"state": "pruned", "exit_code": 0, "error": None, "finished_at": now()}
    record = record.model_copy(update=changes)
    write_record(folder, record, reason)
    return record


def append_decision(folder: Path, decision: Decision) -> None:
    """Add a line to the trial's decisions, durably."""
    files.cut_torn_tail(folder / paths.DECISIONS)
    files.append_durable(folder / paths.DECISIONS, decision.to_line())


def note_repeated(folder: Path, record: TrialRecord, original: TrialRecord) -> TrialRecord:
    """Give a duplicate the outcome of the original trial; the duplicate is not trained.

    If that one is paused, it alone may be promoted: the duplicate is pruned.
    """
    changes = {
        "state": "pruned" if original.state == "paused" else original.state,
        "duplicate_of": original.trial_id,
        "epoch": original.epoch,
        "step": original.step,
    }
    changes |= {"best": original.best, "exit_code": 0, "finished_at": now()}
    record = record.model_copy(update=changes)
    write_record(folder, record)
    return record


def finish_leftovers(folder: Path, config: StudySpec) -> None:
    """Do what a finished trial was killed before doing: delete its training state and litter.

    If its checkpoints are behind a link that is not its own, nothing is touched.
    """
    with suppress(owned.NotOursError):
        owned.refuse_links(folder)
        _finish_leftovers(folder, config)


def _finish_leftovers(folder: Path, config: StudySpec) -> None:
    states = {path.parent for path in folder.glob(f"{paths.CHECKPOINTS}/*/training_state.*")}
    litter = list(folder.glob(f"{paths.CHECKPOINTS}/.*"))
    record = read_record(folder)
    kept = len(states) if config.retention.keep_all else int(config.retention.keep_training_state)
    if record is None or record.state not in FINISHED or not (litter or len(states) > kept):
        return
    with files.try_lock(folder / paths.LOCK) as held:
        if held:
            files.fsync_dir(folder)  # its record may be in the cache alone; what only an unfinished trial needs goes
            store = open_store(folder, config, log=lambda *_, **__: None)
            store.finish()
            write_record(folder, record.model_copy(update={"bytes": store.size()}))


def store_smaller(folder: Path, config: StudySpec, log: FilteringBoundLogger) -> None:
    """Store what a completed or paused trial keeps in fewer bytes (retention.compact)."""
    retention = config.retention
    wanted = retention.enabled and retention.compact and not retention.keep_all
    if not (wanted and any(folder.glob(f"{paths.CHECKPOINTS}/*/{paths.WEIGHTS}"))):
        return
    with suppress(owned.NotOursError), files.try_lock(folder / paths.LOCK) as held:
        owned.refuse_links(folder)
        record = read_record(folder)
        if not held or record is None or record.state not in ("completed", "paused"):
            return
        store = open_store(folder, config, log=log.warning)
        budget = open_budget(store, record, config, log.info)
        study = paths.study_dir(folder.parent, record.study_id) if record.study_id else None
        if compact(store, budget, study):
            write_record(folder, record.model_copy(update={"bytes": store.size()}))
        budget.release()


def draw_report(folder: Path, task: Task[Any], log: FilteringBoundLogger) -> None:
    """Write the page of a trial's report, if it has one. A page that cannot be written is no fault of the trial:
    `just summary` tries it again.
    """
    if not (folder / paths.REPORT).exists():
        return
    try:
        task.write_page(folder)
    except Exception as error:
        log.warning("the report's page could not be written", reason=f"{type(error).__name__}: {error}")


class Pages:
    """The pages of the trials that have ended, drawn in the background, where the next one does not wait for them."""

    def __init__(self, task: Task[Any], log: FilteringBoundLogger) -> None:
        self._task, self._log = task, log
        self._waiting: list[Path] = []
        self._thread = ThreadPoolExecutor(1)

    def add(self, folder: Path) -> None:
        """Draw this trial's page later."""
        self._waiting.append(folder)

    def draw(self) -> None:
        """Begin with what was added, once the next trial is no longer at its start, which a page would hold up."""
        for folder in self._waiting:
            self._thread.submit(draw_report, folder, self._task, self._log)
        self._waiting.clear()

    def close(self) -> None:
        """Write the remaining pages, and wait for them."""
        self.draw()
        self._thread.shutdown()
