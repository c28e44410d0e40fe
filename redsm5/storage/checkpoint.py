"""What training depends on, to bytes and back: weights, optimizer, schedule, scaler, random generators, progress.

Tensors go to safetensors, the rest to JSON; nothing is pickled. The bytes are committed by redsm5/storage/store.py.
Only this module of the package knows tensors.
"""

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from redsm5 import code_version, paths
from redsm5.config import Config
from redsm5.errors import IncompatibleCheckpointError, NoCheckpointError
from redsm5.model import MultiTaskModel, architecture, head_config
from redsm5.records import Best, Manifest, now
from redsm5.storage.store import FORMAT_VERSION, CheckpointStore, DamagedCheckpoint, read_verified


@dataclass
class Progress:
    """How far a trial has come.

    Attributes:
        epochs_done, batches_done: whole epochs, and batches of the current one; (e, 0) at an epoch's end.
        step: optimizer steps done.
        best_score, best_epoch: of the metric that the study maximizes; None before the first finite score.
        epochs_without_gain: epochs since `best_epoch`, for early stopping.
        stop_reason: why no further epoch is to be trained, or None.
    """

    epochs_done: int = 0
    batches_done: int = 0
    step: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    epochs_without_gain: int = 0
    stop_reason: str | None = None

    @property
    def best(self) -> Best | None:
        """The best epoch so far, as it stands in trial.json."""
        if self.best_epoch is None or self.best_score is None:
            return None
        return Best(epoch=self.best_epoch, value=self.best_score)

    def observe(self, score: float | None, *, epoch: int, patience: int | None) -> None:
        """Take an epoch's score into account; `patience` epochs without a gain end the training."""
        if score is not None and math.isfinite(score) and (self.best_score is None or score > self.best_score):
            self.best_score, self.best_epoch, self.epochs_without_gain = score, epoch, 0
        else:
            self.epochs_without_gain += 1
        if patience is not None and self.epochs_without_gain >= patience:
            self.stop_reason = f"no better score in {patience} epochs"


@dataclass(frozen=True)
class Identity:
    """What a checkpoint is of. It is loaded only into the same."""

    trial_id: str
    architecture: str
    head_config: Mapping[str, Any]
    data_fingerprint: str
    seed: int

    @classmethod
    def of(cls, config: Config, model: MultiTaskModel, data_fingerprint: str) -> Self:
        assert config.trial.id is not None
        return cls(config.trial.id, architecture(model), head_config(config.model), data_fingerprint, config.train.seed)

    def check(self, manifest: Manifest, where: str) -> None:
        """IncompatibleCheckpointError, with both sides named, if the manifest is of something else."""
        ours = {
            "format version": FORMAT_VERSION,
            "architecture": self.architecture,
            "head configuration": dict(self.head_config),
            "data fingerprint": self.data_fingerprint,
        }
        theirs = {
            "format version": manifest.format_version,
            "architecture": manifest.architecture,
            "head configuration": manifest.head_config,
            "data fingerprint": manifest.data_fingerprint,
        }
        different = [f"{k}: checkpoint {theirs[k]}; here {ours[k]}" for k in ours if ours[k] != theirs[k]]
        if different:
            raise IncompatibleCheckpointError(
                "the checkpoint is of another model or other data: " + "; ".join(different),
                where=where,
                remedy="Start a new trial, or restore the data and configuration that the checkpoint was made with.",
            )


@dataclass
class TrainingState:
    """Everything that the next optimizer step depends on. `scaler` is None without fp16."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    scaler: torch.amp.GradScaler | None
    progress: Progress = field(default_factory=Progress)

    def pack(self) -> dict[str, bytes]:
        """The files of a checkpoint, manifest excepted."""
        tensors, plain = _split_optimizer(self.optimizer.state_dict())
        tensors["rng.torch"] = torch.get_rng_state()
        for index, state in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []):
            tensors[f"rng.cuda.{index}"] = state
        name, keys, *rest = np.random.get_state(legacy=True)
        tensors["rng.numpy"] = torch.from_numpy(np.asarray(keys, dtype=np.int64))
        state_json = {
            "optimizer": plain,
            "schedule": {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"},
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "progress": asdict(self.progress),
            "rng_numpy": [name, *rest],
            "rng_python": random.getstate(),
        }
        return {
            paths.WEIGHTS: _to_safetensors(self.model.state_dict()),
            paths.STATE_TENSORS: _to_safetensors(tensors),
            paths.STATE_JSON: json.dumps(state_json).encode(),
        }

    def unpack(self, contents: Mapping[str, bytes]) -> None:
        """Put everything back as it was when it was packed."""
        load_weights(self.model, contents)
        tensors = safetensors.torch.load(contents[paths.STATE_TENSORS])
        plain = json.loads(contents[paths.STATE_JSON])
        self.optimizer.load_state_dict(_join_optimizer(tensors, plain["optimizer"]))
        self.schedule.load_state_dict({**plain["schedule"], "lr_lambdas": [None] * len(self.optimizer.param_groups)})
        if self.scaler and plain["scaler"]:
            self.scaler.load_state_dict(plain["scaler"])
        self.progress = Progress(**plain["progress"])
        torch.set_rng_state(tensors["rng.torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all([tensors[k] for k in sorted(tensors) if k.startswith("rng.cuda.")])
        name, *rest = plain["rng_numpy"]
        np.random.set_state((name, tensors["rng.numpy"].numpy().astype(np.uint32), *rest))
        version, internal, gauss = plain["rng_python"]
        random.setstate((version, tuple(internal), gauss))


def seed_everything(seed: int) -> None:
    """Seed every generator. The order of the data has its own, a function of (seed, epoch)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def save(
    store: CheckpointStore, state: TrainingState, identity: Identity, *, score: float | None, metrics: dict[str, float]
) -> str:
    """Commit the state as it is now; when this returns, it is durable."""
    progress = state.progress
    manifest = Manifest(
        format_version=FORMAT_VERSION,
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
    return store.commit(manifest, state.pack())


def resume(store: CheckpointStore, state: TrainingState, identity: Identity, log: Callable[..., object]) -> Progress:
    """Load the newest checkpoint that verifies into the state, and return how far it had come.

    A damaged one is set aside and the next older one used; with none left, the trial starts at epoch 0 and says so.

    Raises:
        IncompatibleCheckpointError: the checkpoint is of another model, other data or another format.
    """
    had_any = bool(store.names())
    resumable = sorted((c for c in store.checkpoints() if c.resumable), key=lambda c: (c.step, not c.mid_epoch))
    for checkpoint in reversed(resumable):
        folder = store.folder / checkpoint.name
        try:
            contents = read_verified(folder)
        except DamagedCheckpoint as error:
            store.set_aside(checkpoint.name, str(error))
            continue
        identity.check(Manifest.model_validate_json(contents[paths.MANIFEST]), str(folder))
        state.unpack(contents)
        log("resumed", checkpoint=checkpoint.name, epoch=state.progress.epochs_done, step=state.progress.step)
        return state.progress
    if had_any:
        log("no checkpoint is left that verifies: the trial starts again at epoch 0")
    return state.progress


def load_best(folder: Path, model: nn.Module, identity: Identity) -> Manifest:
    """Verify a checkpoint, load its weights and return its manifest.

    Raises:
        NoCheckpointError: it does not verify.
        IncompatibleCheckpointError: it is of another model or other data.
    """
    try:
        contents = read_verified(folder)
    except DamagedCheckpoint as error:
        raise NoCheckpointError(str(error), remedy="Train a new trial with the same configuration.") from None
    manifest = Manifest.model_validate_json(contents[paths.MANIFEST])
    identity.check(manifest, str(folder))
    load_weights(model, contents)
    return manifest


def load_weights(model: nn.Module, contents: Mapping[str, bytes]) -> None:
    model.load_state_dict(safetensors.torch.load(contents[paths.WEIGHTS]))


def _to_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def _split_optimizer(state_dict: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors named `optimizer.<parameter>.<field>`, and the rest, which JSON can hold."""
    tensors, plain = {}, {}
    for index, fields in state_dict["state"].items():
        for name, value in fields.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain[f"{index}.{name}"] = value
    return tensors, {"param_groups": state_dict["param_groups"], "plain": plain}


def _join_optimizer(tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    named = {k.removeprefix("optimizer."): v for k, v in tensors.items() if k.startswith("optimizer.")}
    for name, value in {**named, **plain["plain"]}.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": plain["param_groups"]}
