"""Saves and loads the training state: weights, optimizer, scheduler, scaler, random states, progress.

Tensors go to safetensors, the rest to JSON; nothing is pickled. redsm5/engine/storage/store.py commits the bytes. In
this package only this module, models.py, optimizers.py, randomness.py and tensors.py handle tensors.

Saving does not block training: `save` copies the state into preallocated buffers, and a thread hashes, writes and
commits them. At most one save is in flight. The buffers take as much memory as one state.

With several processes per trial, the first one saves. Its checkpoint has the random states of all; everything else is
the same in each. So a trial can be resumed only with the same number of processes.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from redsm5.engine import paths
from redsm5.engine.distributed import ALONE, ProcessGroup
from redsm5.engine.documents import now
from redsm5.engine.errors import IncompatibleCheckpointError
from redsm5.engine.jsonio import dumps, from_json_number, loads
from redsm5.engine.migrations import CHECKPOINT_FORMAT, SCHEMA
from redsm5.engine.records import Best, Manifest
from redsm5.engine.storage import tensors as tensor_files
from redsm5.engine.storage.models import ArrayModel
from redsm5.engine.storage.optimizers import optimizer_state, schedule_state, set_optimizer, set_schedule
from redsm5.engine.storage.randomness import Generators, random_generators, set_random_generators
from redsm5.engine.storage.store import (
    BaseError,
    CheckpointStore,
    Content,
    DamagedCheckpoint,
    load_verified,
    read_verified,
)
from redsm5.engine.storage.tensors import TensorFile
from redsm5.engine.version import code_version

KEPT = "kept."  # begins the names of a script's own tensors


@dataclass
class Progress:
    """How far a trial has come.

    Attributes:
        epochs_done, batches_done: whole epochs, and batches of the current one; (e, 0) at an epoch's end.
        step: optimizer steps done.
        best_score, best_epoch: of the study's metric, among the epochs that are saved; None before the first finite
            score.
        highest_score, epochs_without_gain: the best of all epochs, and how many came since, for early stopping.
        stop_reason: why no further epoch is to be trained, or None.
    """

    epochs_done: int = 0
    batches_done: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    highest_score: float | None = None
    epochs_without_gain: int = 0
    stop_reason: str | None = None

    @property
    def best(self) -> Best | None:
        """The best epoch so far, as trial.json has it."""
        if self.best_epoch is None or self.best_score is None:
            return None
        return Best(epoch=self.best_epoch, value=self.best_score)

    def note_saved(self, score: float, *, epoch: int, maximize: bool) -> None:
        """This epoch is saved: only such a one can be the best."""
        if _is_better(score, self.best_score, maximize):
            self.best_score, self.best_epoch = score, epoch

    def observe(self, score: float, *, patience: int | None, maximize: bool) -> None:
        """Take an epoch's score into account, saved or not; `patience` epochs without a gain end the training."""
        if _is_better(score, self.highest_score, maximize):
            self.highest_score, self.epochs_without_gain = score, 0
        else:
            self.epochs_without_gain += 1
        if patience is not None and self.epochs_without_gain >= patience:
            self.stop_reason = f"no better score in {patience} epochs"


def _is_better(score: float, best: float | None, maximize: bool) -> bool:
    return math.isfinite(score) and (best is None or (score > best if maximize else score < best))


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is of. It is loaded only into the same.

    Attributes:
        architecture: what must be equal for weights to fit the model.
        head_config: what must be equal for its outputs to mean the same.
        legacy: the values of those keys of head_config that older checkpoints do not have.
    """

    trial_id: str
    architecture: str
    head_config: Mapping[str, Any]
    data_fingerprint: str
    seed: int
    legacy: Mapping[str, Any] = field(default_factory=dict)

    def check(self, manifest: Manifest, where: str) -> None:
        """IncompatibleCheckpointError, with both sides named, if the manifest is of something else."""
        ours = {
            "architecture": self.architecture,
            "head configuration": dict(self.head_config),
            "data fingerprint": self.data_fingerprint,
        }
        theirs = {
            "architecture": manifest.architecture,
            "head configuration": {**self.legacy, **manifest.head_config},
            "data fingerprint": manifest.data_fingerprint,
        }
        different = [f"{k}: checkpoint {theirs[k]}; here {ours[k]}" for k in ours if ours[k] != theirs[k]]
        if different:
            raise IncompatibleCheckpointError(
                "the checkpoint belongs to another model or other data: " + "; ".join(different),
                where=where,
                remedy="Start a new trial, or restore the data and configuration that the checkpoint was made with.",
            )


@dataclass
class TrainingState:
    """Everything that the next optimizer step depends on.

    Attributes:
        model: a module, or arrays.
        optimizer, schedule: None where the model's own state is all.
        scaler: None without fp16.
        group: the processes that train it together.
        kept: tensors of the script's own, saved and restored in place.
        best_in_memory: the best weights, where checkpoints are turned off.
        buffers: by file, the memory in which it is packed.
    """

    model: nn.Module | ArrayModel
    optimizer: Optimizer | None = None
    schedule: LRScheduler | None = None
    scaler: torch.amp.GradScaler | None = None
    progress: Progress = field(default_factory=Progress)
    group: ProcessGroup = ALONE
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    best_in_memory: tuple[Manifest, dict[str, Tensor]] | None = None
    buffers: dict[str, TensorFile] = field(default_factory=dict)

    def pack(self, generators: Sequence[Generators] | None = None) -> dict[str, Content]:
        """The files of a checkpoint, manifest excepted, as they are now; they hold until the next call.

        Args:
            generators: those of each process, in their order; this one's alone, where nothing else is said.
        """
        tensors, plain = optimizer_state(self.optimizer)
        (own, words), *others = generators or [random_generators()]
        tensors |= own | {f"{KEPT}{name}": tensor for name, tensor in self.kept.items()}
        for index, (theirs, _) in enumerate(others, 1):
            tensors |= {f"process.{index}.{name}": tensor for name, tensor in theirs.items()}
        state_json = {
            "optimizer": plain,
            "schedule": schedule_state(self.schedule),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "progress": asdict(self.progress),
            **words,
            SCHEMA: 1,
            "other_processes": [words for _, words in others],
        }
        return {
            paths.WEIGHTS: self._fill(paths.WEIGHTS, self.model.state_dict()),
            paths.STATE_TENSORS: self._fill(paths.STATE_TENSORS, tensors),
            paths.STATE_JSON: dumps(state_json),
        }

    def _fill(self, name: str, tensors: Mapping[str, Tensor]) -> memoryview:
        """One copy of the tensors into this file's buffer, which is reallocated only if they changed shape."""
        if name not in self.buffers or not self.buffers[name].fits(tensors):
            self.buffers.pop(name, None)  # before the new one, so that the two are never there at once
            self.buffers[name] = TensorFile(tensors, pinned=any(t.is_cuda for t in tensors.values()))
        self.buffers[name].fill(tensors)
        return self.buffers[name].content

    def unpack(self, contents: Mapping[str, bytearray]) -> None:
        """Restore everything as it was when it was packed.

        Raises:
            DamagedCheckpoint: a file is malformed; nothing was changed.
        """
        tensors = tensor_files.read(contents[paths.STATE_TENSORS])
        plain = loads(contents[paths.STATE_JSON])
        load_weights(self.model, contents)
        if self.optimizer:
            set_optimizer(self.optimizer, tensors, plain["optimizer"])
        if self.schedule:
            set_schedule(self.schedule, plain["schedule"])
        if self.scaler and plain["scaler"]:
            self.scaler.load_state_dict({name: from_json_number(value) for name, value in plain["scaler"].items()})
        self._set_progress(tensors, plain)
        if rank := self.group.rank:
            own = f"process.{rank}."
            tensors = {name.removeprefix(own): t for name, t in tensors.items() if name.startswith(own)}
            plain = plain["other_processes"][rank - 1]
        set_random_generators(tensors, plain)

    def unpack_progress(self, contents: Mapping[str, bytearray]) -> None:
        """Restore how far the trial has come and what it keeps: all that its next model needs of the one before."""
        self._set_progress(tensor_files.read(contents[paths.STATE_TENSORS]), loads(contents[paths.STATE_JSON]))

    def _set_progress(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        for name, tensor in self.kept.items():
            tensor.copy_(tensors[f"{KEPT}{name}"])
        self.progress = Progress(**plain["progress"])

    def full_bytes(self) -> int:
        """Bytes of one checkpoint's tensors at the most, before the first step too: weights, Adam's two moments, and
        what is kept.
        """
        groups = self.optimizer.param_groups if self.optimizer else []
        parameters: list[Tensor] = [p for group in groups for p in group["params"]]
        return self.weight_bytes() + sum(t.nbytes for t in [*parameters, *parameters, *self.kept.values()])

    def weight_bytes(self) -> int:
        """Bytes of the weights alone."""
        return sum(t.nbytes for t in self.model.state_dict().values())


class Saver:
    """Does the saves of a trial in a thread, one at a time. As a context, it ends with the last one durable."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._in_flight: Future[object] | None = None

    def submit(self, commit: Callable[[], object]) -> None:
        """Begin a save. The one before has been waited for."""
        assert self._in_flight is None
        self._in_flight = self._pool.submit(commit)

    def check(self) -> None:
        """Raise what the save in flight failed with, if it has."""
        if self._in_flight and self._in_flight.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the save in flight, and raise its error, if it failed."""
        in_flight, self._in_flight = self._in_flight, None
        if in_flight:
            in_flight.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._pool.shutdown()
        if error is None:
            self.wait()


def seed_everything(seed: int) -> None:
    """Seed every generator. The order of the data has its own, a function of (seed, epoch)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def save(
    store: CheckpointStore,
    saver: Saver,
    state: TrainingState,
    identity: Identity,
    *,
    score: float | None,
    metrics: dict[str, float],
) -> None:
    """Begin to commit the state as it is now; it is durable after `saver.wait()`, or the next save's beginning.

    All processes of the trial call it, and the first one saves.

    Raises:
        DiskError, OSError: the save before this one failed.
    """
    saver.wait()  # its buffers are ours from here on
    generators = state.group.gathered(random_generators())
    if not state.group.is_first:
        return
    progress = state.progress
    manifest = Manifest(
        format_version=CHECKPOINT_FORMAT,
        code_version=code_version(),
        trial_id=identity.trial_id,
        architecture=identity.architecture,
        head_config=dict(identity.head_config),
        epoch=progress.epochs_done,
        batches_done=progress.batches_done,
        step=progress.step,
        score=score,
        metrics=metrics,
        data_fingerprint=identity.data_fingerprint,
        seed=identity.seed,
        created_at=now(),
    )
    if not store.policy.enabled:
        is_best = progress.best_epoch in (None, progress.epochs_done)  # without any score, the newest
        if is_best and progress.batches_done == 0:
            state.best_in_memory = manifest, {k: v.detach().clone() for k, v in state.model.state_dict().items()}
        return
    contents = state.pack(generators)
    saver.submit(lambda: store.commit(manifest, contents))


def newest(store: CheckpointStore) -> tuple[int, int]:
    """(whole epochs, batches of the next one) of the newest checkpoint that verifies; (0, 0) without one."""
    found = next(_newest_first(store), None)
    return (found[1].epoch, found[1].batches_done) if found else (0, 0)


def _newest_first(store: CheckpointStore) -> Iterator[tuple[str, Manifest, Mapping[str, Any]]]:
    """(name, manifest, files) of the checkpoints that a trial can go on from; damaged ones are quarantined."""
    resumable = sorted((c for c in store.checkpoints() if c.resumable), key=lambda c: (c.step, not c.mid_epoch))
    for checkpoint in reversed(resumable):
        folder = store.folder / checkpoint.name
        try:
            verified = read_verified(folder)
        except (DamagedCheckpoint, BaseError) as error:
            store.quarantine(checkpoint.name, str(error))
            continue
        yield checkpoint.name, *load_verified(verified, folder)


def resume(
    store: CheckpointStore,
    state: TrainingState,
    identity: Identity,
    log: Callable[..., object],
    *,
    of_another_model: bool = False,
) -> Progress:
    """Load the newest checkpoint that verifies into the state, and return how far it had come.

    A damaged one is quarantined and the next older one used; with none left, the trial starts at epoch 0 and says so.
    Of several processes the first one chooses, and the others load what it has.

    Args:
        of_another_model: the checkpoint ends the training of the trial's model before this one.

    Raises:
        IncompatibleCheckpointError: the checkpoint is of another model, other data or another format, or of a training
            by another number of processes.
    """
    unpack = state.unpack_progress if of_another_model else state.unpack
    if not state.group.is_first:
        if chosen := state.group.of_first(""):
            folder = store.folder / chosen
            unpack(load_verified(read_verified(folder), folder)[1])
        return state.progress
    had_any = bool(store.names())
    for name, manifest, contents in _newest_first(store):
        folder = store.folder / name
        same = replace(identity, architecture=manifest.architecture) if of_another_model else identity
        same.check(manifest, str(folder))
        _check_processes(contents, state.group.world_size, str(folder))
        try:
            unpack(contents)
        except DamagedCheckpoint as error:
            store.quarantine(name, str(error))
            continue
        state.group.of_first(name)
        log("resumed", checkpoint=name, epoch=state.progress.epochs_done, step=state.progress.step)
        return state.progress
    if had_any:
        log("no valid checkpoint is left: the trial restarts at epoch 0")
    state.group.of_first("")
    return state.progress


def _check_processes(contents: Mapping[str, bytearray], count: int, where: str) -> None:
    before = 1 + len(loads(contents[paths.STATE_JSON]).get("other_processes", []))
    if before != count:
        raise IncompatibleCheckpointError(
            f"the checkpoint was saved by {before} processes, each with its own random state; this run has {count}",
            where=where,
            remedy=f"Resume with {before} processes (launch, REDSM5_PROCESSES), or start a new trial.",
        )


def load_best(folder: Path, model: nn.Module | ArrayModel, identity: Identity) -> Manifest:
    """Verify a checkpoint, load its weights and return its manifest.

    Raises:
        DamagedCheckpoint: it does not verify.
        IncompatibleCheckpointError: it is of another model or other data.
    """
    manifest, contents = load_verified(read_verified(folder), folder)
    identity.check(manifest, str(folder))
    load_weights(model, contents)
    return manifest


def load_weights(model: nn.Module | ArrayModel, contents: Mapping[str, bytearray]) -> None:
    model.load_state_dict(tensor_files.read(contents[paths.WEIGHTS]))
