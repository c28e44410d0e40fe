"""The driver of a search: asks Optuna for a trial, launches it, decides on pruning, tells Optuna the result.

It imports neither torch nor transformers, and survives the crash of a trial. After an interruption, the next run
resumes the interrupted trial and then proposes the same trials as an uninterrupted search. It is controlled by signals
and files (redsm5/engine/study/control.py).
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage
from optuna.trial import TrialState

from redsm5.engine import files, owned, paths
from redsm5.engine.documents import load_lines
from redsm5.engine.errors import ConfigError, DiskError, InputError, Interrupted
from redsm5.engine.installed import command
from redsm5.engine.records import FINISHED, ErrorRecord, Event, TrialRecord
from redsm5.engine.rungs import Promotion
from redsm5.engine.sections import SearchConfig
from redsm5.engine.spec import StudySpec, load_config
from redsm5.engine.storage.compaction import drop_unused_bases
from redsm5.engine.study import claims, pruning, search, space
from redsm5.engine.study.access import AWAITED_KINDS, check_data, has_begun, wait_for_access
from redsm5.engine.study.confirmation import Confirmation, said_of
from redsm5.engine.study.control import BY_HAND, Control
from redsm5.engine.study.database import breaking_off, wait_when_away
from redsm5.engine.study.failures import Failures, check_result, failed_at_start, reason_of
from redsm5.engine.study.halving import Halving
from redsm5.engine.study.launch import note_ignored, wait_unlocked
from redsm5.engine.study.outcomes import (
    Pages,
    existing_record,
    finish_leftovers,
    note_failed,
    note_killed,
    note_pruned,
    note_repeated,
    store_smaller,
)
from redsm5.engine.study.registry import Scoreboard, new_study, open_study, read_studies, study_by_name, with_data
from redsm5.engine.study.sharing import SharedGpu
from redsm5.engine.study.signals import StopRequest, running_time
from redsm5.engine.study.standby import Standby
from redsm5.engine.study.status import StatusLine, size_text
from redsm5.engine.study.trial import note_event, read_record, write_record
from redsm5.engine.surroundings import note_open_to_all
from redsm5.engine.task import Task
from redsm5.engine.tracking.logs import open_logs
from redsm5.engine.tracking.shipper import Shipper, tracking_uri
from redsm5.engine.waiting import wait_until

STARTS_WITHOUT_PROGRESS = 3  # a trial that dies this often at the same place is failed, not started again
INDEX_S = 1.0  # between two times that the index is renewed for a trial's progress
TIMEOUT = (
    "it ran longer than study.trial_timeout={:g} s, all its starts together; in a new study, raise it "
    "or shorten the trials (train.epochs, model.max_length)"
)


class Driver:
    """One worker on one study."""

    def __init__(self, task: Task[Any], config: StudySpec, kept: Mapping[str, Any] | None = None) -> None:
        """Args:
        task: what the study is about.
        config: the study's.
        kept: of a study that has begun, what it keeps though the command alone would mean others.
        """
        self.task, self.experiments, self.kept = task, Path(config.experiments), kept
        self.stop = StopRequest()
        self.data = check_data(task, config, self.stop)  # refuses bad data before anything is written
        if study_by_name(self.experiments, config.study.name) is None:
            new_study(config, task)  # refuses what cannot be searched
        storage = search.open_storage(config)  # before a lock is taken: a server may not answer for long
        files.make_dir(self.experiments)
        with files.Lock(self.experiments / paths.LOCK):
            record = with_data(open_study(config, task), self.data.fingerprint)
            self.config = task.without(config, record.left_out)
            self.presets = space.presets(self.config, record.enqueued)
            self.folder = paths.study_dir(self.experiments, record.study_id)
            owned.refuse_links(self.folder)
            begun = (self.folder / paths.STUDY).exists()
            self.board = Scoreboard(self.experiments, record)
            self.log = open_logs(self.folder / paths.LOGS)
            self.control = Control(self.folder, self.stop, self.log)
            lock, pruner = files.Lock(self.folder / paths.LOCK), pruning.make_pruner(config)
            if not begun:
                with lock:  # before the storage knows of it: a study without a record is litter
                    self.board.write()
            self.optuna = search.open_optuna(storage, record, pruner, begun=bool(self.board.trials))
            self.halving = Halving(config, self.optuna, self.folder) if config.study.pruner == "asha" else None
            with lock:
                self.control.enter()
                self.board.write()
        self.stop_now = self.asked = self.control.asked(paths.STOP_NOW)
        if isinstance(storage, RDBStorage):
            wait_when_away(storage, self.stop_now, self.log)
        self.limit = config.study.trial_timeout or math.inf
        self.status = StatusLine()
        self.shipper = Shipper(tracking_uri(config), self.experiments / paths.MLFLOW_ARTIFACTS, self.log.warning)
        self.failures = Failures(config, self.board, self.log)
        self.pages = Pages(task, self.log)
        self.gpu = SharedGpu(self.folder, self.log)
        self.orphans = claims.Orphans(self.experiments, self.stop_now, self.log)
        self.confirmation = Confirmation(
            task, self.config, self.board, self.optuna, self.control, self.orphans, self.stop_now, self.log
        )
        self._waited = False
        self._stale, self._renewed = False, 0.0
        if record.left_out and not begun:
            remedies = dict(task.missing(config))
            self.log.warning("the search skips what this machine has no data for", **remedies)

    def run(self, standby: Standby) -> None:
        """Run or resume the study until its trials are finished; `standby` trains them.

        Raises:
            Interrupted: a signal came, or an order to stop now; the trial at hand can be resumed.
            TrainingError: trials fail one after another for the same reason, or do not even start; or none completed.
            DiskError: a trial found no room.
        """
        wanted, name = self.board.study.trials.wanted, self.config.study.name
        self.log.info(f"study {name}: {self._finished()} of {wanted} trials are done", **self.data.counts)
        for remark, facts in self.data.remarks:
            self.log.warning(remark, **facts)
        note_ignored(self.log)
        if self.kept:
            keys = " ".join(self.kept)
            self.log.info("keys that this command does not name keep the study's values", keys=keys)
        if wanted < self.config.study.trials:
            self.log.info(f"the grid is exhausted after {wanted} trials", asked_for=self.config.study.trials)
        note_open_to_all(self.experiments, self.log.warning)
        self.shipper.start()
        self.standby = standby
        outcome, confirmed = "stopped", self.board.study.confirmed
        try:
            with breaking_off():
                self._recover()
                while (trial := self._next_trial() or self.confirmation.next_trial()) is not None:
                    claim, number, trial_id = trial
                    told = True
                    if self.orphans.ends(trial_id):
                        with self.status:
                            told = self._run_trial(number, trial_id)
                    if told:
                        claim.release()
                    else:
                        self.failures.hold(claim, number, trial_id)
            confirmed = self.confirmation.result()
            outcome = "completed"
        except Interrupted:
            ordered = not self.stop.requested and (self.stop_now.requested or paths.STOP in self.control.look())
            if ordered:
                self.log.info("the study is stopped as requested: run the same command again to resume it")
            else:
                outcome = "paused"
            if self.stop_now.requested or not ordered:
                raise
        finally:
            self.failures.let_go()
            self.pages.close()
            try:
                with files.Lock(self.folder / paths.LOCK):
                    self.board.write(state=outcome, confirmed=confirmed)
                    self.control.leave()
            finally:
                self.shipper.name_winner(self.board.study)
                self.log.info("shipping the last metrics to MLflow")
                left = self.shipper.close(hurried=lambda: self.stop_now.requested)
                if left or self.shipper.failing:
                    what = {"rows": left, "reports": self.shipper.reports}
                    again = command("sync", experiments=self.experiments)
                    self.log.warning(f"some metrics or reports are not in MLflow yet: `{again}` ships them", **what)
        if outcome == "completed":
            check_result(self.board)
            drop_unused_bases(self.folder)
            best = self.board.study.best
            self.log.info(
                f"study {name} is complete: {self._finished()} trials",
                best=best and f"{best.value:.4f} in trial {best.number}",
                **said_of(confirmed),
                on_disk=size_text(self.board.bytes()),
                summary=command("summary", name, experiments=self.experiments),
            )
            for sentence in self.task.verdict(self.config, self.board.study):
                self.log.info(sentence)

    # -----------------------------------------------------------------------------------------------------------------
    # which trial is next

    def _recover(self) -> None:
        """Finish what a killed driver left half told or half cleaned up, and add all trials to the index."""
        for damaged in read_studies(self.experiments)[1]:
            self._pass_over("study", damaged.error)
        known = [t.user_attrs[search.TRIAL_ID] for t in self.optuna.get_trials() if search.TRIAL_ID in t.user_attrs]
        known += self.confirmation.known()
        self.board.refresh(known)
        told = {event.trial_id: event.state for event in load_lines(self.folder / paths.EVENTS, Event)}
        for trial_id in known:
            if trial_id in self.board.unreadable:
                self._pass_over("trial", self.board.unreadable[trial_id])
                continue
            record = self.board.trials.get(trial_id)
            if record and record.state != told.get(trial_id):  # it was killed between the two
                note_event(paths.trial_dir(self.experiments, trial_id), record)
            folder = paths.trial_dir(self.experiments, trial_id)
            finish_leftovers(folder, self.config)
            store_smaller(folder, self.config, self.log)
            if record and record.state == "completed" and not (folder / paths.REPORT_PAGE).exists():
                self.pages.add(folder)
            self.shipper.watch(folder)

    def _pass_over(self, what: str, error: InputError) -> None:
        self.log.warning(f"a {what} is skipped: its record cannot be read", reason=error.what, where=error.where)

    def _next_trial(self) -> tuple[files.Lock, int, str] | None:
        """A trial to run and the claim to it: an interrupted one first, then one to promote, then a new one; None when
        enough are finished.

        Counting and asking happen under one lock, so that many workers end at exactly n. It is not the lock of the
        study's files, so that trials do not wait while a proposal is computed.

        Raises:
            Interrupted: no other trial is to be started.
            InputError: only trials are left whose records cannot be read.
        """
        while True:
            self._raise_if_stopped()
            waiting, unreadable = False, None
            with claims.asking(self.folder, self.stop_now):
                open_trials = search.unfinished(self.optuna)
                paused = self.halving.take_in(open_trials) if self.halving else set()
                if not open_trials and self._finished() >= self.board.study.trials.wanted:
                    return None
                orders = self.control.look()
                if paths.STOP in orders:
                    raise Interrupted("no further trial is started")
                to_prune = {
                    t.number for t in open_trials if f"{paths.PRUNE}{t.user_attrs.get(search.TRIAL_ID)}" in orders
                }
                at_work = [trial for trial in open_trials if trial.number not in paused - to_prune]
                for frozen in at_work:
                    claim = claims.claim(self.folder, frozen.number)
                    if not self.orphans.holds(frozen) and claim.acquire():
                        try:
                            trial_id = claims.ensure_created(frozen, self.optuna, self.config, self.presets, self.board)
                            record = read_record(paths.trial_dir(self.experiments, trial_id))
                        except InputError as error:  # it is not failed: it waits until its record has been restored
                            unreadable = error
                            claim.release()
                            continue
                        if record and record.state in FINISHED:
                            # It ended, and then its driver did; or another worker has told it since we looked.
                            if not self.optuna.get_trials(deepcopy=False)[frozen.number].state.is_finished():
                                self._tell(frozen.number, record)
                            claim.release()
                            break
                        return claim, frozen.number, trial_id
                else:
                    if self.halving and (promotion := self.halving.rungs.promotion()):
                        self._promote(promotion)
                    elif self._finished() + len(open_trials) < self.board.study.trials.wanted:
                        asked = self.optuna.ask()
                        if self.halving:
                            self.halving.draw(asked.number)
                    elif unreadable:
                        raise unreadable
                    elif self.halving and not at_work:
                        self._close(self.halving)
                    else:
                        waiting = not self.failures.let_go()
            if waiting:  # other workers are at the last ones; one that dies leaves its trial to us
                if not self._waited:
                    self.log.info("other workers are running the last trials: waiting in case one of them is killed")
                self._waited = True
                wait_until(lambda: self.stop_now.requested, timeout=1.0, every=0.5)

    # -----------------------------------------------------------------------------------------------------------------
    # paused trials; the caller holds the lock for asking

    def _promote(self, promotion: Promotion) -> None:
        """Have a paused trial go on: it is then one that is to be claimed."""
        assert self.halving is not None
        self.halving.promote(promotion)
        place = f"rank {promotion.rank} of {promotion.of} at rung {promotion.place.rung}"
        last = ", the best of a bracket in which none has completed" if promotion.closing else ""
        self.log.info(f"trial {promotion.number} is promoted: {place}{last}")

    def _close(self, halving: Halving) -> None:
        """All trials are drawn and none is at work: promote the best of a bracket that has no result yet; with none
        left, prune what is still paused.
        """
        if promotion := halving.rungs.closing_promotion():
            self._promote(promotion)
            return
        trials = self.optuna.get_trials(deepcopy=False)
        for number in sorted(halving.rungs.paused):
            self._raise_if_stopped()
            trial_id = str(trials[number].user_attrs[search.TRIAL_ID])
            folder = paths.trial_dir(self.experiments, trial_id)
            wait_unlocked(folder, self.stop_now)  # another worker's trial may be taking its checkpoint
            record = existing_record(folder)
            if record.state not in FINISHED:
                note_pruned(folder, record, halving.why_left(number, self.config.study.metric))
            halving.end(number)  # after its record and before Optuna hears of it: a kill between them is made up for
            self._conclude(number, trial_id, folder)

    # -----------------------------------------------------------------------------------------------------------------
    # one trial

    def _run_trial(self, number: int, trial_id: str) -> bool:
        """Launch a trial, again if it is killed, and tell Optuna the result. False if there is no result yet, since it
        failed before its first step, which may not be the trial's fault.
        """
        folder = paths.trial_dir(self.experiments, trial_id)
        self.shipper.watch(folder)
        places: list[tuple[int, int]] = []
        began = alone = False  # whether any start got as far as training; whether no other trial may be on the GPU
        while (before := self._to_train(number, trial_id, folder)) is not None:
            places.append((before.epoch, before.step))
            word = "resuming" if before.started_at else "starting"
            self.log.info(f"{word} trial {before.label}", **before.parameters)
            self.asked = self.control.asked(paths.STOP_NOW, paths.PAUSE, paths.PRUNE + trial_id)
            launched_at = running_time()
            limit = self.limit - before.active_seconds + before.repeated_seconds
            with self.gpu.taken(self.asked, alone=alone):
                late = self._train(number, trial_id, folder, limit)
            ran = round(before.active_seconds + running_time() - launched_at, 3)
            record = existing_record(folder)
            self.gpu.note(folder)
            if self.gpu.was_crowded(record) and not alone:
                alone = True
                self.log.warning(
                    f"trial {record.label} ran out of memory beside others on its GPU: it is tried again alone"
                )
                record = record.model_copy(update={"state": "interrupted", "finished_at": None})
                write_record(folder, record)
                continue
            began = began or record.error is not None or record.state in ("running", "finishing")
            if record.state in FINISHED:
                self._settle_held()
                break
            if record.state == "paused":
                self._settle_held()
                self._note_paused(number, trial_id, record)
                return True
            if late:
                note_failed(folder, record, "timeout", TIMEOUT.format(self.limit), active_seconds=ran)
                break
            ordered = self.asked.requested and not self.stop.requested
            if record.state != "interrupted" and not ordered:  # before its first step a signal ends it without a word
                self.log.warning(
                    f"trial {record.label} exited without recording an outcome",
                    output=str(folder / paths.LOGS / paths.OUTPUT),
                )
            record = note_killed(folder, record, active_seconds=ran)
            self._show(trial_id)
            if ordered:
                places.pop()
                continue
            begun = before.started_at or has_begun(self.board, but=trial_id)
            if begun and record.error and record.error.kind in AWAITED_KINDS:
                needs = load_config(type(self.config), folder)
                needs = needs.model_copy(update={"search": SearchConfig(space={})})  # what this trial reads, no other
                ended = self.control.asked(paths.STOP_NOW, paths.STOP)
                wait_for_access(record.error.message, self.task, needs, self.board, ended, self.log)
                places.pop()
                continue
            if failed_at_start(record):
                return self._failed_at_start(number, trial_id, folder, record)
            for kind in (DiskError, ConfigError):
                if record.exit_code == kind.exit_code:
                    raise kind(record.error.message if record.error else "refused", where=f"trial {record.label}")
            self._raise_if_stopped()
            if places[-STARTS_WITHOUT_PROGRESS:].count((record.epoch, record.step)) == STARTS_WITHOUT_PROGRESS:
                message = f"it was killed {STARTS_WITHOUT_PROGRESS} times at the same step"
                if not began:
                    record = record.model_copy(update={"error": ErrorRecord(kind="killed", message=message)})
                    return self._failed_at_start(number, trial_id, folder, record)
                note_failed(folder, record, "killed", message)
                break
        self._finish(number, trial_id, folder)
        return True

    def _note_paused(self, number: int, trial_id: str, record: TrialRecord) -> None:
        """A trial has saved its state at a rung: this worker is free for another one."""
        store_smaller(paths.trial_dir(self.experiments, trial_id), self.config, self.log)
        self.failures.count(record)
        self._show(trial_id)
        score = self.optuna.get_trials(deepcopy=False)[number].intermediate_values.get(record.epoch)
        shown = None if score is None else round(score, 4)
        facts = {self.config.study.metric: shown, "on_disk": size_text(self.board.bytes())}
        self.log.info(f"trial {number} is paused after epoch {record.epoch} of {record.epochs}", **facts)

    def _failed_at_start(self, number: int, trial_id: str, folder: Path, record: TrialRecord) -> bool:
        """Find out whether the failure is the trial's own, and only then tell Optuna; whether it is."""
        self._raise_if_stopped()
        self._show(trial_id)
        own = self.failures.own(record, self.stop_now)
        if own and record.error:
            note_failed(folder, record, record.error.kind, record.error.message, exit_code=record.exit_code)
            self._finish(number, trial_id, folder)
        return own

    def _settle_held(self) -> None:
        """A trial has been trained here: those that failed before their first step did so by themselves."""
        for claim, number, trial_id in self.failures.held():
            folder = paths.trial_dir(self.experiments, trial_id)
            record = read_record(folder)
            if record and record.error:
                note_failed(folder, record, record.error.kind, record.error.message, exit_code=record.exit_code)
                self._conclude(number, trial_id, folder)
            claim.release()

    def _to_train(self, number: int, trial_id: str, folder: Path) -> TrialRecord | None:
        """The record of a trial that must be started now; None if it is finished, or gets its outcome without a start.

        Raises:
            Interrupted: nothing is to be started.
        """
        self.control.wait_while_paused(trial_id, self.board)
        wait_unlocked(folder, self.stop_now)  # a trial that outlived its driver stops by itself
        record = existing_record(folder)
        if record.state in FINISHED:
            return None
        self._raise_if_stopped()
        if paths.PRUNE + trial_id in self.control.look():
            self.log.info(f"trial {record.label} is pruned after epoch {record.epoch}, as requested")
            note_pruned(folder, record, BY_HAND)
            self.control.remove(paths.PRUNE + trial_id)
        elif record.started_at is None and (original := self._duplicate_of(record)):
            self.log.info(f"trial {number} is a duplicate of trial {original.number} and is not trained")
            note_repeated(folder, record, original)
        elif record.active_seconds - record.repeated_seconds >= self.limit:  # its driver ended before it could say so
            note_failed(folder, record, "timeout", TIMEOUT.format(self.limit))
        else:
            owned.refuse_links(folder, begins=record.started_at is None)
            if self.halving and self.halving.rungs.came_from.get(number) == record.rung is not None:
                record = self._promoted(number, folder, record)
            if record.error:  # it is not the reason of what comes next
                record = record.model_copy(update={"exit_code": Interrupted.exit_code, "error": None})
                write_record(folder, record)
            return record
        return None

    def _promoted(self, number: int, folder: Path, record: TrialRecord) -> TrialRecord:
        """A promoted trial goes on; if its checkpoint was evicted, from the start, to the same bits."""
        assert self.halving is not None
        self.halving.let_go_on(folder, record)
        if record.state != "paused" or list(folder.glob(f"{paths.CHECKPOINTS}/*/{paths.STATE_JSON}")):
            return record
        lost = record.active_seconds - record.repeated_seconds
        self.log.info(
            f"trial {number} is trained from its start again, since its checkpoint was evicted",
            epochs=record.epoch,
            seconds=round(lost, 1),
        )
        record = record.model_copy(update={"state": "interrupted", "repeated_seconds": record.active_seconds})
        write_record(folder, record)
        return record

    def _duplicate_of(self, record: TrialRecord) -> TrialRecord | None:
        """The first completed, pruned or paused trial with the same parameters, if any; a repeat is always trained."""
        if record.confirms:
            return None
        self.board.take_in_the_others()
        for other in sorted(self.board.trials.values(), key=lambda other: other.number or 0):
            trained = other.state in ("completed", "pruned", "paused") and not (other.duplicate_of or other.confirms)
            if trained and other.parameters == record.parameters and other.trial_id != record.trial_id:
                return other
        return None

    def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        """Launch the trial's process and stay with it until it has ended; whether it took longer than `seconds`."""

        pruned = self.config.study.pruner != "none" and existing_record(folder).confirms is None

        def meanwhile() -> None:
            if pruned:
                pruning.decide(self.optuna, self.config, number, folder)
            self._show(trial_id)
            if self.board.trials[trial_id].state == "running":
                self.pages.draw()

        return self.standby.launch(trial_id, self.stop_now, self.log).attend(self.asked, meanwhile, seconds)

    def _finish(self, number: int, trial_id: str, folder: Path) -> None:
        self.failures.count(self._conclude(number, trial_id, folder))

    def _conclude(self, number: int, trial_id: str, folder: Path) -> TrialRecord:
        """Process a trial's outcome; returns its record."""
        record = existing_record(folder)
        finish_leftovers(folder, self.config)
        store_smaller(folder, self.config, self.log)
        self.pages.add(folder)
        if record.confirms is None:
            self._tell(number, record)
        self._show(trial_id)
        facts: dict[str, Any] = {self.config.study.metric: record.best and round(record.best.value, 4)}
        if record.error:
            facts = {"reason": reason_of(record)}
        done = f"{self._finished()} of {self.board.study.trials.wanted} done"
        facts["on_disk"] = size_text(self.board.bytes())
        if record.confirms:
            done = self.confirmation.place(record)
        else:
            left = self.board.time_left()
            facts["minutes_left"] = left and round(left.seconds / 60, 1)
            if left and left.seconds:
                facts["between"] = f"{left.low / 60:.1f} and {left.high / 60:.1f}"
        self.log.info(f"trial {record.label} {record.state}: {done}", **facts)
        return record

    def _tell(self, number: int, record: TrialRecord) -> None:
        original = self.board.trials.get(record.duplicate_of or "")
        search.tell(self.optuna, number, record, repeats=original.number if original else None)

    # -----------------------------------------------------------------------------------------------------------------
    # what is seen

    def _show(self, trial_id: str) -> None:
        """Renew the index, where the trial's record changed, and the line on the terminal.

        A trial's progress waits for a second since the last time: with thousands of trials the index is large.
        """
        before = self.board.trials.get(trial_id)
        self.board.refresh([trial_id])
        record = self.board.trials[trial_id]
        self._stale = self._stale or record != before
        due = before is None or record.state != before.state or time.monotonic() > self._renewed + INDEX_S
        if self._stale and due:
            with files.Lock(self.folder / paths.LOCK):
                self.board.write()
            self._stale, self._renewed = False, time.monotonic()
        self.status.show(self.board, record)

    def _finished(self) -> int:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return len(self.optuna.get_trials(deepcopy=False, states=states))

    def _raise_if_stopped(self) -> None:
        if self.stop_now.requested:
            raise Interrupted("the study can be resumed: run the same command again")
