"""A resumed training is the one that was interrupted, bit for bit; what does not fit is refused, both sides named."""

import dataclasses
import hashlib
import json
import math
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from redsm5.config import Config, compose
from redsm5.engine import paths
from redsm5.engine.errors import IncompatibleCheckpointError
from redsm5.engine.migrations import CHECKPOINT_FORMAT
from redsm5.engine.storage.checkpoint import (
    Identity,
    Progress,
    Saver,
    TrainingState,
    load_best,
    resume,
    save,
    seed_everything,
)
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore, DamagedCheckpoint, listed_digests, sums
from redsm5.model import MultiTaskModel, build_criteria_loss, build_optimizer, build_schedule, multitask_loss
from redsm5.model import identity_of as model_identity
from tests.model.batch import VOCABULARY, random_batch

STEPS = 12
TRIAL = "trial.id=0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
FINGERPRINT = "ab" * 32


def configuration(*overrides: str) -> Config:
    return compose([TRIAL, "model.max_length=16", "train.warmup_ratio=0.25", *overrides])


def fresh(config: Config, *, seed: int = 42) -> TrainingState:
    seed_everything(seed)
    model = MultiTaskModel(config.model, vocab_size=VOCABULARY)
    optimizer = build_optimizer(model, config.train)
    return TrainingState(model, optimizer, build_schedule(optimizer, config.train, total_steps=STEPS), scaler=None)


def train_step(state: TrainingState, config: Config) -> tuple[float, ...]:
    """One step over random posts with dropout on: it depends on weights, moments, rate and every random generator."""
    state.model.train()
    batch = random_batch(seed=random.randrange(1000))
    batch["input_ids_ST"] = torch.from_numpy(np.random.randint(1, VOCABULARY, batch["input_ids_ST"].shape))
    criteria_loss = build_criteria_loss(config.train, batch["labels_NC"])
    loss = multitask_loss(state.model(batch), batch, criteria_loss, config.train.task_weights)
    loss.backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.schedule.step()
    state.progress.step += 1
    return loss.item(), state.schedule.get_last_lr()[0], random.random(), float(np.random.rand()), torch.rand(1).item()


def packed_copy(state: TrainingState) -> dict[str, bytearray]:
    """What a checkpoint of this state would hold, as bytes of their own."""
    return {name: bytearray(content) for name, content in state.pack().items()}


def same_bits(a: TrainingState, b: TrainingState) -> bool:
    return packed_copy(a) == packed_copy(b)


def same_weights(a: TrainingState, b: TrainingState) -> bool:
    theirs = b.model.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.model.state_dict().items())


def save_now(
    store: CheckpointStore, state: TrainingState, config: Config, *, score: float | None, metrics: dict[str, float]
) -> None:
    with Saver() as saver:
        save(store, saver, state, identity_of(state, config), score=score, metrics=metrics)


def store_at(trial_dir: Path, policy: Policy | None = None) -> CheckpointStore:
    return CheckpointStore(trial_dir, policy or Policy(keep_last_n=2), log=lambda *_, **__: None)


def identity_of(state: TrainingState, config: Config, fingerprint: str = FINGERPRINT) -> Identity:
    return model_identity(config, state.model, fingerprint)


def save_epochs(store: CheckpointStore, state: TrainingState, config: Config, epochs: int) -> None:
    """Train and save this many epochs of one step."""
    for epoch in range(1, epochs + 1):
        train_step(state, config)
        state.progress.epochs_done = epoch
        state.progress.note_saved(epoch / 10, epoch=epoch, maximize=True)
        save_now(store, state, config, score=epoch / 10, metrics={"val_f1_macro": epoch / 10})


# ---------------------------------------------------------------------------------------------------------------------
# round trip


@pytest.mark.parametrize("steps_before", [0, 1, 5])
def test_the_steps_after_a_load_are_bit_identical_to_those_without_one(steps_before: int) -> None:
    config = configuration()
    state = fresh(config)
    for _ in range(steps_before):
        train_step(state, config)
    packed = packed_copy(state)
    expected = [train_step(state, config) for _ in range(4)]

    other = fresh(config, seed=7)
    train_step(other, config)  # whatever it was before, it is put back
    other.unpack(packed)
    assert [train_step(other, config) for _ in range(4)] == expected
    assert same_bits(state, other)


def test_packing_what_was_unpacked_gives_the_same_bytes() -> None:
    config = configuration()
    state = fresh(config)
    for _ in range(3):
        train_step(state, config)
    np.random.standard_normal()  # NumPy's and Python's generators hold back every second normal number
    random.gauss(0, 1)
    state.progress = Progress(2, 3, 17, 0.5, 1, 1, "no better score in 1 epochs")
    packed = packed_copy(state)
    other = fresh(config, seed=7)
    other.unpack(packed)
    assert other.progress == state.progress
    assert packed_copy(other) == packed


def test_packing_changes_nothing() -> None:
    config = configuration()
    state, same = fresh(config), fresh(config)
    seed_everything(1)
    expected = [train_step(same, config) for _ in range(3)]
    seed_everything(1)
    losses = []
    for _ in range(3):
        state.pack()
        losses.append(train_step(state, config))
    assert losses == expected


def test_the_state_is_safetensors_and_json_and_nothing_is_pickled() -> None:
    packed = packed_copy(fresh(configuration()))
    assert set(packed) == {paths.WEIGHTS, paths.STATE_TENSORS, paths.STATE_JSON}
    json.loads(packed[paths.STATE_JSON])
    for name in (paths.WEIGHTS, paths.STATE_TENSORS):
        length = int.from_bytes(packed[name][:8], "little")
        json.loads(packed[name][8 : 8 + length])


def test_a_gradient_scaler_goes_with_the_state() -> None:
    config = configuration()
    state, other = fresh(config), fresh(config)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**9)
    other.scaler = torch.amp.GradScaler("cpu")
    other.unpack(packed_copy(state))
    assert other.scaler.state_dict()["scale"] == 2.0**9


# ---------------------------------------------------------------------------------------------------------------------
# progress


def test_patience_counts_the_epochs_without_a_gain() -> None:
    progress = Progress()
    for epoch, score in enumerate([0.5, 0.6, 0.6, float("nan")], start=1):
        progress.observe(score, patience=3, maximize=True)
        progress.note_saved(score, epoch=epoch, maximize=True)
    assert (progress.best_score, progress.best_epoch, progress.epochs_without_gain) == (0.6, 2, 2)
    assert progress.stop_reason is None
    progress.observe(math.nan, patience=3, maximize=True)
    progress.note_saved(math.nan, epoch=5, maximize=True)
    assert progress.stop_reason == "no better score in 3 epochs"


def test_what_is_saved_decides_nothing_about_when_the_training_ends() -> None:
    saved, sparse = Progress(), Progress()
    for epoch, score in enumerate([0.1, 0.3, 0.2, 0.4, 0.35, 0.3], start=1):
        for progress in (saved, sparse):
            progress.observe(score, patience=2, maximize=True)
        saved.note_saved(score, epoch=epoch, maximize=True)
        if epoch % 3 == 0:
            sparse.note_saved(score, epoch=epoch, maximize=True)
        assert saved.stop_reason == sparse.stop_reason
    assert saved.stop_reason
    assert (saved.best_epoch, sparse.best_epoch) == (4, 6)


def test_without_patience_training_never_stops_by_itself() -> None:
    progress = Progress()
    for _ in range(50):
        progress.observe(0.1, patience=None, maximize=True)
    assert progress.stop_reason is None


# ---------------------------------------------------------------------------------------------------------------------
# resume


def test_resume_takes_the_newest_checkpoint(tmp_path: Path) -> None:
    config = configuration()
    state = fresh(config)
    save_epochs(store_at(tmp_path), state, config, 3)
    other, said = fresh(config, seed=7), []
    at = resume(store_at(tmp_path), other, identity_of(other, config), log=lambda s, **facts: said.append((s, facts)))
    assert (at.epochs_done, at.step, at.best_epoch) == (3, 3, 3)
    assert said == [("resumed", {"checkpoint": "epoch-0003", "epoch": 3, "step": 3})]
    assert same_bits(state, other)


def test_resume_goes_on_in_mid_epoch(tmp_path: Path) -> None:
    config = configuration()
    state, store = fresh(config), store_at(tmp_path)
    save_epochs(store, state, config, 1)
    train_step(state, config)
    state.progress.batches_done = 1
    save_now(store, state, config, score=None, metrics={})
    expected = train_step(state, config)
    other = fresh(config, seed=7)
    at = resume(store_at(tmp_path), other, identity_of(other, config), log=lambda *_, **__: None)
    assert (at.epochs_done, at.batches_done, at.step) == (1, 1, 2)
    assert train_step(other, config) == expected


@pytest.mark.parametrize("name", [paths.WEIGHTS, paths.STATE_TENSORS, paths.STATE_JSON, paths.MANIFEST, paths.SUMS])
def test_a_damaged_newest_checkpoint_is_quarantined_and_the_older_one_used(tmp_path: Path, name: str) -> None:
    config = configuration()
    save_epochs(store_at(tmp_path), fresh(config), config, 2)
    flip_a_bit(tmp_path / paths.CHECKPOINTS / "epoch-0002" / name)
    state = fresh(config, seed=7)
    store = store_at(tmp_path)
    at = resume(store, state, identity_of(state, config), log=lambda *_, **__: None)
    assert (at.epochs_done, at.step) == (1, 1)
    assert (store.folder / ".damaged-epoch-0002" / name).exists()
    again = train_step(state, config)
    same = fresh(config)
    train_step(same, config)
    assert train_step(same, config) == again, "the second epoch is trained again as it was"


@pytest.mark.parametrize(("flips", "truncations"), [(90, 10), pytest.param(1000, 100, marks=pytest.mark.long)])
def test_every_flipped_bit_and_every_truncation_is_noticed_and_the_trial_goes_on(
    tmp_path: Path, flips: int, truncations: int
) -> None:
    """Every other time an older checkpoint is there, which is resumed from; else the trial starts at epoch 0."""
    config, dice = configuration(), random.Random(flips)
    save_epochs(store_at(tmp_path / "whole"), fresh(config), config, 2)
    whole = tmp_path / "whole" / paths.CHECKPOINTS
    names = sorted(p.name for p in (whole / "epoch-0002").iterdir())
    assert len(names) == 5
    older = fresh(config)
    train_step(older, config)
    for number in range(flips + truncations):
        trial, newest = tmp_path / "trial", "epoch-0002"
        for checkpoint in ("epoch-0001", newest)[number % 2 :]:
            shutil.copytree(whole / checkpoint, trial / paths.CHECKPOINTS / checkpoint, copy_function=os.link)
        path = trial / paths.CHECKPOINTS / newest / names[number % 5]
        content = bytearray(path.read_bytes())
        if number < flips:
            bit = dice.randrange(len(content) * 8)
            content[bit // 8] ^= 1 << bit % 8
        else:
            del content[dice.randrange(len(content)) :]
        path.unlink()  # a link to the whole one
        path.write_bytes(content)
        state = fresh(config, seed=7)
        store = store_at(trial)
        at = resume(store, state, identity_of(state, config), log=lambda *_, **__: None)
        assert at.step == 1 - number % 2, f"{path.name}, damage {number}"
        assert same_weights(state, older if at.step else fresh(config, seed=7))
        # A list that is cut right behind its weights is that of a checkpoint whose state was dropped, and stays.
        stripped = path.name == paths.SUMS and content == sums(dict(list(listed_digests(whole / newest).items())[:2]))
        kept = newest if stripped else f".damaged-{newest}"
        assert (store.folder / kept / path.name).read_bytes() == content
        shutil.rmtree(trial)


def test_with_no_checkpoint_left_the_trial_starts_at_epoch_0_and_says_so(tmp_path: Path) -> None:
    config = configuration()
    save_epochs(store_at(tmp_path), fresh(config), config, 2)
    for folder in (tmp_path / paths.CHECKPOINTS).iterdir():
        flip_a_bit(folder / paths.WEIGHTS)
    state, untouched, said = fresh(config, seed=7), fresh(config, seed=7), []
    at = resume(store_at(tmp_path), state, identity_of(state, config), log=lambda s, **_: said.append(s))
    assert at == Progress()
    assert any("epoch 0" in sentence for sentence in said)
    assert same_bits(state, untouched), "a damaged checkpoint leaves no trace in the state"


def test_with_descriptions_unreadable_too_the_trial_says_that_it_starts_at_epoch_0(tmp_path: Path) -> None:
    config = configuration()
    save_epochs(store_at(tmp_path), fresh(config), config, 1)
    (tmp_path / paths.CHECKPOINTS / "epoch-0001" / paths.MANIFEST).unlink()
    state, said = fresh(config, seed=7), []
    at = resume(store_at(tmp_path), state, identity_of(state, config), log=lambda s, **_: said.append(s))
    assert at == Progress()
    assert any("epoch 0" in sentence for sentence in said)


def test_a_new_trial_starts_at_epoch_0_and_has_nothing_to_say(tmp_path: Path) -> None:
    config = configuration()
    state, said = fresh(config), []
    assert (
        resume(store_at(tmp_path), state, identity_of(state, config), log=lambda s, **_: said.append(s)) == Progress()
    )
    assert said == []


def test_weights_alone_are_not_resumed_from(tmp_path: Path) -> None:
    config = configuration()
    store = store_at(tmp_path)
    save_epochs(store, fresh(config), config, 1)
    store.finish()
    state = fresh(config, seed=7)
    assert resume(store_at(tmp_path), state, identity_of(state, config), log=lambda *_, **__: None) == Progress()


# ---------------------------------------------------------------------------------------------------------------------
# refusals


def test_another_architecture_is_refused_with_both_sides(tmp_path: Path) -> None:
    config = configuration()
    save_epochs(store_at(tmp_path), fresh(config), config, 1)
    wider = fresh(config)
    wider.model = MultiTaskModel(config.model, vocab_size=VOCABULARY + 1)
    with pytest.raises(IncompatibleCheckpointError) as caught:
        resume(store_at(tmp_path), wider, identity_of(wider, config), log=lambda *_, **__: None)
    assert f"vocabulary {VOCABULARY}," in str(caught.value)
    assert f"vocabulary {VOCABULARY + 1}," in str(caught.value)
    assert caught.value.exit_code == 1
    assert (tmp_path / paths.CHECKPOINTS / "epoch-0001").is_dir(), "it is whole, and stays"


def test_another_head_is_refused_with_both_sides(tmp_path: Path) -> None:
    config, longer = configuration(), configuration("model.max_length=24")
    save_epochs(store_at(tmp_path), fresh(config), config, 1)
    state = fresh(config)
    with pytest.raises(IncompatibleCheckpointError) as caught:
        resume(store_at(tmp_path), state, identity_of(state, longer), log=lambda *_, **__: None)
    assert "head configuration" in str(caught.value)
    assert "'max_length': 16" in str(caught.value)
    assert "'max_length': 24" in str(caught.value)


def test_other_data_is_refused_with_both_sides(tmp_path: Path) -> None:
    config = configuration()
    save_epochs(store_at(tmp_path), fresh(config), config, 1)
    state = fresh(config)
    with pytest.raises(IncompatibleCheckpointError, match="data fingerprint") as caught:
        resume(store_at(tmp_path), state, identity_of(state, config, "cd" * 32), log=lambda *_, **__: None)
    assert "ab" * 32 in str(caught.value)
    assert "cd" * 32 in str(caught.value)
    assert caught.value.remedy


def test_a_later_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """A checkpoint that a later version wrote is whole: it is neither damaged nor to be quarantined."""
    config = configuration()
    state, store = fresh(config), store_at(tmp_path)
    save_epochs(store, state, config, 1)
    folder = store.folder / "epoch-0001"
    later = json.loads((folder / paths.MANIFEST).read_bytes()) | {
        "format_version": CHECKPOINT_FORMAT + 1,
        "something_new": 1,
    }
    (folder / paths.MANIFEST).write_text(json.dumps(later))
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != paths.SUMS}
    (folder / paths.SUMS).write_bytes(sums(digests))
    with pytest.raises(
        IncompatibleCheckpointError,
        match=f"format version {CHECKPOINT_FORMAT + 1}; this version of redsm5 reads 1 to {CHECKPOINT_FORMAT}",
    ):
        resume(store_at(tmp_path), fresh(config), identity_of(state, config), log=lambda *_, **__: None)
    assert [p.name for p in store.folder.iterdir()] == ["epoch-0001"]


def test_the_dropout_is_no_part_of_what_a_checkpoint_is_of() -> None:
    config, other = configuration(), configuration("model.criteria_dropout=0.3")
    state = fresh(config)
    assert identity_of(state, config) == identity_of(state, other)
    assert dataclasses.asdict(identity_of(state, config))["data_fingerprint"] == FINGERPRINT


def test_the_best_weights_are_loaded_from_a_stripped_checkpoint(tmp_path: Path) -> None:
    config = configuration()
    state, store = fresh(config), store_at(tmp_path)
    save_epochs(store, state, config, 1)
    store.finish()
    other = fresh(config, seed=7)
    manifest = load_best(store.folder / "epoch-0001", other.model, identity_of(other, config))
    assert (manifest.epoch, manifest.score, manifest.metrics) == (1, 0.1, {"val_f1_macro": 0.1})
    assert packed_copy(other)[paths.WEIGHTS] == state.pack()[paths.WEIGHTS]


def test_damaged_best_weights_are_not_loaded(tmp_path: Path) -> None:
    config = configuration()
    state, store = fresh(config), store_at(tmp_path)
    save_epochs(store, state, config, 1)
    flip_a_bit(store.folder / "epoch-0001" / paths.WEIGHTS)
    before = packed_copy(state)[paths.WEIGHTS]
    with pytest.raises(DamagedCheckpoint, match="epoch-0001"):
        load_best(store.folder / "epoch-0001", state.model, identity_of(state, config))
    assert packed_copy(state)[paths.WEIGHTS] == before


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
