"""Every checkpoint that a trial ever had is told of, with what is left of it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.records import Manifest
from redsm5.engine.storage.history import checkpoint_history
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from tests.engine.storage.saver import contents

COMMITTER = Path(__file__).with_name("committer.py")
MakeManifest = Callable[..., Manifest]


def open_store(trial_dir: Path) -> CheckpointStore:
    return CheckpointStore(trial_dir, Policy(), log=lambda *_, **__: None)


def test_kept_stripped_and_deleted_checkpoints_are_told_with_their_reasons(
    tmp_path: Path, manifest: MakeManifest
) -> None:
    store = open_store(tmp_path)
    for epoch, score in enumerate([0.9, 0.5, 0.6], start=1):
        store.commit(manifest(epoch, score=score), contents(epoch))
    found = checkpoint_history(tmp_path)
    assert [(c.checkpoint, c.epoch, c.step, c.score, c.on_disk, c.action) for c in found] == [
        ("epoch-0001", 1, 10, 0.9, "weights", "keep"),
        ("epoch-0002", 2, 20, 0.5, "gone", "delete"),
        ("epoch-0003", 3, 30, 0.6, "full", "keep"),
    ]
    assert [c.bytes for c in found] == [
        files.tree_bytes(store.folder / "epoch-0001"),
        0,
        files.tree_bytes(store.folder / "epoch-0003"),
    ]
    assert found[1].reason == "neither last nor best"
    assert all(c.time for c in found)


def test_a_mid_epoch_checkpoint_has_no_epoch_and_no_score(tmp_path: Path, manifest: MakeManifest) -> None:
    open_store(tmp_path).commit(manifest(1, step=15, batches=3, score=None), contents(1))
    [row] = checkpoint_history(tmp_path)
    assert (row.checkpoint, row.epoch, row.step, row.score) == ("step-00000015", None, 15, None)


def test_a_checkpoint_that_was_quarantined_and_trained_anew_has_a_row_for_each(
    tmp_path: Path, manifest: MakeManifest
) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1, score=0.9), contents(1))
    store.quarantine("epoch-0001", "a flipped bit")
    [aside] = checkpoint_history(tmp_path)
    assert (aside.on_disk, aside.action, aside.reason, aside.score) == (
        "quarantined",
        "set_aside",
        "a flipped bit",
        0.9,
    )
    assert aside.bytes == store.size()

    store.commit(manifest(1, score=0.9), contents(1))
    assert [(c.on_disk, c.action) for c in checkpoint_history(tmp_path)] == [
        ("full", "keep"),
        ("quarantined", "set_aside"),
    ]


def test_a_checkpoint_that_no_row_knows_of_yet_describes_itself(tmp_path: Path, manifest: MakeManifest) -> None:
    """A crash came between its commit and the plan."""
    store = open_store(tmp_path)
    store.commit(manifest(4, score=0.7), contents(4))
    (tmp_path / paths.RETENTION).unlink()
    [row] = checkpoint_history(tmp_path)
    assert (row.checkpoint, row.step, row.score, row.on_disk, row.action) == ("epoch-0004", 40, 0.7, "full", None)


def test_a_checkpoint_without_its_sums_is_called_damaged(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1), contents(1))
    (store.folder / "epoch-0001" / paths.SUMS).unlink()
    assert [c.on_disk for c in checkpoint_history(tmp_path)] == ["damaged"]


def test_a_trial_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoint_history(tmp_path) == []


def test_it_may_look_while_the_trial_saves(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, str(COMMITTER), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    until, looks = time.monotonic() + 2, 0
    try:
        while time.monotonic() < until or looks <= 20:  # a busy machine takes longer
            found = checkpoint_history(tmp_path)
            assert found
            assert [c.step for c in found] == sorted(c.step for c in found if c.step is not None)
            looks += 1
    finally:
        process.kill()
        process.communicate()
