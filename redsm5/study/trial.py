"""The life of one trial: queued, preparing, running, finishing, then completed, failed or pruned; or interrupted.

`trial.json` is the only record of its outcome, since `accelerate launch` does not pass on exit codes. It is replaced
atomically, and durable before the process exits. No outcome and no live lock means that the process was killed.
"""

import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from redsm5 import files, owned, paths
from redsm5.config import (
    Config,
    compose,
    differences,
    from_snapshot,
    load_snapshot,
    named_keys,
    plain_values,
    save_config,
    snapshot_of,
    with_parameters,
)
from redsm5.documents import load, load_lines, now
from redsm5.errors import ConfigError, Interrupted, LockedError
from redsm5.records import FINISHED, Decision, ErrorRecord, Event, TrialRecord, TrialState
from redsm5.storage.budget import Budget, reservation
from redsm5.storage.disk import DiskMonitor
from redsm5.storage.retention import Policy
from redsm5.storage.store import CheckpointStore
from redsm5.study.faults import Peers, Reported, classify, error_record, fault_of, follows, lost_contact
from redsm5.study.signals import StopRequest, running_time, wait_while_driver_is_stopped
from redsm5.terminal import show
from redsm5.tracking.logs import open_logs
from redsm5.waiting import wait_until

DECISION_TIMEOUT_S = 60.0
# What may change when a trial is resumed; everything else is fixed at its start. Its epochs may be raised.
MAY_CHANGE_ON_RESUME = (
    "experiments",
    "trial.id",
    "launch",
    "study.tracking_uri",
    "retention.max_total_size",
    "retention.min_free_disk_percent",
)


def create_trial(
    config: Config,
    *,
    trial_id: str | None = None,
    study_id: str | None = None,
    number: int | None = None,
    parameters: dict[str, Any] | None = None,
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
        epochs=config.train.epochs,
        parameters=parameters or {},
    )
    write_record(folder, record)
    return record


def read_record(folder: Path) -> TrialRecord | None:
    """trial.json, or None where there is none.

    Raises:
        InputError: it is damaged.
    """
    return load(folder / paths.TRIAL, TrialRecord)


def find_trial(experiments: Path, trial_id: str) -> tuple[Path, TrialRecord]:
    """The folder and the record of the trial that a person names.

    Raises:
        ConfigError: there is no such trial, or it was not trained, since it repeats another one.
        InputError: its record is damaged.
    """
    folder = paths.trial_dir(experiments, trial_id)
    record = read_record(folder) if paths.is_ours(folder.name) else None
    if record is None:
        raise ConfigError(
            f"there is no trial {trial_id} in {experiments}", remedy="The trials are the folders trial_<uuid> there."
        )
    if record.duplicate_of:
        raise ConfigError(
            f"trial {trial_id} was not trained: it is a duplicate of {record.duplicate_of}", remedy="Use that trial."
        )
    return folder, record


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


def trial_config(overrides: Sequence[str]) -> Config:
    """The configuration saved with the trial `trial.id`, with the changes that are allowed on a resume.

    Raises:
        ConfigError: there is no such trial, or an override would change what the trial was started with.
    """
    values = plain_values(overrides)
    if values and {"trial.id", "experiments"} <= values.keys():
        asked, (trial_id, experiments) = None, (values["trial.id"], values["experiments"])
    else:
        asked = compose(overrides)
        trial_id, experiments = asked.trial.id, asked.experiments
    folder = paths.trial_dir(Path(str(experiments)), trial_id)
    saved = load_snapshot(folder)
    saved = saved and paths.moved(saved, Path(str(experiments)))
    if saved is None or not (folder / paths.TRIAL).exists():
        raise ConfigError(
            f"trial.id={trial_id}: no such trial in {experiments}",
            remedy="The trials are the folders trial_<uuid> there; leave trial.id out to start a new one.",
        )
    if asked is None:  # to compose what these words are plain without takes 0.1 s
        asked = with_parameters(from_snapshot(saved), values or {})
    named = named_keys(overrides, saved, asked.model_dump(mode="json"))

    def changes(now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {key: both for key, both in differences(saved, now).items() if key in named}

    changed = changes(asked.model_dump(mode="json"))
    before, after = changed.get("train.epochs", (0, 0))
    refused = [
        f"{key}: {a} when the trial started, {b} now"
        for key, (a, b) in changes(snapshot_of(asked)).items()  # of an address, the password is no change
        if key not in MAY_CHANGE_ON_RESUME and not (key == "train.epochs" and after > before)
    ]
    if refused:
        raise ConfigError(
            f"trial {trial_id} cannot be resumed with another configuration: {'; '.join(refused)}",
            remedy="Leave these out, or start a new trial without trial.id. Only train.epochs may be raised.",
        )
    return with_parameters(from_snapshot(saved), {key: after for key, (_, after) in changed.items()})


def allow_more_epochs(folder: Path, config: Config) -> None:
    """Extend a trial to more epochs than it was started with; do nothing if it is not extended.

    Raises:
        ConfigError: it is finished and its training state was not kept.
        LockedError: it is being trained.
    """
    record = read_record(folder)
    assert record is not None
    if config.train.epochs <= record.epochs:
        return
    if record.state == "completed" and record.epoch < record.epochs:
        raise ConfigError(
            f"trial {record.trial_id} ended after {record.epoch} of {record.epochs} epochs: it stopped early "
            "(train.patience) and would not train any further",
            remedy="Start a new trial with a higher train.patience.",
        )
    if record.state in FINISHED:
        if not list(folder.glob(f"{paths.CHECKPOINTS}/*/{paths.STATE_JSON}")):
            raise ConfigError(
                f"trial {record.trial_id} is {record.state} after {record.epoch} epochs and cannot be extended: "
                "its training state was not kept",
                remedy="Start a new trial with a higher train.epochs. To be able to extend "
                "later trials, set retention.keep_training_state=true.",
            )
        record = record.model_copy(update={"state": "interrupted", "finished_at": None, "exit_code": 75})
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            raise LockedError(f"trial {record.trial_id} is being trained", remedy="Stop it first, or wait for its end.")
        save_config(folder, config)
        write_record(folder, record.model_copy(update={"epochs": config.train.epochs}))


def open_store(folder: Path, config: Config, log: Any, *, writes: bool = True) -> CheckpointStore:
    """The trial's checkpoints under the policy of its configuration."""
    r = config.retention
    policy = Policy(
        keep_last_n=r.keep_last_n,
        keep_best_k=r.keep_best_k,
        keep_all=r.keep_all,
        enabled=r.enabled,
        keep_training_state=r.keep_training_state,
    )
    return CheckpointStore(folder, policy, log, writes=writes)


class TrialRun:
    """A trial as seen by a process that trains it: the first one, which holds its lock, or a follower.

    A follower has no lock and writes nothing, neither to files nor to the terminal.

    Attributes:
        peers: the trial's processes, once they have met. stepped: whether this start has done an optimizer step.
    """

    def __init__(self, folder: Path, config: Config, lock: files.Lock | None, record: TrialRecord) -> None:
        self.folder, self.config, self.record, self._lock = folder, config, record, lock
        self._active_since = running_time() - record.active_seconds
        self.peers: Peers | None = None
        self.stepped = False
        self.stop = StopRequest()
        self.log = open_logs(folder / paths.LOGS) if lock else open_logs(None, terminal=False)
        self.disk = DiskMonitor(folder / paths.CHECKPOINTS, self.log)

    @classmethod
    def open(cls, config: Config) -> Self:
        """Take the trial's lock and note that it is preparing.

        Raises:
            LockedError: another process is at this trial.
            NotOursError: its folder is a link, or its checkpoints are one that was not there at its first start.
        """
        assert config.trial.id is not None
        folder = paths.trial_dir(Path(config.experiments), config.trial.id)
        lock = None if follows() else files.Lock(folder / paths.LOCK)
        if lock and not lock.acquire(timeout_s=2.0):
            raise LockedError(
                f"trial {config.trial.id} is in use by another process",
                remedy="Wait for it to end, or stop it; a trial has one process at a time.",
            )
        record = read_record(folder)
        assert record is not None, "create_trial must be called first"
        linked = owned.refuse_links(folder, begins=record.started_at is None)
        run = cls(folder, config, lock, record)
        if not run.done:
            resumed = record.started_at is not None
            run.update(
                checkpoints_at=linked,
                state="preparing",
                started_at=record.started_at or now(),
                finished_at=None,
                exit_code=None,
                error=None,
                resumes=record.resumes + resumed,
            )
        return run

    @property
    def done(self) -> bool:
        return self.record.state in FINISHED

    def update(self, **changes: Any) -> None:
        """Change fields of trial.json, which the first process alone writes."""
        active_seconds = round(running_time() - self._active_since, 3)
        self.record = self.record.model_copy(update={"active_seconds": active_seconds, **changes})
        if self._lock:
            write_record(self.folder, self.record)

    def reserve_storage(self, store: CheckpointStore, *, full: int, weights: int) -> Budget | None:
        """Reserve, in the study's budget, what the policy may hold at once, and have every save keep within it.

        Args:
            full: bytes of a checkpoint's tensors with its training state.
            weights: bytes of those without.

        Raises:
            DiskError: it does not fit, and no trial at work will give room.
        """
        r = self.config.retention
        if not (r.enabled and self._lock):
            return None
        size = reservation(store.policy, full=full, weights=weights, epochs=self.config.train.epochs)
        budget = Budget(
            store,
            self.record.study_id,
            max_total_size=r.max_total_size,
            min_free_disk_percent=r.min_free_disk_percent,
            log=self.log.info,
        )
        self.log.info("storage", checkpoint=full, weights=weights, reserved=size, budget=r.max_total_size)
        budget.reserve(size, stop=self.stop)

        def make_room(size: int) -> None:
            self.disk.look()
            budget.make_room(size)

        store.make_room = make_room
        return budget

    def decision(self, epoch: int) -> Decision:
        """The decision of the driver's pruner after this epoch, which it waits for; a repeated epoch reuses the
        recorded one. A follower gets it from the first process.

        Raises:
            Interrupted: a signal came, or the driver has been silent for a minute.
        """
        if not self._lock:
            return Decision(epoch=epoch, prune=False)

        def decided() -> Decision | None:
            wait_while_driver_is_stopped(self.stop, self.log.info)
            decisions = load_lines(self.folder / paths.DECISIONS, Decision)
            return next((decision for decision in decisions if decision.epoch == epoch), None)

        decision = wait_until(decided, self.stop, DECISION_TIMEOUT_S, every=0.05, clock=running_time)
        if decision is None:
            silent = "" if self.stop.requested else f"; the driver did not answer for {DECISION_TIMEOUT_S:.0f} s"
            raise Interrupted(f"stopped after epoch {epoch} while waiting for the pruner{silent}")
        return decision

    def end(self, state: TrialState, exit_code: int, error: ErrorRecord | None = None, **changes: Any) -> None:
        self.update(state=state, exit_code=exit_code, error=error, finished_at=now(), **changes)

    def outcome(self) -> AbstractContextManager[None]:
        """Turn whatever ends the block into the trial's outcome, and into this process's exit code.

        For its length the disk is watched. Who follows leaves the outcome to the first process, which it tells its own
        error. Where another process ends without a word, there is no outcome, as after a kill of this one.
        """
        return self._leading(self._lock) if self._lock else self._following()

    @contextmanager
    def _leading(self, lock: files.Lock) -> Iterator[None]:
        try:
            with self.disk:
                yield
        except Interrupted as error:
            self._end_by(error, "interrupted", error.exit_code)
            self.log.warning("interrupted", reason=error.what)
            if self.peers and self.peers.world_size > 1:  # each stops by itself: nothing for the launcher to do
                lock.release()
                sys.exit(0)
        except Exception as error:
            fault = self.peers.reported_fault() if self.peers and lost_contact(error) else None
            if lost_contact(error) and not fault:
                self.log.warning(
                    "another process of the trial exited without a message", reason=str(error).splitlines()[0]
                )
                lock.release()
                sys.exit(2)
            self._fail(Reported(fault) if fault else error)
        lock.release()
        sys.exit(2 if self.record.exit_code is None else self.record.exit_code)

    @contextmanager
    def _following(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            pass
        except Exception as error:
            if not lost_contact(error):
                fault = fault_of(error, int(os.environ["RANK"]))
                if self.peers:
                    self.peers.report_fault(fault)
                else:
                    show(f"error: process {fault['process']}: {fault['message']}", error=True)
                sys.exit(fault["exit_code"])  # so that the launcher ends the others, wherever they are
        sys.exit(0)

    def _fail(self, error: Exception) -> None:
        kind, code, resumable = classify(error)
        with suppress(OSError):  # the error may be that of an update: what is on disk is the truth
            self.record = read_record(self.folder) or self.record
        if self.done:  # what was left to clean up, `finish_leftovers` does
            self.log.warning("the finished trial could not be cleaned up", reason=error_record(error).message)
            return
        settled = self.stepped or self.record.study_id is None  # else the driver finds out whose fault it is
        state: TrialState = "interrupted" if resumable or not settled else "failed"
        self.log.error(f"trial {state}: {kind}", reason=error_record(error).message, exc_info=error)
        self._end_by(error, state, code)

    def _end_by(self, error: Exception, state: TrialState, code: int) -> None:
        try:
            self.end(state, code, error_record(error))
        except OSError as full:  # then trial.json says what it said before, as after a kill, and the trial resumes
            self.log.error("the outcome cannot be written", reason=full.strerror)
