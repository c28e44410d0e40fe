"""A trial's checkpoints on disk: either whole and verifiable, or not there.

A checkpoint is written into `.tmp-<name>`, each file fsynced, SHA256SUMS last, then the folder is renamed to its name
and the parent fsynced. Only after that is an older one retired: renamed to `.trash-<name>`, then removed. A crash at
any point leaves the old or the new checkpoint valid, and litter that the next `open` removes. SHA256SUMS is in
coreutils' format: `sha256sum -c SHA256SUMS` verifies a checkpoint without us.

This module knows names, bytes and policies; what is in the files is redsm5/storage/checkpoint.py's.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from redsm5 import files, paths
from redsm5.records import Manifest, RetentionRow, now
from redsm5.storage.retention import Checkpoint, Policy, Step, best, plan

FORMAT_VERSION = 1
STATE_FILES = (paths.STATE_JSON, paths.STATE_TENSORS)


class DamagedCheckpoint(Exception):
    """A checkpoint's bytes are not those that were committed."""


def checkpoint_name(*, epoch: int, step: int, mid_epoch: bool) -> str:
    return f"step-{step:08d}" if mid_epoch else f"epoch-{epoch:04d}"


def sums(contents: Mapping[str, bytes]) -> bytes:
    """SHA256SUMS of these files, by name."""
    return "".join(f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in sorted(contents)).encode()


def listed_files(folder: Path) -> set[str]:
    """The files that a checkpoint's SHA256SUMS names; DamagedCheckpoint where it cannot be read."""
    try:
        lines = (folder / paths.SUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedCheckpoint(f"{folder.name}: {paths.SUMS} cannot be read: {error}") from error
    return {line[66:] for line in lines}


def read_verified(folder: Path) -> dict[str, bytes]:
    """The contents of all files of a checkpoint. DamagedCheckpoint if SHA256SUMS is not exactly that of these bytes."""
    names = listed_files(folder)
    try:
        contents = {name: (folder / name).read_bytes() for name in names if "/" not in name}
    except OSError as error:
        raise DamagedCheckpoint(f"{folder.name}: {error}") from error
    if not {paths.WEIGHTS, paths.MANIFEST} <= contents.keys() or sums(contents) != (folder / paths.SUMS).read_bytes():
        raise DamagedCheckpoint(f"{folder.name}: {paths.SUMS} does not match the files")
    return contents


class CheckpointStore:
    """The checkpoints of one trial. Whoever opens it holds the trial's lock.

    Args:
        trial_dir: the trial's folder.
        policy: what is kept.
        log: called with a sentence and its facts for every checkpoint kept, stripped, deleted or set aside.
    """

    def __init__(self, trial_dir: Path, policy: Policy, log: Callable[..., object]) -> None:
        self.folder = trial_dir / paths.CHECKPOINTS
        self._rows = trial_dir / paths.RETENTION
        self._policy = policy
        self._log = log
        files.make_dir(self.folder)
        files.cut_torn_tail(self._rows)
        self._said = {row["checkpoint"]: (row["action"], row["reason"]) for row in files.read_lines(self._rows)}
        self._remove_litter()

    def names(self) -> list[str]:
        """The committed checkpoints, in no order that means anything."""
        return [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]

    def checkpoints(self) -> list[Checkpoint]:
        """The committed checkpoints as the plan sees them; one whose own description is unreadable is set aside."""
        found = []
        for name in self.names():
            folder = self.folder / name
            try:
                manifest = Manifest.model_validate_json((folder / paths.MANIFEST).read_bytes())
                resumable = set(STATE_FILES) <= listed_files(folder)
            except (OSError, ValueError, DamagedCheckpoint) as error:
                self.set_aside(name, str(error).splitlines()[0])
                continue
            found.append(Checkpoint(name, manifest.step, manifest.score, resumable))
        return found

    def best(self) -> list[Checkpoint]:
        """The best checkpoint and all tied with it, oldest first; the newest where no score is finite."""
        checkpoints = self.checkpoints()
        return best(checkpoints, 1) or sorted(checkpoints, key=lambda c: c.step)[-1:]

    def size(self) -> int:
        """Bytes on disk, litter included."""
        return files.tree_bytes(self.folder)

    def commit(self, manifest: Manifest, contents: Mapping[str, bytes]) -> str:
        """Write a checkpoint of these files and the manifest; then it is durable, and the plan is carried out."""
        mid_epoch = manifest.batches_done > 0
        name = checkpoint_name(epoch=manifest.epoch, step=manifest.step, mid_epoch=mid_epoch)
        contents = {**contents, paths.MANIFEST: manifest.to_json()}
        temporary = self.folder / f".tmp-{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        for file_name, content in contents.items():
            files.write_durable(temporary / file_name, content)
        files.write_durable(temporary / paths.SUMS, sums(contents))
        files.fsync_dir(temporary)
        if (self.folder / name).exists():  # the weights of an epoch that is trained again after damage
            self._retire(name)
        temporary.rename(self.folder / name)
        files.fsync_dir(self.folder)
        self.apply_plan(finished=False)
        return name

    def apply_plan(self, *, finished: bool) -> None:
        """Carry out the retention plan. Each step is recorded before it is done, so that none is done unrecorded."""
        for step in plan(self.checkpoints(), self._policy, finished=finished):
            folder = self.folder / step.checkpoint.name
            if step.action == "strip":
                size = sum((folder / n).stat().st_size for n in STATE_FILES if (folder / n).exists())
            else:
                size = files.tree_bytes(folder)
            self._record(step, size)
            if step.action == "strip":
                self._strip(step.checkpoint.name)
            elif step.action == "delete":
                self._retire(step.checkpoint.name)

    def set_aside(self, name: str, reason: str) -> None:
        """Take a damaged checkpoint out of the way without destroying it; it goes when the trial is finished."""
        target = self.folder / f".damaged-{name}"
        shutil.rmtree(target, ignore_errors=True)
        (self.folder / name).rename(target)
        files.fsync_dir(self.folder)
        self._write_row(
            RetentionRow(
                timestamp=now(),
                action="set_aside",
                checkpoint=name,
                epoch=0,
                step=0,
                score=None,
                bytes=files.tree_bytes(target),
                reason=reason,
            )
        )
        self._log("checkpoint is damaged and set aside", checkpoint=name, reason=reason)

    def finish(self) -> None:
        """What a finished trial leaves: the weights of its best. Doing it twice changes nothing."""
        self.apply_plan(finished=True)
        for path in self.folder.glob(".damaged-*"):
            shutil.rmtree(path)
        files.fsync_dir(self.folder)

    def _strip(self, name: str) -> None:
        """Drop the training state: first the list that names it, atomically, then the files."""
        folder = self.folder / name
        lines = (folder / paths.SUMS).read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line[66:].strip().decode() not in STATE_FILES]
        files.write_atomic(folder / paths.SUMS, b"".join(kept))
        for state_file in STATE_FILES:
            (folder / state_file).unlink(missing_ok=True)
        files.fsync_dir(folder)

    def _retire(self, name: str) -> None:
        trash = self.folder / f".trash-{name}"
        shutil.rmtree(trash, ignore_errors=True)
        (self.folder / name).rename(trash)
        files.fsync_dir(self.folder)
        shutil.rmtree(trash)

    def _remove_litter(self) -> None:
        """Remove what a crash left: half-written and retired checkpoints, and files that no SHA256SUMS lists."""
        for path in [*self.folder.glob(".tmp-*"), *self.folder.glob(".trash-*")]:
            shutil.rmtree(path)
        for name in self.names():
            folder = self.folder / name
            try:
                listed = listed_files(folder) | {paths.SUMS}
            except DamagedCheckpoint:
                continue  # `checkpoints` sets it aside
            for path in folder.iterdir():
                if (path.name in STATE_FILES and path.name not in listed) or path.name == f".{paths.SUMS}.tmp":
                    path.unlink()

    def _record(self, step: Step, size: int) -> None:
        checkpoint = step.checkpoint
        if self._said.get(checkpoint.name) == (step.action, step.reason):
            return
        self._said[checkpoint.name] = (step.action, step.reason)
        epoch = 0 if checkpoint.mid_epoch else int(checkpoint.name.removeprefix("epoch-"))
        self._write_row(
            RetentionRow(
                timestamp=now(),
                action=step.action,
                checkpoint=checkpoint.name,
                epoch=epoch,
                step=checkpoint.step,
                score=checkpoint.score,
                bytes=size,
                reason=step.reason,
            )
        )
        self._log(f"checkpoint: {step.action}", checkpoint=checkpoint.name, bytes=size, reason=step.reason)

    def _write_row(self, row: RetentionRow) -> None:
        files.append_durable(self._rows, row.model_dump_json().encode() + b"\n")
