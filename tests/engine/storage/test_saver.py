"""Saving beside the training: what is committed is the state as it was, and a failure is heard."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from redsm5.engine import paths
from redsm5.engine.records import Manifest
from redsm5.engine.storage import tensors
from redsm5.engine.storage.checkpoint import Saver, resume, save
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore, Content, read_verified
from tests.engine.storage.test_checkpoint import configuration, fresh, identity_of, packed_copy, train_step


class HeldStore(CheckpointStore):
    """A store whose writes wait for leave."""

    def __init__(self, trial_dir: Path) -> None:
        super().__init__(trial_dir, Policy(keep_all=True), log=lambda *_, **__: None)
        self.leave = threading.Event()

    def commit(self, manifest: Manifest, contents: Mapping[str, Content]) -> str:
        assert self.leave.wait(30)
        return super().commit(manifest, contents)


def test_the_training_goes_on_while_the_state_as_it_was_is_written(tmp_path: Path) -> None:
    config = configuration()
    state, store = fresh(config), HeldStore(tmp_path)
    train_step(state, config)
    state.progress.epochs_done = 1
    expected = packed_copy(state)
    with Saver() as saver:
        save(store, saver, state, identity_of(state, config), score=None, metrics={})
        for _ in range(3):
            train_step(state, config)  # `save` has returned, and nothing is written yet
        assert store.names() == []
        store.leave.set()
    contents = read_verified(store.folder / "epoch-0001")
    assert {name: contents[name] for name in expected} == expected


def test_a_save_waits_for_the_one_before(tmp_path: Path) -> None:
    config = configuration()
    state, store = fresh(config), HeldStore(tmp_path)
    with Saver() as saver:
        for epoch in (1, 2):
            train_step(state, config)
            state.progress.epochs_done = epoch
            expected = packed_copy(state)
            if epoch == 2:
                threading.Timer(0.3, store.leave.set).start()
            save(store, saver, state, identity_of(state, config), score=None, metrics={})
        assert "epoch-0001" in store.names()
    contents = read_verified(store.folder / "epoch-0002")
    assert {name: contents[name] for name in expected} == expected


def test_the_buffers_are_allocated_once() -> None:
    config = configuration()
    state = fresh(config)
    train_step(state, config)
    state.pack()
    before = {name: buffer._bytes.data_ptr() for name, buffer in state.buffers.items()}
    assert before.keys() == {paths.WEIGHTS, paths.STATE_TENSORS}
    for _ in range(3):
        train_step(state, config)
        state.pack()
    assert {name: buffer._bytes.data_ptr() for name, buffer in state.buffers.items()} == before


def test_what_a_save_failed_with_is_raised_at_the_next_step() -> None:
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise OSError(5, "Input/output error")

    saver = Saver()
    saver.submit(fail)
    failed.wait()
    with pytest.raises(OSError, match="Input/output"):
        steps_until_heard(saver)
    saver.check()  # it is said once


def steps_until_heard(saver: Saver) -> None:
    for _ in range(10_000):
        saver.check()
        time.sleep(0.001)


def test_what_the_last_save_failed_with_is_raised_at_the_end_but_hides_no_other_error() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), Saver() as saver:
        saver.submit(fail)
    saver = Saver()
    saver.submit(fail)
    with pytest.raises(KeyError), saver:
        raise KeyError("another")


def test_a_failed_write_leaves_nothing_and_the_next_save_succeeds(tmp_path: Path) -> None:
    """A folder in the place of a file stands for any error of the file system."""
    config = configuration()
    state = fresh(config)
    state.progress.epochs_done = 1
    store = CheckpointStore(tmp_path, Policy(), log=lambda *_, **__: None)
    written = store._write

    def fail(folder: Path, contents: Mapping[str, Content]) -> None:
        written(folder, contents)
        raise OSError(28, "No space left on device")

    store._write = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space"), Saver() as saver:
        save(store, saver, state, identity_of(state, config), score=None, metrics={})
    assert list(store.folder.iterdir()) == []
    store._write = written  # type: ignore[method-assign]
    with Saver() as saver:
        save(store, saver, state, identity_of(state, config), score=None, metrics={})
    assert resume(store, fresh(config), identity_of(state, config), log=lambda *_, **__: None).epochs_done == 1


@pytest.mark.parametrize("dtype", tensors.NAMES)
def test_a_tensor_file_is_what_the_safetensors_library_reads(dtype: torch.dtype) -> None:
    import safetensors.torch

    made = {
        "matrix": (torch.rand(3, 5) * 100).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "byte": torch.arange(7, dtype=torch.uint8),
        "empty": torch.zeros(0, 4).to(dtype),
        "transposed": (torch.rand(4, 3) * 100).to(dtype).T,
    }
    file = tensors.TensorFile(made, pinned=False)
    file.fill(made)
    for read in (safetensors.torch.load(bytes(file.content)), tensors.read(bytearray(file.content))):
        assert read.keys() == made.keys()
        assert all(torch.equal(read[name], made[name]) and read[name].dtype == made[name].dtype for name in made)
    assert not file.fits({**made, "matrix": torch.zeros(5, 3).to(dtype)})


def test_what_the_safetensors_library_writes_is_read() -> None:
    import safetensors.torch

    made = {"a": torch.rand(3, 2), "b": torch.arange(5)}
    read = tensors.read(bytearray(safetensors.torch.save(made, metadata={"format": "pt"})))
    assert all(torch.equal(read[name], made[name]) for name in made)
