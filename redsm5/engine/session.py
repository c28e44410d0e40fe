"""The protocol of a trial, owned by one object: a training script tells it what it trains and what came of it.

```python
def main(session: Session) -> None:
    accelerator = Accelerator()                          # data, model, optimizer, as in any script
    session.track(model, optimizer, schedule, ...)       # resumes from the newest checkpoint
    for epoch in session.epochs(3):
        for batch in session.batches(loader):            # those that are not done yet
            ...                                          # forward, backward, optimizer.step()
            session.step(loss)
        session.report({"val_f1": score})                # journal, then pruner, then checkpoint
    session.finish(write_report)


if __name__ == "__main__":
    run(main, sys.argv[1:])
```

After a crash at any moment the trial resumes to the same bits, because the order of writes is fixed: a metric is in the
journal before its epoch's checkpoint, a checkpoint is committed before an older one is deleted, the report is written
before the trial is completed, and the training state is deleted last. A call out of order raises an error that names
it, before anything is written.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NoReturn, Protocol, TypeVar

import torch
from accelerate import skip_first_batches
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from redsm5.engine.distributed import ProcessGroup
from redsm5.engine.errors import Interrupted, RedSM5Error, TrainingError, show_error
from redsm5.engine.files import make_private
from redsm5.engine.records import Manifest
from redsm5.engine.storage.budget import Budget
from redsm5.engine.storage.checkpoint import Identity, Progress, Saver, TrainingState, resume, save
from redsm5.engine.storage.store import CheckpointStore
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.signals import die_with_parent, wait_while_driver_is_stopped
from redsm5.engine.study.trial import open_store
from redsm5.engine.study.trial_run import TrialRun
from redsm5.engine.surroundings import prepare
from redsm5.engine.tracking.journal import Journal, StepLosses
from redsm5.engine.tracking.progress import epoch_progress
from redsm5.engine.tracking.system import SystemMetrics, Usage, meter

B = TypeVar("B", covariant=True)


class Batches(Sized, Iterable[B], Protocol[B]):
    """An iterable with a known number of batches, the same ones whenever an epoch is iterated."""


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


class Session:
    """A trial, as its training script sees it.

    Attributes:
        config: the trial's configuration.
        log: the trial's log.
        ended: whether the trial has an outcome.
    """

    def __init__(self, trial: TrialRun, saver: Saver) -> None:
        self.trial, self.config, self.log = trial, trial.config, trial.log
        self._saver = saver
        self._tracked: _Tracked | None = None
        self._epochs = 0
        self.ended = False

    @cached_property
    def group(self) -> ProcessGroup:
        """This process among those that train the trial; available once Accelerate has initialized them."""
        self.trial.peers = group = ProcessGroup.current()
        return group

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

    def track(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LambdaLR,
        identity: Identity,
        *,
        scaler: torch.amp.GradScaler | None = None,
        usage: Callable[[], Usage] | None = None,
    ) -> None:
        """Register everything on which the next step depends, and restore it from the newest checkpoint.

        Args:
            model: the unwrapped model, so that its weights have their own names.
            optimizer: the optimizer itself, not a wrapper.
            identity: the model and data of the checkpoints; a checkpoint with another identity is refused.
            scaler: Accelerate's gradient scaler, with fp16.
            usage: measures the process's resources; by default its memory and that of the model's device.

        Raises:
            DiskError: the trial does not fit into the study's budget.
            IncompatibleCheckpointError: its checkpoints belong to another model or other data.
            SessionError: `track` was called before.
        """
        if self._tracked:
            raise SessionError("session.track(...) a second time: it is called once, before the first epoch")
        trial, group = self.trial, self.group
        journal = Journal(trial.folder, trial.record.trial_id, log=self.log.error, writes=group.is_first)
        store = open_store(trial.folder, self.config, log=self.log.info, writes=group.is_first)
        state = TrainingState(model, optimizer, schedule, scaler, group=group)
        budget = trial.reserve_storage(store, full=state.full_bytes(), weights=state.weight_bytes())
        at = resume(store, state, identity, log=self.log.warning)
        device = next(model.parameters()).device
        system = SystemMetrics(journal, usage or meter(device))
        self._tracked = _Tracked(journal, store, state, identity, budget, at, system)
        trial.update(state="running", epoch=at.epochs_done, step=at.step, best=at.best)

    def epochs(self, total: int) -> Iterator[int]:
        """The numbers, from 1, of the epochs still to be trained; fewer if patience or the pruner ends the trial."""
        tracked = self._after_track("epochs(...)")
        at, self._epochs = tracked.progress, total
        while at.epochs_done < total and at.stop_reason is None:
            epoch = at.epochs_done + 1
            tracked.losses = StepLosses(tracked.journal, epochs_done=at.epochs_done)
            tracked.batches, tracked.trained = None, False
            yield epoch
            if at.epochs_done != epoch:
                raise SessionError(f"epoch {epoch} ended without session.report(...)")

    def batches(self, loader: Batches[B]) -> Iterator[B]:
        """The epoch's batches, without those done before an interruption; shows a progress bar on a terminal."""
        tracked = self._after_track("batches(...)")
        if tracked.losses is None or tracked.batches is not None:
            raise SessionError("session.batches(...) is called once in each epoch of session.epochs(...)")
        at, total = tracked.progress, len(loader)
        left = skip_first_batches(loader, at.batches_done) if isinstance(loader, DataLoader) else None
        with epoch_progress(at.epochs_done + 1, self._epochs, total, at.batches_done, shown=self.group.is_first) as bar:
            tracked.batches = total
            for batch in islice(loader, at.batches_done, None) if left is None else left:
                before = at.batches_done
                yield batch
                if at.batches_done != before + 1:
                    raise SessionError(f"batch {before + 1} of {total} ended without session.step(loss)")
                bar.advance()
        tracked.losses.commit()
        tracked.trained = True

    def step(self, loss: Tensor, *, stepped: bool = True, skipped: bool = False) -> None:
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
        tracked.losses.add(group.mean(loss))
        at.batches_done += 1
        if not stepped:
            return
        at.step += 1
        trial.stepped = True
        tracked.losses.end_of_step(at.step)
        tracked.system.end_of_step(at.step, at.epochs_done)
        self._saver.check()  # a failed save raises here
        wait_while_driver_is_stopped(trial.stop, self.log.info)
        if not skipped:
            tracked.state.schedule.step()
        stop, every = group.any(trial.stop.requested), self.config.train.checkpoint_every_steps
        if at.batches_done < tracked.batches and (stop or (every and at.step % every == 0)):
            tracked.losses.commit()
            self._save(score=None, metrics={})
            if stop:
                self._saver.wait()
                trial.update(step=at.step, bytes=tracked.store.size())
                raise Interrupted(f"stopped at step {at.step}, in epoch {at.epochs_done + 1}")

    def report(self, metrics: Mapping[str, float], *, also: Mapping[str, float] | None = None) -> None:
        """Record a trained and validated epoch: its metrics in the journal, its state in a checkpoint.

        Args:
            metrics: also written to the checkpoint and the log; must include the study's metric.
            also: further values, only for the journal.

        Raises:
            SessionError: the epoch's batches are not all done, or the study's metric is missing.
            Interrupted: a signal arrived while it waited for the pruner.
        """
        tracked = self._after_track("report(...)")
        at, config, trial, losses = tracked.progress, self.config, self.trial, tracked.losses
        if losses is None or not tracked.trained:
            done = f": {at.batches_done} of {tracked.batches}" if tracked.batches else ""
            raise SessionError(f"session.report(...) before the epoch's batches were all done{done}")
        if config.study.metric not in metrics:
            raise SessionError(f"session.report(...) lacks {config.study.metric}, which the study maximizes")
        metrics, epoch = self.group.of_first(dict(metrics)), at.epochs_done + 1
        for name, value in {**metrics, **(also or {})}.items():
            tracked.journal.add(name, value, step=at.step, epoch=epoch)
        tracked.journal.commit()  # durable before the checkpoint to which they belong

        objective = metrics[config.study.metric]
        due = epoch % config.retention.min_interval_epochs == 0 or epoch == self._epochs
        at.epochs_done, at.batches_done = epoch, 0
        at.observe(objective, patience=config.train.patience)
        if config.study.pruner != "none" and trial.record.study_id:
            decision = self.group.of_first(trial.decision(epoch))
            if decision.prune:
                at.stop_reason = f"{PRUNED}: {decision.reason}"
        if due or at.stop_reason:  # the last epoch is saved in any case
            at.note_saved(objective, epoch=epoch)
            self._save(score=objective, metrics=metrics)
        tracked.system.end_of_epoch(at.step, at.epochs_done)
        trial.update(epoch=epoch, step=at.step, best=at.best, bytes=tracked.store.size())
        shown = {name: round(value, 4) for name, value in metrics.items() if name.endswith("_loss")}
        shown[config.study.metric] = round(objective, 4)
        self.log.info(f"epoch {epoch} of {self._epochs}", step=at.step, train_loss=round(losses.last, 4), **shown)
        tracked.losses, tracked.trained = None, False

    def finish(self, write_report: Callable[[], object]) -> None:
        """End the trial: write its report durably, then delete the training state and keep the best weights.

        Args:
            write_report: makes and writes the report; called only in the first process, and not if the trial was
                pruned.

        Raises:
            SessionError: there are epochs left to train.
        """
        tracked = self._after_track("finish(...)")
        at, trial = tracked.progress, self.trial
        if at.stop_reason is None and not 0 < self._epochs <= at.epochs_done:
            raise SessionError(f"session.finish(...) after {at.epochs_done} of {self._epochs} epochs")
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
            write_report()
        trial.end("pruned" if pruned else "completed", 0)
        tracked.store.finish()
        if tracked.budget:
            tracked.budget.release()
        trial.update(bytes=tracked.store.size())

    def _save(self, *, score: float | None, metrics: Mapping[str, float]) -> None:
        tracked = self._after_track("save")
        with tracked.system.saving():
            save(tracked.store, self._saver, tracked.state, tracked.identity, score=score, metrics=dict(metrics))


def run(main: Callable[[Session], object], arguments: Sequence[str]) -> NoReturn:
    """Train the trial that the arguments name and whose folder exists, and exit this process with the trial's exit
    code.

    Args:
        main: trains the trial; its last call must be `session.finish(...)`.
        arguments: trial.id=UUID experiments=DIR, and keys that may change on a resume.
    """
    prepare()
    make_private()
    die_with_parent()
    try:
        trial = TrialRun.open(trial_config(arguments))
    except RedSM5Error as error:
        show_error(error)
        sys.exit(1)
    if not trial.done:
        with trial.outcome(), Saver() as saver:
            train(main, trial, saver)
    sys.exit(0)


def train(main: Callable[[Session], object], trial: TrialRun, saver: Saver) -> None:
    """Have `main` train an open trial. The caller turns its exceptions into the trial's outcome."""
    session = Session(trial, saver)
    main(session)
    if not session.ended:
        raise SessionError("the training script ended without session.finish(...)")
