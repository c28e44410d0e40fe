"""The protocol of a trial, owned by one object: a training script tells it what it trains and what came of it.

```python
def main(session: Session) -> None:
    accelerator = Accelerator()                          # data, model, optimizer, as in any script
    session.track(model, optimizer, schedule, ...)       # resumes: from here on all is as it was
    for epoch in session.epochs(3):
        for batch in session.batches(loader):            # those that are not done yet
            ...                                          # forward, backward, optimizer.step()
            session.step(loss)
        session.report({"val_f1": score})                # journal, then checkpoint, then pruner
    session.finish(write_report)


if __name__ == "__main__":
    run(main, sys.argv[1:])
```

What a crash leaves at any moment is a trial that resumes to the same bits, since the order in here does not change: a
metric is in the journal before the checkpoint of its epoch, the checkpoint is whole before the one before it goes, the
report is there before the trial is completed, and the training state goes last. A call out of order is an error with a
sentence, before anything is written.
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

from redsm5.distributed import ProcessGroup
from redsm5.errors import Interrupted, RedSM5Error, TrainingError, show_error
from redsm5.files import make_private
from redsm5.records import Manifest
from redsm5.storage.budget import Budget
from redsm5.storage.checkpoint import Identity, Progress, Saver, TrainingState, resume, save
from redsm5.storage.store import CheckpointStore
from redsm5.study.resuming import trial_config
from redsm5.study.signals import die_with_parent, wait_while_driver_is_stopped
from redsm5.study.trial import open_store
from redsm5.study.trial_run import TrialRun
from redsm5.surroundings import prepare
from redsm5.tracking.journal import Journal, StepLosses
from redsm5.tracking.progress import epoch_progress
from redsm5.tracking.system import SystemMetrics, Usage, meter

B = TypeVar("B", covariant=True)


class Batches(Sized, Iterable[B], Protocol[B]):
    """What knows how many batches it has, and gives the same ones whenever an epoch is iterated."""


PRUNED = "pruned"


class SessionError(TrainingError):
    """A training script called its session out of order."""

    kind = "session"


@dataclass
class _Tracked:
    """What there is once the script has named what it trains.

    Attributes:
        losses: of the epoch at hand; None between epochs.
        batches: how many it has, once they are asked for. trained: whether they are all done.
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
    """A trial, as the script that trains it sees it.

    Attributes:
        config: the trial's configuration.
        log: its log.
        ended: whether the trial has its outcome.
    """

    def __init__(self, trial: TrialRun, saver: Saver) -> None:
        self.trial, self.config, self.log = trial, trial.config, trial.log
        self._saver = saver
        self._tracked: _Tracked | None = None
        self._epochs = 0
        self.ended = False

    @cached_property
    def group(self) -> ProcessGroup:
        """This process among those that train the trial; asked for once Accelerate has brought them together."""
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
        """The best epoch's weights, where checkpoints are turned off."""
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
        """Name everything that the next step depends on, and put it back as the newest checkpoint has it.

        Args:
            model: not wrapped, so that its weights have their own names.
            optimizer: the one that steps, not a wrapper of it.
            identity: what the checkpoints are of; one of something else is refused.
            scaler: with fp16, Accelerate's.
            usage: measures what the process uses; by default its memory, and that of the model's device.

        Raises:
            DiskError: the trial does not fit into the study's budget.
            IncompatibleCheckpointError: its checkpoints are of another model or other data.
            SessionError: it was called before.
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
        """The epochs that are still to be trained, from 1; fewer where patience or the pruner ends the trial."""
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
        """The epoch's batches that were not done before an interruption, with a progress bar on a terminal."""
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
        """A batch is done.

        It is the only place where a trial stops: no gradient is half summed.

        Args:
            loss: this process's, a scalar.
            stepped: whether the optimizer stepped with it, which it does once for the batches that are accumulated.
            skipped: whether it was skipped, as fp16 does where gradients overflowed; then the schedule does not step.

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
        self._saver.check()  # a save that failed fails the trial here
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
        """An epoch is trained and validated: its metrics into the journal, its state into a checkpoint.

        Args:
            metrics: what the checkpoint and the log have too; the study's metric is among them.
            also: further values for the journal.

        Raises:
            SessionError: the epoch's batches are not all done, or the study's metric is missing.
            Interrupted: a signal came while it waited for the pruner.
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
        tracked.journal.commit()  # on disk before the checkpoint that they belong to

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
        """The trial ends: its report first, durable, then the training state goes and the best weights stay.

        Args:
            write_report: makes the report and writes it; called in the first process, unless the trial is pruned.

        Raises:
            SessionError: epochs are left to be trained.
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
    """Train the trial that the arguments name, whose folder exists, and end this process with the trial's exit code.

    Args:
        main: trains it; `session.finish(...)` is its last call.
        arguments: trial.id=UUID experiments=DIR, and what may change on a resume.
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
    """Have `main` train an open trial. The caller turns what it raises into the trial's outcome."""
    session = Session(trial, saver)
    main(session)
    if not session.ended:
        raise SessionError("the training script ended without session.finish(...)")
