"""The protocol of a trial, owned by one object: a training script tells it what it trains and what came of it.

```python
def main(session: Session) -> None:
    accelerator = Accelerator()                          # data, model, optimizer, as in any script
    session.track(model, optimizer, schedule)            # resumes from the newest checkpoint
    for epoch in session.epochs():
        for batch in session.batches(loader):            # those that are not done yet
            ...                                          # forward, backward, optimizer.step()
            session.step(loss)
        session.report({"val_f1": score})                # journal, then checkpoint, then pruner
    session.finish()


if __name__ == "__main__":
    run(main)
```

After a crash at any moment the trial resumes to the same bits, because the order of writes is fixed: a metric is in the
journal before its epoch's checkpoint, a checkpoint is committed before an older one is deleted, the report is written
before the trial is completed, and the training state is deleted last. A call out of order raises an error that names
it, before anything is written.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NoReturn, SupportsFloat, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from redsm5.engine import paths
from redsm5.engine.batches import Batches, set_order, without_first
from redsm5.engine.distributed import ProcessGroup
from redsm5.engine.errors import Interrupted, NoCheckpointError, RedSM5Error, TrainingError, show_error
from redsm5.engine.files import make_private
from redsm5.engine.receipts import receipt_of, versions
from redsm5.engine.records import Manifest
from redsm5.engine.script import ScriptSpec
from redsm5.engine.spec import StudySpec
from redsm5.engine.storage.bases import keep_base
from redsm5.engine.storage.budget import Budget
from redsm5.engine.storage.checkpoint import (
    Identity,
    Progress,
    Saver,
    TrainingState,
    load_best,
    newest,
    resume,
    save,
    seed_everything,
)
from redsm5.engine.storage.models import Stateful, architecture, unwrapped
from redsm5.engine.storage.store import CheckpointStore, DamagedCheckpoint
from redsm5.engine.study.faults import say_where
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.signals import die_with_parent, wait_while_driver_is_stopped
from redsm5.engine.study.trial import open_store
from redsm5.engine.study.trial_run import Paused, TrialRun
from redsm5.engine.surroundings import prepare
from redsm5.engine.tracking.journal import TRAIN_LOSS, Journal, StepLosses
from redsm5.engine.tracking.progress import epoch_progress
from redsm5.engine.tracking.system import SystemMetrics, Usage, meter

B = TypeVar("B")
PRUNED = "pruned"


class SessionError(TrainingError):
    """A training script called the methods of its session in the wrong order."""

    kind = "session"


@dataclass
class _Tracked:
    """The session's objects after `track`.

    Attributes:
        losses: the current epoch's; None between epochs.
        batches: the number of batches of the epoch, once it is iterated. trained: whether all are done.
    """

    journal: Journal
    store: CheckpointStore
    state: TrainingState
    identity: Identity
    budget: Budget | None
    progress: Progress
    system: SystemMetrics
    losses: StepLosses | None = None
    batches: int | None = None
    trained: bool = False

    def follow(self, state: TrainingState, identity: Identity) -> None:
        """Go on with the next fold's model; nothing of the one before is being saved."""
        state.progress, state.buffers = self.state.progress, self.state.buffers
        for name, tensor in state.kept.items():
            tensor.copy_(self.state.kept[name])
        self.state, self.identity = state, identity


class Session:
    """A trial, as its training script sees it.

    Attributes:
        config: the trial's configuration, of the task's class.
        log: the trial's log.
        folder: the trial's folder, for files of the script's own.
        ended: whether the trial has an outcome.
    """

    def __init__(self, trial: TrialRun, saver: Saver) -> None:
        self.trial, self.log, self.folder = trial, trial.log, trial.folder
        self.config: Any = trial.config
        self._saver = saver
        self._tracked: _Tracked | None = None
        # The fold of `folds`, that of `track`, and whether the newest checkpoint is of the fold before.
        self._fold, self._tracked_fold, self._begins_fold = 0, 0, False
        self.ended = False

    @cached_property
    def group(self) -> ProcessGroup:
        """This process among those that train the trial; available once Accelerate has initialized them."""
        self.trial.peers = group = ProcessGroup.current()
        return group

    @property
    def parameters(self) -> dict[str, Any]:
        """A script's own parameters of this trial, by dotted key: what was drawn, and what is fixed."""
        return self.config.parameters if isinstance(self.config, ScriptSpec) else self.config.model_dump()

    @property
    def progress(self) -> Progress:
        return self._after_track("progress").progress

    @property
    def store(self) -> CheckpointStore:
        return self._after_track("store").store

    @property
    def best_in_memory(self) -> tuple[Manifest, dict[str, Tensor]] | None:
        """The best epoch's weights, if checkpoints are turned off."""
        return self._after_track("best_in_memory").state.best_in_memory

    def _after_track(self, name: str) -> "_Tracked":
        if self._tracked is None:
            raise SessionError(f"session.{name} before session.track(...)")
        return self._tracked

    def folds(self) -> Iterator[int]:
        """The numbers, from 0, of the folds still to be trained, for a task whose trials have several (config.folds).

        Each is a training of its own with as many epochs: build its model, optimizer and schedule, and call `track`.
        Only the score of the last fold's last epoch is the trial's. The checkpoint has what `track` was given as
        `kept`, so that it may be a score of all folds.
        """
        count, each = self.config.folds, self.config.train.epochs
        if count > 1:
            self._fold, self._begins_fold = self.group.of_first(self._where() if self.group.is_first else (0, False))
        while self._fold < count:
            yield self._fold
            at = self._after_track("folds()").progress
            if at.stop_reason is not None or self._fold == count - 1:
                return
            if at.epochs_done != each * (self._fold + 1):
                raise SessionError(f"fold {self._fold} ended before its epochs were all trained")
            self._fold += 1

    def _where(self) -> tuple[int, bool]:
        """The fold with which the trial goes on, and whether that begins there."""
        epochs_done, batches_done = newest(open_store(self.folder, self.config, log=self.log.info))
        fold, epoch = divmod(epochs_done, self.config.train.epochs)
        if fold == self.config.folds:  # only the report is left
            return fold - 1, False
        return fold, fold > 0 and epoch == batches_done == 0

    def _check_fold(self, at: Progress) -> None:
        """The checkpoint that was chosen may have turned out damaged, and an older one may be of another fold."""
        begin, each = self._fold * self.config.train.epochs, self.config.train.epochs
        if not begin <= at.epochs_done <= begin + (0 if self._begins_fold else each):
            raise Interrupted(
                f"a damaged checkpoint: the trial goes on from epoch {at.epochs_done} when it starts again"
            )

    def track(
        self,
        model: nn.Module | Stateful,
        optimizer: Optimizer | None = None,
        schedule: LRScheduler | None = None,
        identity: Identity | str = "",
        *,
        scaler: torch.amp.GradScaler | None = None,
        kept: Mapping[str, Tensor] | None = None,
        pretrained: str | None = None,
        usage: Callable[[], Usage] | None = None,
    ) -> None:
        """Register everything on which the next step depends, and restore it from the newest checkpoint.

        Args:
            model: a module, as it is or prepared by Accelerate; or any object whose `state_dict()` has NumPy arrays and
                values that JSON can hold, and whose `load_state_dict(...)` takes them back.
            optimizer: as it is or prepared by Accelerate.
            schedule: `step` steps it after each optimizer step.
            identity: the model and data of the checkpoints, for a task that describes its models; a checkpoint with
                another identity is refused. A script may give a fingerprint of its data, or nothing.
            scaler: Accelerate's gradient scaler, with fp16.
            kept: tensors on the CPU, of a fixed shape, that checkpoints are to have too. They are restored in place, in
                the next fold too.
            pretrained: the name of the part of the model that begins with pretrained weights, such as `encoder`. A
                trial's weights are stored as the difference to them (retention.compact).
            usage: measures the process's resources; by default its memory and that of the model's device.

        Raises:
            DiskError: the trial does not fit into the study's budget.
            IncompatibleCheckpointError: its checkpoints belong to another model or other data.
            SessionError: `track` was called before.
        """
        if self._tracked and self._tracked_fold == self._fold:
            raise SessionError("session.track(...) a second time: it is called once, before the first epoch")
        if isinstance(schedule, ReduceLROnPlateau):
            raise SessionError(
                "session.track(...) got a ReduceLROnPlateau, which needs a metric: session.step steps a schedule "
                "after each optimizer step, without one"
            )
        trial, group = self.trial, self.group
        bare = unwrapped(model)
        optimizer, schedule = getattr(optimizer, "optimizer", optimizer), getattr(schedule, "scheduler", schedule)
        if isinstance(identity, str):
            identity = Identity(trial.record.trial_id, architecture(bare), {}, identity, self.config.train.seed)
        state = TrainingState(bare, optimizer, schedule, scaler, group=group, kept=kept or {})
        self._tracked_fold = self._fold
        if self._tracked:
            self._saver.wait()  # the buffers are the new state's from here on
            self._tracked.follow(state, identity)
            return
        journal = Journal(trial.folder, trial.record.trial_id, log=self.log.error, writes=group.is_first)
        store = open_store(trial.folder, self.config, log=self.log.info, writes=group.is_first)
        budget = trial.reserve_storage(store, full=state.full_bytes(), weights=state.weight_bytes())
        if budget and pretrained and self.config.retention.compact and (study_id := trial.record.study_id):
            begun = {n: t for n, t in bare.state_dict().items() if n.startswith(f"{pretrained}.")}
            keep_base(budget, paths.study_dir(trial.folder.parent, study_id), begun, self.log.info)
        at = resume(store, state, identity, log=self.log.warning, of_another_model=self._begins_fold)
        self._check_fold(at)
        first = next(bare.parameters(), None)
        system = SystemMetrics(journal, usage or meter(torch.device("cpu") if first is None else first.device))
        self._tracked = _Tracked(journal, store, state, identity, budget, at, system)
        trial.update(state="running", epoch=at.epochs_done, step=at.step, best=at.best)

    def epochs(self) -> Iterator[int]:
        """The numbers, from 1, of the epochs still to be trained; fewer if patience or the pruner ends the trial.

        Raises:
            Paused: the trial waits at a rung, as it did before it was started again.
        """
        tracked = self._after_track("epochs()")
        at, total = tracked.progress, self.config.train.epochs * (self._fold + 1)
        # The checkpoint was saved before its epoch's decision was heard.
        if at.epochs_done and (rung := self._hear_pruner()) is not None:
            self._pause(rung)
        while at.epochs_done < total and at.stop_reason is None:
            epoch = at.epochs_done + 1
            tracked.losses = StepLosses(tracked.journal, epochs_done=at.epochs_done)
            tracked.batches, tracked.trained = None, False
            yield epoch
            if at.epochs_done != epoch:
                raise SessionError(f"epoch {epoch} ended without session.report(...)")

    def batches(self, loader: Batches[B]) -> Iterator[B]:
        """The epoch's batches, without those done before an interruption; shows a progress bar on a terminal.

        Args:
            loader: has the same batches whenever it is iterated in this epoch. A `DataLoader` that shuffles gets its
                order from the trial's seed and the epoch.
        """
        tracked = self._after_track("batches(...)")
        if tracked.losses is None or tracked.batches is not None:
            raise SessionError("session.batches(...) is called once in each epoch of session.epochs()")
        try:
            at, total = tracked.progress, len(loader)
        except TypeError:
            raise SessionError(
                f"session.batches(...) got a {type(loader).__name__} whose number of batches is not known: an epoch "
                "must have a length, so that the rest of it can be told after an interruption; pass a list, or an "
                "object with __len__ and __iter__"
            ) from None
        if (limit := self.config.dry_run_batches) and self.config.dry_run:
            total = min(total, limit)
        set_order(loader, self.config.train.seed, at.epochs_done + 1)
        with epoch_progress(
            at.epochs_done + 1, self.config.epochs, total, at.batches_done, shown=self.group.is_first
        ) as bar:
            tracked.batches = total
            for batch in islice(without_first(loader, at.batches_done), total - at.batches_done):
                before = at.batches_done
                yield batch
                if at.batches_done != before + 1:
                    raise SessionError(f"batch {before + 1} of {total} ended without session.step(loss)")
                bar.advance()
        tracked.losses.commit()
        tracked.trained = True

    def step(self, loss: Tensor | float, *, stepped: bool = True, skipped: bool = False) -> None:
        """Record that a batch is done.

        During an epoch a trial stops only here, so that no gradient is partly accumulated.

        Args:
            loss: this process's loss, a scalar.
            stepped: whether the optimizer stepped; with gradient accumulation, it steps once for several batches.
            skipped: whether the step was skipped, as with fp16 if gradients overflow; then the schedule does not step.

        Raises:
            Interrupted: the trial was asked to stop, and its state is saved.
            NotFiniteError: a loss was not finite.
            DiskError, OSError: the last save failed.
        """
        tracked = self._after_track("step(...)")
        if tracked.losses is None or tracked.batches is None or tracked.trained:
            raise SessionError("session.step(...) outside of session.batches(...)")
        trial, at, group = self.trial, tracked.progress, self.group
        tracked.losses.add(group.mean(loss.detach()) if isinstance(loss, Tensor) else loss)
        at.batches_done += 1
        if not stepped:
            return
        at.step += 1
        trial.stepped = True
        tracked.losses.end_of_step(at.step)
        tracked.system.end_of_step(at.step, at.epochs_done)
        self._saver.check()  # a failed save raises here
        wait_while_driver_is_stopped(trial.stop, self.log.info)
        if tracked.state.schedule and not skipped:
            tracked.state.schedule.step()
        stop, every = group.any(trial.stop.requested), self.config.train.checkpoint_every_steps
        if at.batches_done < tracked.batches and (stop or (every and at.step % every == 0)):
            tracked.losses.commit()
            self._save(score=None, metrics={})
            if stop:
                self._saver.wait()
                trial.update(step=at.step, bytes=tracked.store.size())
                raise Interrupted(f"stopped at step {at.step}, in epoch {at.epochs_done + 1}")

    def report(self, metrics: Mapping[str, SupportsFloat], *, also: Mapping[str, SupportsFloat] | None = None) -> None:
        """Record a trained and validated epoch: its metrics in the journal, its state in a checkpoint.

        Args:
            metrics: also written to the checkpoint and the log; must include the study's metric.
            also: further values, only for the journal.

        Raises:
            SessionError: the epoch's batches are not all done, the study's metric is missing, or one is no number.
            Interrupted: a signal arrived while it waited for the pruner, or in an epoch without batches.
            Paused: the trial waits at a rung. Let it pass: it ends this process.

        An epoch whose batches are not the session's is one step: it is trained as a whole, or again as a whole.
        """
        tracked = self._after_track("report(...)")
        at, config, trial, losses = tracked.progress, self.config, self.trial, tracked.losses
        whole = losses is not None and tracked.batches is None
        if losses is None or not (tracked.trained or whole):
            done = f": {at.batches_done} of {tracked.batches}" if tracked.batches else ""
            raise SessionError(f"session.report(...) before the epoch's batches were all done{done}")
        if config.study.metric not in metrics:
            raise SessionError(
                f"session.report(...) lacks {config.study.metric}, which the study {config.study.direction}s; "
                f"it has {', '.join(metrics)}: set study.metric to one of them, or report it"
            )
        if not whole and TRAIN_LOSS in {**metrics, **(also or {})}:
            raise SessionError(f"session.report(...) has {TRAIN_LOSS}, which session.step records: use another name")
        own, others = _numbers(metrics), _numbers(also or {})
        if whole:
            at.step += 1
            trial.stepped = True
        numbers, epoch = self.group.of_first(own), at.epochs_done + 1
        for name, value in {**numbers, **others}.items():
            tracked.journal.add(name, value, step=at.step, epoch=epoch)
        tracked.journal.commit()  # durable before the checkpoint to which they belong

        objective = numbers[config.study.metric]
        ends = epoch == config.epochs
        due = epoch % config.retention.min_interval_epochs == 0 or ends
        counts = ends or config.folds == 1
        at.epochs_done, at.batches_done = epoch, 0
        at.observe(objective, patience=config.train.patience, maximize=config.maximize)
        saved = due or at.stop_reason is not None
        if saved:
            self._save_epoch(epoch, objective if counts else None, numbers)
        rung = self._hear_pruner()
        if at.stop_reason and not saved:  # the last epoch is saved in any case
            self._save_epoch(epoch, objective if counts else None, numbers)
        elif rung is not None and not saved:  # without a score: it would not be saved, and be the best, without a pause
            self._save(score=None, metrics=numbers)
        tracked.system.end_of_epoch(at.step, at.epochs_done)
        trial.update(epoch=epoch, step=at.step, best=at.best, bytes=tracked.store.size())
        shown = {name: round(value, 4) for name, value in numbers.items() if name.endswith("_loss")}
        shown[config.study.metric] = round(objective, 4)
        facts: dict[str, Any] = {"step": at.step, TRAIN_LOSS: round(losses.last, 4)} | shown
        if config.folds > 1:
            facts["fold"] = f"{self._fold + 1} of {config.folds}"
        self.log.info(f"epoch {epoch} of {config.epochs}", **facts)
        tracked.losses, tracked.trained = None, False
        if rung is not None:
            self._pause(rung)
        if whole and self.group.any(trial.stop.requested) and not ends and not at.stop_reason:
            self._saver.wait()
            raise Interrupted(f"stopped after epoch {epoch}")

    def _save_epoch(self, epoch: int, objective: float | None, metrics: Mapping[str, float]) -> None:
        if objective is not None:
            self.progress.note_saved(objective, epoch=epoch, maximize=self.config.maximize)
        self._save(score=objective, metrics=metrics)

    def _hear_pruner(self) -> int | None:
        """Wait for the pruner's decision on the last epoch; one that was heard before stands. The rung at which the
        trial pauses, if it does.
        """
        at = self.progress
        if self.config.study.pruner == "none" or not self.trial.record.study_id or at.stop_reason:
            return None
        decision = self.group.of_first(self.trial.decision(at.epochs_done))
        if decision.prune:
            at.stop_reason = f"{PRUNED}: {decision.reason}"
            return None
        return decision.rung

    def _pause(self, rung: int) -> NoReturn:
        """End this process: the trial waits, with its state saved, for a promotion or the end of the search."""
        tracked = self._after_track("pause")
        self._saver.wait()
        tracked.journal.commit()
        self.group.leave()
        self.trial.update(bytes=tracked.store.size())
        if tracked.budget:
            tracked.budget.release()
        raise Paused(rung)

    def load_best(self) -> int:
        """Load the best epoch's weights into the model, for its test, and return that epoch.

        Raises:
            NoCheckpointError: no checkpoint verifies.
        """
        tracked = self._after_track("load_best()")
        model = tracked.state.model
        if memory := tracked.state.best_in_memory:
            model.load_state_dict(memory[1])
            return memory[0].epoch
        self._saver.wait()
        while best := tracked.store.best():
            try:
                return load_best(tracked.store.folder / best[0].name, model, tracked.identity).epoch
            except DamagedCheckpoint as error:
                tracked.store.quarantine(best[0].name, str(error))
        raise NoCheckpointError(f"trial {self.trial.record.trial_id} has no valid checkpoint")

    def finish(self, report: Callable[[], Mapping[str, SupportsFloat] | None] | None = None) -> None:
        """End the trial: write its report durably, then delete the training state and keep the best weights.

        Args:
            report: makes and writes the report; what it returns, such as test metrics, also goes to the journal. Called
                only in the first process, and not if the trial was pruned.

        Raises:
            SessionError: there are epochs left to train.
        """
        tracked = self._after_track("finish(...)")
        at, trial = tracked.progress, self.trial
        if at.stop_reason is None and at.epochs_done < self.config.epochs:
            raise SessionError(f"session.finish(...) after {at.epochs_done} of {self.config.epochs} epochs")
        self._saver.wait()
        tracked.journal.commit()  # the last epoch's system metrics
        self.group.leave()
        self.ended = True
        if not self.group.is_first:
            sys.exit(0)
        if at.stop_reason:
            self.log.info(f"training ends after epoch {at.epochs_done}", reason=at.stop_reason)
        pruned = (at.stop_reason or "").startswith(PRUNED)
        if not pruned and not self.config.dry_run:
            trial.update(state="finishing")
            for name, value in _numbers((report() if report else None) or {}).items():
                tracked.journal.add(name, value, step=at.step, epoch=at.epochs_done)
            tracked.journal.commit()
        if pruned:
            trial.end("pruned", 0)
        else:
            device = next((p.device for p in tracked.state.model.parameters()), torch.device("cpu"))
            here = versions(device, self.group.world_size)
            receipt = receipt_of(tracked.store, trial.record, here, tracked.identity.data_fingerprint)
            trial.end("completed", 0, receipt=receipt)
        tracked.store.finish()
        if tracked.budget:
            tracked.budget.release()
        trial.update(bytes=tracked.store.size())

    def _save(self, *, score: float | None, metrics: Mapping[str, float]) -> None:
        tracked = self._after_track("save")
        with tracked.system.saving():
            save(tracked.store, self._saver, tracked.state, tracked.identity, score=score, metrics=dict(metrics))


def _numbers(metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """The metrics as floats: a script may have numbers of NumPy, and tensors.

    Raises:
        SessionError: one is no number.
    """
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise SessionError(f"session.report(...): {name}={value!r} is not a number") from None
    return numbers


def run(
    main: Callable[[Session], object], arguments: Sequence[str] | None = None, kind: type[StudySpec] = ScriptSpec
) -> NoReturn:
    """Train the trial that the arguments name and whose folder exists, and exit this process with the trial's exit
    code.

    Args:
        main: trains the trial; its last call must be `session.finish(...)`.
        arguments: trial.id=UUID experiments=DIR, and keys that may change on a resume; by default the command line's.
        kind: the class of the task's configuration.
    """
    prepare()
    make_private()
    die_with_parent()
    try:
        trial = TrialRun.open(trial_config(kind, sys.argv[1:] if arguments is None else arguments))
    except RedSM5Error as error:
        show_error(error)
        sys.exit(1)
    if not trial.done:
        with trial.outcome(), Saver() as saver:
            train(main, trial, saver)
    sys.exit(0)


def train(main: Callable[[Session], object], trial: TrialRun, saver: Saver) -> None:
    """Have `main` train an open trial. The caller turns its exceptions into the trial's outcome."""
    seed_everything(trial.config.train.seed)
    session = Session(trial, saver)
    try:
        main(session)
    except Exception as error:
        if trial.config.entry_module is None:
            say_where(error, trial.config.entry_point)
        raise
    except SystemExit as end:
        if session.ended:
            raise
        raise SessionError(f"the training script called sys.exit({end.code!r}) before session.finish(...)") from end
    if not session.ended:
        raise SessionError("the training script ended without session.finish(...)")
