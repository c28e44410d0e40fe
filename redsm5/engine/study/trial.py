"""A trial's folder: its record trial.json, its line in the study's events, its checkpoints.

A trial is queued, preparing, running, finishing, then completed, failed or pruned; or interrupted. `trial.json` is the
only record of its outcome, since `accelerate launch` does not pass on exit codes. It is replaced atomically, and is
durable before the process exits. No outcome and no live lock means that the process was killed.
"""

import uuid
from pathlib import Path
from typing import Any

from redsm5.engine import files, paths
from redsm5.engine.documents import load, load_lines, now
from redsm5.engine.records import Decision, Event, TrialRecord
from redsm5.engine.spec import StudySpec, save_config, with_parameters
from redsm5.engine.storage.budget import Budget
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore


def create_trial(
    config: StudySpec,
    *,
    trial_id: str | None = None,
    study_id: str | None = None,
    number: int | None = None,
    parameters: dict[str, Any] | None = None,
    confirms: str | None = None,
    repeat: int | None = None,
) -> TrialRecord:
    """Make a trial's folder with its configuration, in state queued. Doing it again with the same id is harmless."""
    trial_id = trial_id or str(uuid.uuid4())
    folder = paths.trial_dir(Path(config.experiments), trial_id)
    files.make_dir(folder)
    save_config(folder, with_parameters(config, {"trial.id": trial_id}))
    record = TrialRecord(
        trial_id=trial_id,
        study_id=study_id,
        number=number,
        state="queued",
        created_at=now(),
        epochs=config.epochs,
        parameters=parameters or {},
        confirms=confirms,
        repeat=repeat,
    )
    write_record(folder, record)
    return record


def read_record(folder: Path) -> TrialRecord | None:
    """trial.json, or None where there is none.

    Raises:
        InputError: it is damaged.
    """
    return load(folder / paths.TRIAL, TrialRecord)


def write_record(folder: Path, record: TrialRecord, message: str | None = None) -> None:
    """Replace trial.json; a trial of a study whose state changed adds a line to its events, with this message."""
    before = read_record(folder)
    files.write_atomic(folder / paths.TRIAL, record.to_json())
    if not (before and before.state == record.state):
        note_event(folder, record, message)


def note_event(folder: Path, record: TrialRecord, message: str | None = None) -> None:
    """Append to the study's events that this trial is in this state, and why; nothing where it belongs to no study."""
    if record.study_id is None or record.number is None:
        return
    study = paths.study_dir(folder.parent, record.study_id)
    said = record.duplicate_of and f"duplicate of {record.duplicate_of}, not trained again"
    if record.state == "pruned" and not said:
        decisions = load_lines(folder / paths.DECISIONS, Decision)
        said = next((decision.reason for decision in reversed(decisions) if decision.prune), None)
    if record.confirms and not said:
        said = f"repeat {record.repeat}, which confirms it"
    event = Event(
        timestamp=now(),
        trial_id=record.trial_id,
        number=record.number,
        state=record.state,
        message=message or (record.error.message if record.error else said),
    )
    with files.Lock(study / paths.LOCK):
        files.cut_torn_tail(study / paths.EVENTS)
        files.append_durable(study / paths.EVENTS, event.to_line())


def open_budget(store: CheckpointStore, record: TrialRecord, config: StudySpec, log: Any) -> Budget:
    """The budget of the trial's study. The caller holds the trial's lock."""
    return Budget(
        store,
        record.study_id,
        max_total_size=config.retention.max_total_size,
        min_free_disk_percent=config.retention.min_free_disk_percent,
        log=log,
        report=config.report_file,
        settings=config.study.model_dump(mode="json"),
    )


def open_store(folder: Path, config: StudySpec, log: Any, *, writes: bool = True) -> CheckpointStore:
    """The trial's checkpoints under the policy of its configuration."""
    r = config.retention
    policy = Policy(
        keep_last_n=r.keep_last_n,
        keep_best_k=r.keep_best_k,
        keep_all=r.keep_all,
        enabled=r.enabled,
        keep_training_state=r.keep_training_state,
        maximize=config.maximize,
    )
    return CheckpointStore(folder, policy, log, writes=writes)
