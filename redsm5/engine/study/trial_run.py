"""A trial as seen by a process that trains it: from the lock that it takes to the outcome that it writes.

Whatever ends the training becomes the trial's outcome and the process's exit code, durable before the process exits.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from redsm5.engine import files, owned, paths
from redsm5.engine.documents import load_lines, now
from redsm5.engine.errors import Interrupted, LockedError
from redsm5.engine.records import FINISHED, Decision, ErrorRecord, TrialRecord, TrialState
from redsm5.engine.spec import StudySpec
from redsm5.engine.storage.budget import Budget, reservation
from redsm5.engine.storage.disk import DiskMonitor
from redsm5.engine.storage.store import CheckpointStore
from redsm5.engine.study.faults import Peers, Reported, classify, error_record, fault_of, follows, lost_contact
from redsm5.engine.study.signals import StopRequest, running_time, wait_while_driver_is_stopped
from redsm5.engine.study.trial import open_budget, read_record, write_record
from redsm5.engine.terminal import show
from redsm5.engine.tracking.logs import open_logs
from redsm5.engine.waiting import wait_until

DECISION_TIMEOUT_S = 60.0


class Paused(Interrupted):
    """The trial waits at a rung, its state saved: it may go on later, from there."""

    def __init__(self, rung: int) -> None:
        super().__init__(f"paused at rung {rung}")
        self.rung = rung


class TrialRun:
    """A trial as seen by a process that trains it: the first one, which holds its lock, or a follower.

    A follower has no lock and writes nothing, neither to files nor to the terminal.

    Attributes:
        peers: the trial's processes, once they have met. stepped: whether this start has done an optimizer step.
    """

    def __init__(self, folder: Path, config: StudySpec, lock: files.Lock | None, record: TrialRecord) -> None:
        self.folder, self.config, self.record, self._lock = folder, config, record, lock
        self._active_since = running_time() - record.active_seconds
        self.peers: Peers | None = None
        self.stepped = False
        self.stop = StopRequest()
        self.log = open_logs(folder / paths.LOGS) if lock else open_logs(None, terminal=False)
        self.disk = DiskMonitor(folder / paths.CHECKPOINTS, self.log)

    @classmethod
    def open(cls, config: StudySpec) -> Self:
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
        size = reservation(store.policy, full=full, weights=weights, epochs=self.config.epochs)
        budget = open_budget(store, self.record, self.config, self.log.info)
        self.log.info("storage", checkpoint=full, weights=weights, reserved=size, budget=r.max_total_size)
        budget.reserve(size, stop=self.stop)

        def make_room(size: int) -> None:
            self.disk.look()
            budget.make_room(size)

        store.make_room = make_room
        return budget

    def decision(self, epoch: int) -> Decision:
        """The decision of the driver's pruner after this epoch, which it waits for; a repeated epoch reuses the
        recorded one, of several the last. A follower gets it from the first process.

        Raises:
            Interrupted: a signal came, or the driver has been silent for a minute.
        """
        if not self._lock:
            return Decision(epoch=epoch, prune=False)

        def decided() -> Decision | None:
            wait_while_driver_is_stopped(self.stop, self.log.info)
            decisions = load_lines(self.folder / paths.DECISIONS, Decision)
            return next((decision for decision in reversed(decisions) if decision.epoch == epoch), None)

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
        except Paused as pause:
            self.update(state="paused", rung=pause.rung, exit_code=0)
            self.log.info(f"the trial is paused at rung {pause.rung}, after epoch {self.record.epoch}")
            lock.release()
            sys.exit(0)
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
