"""A checkpoint is whole and verifiable, or not there: after kills, flipped bits, truncations and lost files."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redsm5.engine import files, paths
from redsm5.engine.records import Manifest, RetentionRow
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import STATE_FILES, CheckpointStore, DamagedCheckpoint, checkpoint_name, read_verified

COMMITTER = Path(__file__).parent / "committer.py"
CONTENTS = {paths.WEIGHTS: b"weights" * 50, paths.STATE_TENSORS: b"tensors" * 90, paths.STATE_JSON: b'{"step": 1}'}
ALL_FILES = {*CONTENTS, paths.MANIFEST, paths.SUMS}
MakeManifest = Callable[..., Manifest]


def open_store(trial_dir: Path, policy: Policy | None = None, said: list | None = None) -> CheckpointStore:
    sink = [] if said is None else said
    return CheckpointStore(trial_dir, policy or Policy(), log=lambda sentence, **facts: sink.append((sentence, facts)))


def sha256sum_verifies(folder: Path) -> bool:
    command = ["sha256sum", "--strict", "--status", "-c", paths.SUMS]
    return subprocess.run(command, cwd=folder, check=False).returncode == 0


def rows(trial_dir: Path) -> list[RetentionRow]:
    return [RetentionRow.model_validate(row) for row in files.read_lines(trial_dir / paths.RETENTION)]


# ---------------------------------------------------------------------------------------------------------------------
# committing


def test_what_was_committed_is_read_back_and_sha256sum_agrees(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    name = store.commit(manifest(3), CONTENTS)
    folder = store.folder / name
    assert name == "epoch-0003"
    assert {p.name for p in folder.iterdir()} == ALL_FILES
    assert {k: v for k, v in read_verified(folder).items() if k != paths.MANIFEST} == CONTENTS
    assert Manifest.model_validate_json(read_verified(folder)[paths.MANIFEST]).epoch == 3
    assert sha256sum_verifies(folder)
    listed = [line.split("  ")[1] for line in (folder / paths.SUMS).read_text().splitlines()]
    assert listed == sorted(ALL_FILES - {paths.SUMS})
    assert store.size() == sum(p.stat().st_size for p in folder.iterdir())


def test_names_tell_an_epoch_s_end_from_its_middle() -> None:
    assert checkpoint_name(epoch=3, step=30, mid_epoch=False) == "epoch-0003"
    assert checkpoint_name(epoch=3, step=1234, mid_epoch=True) == "step-00001234"


def test_a_half_written_checkpoint_is_never_under_its_name(tmp_path: Path, manifest: MakeManifest) -> None:
    """The folder gets its name in one rename, when all its files are there: whoever looks sees all or nothing."""
    store = open_store(tmp_path, Policy(keep_all=True))
    watcher = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(store.folder)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert watcher.stdout
    watcher.stdout.readline()
    for epoch in range(1, 60):
        store.commit(manifest(epoch), CONTENTS)
    seen, _ = watcher.communicate("")
    looks, partial = seen.split()
    assert int(looks) > 10
    assert partial == "none"


WATCH = """
import os, select, sys
print("ready", flush=True)
looks, partial = 0, "none"
while not select.select([sys.stdin], [], [], 0)[0]:
    for name in os.listdir(sys.argv[1]):
        if not name.startswith("."):
            looks += 1
            if len(os.listdir(os.path.join(sys.argv[1], name))) != 5:
                partial = name
print(looks, partial)
"""


def test_an_epoch_that_is_trained_again_replaces_its_checkpoint(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1), CONTENTS)
    store.commit(manifest(1), {**CONTENTS, paths.WEIGHTS: b"others"})
    assert read_verified(store.folder / "epoch-0001")[paths.WEIGHTS] == b"others"
    assert [p.name for p in store.folder.iterdir()] == ["epoch-0001"]


def test_the_folder_is_for_its_user_alone(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    folder = store.folder / store.commit(manifest(1), CONTENTS)
    assert folder.stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------------------------------------------------------------
# litter


def test_what_a_crash_left_is_removed_on_open_and_nothing_else(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path, Policy(keep_all=True))
    store.commit(manifest(1), CONTENTS)
    store.commit(manifest(2), CONTENTS)
    before = {p.name: read_verified(p) for p in store.folder.iterdir()}
    shutil.copytree(store.folder / "epoch-0002", store.folder / ".tmp-epoch-0003")
    (store.folder / ".tmp-epoch-0003" / paths.SUMS).unlink()
    shutil.copytree(store.folder / "epoch-0001", store.folder / ".trash-epoch-0000")
    (store.folder / "epoch-0002" / f".{paths.SUMS}.tmp").write_bytes(b"half a line")
    again = open_store(tmp_path, Policy(keep_all=True))
    assert {p.name: read_verified(p) for p in again.folder.iterdir()} == before
    assert {p.name for p in (again.folder / "epoch-0002").iterdir()} == ALL_FILES


@pytest.mark.parametrize("unlinked", [0, 1, 2])
def test_a_crash_in_the_middle_of_a_strip_is_finished_on_open(
    tmp_path: Path, manifest: MakeManifest, unlinked: int
) -> None:
    """The new SHA256SUMS comes first: with it in place the state is litter, however many of its files are gone."""
    store = open_store(tmp_path, Policy(keep_all=True))
    folder = store.folder / store.commit(manifest(1), CONTENTS)
    lines = (folder / paths.SUMS).read_text().splitlines(keepends=True)
    files.write_atomic(folder / paths.SUMS, "".join(x for x in lines if x[66:].strip() not in STATE_FILES).encode())
    for name in sorted(STATE_FILES)[:unlinked]:
        (folder / name).unlink()
    again = open_store(tmp_path)
    assert {p.name for p in folder.iterdir()} == {paths.WEIGHTS, paths.MANIFEST, paths.SUMS}
    assert read_verified(folder)[paths.WEIGHTS] == CONTENTS[paths.WEIGHTS]
    assert sha256sum_verifies(folder)
    assert [c.resumable for c in again.checkpoints()] == [False]


def test_a_crash_before_the_new_sums_leaves_a_checkpoint_to_resume_from(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path, Policy(keep_all=True))
    folder = store.folder / store.commit(manifest(1), CONTENTS)
    (folder / f".{paths.SUMS}.tmp").write_bytes((folder / paths.SUMS).read_bytes()[:40])
    assert [c.resumable for c in open_store(tmp_path).checkpoints()] == [True]
    assert read_verified(folder)[paths.STATE_TENSORS] == CONTENTS[paths.STATE_TENSORS]


# ---------------------------------------------------------------------------------------------------------------------
# damage


def test_a_flipped_bit_in_any_file_is_noticed(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    folder = store.folder / store.commit(manifest(1), CONTENTS)
    dice = random.Random(1)
    for name in sorted(ALL_FILES):
        whole = (folder / name).read_bytes()
        for bit in dice.sample(range(len(whole) * 8), min(400 if name == paths.SUMS else 60, len(whole) * 8)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(damaged)
            with pytest.raises(DamagedCheckpoint):
                read_verified(folder)
        (folder / name).write_bytes(whole)
    read_verified(folder)


@pytest.mark.parametrize("name", sorted(ALL_FILES))
@pytest.mark.parametrize("damage", ["empty", "one byte short", "one byte more", "missing", "a folder"])
def test_a_file_that_is_cut_or_gone_is_noticed(tmp_path: Path, manifest: MakeManifest, name: str, damage: str) -> None:
    store = open_store(tmp_path)
    folder = store.folder / store.commit(manifest(1), CONTENTS)
    path = folder / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "one byte short": whole[:-1], "one byte more": whole + b"\n"}[damage])
    with pytest.raises(DamagedCheckpoint, match="epoch-0001"):
        read_verified(folder)


def test_sums_that_name_files_elsewhere_are_refused(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    folder = store.folder / store.commit(manifest(1), CONTENTS)
    (tmp_path / "secret").write_bytes(b"words of a post")
    with (folder / paths.SUMS).open("a") as sums:
        sums.write(f"{'0' * 64}  ../../secret\n")
    with pytest.raises(DamagedCheckpoint):
        read_verified(folder)


@pytest.mark.parametrize("name", [paths.MANIFEST, paths.SUMS])
def test_a_checkpoint_without_its_description_is_quarantined_and_not_destroyed(
    tmp_path: Path, manifest: MakeManifest, name: str
) -> None:
    store = open_store(tmp_path, Policy(keep_all=True))
    store.commit(manifest(1), CONTENTS)
    store.commit(manifest(2), CONTENTS)
    (store.folder / "epoch-0002" / name).unlink()
    said: list = []
    again = open_store(tmp_path, Policy(keep_all=True), said)
    assert [c.name for c in again.checkpoints()] == ["epoch-0001"]
    quarantined = again.folder / ".damaged-epoch-0002"
    assert {p.name for p in quarantined.iterdir()} == ALL_FILES - {name}
    assert said[-1][0] == "checkpoint is damaged and quarantined"
    row = rows(tmp_path)[-1]
    assert (row.action, row.checkpoint) == ("set_aside", "epoch-0002")
    assert row.reason
    assert row.bytes == files.tree_bytes(quarantined)
    assert again.size() == files.tree_bytes(again.folder), "what is quarantined counts"


def test_what_was_quarantined_stays_until_the_trial_is_finished(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1), CONTENTS)
    store.quarantine("epoch-0001", "a flipped bit")
    store = open_store(tmp_path)
    assert store.checkpoints() == []
    store.commit(manifest(1), CONTENTS)
    assert (store.folder / ".damaged-epoch-0001").is_dir()
    store.finish()
    assert [p.name for p in store.folder.iterdir()] == ["epoch-0001"]
    assert [row.action for row in rows(tmp_path)] == ["keep", "set_aside", "keep", "strip"], "its successor is told of"


def test_a_damaged_checkpoint_that_goes_leaves_a_row_with_the_reason(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1), CONTENTS)
    size = store.size()
    store.quarantine("epoch-0001", "a flipped bit")
    store.drop_quarantined("its space is needed")
    row = rows(tmp_path)[-1]
    assert (row.action, row.checkpoint, row.epoch) == ("delete", "epoch-0001", 1)
    assert (row.bytes, row.reason) == (size, "its space is needed")


def test_what_lies_beside_the_checkpoints_and_is_not_ours_is_left_alone(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1), CONTENTS)
    (store.folder / "notes").mkdir()
    (store.folder / "notes.txt").write_text("mine")
    store = open_store(tmp_path)
    assert [c.name for c in store.checkpoints()] == ["epoch-0001"]
    store.finish()
    assert sorted(p.name for p in store.folder.iterdir()) == ["epoch-0001", "notes", "notes.txt"]


# ---------------------------------------------------------------------------------------------------------------------
# retention on disk


def test_a_trial_s_checkpoints_on_disk_and_the_record_of_them(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    for epoch, score in enumerate([0.9, 0.5, 0.9, 0.6], start=1):
        store.commit(manifest(epoch, score=score), CONTENTS)
    on_disk = {p.name: {f.name for f in p.iterdir()} for p in store.folder.iterdir()}
    weights_only = ALL_FILES - set(STATE_FILES)
    assert on_disk == {"epoch-0001": weights_only, "epoch-0003": weights_only, "epoch-0004": ALL_FILES}
    assert all(sha256sum_verifies(p) for p in store.folder.iterdir())
    assert [c.name for c in store.best()] == ["epoch-0001", "epoch-0003"]
    assert [(r.checkpoint, r.action) for r in rows(tmp_path)] == [
        ("epoch-0001", "keep"),
        ("epoch-0001", "strip"),
        ("epoch-0002", "keep"),
        ("epoch-0001", "keep"),
        ("epoch-0002", "delete"),
        ("epoch-0003", "keep"),
        ("epoch-0003", "strip"),
        ("epoch-0004", "keep"),
    ]
    for row in rows(tmp_path):
        assert row.reason
        assert row.bytes > 0
        assert row.epoch == int(row.checkpoint[-4:])
    given_back = [r.bytes for r in rows(tmp_path) if r.action == "strip"]
    assert set(given_back) == {len(CONTENTS[n]) + len(CONTENTS[m]) for n, m in [sorted(STATE_FILES)]}


def test_what_was_said_is_not_said_again(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1), CONTENTS)
    before = rows(tmp_path)
    open_store(tmp_path).apply_plan(finished=False)
    assert rows(tmp_path) == before


def test_a_torn_row_is_cut_on_open(tmp_path: Path, manifest: MakeManifest) -> None:
    open_store(tmp_path).commit(manifest(1), CONTENTS)
    before = rows(tmp_path)
    with (tmp_path / paths.RETENTION).open("ab") as file:
        file.write(b'{"timestamp": "20')
    store = open_store(tmp_path)
    assert rows(tmp_path) == before
    store.commit(manifest(2), CONTENTS)
    assert len(rows(tmp_path)) > len(before)


def test_a_mid_epoch_checkpoint_goes_when_its_epoch_ends(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1), CONTENTS)
    store.commit(manifest(1, step=15, batches=5, score=None), CONTENTS)
    assert {c.name: c.resumable for c in store.checkpoints()} == {"epoch-0001": False, "step-00000015": True}
    store.commit(manifest(2), CONTENTS)
    assert {c.name for c in store.checkpoints()} == {"epoch-0001", "epoch-0002"}
    assert ("step-00000015", "superseded") in [(r.checkpoint, r.reason) for r in rows(tmp_path)]


def test_finishing_twice_leaves_the_best_weights_and_changes_nothing(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    for epoch, score in enumerate([0.4, 0.8, 0.6], start=1):
        store.commit(manifest(epoch, score=score), CONTENTS)
    store.finish()
    assert [p.name for p in store.folder.iterdir()] == ["epoch-0002"]
    assert {p.name for p in (store.folder / "epoch-0002").iterdir()} == ALL_FILES - set(STATE_FILES)
    before = {p: p.read_bytes() for p in store.folder.rglob("*") if p.is_file()}
    open_store(tmp_path).finish()
    assert {p: p.read_bytes() for p in store.folder.rglob("*") if p.is_file()} == before


def test_without_a_finite_score_the_newest_is_the_best(tmp_path: Path, manifest: MakeManifest) -> None:
    store = open_store(tmp_path)
    store.commit(manifest(1, score=None), CONTENTS)
    store.commit(manifest(2, score=float("nan")), CONTENTS)
    assert [c.name for c in store.best()] == ["epoch-0002"]
    store.finish()
    assert [p.name for p in store.folder.iterdir()] == ["epoch-0002"]


# ---------------------------------------------------------------------------------------------------------------------
# kills


def test_a_kill_at_any_moment_leaves_the_newest_or_the_previous_checkpoint_valid(tmp_path: Path) -> None:
    from committer import contents

    dice = random.Random(7)
    said = 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, str(COMMITTER), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        said = int(process.stdout.readline())  # it stands, and commits one after the other
        time.sleep(dice.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            said = int(line)
        assert process.wait() == -signal.SIGKILL
        folder = tmp_path / paths.CHECKPOINTS
        committed = [p for p in folder.iterdir() if not p.name.startswith(".")]
        resumable = [p for p in committed if paths.STATE_JSON in (p / paths.SUMS).read_text()]
        newest = max(resumable, key=lambda p: p.name)
        assert int(newest.name[-4:]) in (said, said + 1), "what was said to be durable is there"
        assert {k: v for k, v in read_verified(newest).items() if k != paths.MANIFEST} == contents(
            int(newest.name[-4:])
        )
        for checkpoint in committed:
            assert read_verified(checkpoint)[paths.WEIGHTS] == contents(int(checkpoint.name[-4:]))[paths.WEIGHTS]
        store = open_store(tmp_path)
        assert not list(store.folder.glob(".*")), "the next open removes the litter"
        assert all(sha256sum_verifies(store.folder / name) for name in store.names())
        assert all(
            set(os.listdir(store.folder / name)) in (ALL_FILES, ALL_FILES - set(STATE_FILES)) for name in store.names()
        )
    assert said > 5
