"""A trial's checkpoints on disk: complete and verifiable, or absent.

A checkpoint is written into `.tmp-<name>-<random>`: each file is hashed while it is written, then fsynced, SHA256SUMS
last. Then the folder is renamed to its final name and the parent is fsynced. Only then is an older one retired: renamed
to `.trash-<name>-<random>`, then removed. A crash at any point leaves the old or the new checkpoint valid, and litter
that the next open removes. SHA256SUMS is in coreutils' format: `sha256sum -c SHA256SUMS` verifies a checkpoint without
redsm5.

This module handles names, bytes and policies; redsm5/engine/storage/checkpoint.py defines the content of the files.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from redsm5.engine import files, migrations, owned, paths
from redsm5.engine.documents import load_lines, now, parse
from redsm5.engine.errors import IncompatibleCheckpointError, NoCheckpointError
from redsm5.engine.records import Manifest, RetentionAction, RetentionRow
from redsm5.engine.storage import delta
from redsm5.engine.storage.retention import Checkpoint, Policy, best, plan

STATE_FILES = frozenset({paths.STATE_JSON, paths.STATE_TENSORS})
WEIGHT_FILES = frozenset({paths.WEIGHTS, paths.MANIFEST})
ORIGINALS = {small: name for name, small in paths.DELTAS.items()}
STATES = STATE_FILES | {paths.STATE_DELTA}  # each name that a part of the training state may have
BASE_PATH = re.compile(rf"study_[0-9a-f-]{{36}}/{paths.BASE}/{owned.BASE_FILE}")
PIECE = 1 << 20  # bytes read and hashed at once: while they are in the CPU's cache
HASHERS = 2  # threads: a checkpoint has two large files
OVERHEAD = 1_000_000  # bytes allowed a checkpoint for what is no tensor: headers, manifest, sums, random states

Content = bytes | bytearray | memoryview
"""What is in one file."""
Read = TypeVar("Read")


class DamagedCheckpoint(Exception):
    """A checkpoint's bytes are not those that were committed."""


class BaseError(NoCheckpointError):
    """The pretrained weights are missing or damaged that a checkpoint is stored as the difference to."""

    kind = "missing_base"


def checkpoint_name(*, epoch: int, step: int, mid_epoch: bool) -> str:
    return f"step-{step:08d}" if mid_epoch else f"epoch-{epoch:04d}"


def sums(digests: Mapping[str, str]) -> bytes:
    """SHA256SUMS of the files that have these hashes."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def listed_digests(folder: Path) -> dict[str, str]:
    """The hash of each file that a checkpoint's SHA256SUMS names: those of the weights, or of weights and state. Each
    large one may be stored in fewer bytes.

    Raises:
        DamagedCheckpoint: it cannot be read, or is not as we write it. A flipped bit in a name must not make another
            file, or litter, of the one that was meant.
    """
    try:
        text = _again(lambda: files.read_bytes(folder / paths.SUMS))
    except OSError as error:
        raise DamagedCheckpoint(f"{folder.name}: {paths.SUMS} cannot be read: {error}") from error
    digests = {name.decode(): digest.decode() for digest, name in re.findall(rb"([0-9a-f]{64})  ([\w.]+)\n", text)}
    originals = {ORIGINALS.get(name, name) for name in digests}
    known = len(originals) == len(digests) and originals in (WEIGHT_FILES, WEIGHT_FILES | STATE_FILES)
    if sums(digests) != text or not known:
        raise DamagedCheckpoint(f"{folder.name}: {paths.SUMS} is malformed")
    return digests


def read_manifest(folder: Path) -> Manifest:
    """A checkpoint's description, verified.

    Raises:
        DamagedCheckpoint: it is not what SHA256SUMS says.
        IncompatibleCheckpointError: another version of this code wrote it, in another format.
    """
    try:
        content = _again(lambda: files.read_bytes(folder / paths.MANIFEST))
    except OSError as error:
        raise DamagedCheckpoint(f"{folder.name}: {error}") from error
    if hashlib.sha256(content).hexdigest() != listed_digests(folder)[paths.MANIFEST]:
        raise DamagedCheckpoint(f"{folder.name}: {paths.MANIFEST} does not match {paths.SUMS}")
    return parse_manifest(content, folder)


def parse_manifest(content: bytes | bytearray, folder: Path) -> Manifest:
    """A checkpoint's description from bytes that have been verified.

    Raises:
        IncompatibleCheckpointError: another version of this code wrote it, in another format.
    """
    return load_verified({paths.MANIFEST: content}, folder)[0]


def load_verified(contents: Mapping[str, bytes | bytearray], folder: Path) -> tuple[Manifest, Mapping[str, Any]]:
    """A checkpoint's description and its files, as this version writes them, from bytes that have been verified.

    Raises:
        IncompatibleCheckpointError: another version of this code wrote it, in a format that this one does not read.
    """
    try:
        converted = migrations.converted(contents)
        return parse(converted[paths.MANIFEST], Manifest), converted
    except ValueError as error:
        what = f"{paths.MANIFEST} has unexpected fields" if isinstance(error, ValidationError) else str(error)
        raise IncompatibleCheckpointError(
            what, where=str(folder), remedy="Use the version of redsm5 that wrote it, or start a new trial."
        ) from None


def read_checkpoint(folder: Path) -> Checkpoint:
    """A committed checkpoint as the retention plan needs it.

    Raises:
        DamagedCheckpoint: its own description is not what was committed.
        IncompatibleCheckpointError: it is of another format.
    """
    manifest = read_manifest(folder)
    return Checkpoint(folder.name, manifest.step, manifest.score, paths.STATE_JSON in listed_digests(folder))


def weights_sha256(folder: Path) -> str:
    """The hash of a checkpoint's weights, however they are stored.

    Raises:
        DamagedCheckpoint: SHA256SUMS or the header of model.delta cannot be read.
    """
    listed = listed_digests(folder)
    if digest := listed.get(paths.WEIGHTS):
        return digest
    try:
        with files.open_regular(folder / paths.WEIGHTS_DELTA) as file:
            return delta.read_header(file.readline())[0].sha256
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{folder.name}: {paths.WEIGHTS_DELTA} cannot be read: {error}") from error


def read_verified(folder: Path) -> dict[str, bytearray]:
    """The contents of all files of a checkpoint, hashed while they are read; what is stored as a difference, restored.

    Raises:
        DamagedCheckpoint: SHA256SUMS is not exactly that of these bytes.
        BaseError: the file that a difference refers to is missing or damaged.
    """
    try:
        names = sorted(listed_digests(folder))
        with ThreadPoolExecutor(HASHERS, "hash") as pool:
            read = dict(zip(names, pool.map(lambda name: _again(lambda: _read(folder / name)), names), strict=True))
        written = _again(lambda: files.read_bytes(folder / paths.SUMS))
    except OSError as error:
        raise DamagedCheckpoint(f"{folder.name}: {error}") from error
    if sums({name: digest for name, (_, digest) in read.items()}) != written:
        raise DamagedCheckpoint(f"{folder.name}: {paths.SUMS} does not match the files")
    return {
        ORIGINALS.get(name, name): _restored(folder, name, content) if name in ORIGINALS else content
        for name, (content, _) in read.items()
    }


def _restored(folder: Path, name: str, content: bytearray) -> bytearray:
    """The file of which this is the difference."""
    try:
        header, _ = delta.read_header(content)
        base = _base(folder, header)
        found, digest, at = bytearray(header.bytes), hashlib.sha256(), 0
        for piece in delta.decode(content, base):
            found[at : at + len(piece)] = piece.data
            digest.update(piece.data)
            at += len(piece)
    except ValueError as error:
        raise DamagedCheckpoint(f"{folder.name}: {name} is malformed: {error}") from error
    if digest.hexdigest() != header.sha256:
        raise DamagedCheckpoint(f"{folder.name}: what {name} restores is not what was stored")
    return found


def _base(folder: Path, header: delta.Header) -> bytearray | None:
    """The verified contents of the file that the differences refer to."""
    if header.base is None:
        return None
    if not BASE_PATH.fullmatch(header.base):
        raise ValueError(f"its base is {header.base}")
    path = folder.parents[2] / header.base
    try:
        content, digest = _again(lambda: _read(path))
    except OSError as error:
        raise _base_error(folder, path, "is missing" if isinstance(error, FileNotFoundError) else str(error)) from error
    if digest != header.base_sha256:
        raise _base_error(folder, path, "is damaged")
    return content


def _base_error(folder: Path, path: Path, what: str) -> BaseError:
    return BaseError(
        f"the file of pretrained weights {what}, to which {folder.parents[1].name}/{folder.name} is the difference",
        where=str(path),
        remedy="Put the file back; or remove it, and the next trial of its study writes it again.",
    )


def _again(read: Callable[[], Read]) -> Read:
    """The result of `read`, with one retry: a transient error of a disk or network is not damage."""
    try:
        return read()
    except OSError:
        return read()


def _read(path: Path) -> tuple[bytearray, str]:
    """A file's bytes and their hash."""
    digest = hashlib.sha256()
    with files.open_regular(path) as file:
        content = bytearray(os.fstat(file.fileno()).st_size)
        view, at = memoryview(content), 0
        while count := file.raw.readinto(view[at : at + PIECE]):
            digest.update(view[at : at + count])
            at += count
    return content, digest.hexdigest()


def _sha256(content: Content) -> str:
    return hashlib.sha256(content).hexdigest()


class CheckpointStore:
    """The checkpoints of one trial. Whoever opens it holds the trial's lock.

    Args:
        trial_dir: the trial's folder.
        policy: what is kept; it may be replaced by a stricter one while the trial runs.
        log: called with a sentence and its facts for every checkpoint kept, stripped, deleted or quarantined.
        make_room: called with a number of bytes before any is written; it raises DiskError where they have no room.
        writes: whether this process may; of several that train a trial, only the first does, and the others read.
    """

    def __init__(
        self,
        trial_dir: Path,
        policy: Policy,
        log: Callable[..., object],
        make_room: Callable[[int], object] = lambda size: None,
        *,
        writes: bool = True,
    ) -> None:
        self.folder = trial_dir / paths.CHECKPOINTS
        self.policy = policy
        self.make_room = make_room
        self._rows = trial_dir / paths.RETENTION
        self.log = log
        self._hashers = ThreadPoolExecutor(HASHERS, "hash")
        if not writes:
            return
        owned.refuse_links(trial_dir)
        files.make_dir(self.folder)
        files.cut_torn_tail(self._rows)
        self._said = {row.checkpoint: (row.action, row.reason) for row in load_lines(self._rows, RetentionRow)}
        self._remove_litter()

    def names(self) -> list[str]:
        """The names of committed checkpoints, in no particular order; other files in the folder are ignored."""
        return [p.name for p in self.folder.iterdir() if owned.is_checkpoint(p)]

    def checkpoints(self) -> list[Checkpoint]:
        """The committed checkpoints as the retention plan needs them; one with a damaged manifest is quarantined.

        Raises:
            IncompatibleCheckpointError: one is of another format.
        """
        found = []
        for name in self.names():
            try:
                found.append(read_checkpoint(self.folder / name))
            except DamagedCheckpoint as error:
                self.quarantine(name, str(error).splitlines()[0])
        return found

    def best(self) -> list[Checkpoint]:
        """The best checkpoint and all tied with it, oldest first; the newest where no score is finite."""
        checkpoints = self.checkpoints()
        return best(checkpoints, 1, maximize=self.policy.maximize) or sorted(checkpoints, key=lambda c: c.step)[-1:]

    def size(self) -> int:
        """Bytes on disk, litter included."""
        return files.tree_bytes(self.folder)

    def commit(self, manifest: Manifest, contents: Mapping[str, Content]) -> str:
        """Write a checkpoint of these files and the manifest. When this returns, it is durable and the plan was carried
        out.

        Raises:
            DiskError: it has no room; nothing was written.
            OSError: it could not be written; what was, is removed again.
        """
        name = checkpoint_name(epoch=manifest.epoch, step=manifest.step, mid_epoch=manifest.batches_done > 0)
        contents = {**contents, paths.MANIFEST: manifest.to_json()}
        self.make_room(sum(map(len, contents.values())) + sum(67 + len(name) for name in contents))
        temporary = self.folder / f"{paths.TEMPORARY}{name}-{secrets.token_hex(4)}"
        try:
            self._write(temporary, contents)
        except OSError:
            with suppress(OSError):
                owned.remove_checkpoint(temporary)  # a full disk needs the room to write down what happened
            raise
        if owned.is_checkpoint(self.folder / name):  # the weights of an epoch that is trained again after damage
            self._retire(name)
        self._give_name(temporary, name)
        files.fsync_dir(self.folder)
        self.apply_plan(finished=False)
        return name

    def _give_name(self, temporary: Path, name: str) -> None:
        """Commit what was written. If other files are in the target folder, SHA256SUMS is moved last and commits it."""
        target = self.folder / name
        if not os.path.lexists(target):
            temporary.rename(target)
            return
        owned.refuse_in_place_of_folder(target)
        *others, sums_file = sorted(temporary.iterdir(), key=lambda path: path.name == paths.SUMS)
        for path in others:
            path.rename(target / path.name)
        files.fsync_dir(target)
        sums_file.rename(target / sums_file.name)
        files.fsync_dir(target)
        temporary.rmdir()

    def _write(self, folder: Path, contents: Mapping[str, Content]) -> None:
        """All files and their SHA256SUMS, durably. Hashing takes as long as writing, so threads do it."""
        digests = {name: self._hashers.submit(_sha256, content) for name, content in contents.items()}
        folder.mkdir(mode=0o700)
        for name, content in contents.items():
            files.write_durable(folder / name, content)
        files.write_durable(folder / paths.SUMS, sums({name: digest.result() for name, digest in digests.items()}))
        files.fsync_dir(folder)

    def apply_plan(self, *, finished: bool, tight: bool = False) -> None:
        """Carry out the retention plan; with `tight`, budget or disk leave no space for ties."""
        policy = replace(self.policy, drop_ties=tight)
        for step in plan(self.checkpoints(), policy, finished=finished):
            if step.action == "strip":
                self.strip(step.checkpoint, step.reason)
            elif step.action == "delete":
                self.delete(step.checkpoint, step.reason)
            else:
                self._record("keep", step.checkpoint, owned.own_bytes(self.folder / step.checkpoint.name), step.reason)

    def strip(self, checkpoint: Checkpoint, reason: str) -> int:
        """Drop a checkpoint's training state and keep its weights; how many bytes that gives back.

        First the list that names the state, atomically, then the files: a crash between leaves litter.
        """
        folder = self.folder / checkpoint.name
        digests = listed_digests(folder)
        states = STATES & digests.keys()
        size = sum((folder / name).stat().st_size for name in states)
        self._record("strip", checkpoint, size, reason)
        files.write_atomic(folder / paths.SUMS, sums({n: d for n, d in digests.items() if n not in states}))
        for name in states:
            (folder / name).unlink(missing_ok=True)
        files.fsync_dir(folder)
        return size

    def delete(self, checkpoint: Checkpoint, reason: str) -> int:
        """Remove a checkpoint; how many bytes that gives back."""
        size = owned.own_bytes(self.folder / checkpoint.name)
        self._record("delete", checkpoint, size, reason)
        self._retire(checkpoint.name)
        return size

    def note_kept(self, checkpoint: Checkpoint, reason: str) -> None:
        """Add a row on a checkpoint that stays, with the bytes that it has now."""
        self._write_row("keep", checkpoint, owned.own_bytes(self.folder / checkpoint.name), reason)

    def quarantine(self, name: str, reason: str) -> None:
        """Rename a damaged checkpoint without destroying it; it is deleted when the trial is finished."""
        target = self.folder / f"{paths.DAMAGED}{name}"
        owned.remove_checkpoint(target)
        owned.move_checkpoint(self.folder / name, target)
        files.fsync_dir(self.folder)
        step = int(name.removeprefix("step-")) if name.startswith("step-") else 0
        self._said[name] = ("set_aside", reason)  # so that what is said of its successor is news
        self._write_row("set_aside", Checkpoint(name, step, None, False), owned.own_bytes(target), reason)
        self.log("checkpoint is damaged and quarantined", checkpoint=name, reason=reason)

    def drop_quarantined(self, reason: str = "damaged, and its space is needed") -> None:
        """Delete the quarantined checkpoints: the trial is finished, or their space is needed."""
        for path in self.folder.glob(f"{paths.DAMAGED}*"):
            name = path.name.removeprefix(paths.DAMAGED)
            if not owned.is_litter(path):
                continue  # not ours
            if not (self.folder / name).exists():  # else the row would speak of its successor
                step = int(name.removeprefix("step-")) if name.startswith("step-") else 0
                self._record("delete", Checkpoint(name, step, None, False), owned.own_bytes(path), reason)
            owned.remove_checkpoint(path)
        files.fsync_dir(self.folder)

    def finish(self) -> None:
        """What a finished trial leaves: the weights of its best. Doing it twice changes nothing."""
        self.apply_plan(finished=True)
        self.drop_quarantined("damaged, and the trial is finished")

    def _retire(self, name: str) -> None:
        trash = self.folder / f"{paths.TRASH}{name}-{secrets.token_hex(4)}"
        owned.move_checkpoint(self.folder / name, trash)
        files.fsync_dir(self.folder)
        owned.remove_checkpoint(trash)

    def _remove_litter(self) -> None:
        """Remove what a crash left: half-written and retired checkpoints, and files that no SHA256SUMS lists."""
        for path in self.folder.iterdir():
            if owned.is_litter(path) and not path.name.startswith(paths.DAMAGED):
                owned.remove_checkpoint(path)
        for name in self.names():
            folder = self.folder / name
            try:
                listed = listed_digests(folder).keys()
            except DamagedCheckpoint:
                continue  # `checkpoints` sets it aside
            for path in folder.iterdir():
                stored = path.name in STATE_FILES | WEIGHT_FILES | ORIGINALS.keys()
                if (stored and path.name not in listed) or path.name == f".{paths.SUMS}.tmp":
                    path.unlink()

    def _record(self, action: RetentionAction, checkpoint: Checkpoint, size: int, reason: str) -> None:
        """Write a row before the action, so that no action is unrecorded; a row is not repeated."""
        if self._said.get(checkpoint.name) == (action, reason):
            return
        self._said[checkpoint.name] = (action, reason)
        self._write_row(action, checkpoint, size, reason)
        self.log(f"checkpoint: {action}", checkpoint=checkpoint.name, bytes=size, reason=reason)

    def _write_row(self, action: RetentionAction, checkpoint: Checkpoint, size: int, reason: str) -> None:
        row = RetentionRow(
            timestamp=now(),
            action=action,
            checkpoint=checkpoint.name,
            epoch=0 if checkpoint.mid_epoch else int(checkpoint.name.removeprefix("epoch-")),
            step=checkpoint.step,
            score=checkpoint.score,
            bytes=size,
            reason=reason,
        )
        files.append_durable(self._rows, row.to_line())
