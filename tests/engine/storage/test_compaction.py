"""What is stored in fewer bytes is restored to the bit; each damage is noticed, and a crash loses nothing."""

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from redsm5.engine import files, paths
from redsm5.engine.jsonio import dumps
from redsm5.engine.storage import delta
from redsm5.engine.storage.bases import fingerprint, keep_base
from redsm5.engine.storage.cleanup import cleanup
from redsm5.engine.storage.compaction import AT_MOST, compact, drop_unused_bases
from redsm5.engine.storage.store import (
    BaseError,
    DamagedCheckpoint,
    listed_digests,
    read_checkpoint,
    read_verified,
    weights_sha256,
)
from tests.crash import strace
from tests.engine.storage import compactor
from tests.engine.storage.compactor import STUDY, TRIALS, contents_of, make_study, opened

ROOT = Path(__file__).parents[3]
STRIDE = 12
DTYPES = (np.float64, np.float32, np.float16, np.int64, np.int16, np.uint8, np.bool_)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path)


def compacted(study: Path, trial_id: str = TRIALS[0], **settings: Any) -> Path:
    """The folder of the trial's checkpoint, after its compaction."""
    store, budget = opened(study.parent, trial_id, **settings)
    compact(store, budget, study)
    budget.release()
    return store.folder / "epoch-0001"


def originals(contents: dict[str, bytearray]) -> dict[str, bytes]:
    return {name: bytes(content) for name, content in contents.items() if name != paths.MANIFEST}


# ---------------------------------------------------------------------------------------------------------------------
# the format

shapes = st.lists(st.integers(0, 40), max_size=2).map(tuple)
tensors = st.dictionaries(
    st.text("abc.", min_size=1, max_size=4), st.tuples(st.sampled_from(DTYPES), shapes), max_size=5
)


@settings(max_examples=150, deadline=None)
@given(tensors, tensors, st.integers(0, 2**31), st.integers(1, 700).map(lambda n: 8 * n))
def test_any_file_is_restored_to_the_bit(layout: Any, other: Any, seed: int, piece: int) -> None:
    draw = np.random.default_rng(seed)

    def made(layout: Any) -> bytes:
        return save(
            {n: np.frombuffer(draw.bytes(t().itemsize * int(np.prod(s))), t).reshape(s) for n, (t, s) in layout.items()}
        )

    for base_layout in (layout, other):
        content, base = made(layout), made(base_layout)
        found = delta.differences(content, base)
        header = delta.Header(bytes=len(content), sha256="", base="x", differences=found)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(delta, "PIECE", piece)
            encoded = b"".join(delta.encode(content, header, base))
        assert b"".join(part.tobytes() for part in delta.decode(encoded, base)) == content
        alone = b"".join(delta.encode(content, replace(header, differences=[]), None))
        assert b"".join(part.tobytes() for part in delta.decode(alone, None)) == content


def test_a_large_file_in_several_pieces_is_restored(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    base = {"a": draw.standard_normal(3_000_000).astype(np.float32), "b": draw.standard_normal(3_000_000)}
    near = {name: t + t.dtype.type(1e-6) for name, t in base.items()}
    for name, content in (("base", save(base)), ("near", save(near))):
        (tmp_path / name).write_bytes(content)
    file, other = delta.FileBytes(tmp_path / "near"), delta.FileBytes(tmp_path / "base")
    header = delta.Header(bytes=len(file), sha256="", differences=delta.differences(file, other))
    encoded = b"".join(delta.encode(file, header, other))
    assert [size for *_, size in header.differences] == [24_000_000, 12_000_000]
    assert len(encoded) < 0.5 * len(file)
    assert b"".join(part.tobytes() for part in delta.decode(encoded, other)) == save(near)


def test_a_header_of_another_format_is_refused() -> None:
    good = asdict(delta.Header(bytes=3, sha256=""))
    for changes, said in (({"codec": "another"}, "which this version does not read"), ({"more": 1}, "is malformed")):
        with pytest.raises(ValueError, match=said):
            delta.read_header(dumps(good | changes) + b"\n")


def test_the_documentation_reads_such_a_file(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/storage.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def restore" in block)
    folder = compacted(study)
    monkeypatch.chdir(study.parent)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert len(code.strip().splitlines()) <= 20
    assert scope["restore"](folder / paths.WEIGHTS_DELTA) == contents_of(0)[paths.WEIGHTS]
    assert scope["restore"](folder / paths.STATE_DELTA) == contents_of(0)[paths.STATE_TENSORS]


# ---------------------------------------------------------------------------------------------------------------------
# a checkpoint


def test_a_checkpoint_takes_fewer_bytes_and_reads_as_before(study: Path) -> None:
    before = files.tree_bytes(paths.trial_dir(study.parent, TRIALS[0]) / paths.CHECKPOINTS)
    folder = compacted(study)
    assert {p.name for p in folder.iterdir()} == {
        *(paths.SUMS, paths.MANIFEST, paths.STATE_JSON, paths.WEIGHTS_DELTA, paths.STATE_DELTA)
    }
    assert subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    assert originals(read_verified(folder)) == contents_of(0)
    assert weights_sha256(folder) == hashlib.sha256(contents_of(0)[paths.WEIGHTS]).hexdigest()
    assert read_checkpoint(folder).resumable
    with (folder / paths.WEIGHTS_DELTA).open("rb") as file:
        header, _ = delta.read_header(file.readline())
    assert len(header.differences) == len(compactor.NAMES)
    assert header.base == f"study_{STUDY}/base/{'ab' * 8}.safetensors"
    store, _ = opened(study.parent, TRIALS[0])
    assert store.size() < 0.5 * before
    rows = files.read_lines(store.folder.parent / paths.RETENTION)
    assert [row["action"] for row in rows] == ["keep"] * 3
    assert rows[-1]["bytes"] == store.size()
    assert "retention.compact" in rows[-1]["reason"]
    assert (store.strip(read_checkpoint(folder), "stripped") > 0, read_checkpoint(folder).resumable) == (True, False)
    assert originals(read_verified(folder)) == {paths.WEIGHTS: contents_of(0)[paths.WEIGHTS]}


def test_of_several_pretrained_weights_the_best_is_chosen(study: Path) -> None:
    draw = np.random.default_rng(7)
    far = {name: draw.standard_normal(t.shape).astype(np.float32) for name, t in compactor.pretrained().items()}
    for name in ("00" * 8, "ff" * 8):
        (study / paths.BASE / f"{name}.safetensors").write_bytes(save(far))
    with (compacted(study) / paths.WEIGHTS_DELTA).open("rb") as file:
        assert (delta.read_header(file.readline())[0].base or "").endswith(f"{'ab' * 8}.safetensors")


def test_without_pretrained_weights_it_is_only_compressed(tmp_path: Path) -> None:
    folder = compacted(make_study(tmp_path, base=False))
    with (folder / paths.WEIGHTS_DELTA).open("rb") as file:
        header, _ = delta.read_header(file.readline())
    assert (header.base, header.differences) == (None, [])
    assert originals(read_verified(folder)) == contents_of(0)


def test_what_gains_too_little_stays_as_it_is(study: Path) -> None:
    noise = np.frombuffer(np.random.default_rng(0).bytes(400_000), np.float32)
    store, budget = opened(study.parent, TRIALS[0])
    contents = {**contents_of(0), paths.WEIGHTS: save({"noise": noise})}
    manifest = compactor.manifest_of(TRIALS[0], 2, score=0.6)
    store.commit(manifest, contents)
    compact(store, budget, study)
    assert paths.WEIGHTS in listed_digests(store.folder / "epoch-0002")
    assert originals(read_verified(store.folder / "epoch-0002")) == contents


@pytest.mark.parametrize("name", AT_MOST)
def test_a_damaged_original_stays_for_its_reader_to_notice(study: Path, name: str) -> None:
    path = paths.trial_dir(study.parent, TRIALS[0]) / paths.CHECKPOINTS / "epoch-0001" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    folder = compacted(study)
    assert name in listed_digests(folder)
    assert not (folder / paths.DELTAS[name]).exists()
    with pytest.raises(DamagedCheckpoint):
        read_verified(folder)


def test_without_room_in_the_budget_it_stays_and_the_budget_holds(study: Path) -> None:
    used = sum(files.tree_bytes(paths.trial_dir(study.parent, t) / paths.CHECKPOINTS) for t in TRIALS)
    folder = compacted(study, limit=used + files.tree_bytes(study / paths.BASE))
    assert {paths.WEIGHTS, paths.STATE_TENSORS} < listed_digests(folder).keys()


def test_a_full_disk_leaves_the_original(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from redsm5.engine.storage import compaction

    def full(path: Path, parts: Any) -> str:
        path.write_bytes(next(iter(parts)))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction, "_write", full)
    folder = compacted(study)
    assert originals(read_verified(folder)) == contents_of(0)
    assert not (folder / paths.WEIGHTS_DELTA).exists()


def test_every_flipped_bit_is_noticed(study: Path) -> None:
    folder = compacted(study)
    base = study / paths.BASE / f"{'ab' * 8}.safetensors"
    dice = random.Random(0)
    for path, count in ((folder / paths.WEIGHTS_DELTA, 400), (folder / paths.STATE_DELTA, 200), (base, 400)):
        content = path.read_bytes()
        for _ in range(count):
            damaged = bytearray(content)
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
            path.write_bytes(damaged)
            with pytest.raises((DamagedCheckpoint, BaseError)):
                read_verified(folder)
        path.write_bytes(content)
    assert originals(read_verified(folder)) == contents_of(0)


def test_pretrained_weights_that_are_missing_are_named_and_nothing_is_quarantined(study: Path) -> None:
    folder = compacted(study)
    base = study / paths.BASE / f"{'ab' * 8}.safetensors"
    content = base.read_bytes()
    base.unlink()
    with pytest.raises(BaseError, match="is missing") as caught:
        read_verified(folder)
    assert caught.value.exit_code == 4
    assert caught.value.where == str(base)
    base.write_bytes(content[:-1] + b"x")
    with pytest.raises(BaseError, match="is damaged"):
        read_verified(folder)
    base.write_bytes(content)
    assert originals(read_verified(folder)) == contents_of(0)


# ---------------------------------------------------------------------------------------------------------------------
# the pretrained weights of a study


def test_they_are_written_once_within_the_budget_and_counted(tmp_path: Path) -> None:
    study = make_study(tmp_path, base=False)
    tensors = {name: torch.from_numpy(t) for name, t in compactor.pretrained().items()}
    size = 4 * compactor.ROWS * compactor.WIDTH * len(tensors)
    used = sum(files.tree_bytes(paths.trial_dir(tmp_path, t) / paths.CHECKPOINTS) for t in TRIALS)
    said: list[str] = []
    for room, written in ((3 * size, False), (5 * size, True)):
        keep_base(
            opened(tmp_path, TRIALS[0], limit=used + room)[1], study, tensors, lambda text, **_: said.append(text)
        )
        assert (study / paths.BASE).exists() == written
    assert [line.split(":")[0] for line in said] == [
        "the budget has no room to spare for the pretrained weights",
        "the pretrained weights are kept once for the study",
    ]
    (path,) = (study / paths.BASE).iterdir()
    assert path.name == f"{fingerprint(tensors)}.safetensors"
    written_at = path.stat().st_mtime_ns
    keep_base(opened(tmp_path, TRIALS[1])[1], study, tensors, lambda text, **_: said.append(text))
    assert (len(said), path.stat().st_mtime_ns) == (2, written_at)
    assert not opened(tmp_path, TRIALS[0], limit=used + 2 * size)[1].spare(size)  # they count
    assert opened(tmp_path, TRIALS[0], limit=used + 3 * size)[1].spare(size)


def test_other_tensors_have_another_name() -> None:
    tensors = {name: torch.from_numpy(t) for name, t in compactor.pretrained().items()}
    others = {name: t + 1 for name, t in tensors.items()}
    assert len({fingerprint(tensors), fingerprint(others), fingerprint(dict([*tensors.items()][:1]))}) == 3
    assert fingerprint(dict(reversed(tensors.items()))) == fingerprint(tensors)


def test_they_go_with_the_last_checkpoint_that_refers_to_them(study: Path) -> None:
    for trial_id in TRIALS:
        compacted(study, trial_id)
    for trial_id, left in ((TRIALS[0], True), (TRIALS[1], False)):
        store, _ = opened(study.parent, trial_id)
        store.delete(store.checkpoints()[0], "evicted")
        drop_unused_bases(study)
        assert (study / paths.BASE).exists() == left


@pytest.mark.parametrize("state", ["running", "completed"])
def test_cleanup_names_and_deletes_those_that_nothing_refers_to(study: Path, state: str) -> None:
    files.write_atomic(study / paths.STUDY, f'{{"state":"{state}"}}'.encode())
    stray = study / paths.BASE / "mine.txt"
    stray.write_text("mine")
    wanted = [] if state == "running" else [f"{'ab' * 8}.safetensors"]
    for execute in (False, True):
        found = cleanup(study.parent, execute=execute)
        assert [item.path.name for item in found.items if item.path.parent.name == paths.BASE] == wanted
    assert stray.exists()
    assert (study / paths.BASE / f"{'ab' * 8}.safetensors").exists() == (state == "running")


# ---------------------------------------------------------------------------------------------------------------------
# a kill at every system call, from the first byte that is encoded to the last that is evicted

# Nothing compiled is written (-B): else a first run would make more calls than those that are killed.
COMMAND = [sys.executable, "-B", "-m", "tests.engine.storage.compactor"]


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[strace.Call]:
    if strace.MISSING:
        pytest.skip(strace.MISSING)
    scratch = tmp_path_factory.mktemp("calls")
    make_study(scratch / "e")
    words = [
        "strace",
        "-y",
        "-xx",
        "-o",
        str(scratch / "strace"),
        "-e",
        "trace=%file,%desc",
        *COMMAND,
        str(scratch / "e"),
    ]
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    return [call for call in strace.calls(scratch / "strace", {"only": 0}, scratch / "e") if call.changes]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_at_a_system_call_loses_nothing(calls: list[strace.Call], stride: int, tmp_path: Path) -> None:
    kinds = {call.name for call in calls}
    assert {"openat", "write", "fsync", "rename", "unlink"} <= kinds
    for i in range(0, len(calls), stride):
        call, experiments = calls[i], tmp_path / f"at {i}"
        study = make_study(experiments)
        fault = f"inject={call.name}:signal=SIGKILL:when={call.n}"
        words = ["strace", "-o", os.devnull, "-e", f"trace={call.name}", "-e", fault, *COMMAND, str(experiments)]
        killed = subprocess.run(words, capture_output=True, check=False, cwd=ROOT)
        assert killed.returncode == -9, (call, killed.stderr)
        for seed, trial_id in enumerate(TRIALS):
            store, _ = opened(experiments, trial_id)  # removes litter
            evicted = any(r["action"] == "delete" for r in files.read_lines(store.folder.parent / paths.RETENTION))
            names = store.names()
            assert names or evicted, call
            for name in names:
                assert originals(read_verified(store.folder / name)) == contents_of(seed), call
                known = {paths.SUMS, *listed_digests(store.folder / name)}
                assert {p.name for p in (store.folder / name).iterdir()} == known, call
        subprocess.run([*COMMAND, str(experiments)], check=True, capture_output=True, cwd=ROOT)
        assert not (study / paths.BASE).exists(), call
        assert all(not opened(experiments, trial_id)[0].names() for trial_id in TRIALS), call
        shutil.rmtree(experiments)


# ---------------------------------------------------------------------------------------------------------------------
# a kill at every system call of weights that are put back


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.long)])
def test_a_kill_while_weights_are_put_back_leaves_all_or_nothing(stride: int, tmp_path: Path) -> None:
    if strace.MISSING:
        pytest.skip(strace.MISSING)
    make_study(tmp_path / "again")
    command = [sys.executable, "-B", "-m", "tests.engine.storage.rebuilder"]

    def evicted(name: str) -> Path:
        make_study(tmp_path / name)
        shutil.rmtree(paths.trial_dir(tmp_path / name, TRIALS[0]) / paths.CHECKPOINTS)
        return tmp_path / name

    whole = evicted("whole")
    words = ["strace", "-y", "-xx", "-o", str(tmp_path / "calls"), "-e", "trace=%file,%desc"]
    subprocess.run([*words, *command, str(whole), str(tmp_path / "again")], check=True, capture_output=True, cwd=ROOT)
    wanted = {name: content for name, content in contents_of(0).items() if name == paths.WEIGHTS}
    checkpoint = Path(f"trial_{TRIALS[0]}") / paths.CHECKPOINTS / "epoch-0001"
    assert originals(read_verified(whole / checkpoint)) == wanted
    changing = [call for call in strace.calls(tmp_path / "calls", {"only": 0}, whole) if call.changes]
    assert len(changing) > 20
    for call in changing[::stride]:
        experiments = evicted("killed")
        fault = f"inject={call.name}:signal=SIGKILL:when={call.n}"
        words = ["strace", "-o", os.devnull, "-e", f"trace={call.name}", "-e", fault, *command]
        killed = subprocess.run([*words, str(experiments), str(tmp_path / "again")], capture_output=True, cwd=ROOT)
        assert killed.returncode == -9, (call, killed.stderr)
        store, _ = opened(experiments, TRIALS[0])  # removes litter
        for name in store.names():
            assert wanted.items() <= originals(read_verified(store.folder / name)).items(), call
        subprocess.run([*command, str(experiments), str(tmp_path / "again")], check=True, capture_output=True, cwd=ROOT)
        assert wanted.items() <= originals(read_verified(experiments / checkpoint)).items(), call
        shutil.rmtree(experiments)
