"""Stores what only waits to be read again in fewer bytes: weights and training states of completed and paused trials.

The weights become the difference to the pretrained ones (redsm5/engine/storage/delta.py), which are in the study's
folder `base/` once. It is done after the training's process has ended, and read back before the original goes. The new
file is written beside the original, then SHA256SUMS is replaced, and that commits it; then the original is deleted. A
crash leaves one or the other, and litter that the next open removes.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path

from redsm5.engine import files, owned, paths
from redsm5.engine.storage import delta
from redsm5.engine.storage.budget import Budget
from redsm5.engine.storage.retention import Checkpoint
from redsm5.engine.storage.store import OVERHEAD, CheckpointStore, DamagedCheckpoint, listed_digests, sums

# The most that may be left of the bytes for the effort to be worth it: 10 % of weights must go, 15 % of states.
AT_MOST = {paths.WEIGHTS: 0.9, paths.STATE_TENSORS: 0.85}


def unused_bases(study: Path) -> list[Path]:
    """The files of pretrained weights in a study's folder to which no checkpoint refers, half-written ones included.

    The caller holds the lock of the study's budget, or deletes nothing.
    """
    folder = study / paths.BASE
    if folder.is_symlink() or not folder.is_dir():
        return []
    used = {header.base for header in _headers(study.parent)}
    return sorted(p for p in folder.iterdir() if owned.is_base(p) and str(p.relative_to(study.parent)) not in used)


def drop_unused_bases(study: Path) -> None:
    """Delete them, and their folder if nothing is left in it."""
    with files.Lock(study / paths.BUDGET_LOCK):
        for path in unused_bases(study):
            path.unlink()
        with suppress(OSError):  # there is none, or one is used, or not ours
            (study / paths.BASE).rmdir()


def _headers(experiments: Path) -> Iterable[delta.Header]:
    for folder in paths.trial_dirs(experiments):
        for path in folder.glob(f"{paths.CHECKPOINTS}/*/{paths.WEIGHTS_DELTA}"):
            with suppress(OSError, ValueError), files.open_regular(path) as file:
                yield delta.read_header(file.readline())[0]


def compact(store: CheckpointStore, budget: Budget, study: Path | None) -> bool:
    """Store each checkpoint of a trial in fewer bytes where that is worth it; whether any was. The caller holds the
    trial's lock.
    """
    bases = sorted((study / paths.BASE).glob("*.safetensors")) if study else []
    done = False
    for checkpoint in store.checkpoints():
        for name in AT_MOST:
            if name in listed_digests(store.folder / checkpoint.name):
                done = _compact(store, budget, checkpoint, name, bases if name == paths.WEIGHTS else []) or done
    return done


def _compact(store: CheckpointStore, budget: Budget, checkpoint: Checkpoint, name: str, bases: list[Path]) -> bool:
    """Store one file in fewer bytes; whether that was worth it, and the disk had room."""
    folder = store.folder / checkpoint.name
    small = folder / paths.DELTAS[name]
    try:
        content = delta.FileBytes(folder / name)
        choices = [(delta.gain(content, None), None), *((delta.gain(content, delta.FileBytes(b)), b) for b in bases)]
        share, base = min(choices, key=lambda choice: choice[0])
        if share > AT_MOST[name] or not budget.spare(len(content) + OVERHEAD):
            return False
        digest = _encode(folder / name, small, base, listed_digests(folder)[name])
        if digest is None:
            small.unlink()
            return False
        with budget.locked():
            if base is not None and not base.exists():  # nothing referred to it, so that it was removed
                small.unlink()
                return False
            listed = {n: d for n, d in listed_digests(folder).items() if n != name}
            files.write_atomic(folder / paths.SUMS, sums({**listed, small.name: digest}))
        (folder / name).unlink()
        files.fsync_dir(folder)
        what = "stored as the difference to the pretrained weights" if base else "compressed"
        store.note_kept(checkpoint, f"retention.compact: {name} is {what}")
        return True
    except (OSError, ValueError, DamagedCheckpoint) as error:
        with suppress(OSError, DamagedCheckpoint):  # on a full disk, its room is needed
            if small.name not in listed_digests(folder):
                small.unlink(missing_ok=True)
        store.log("a checkpoint stays as it is, since it cannot be stored in fewer bytes", reason=str(error))
        return False


def _encode(original: Path, small: Path, base: Path | None, sha256: str) -> str | None:
    """Write the smaller file and read it back; its hash, or None if it is not worth it or does not restore the
    original, which may be damaged: who reads that says so.
    """
    content = delta.FileBytes(original)
    header, other = delta.Header(bytes=len(content), sha256=sha256), None
    if base is not None:
        other = delta.FileBytes(base)
        relative = f"{base.parents[1].name}/{paths.BASE}/{base.name}"
        found = delta.differences(content, other)
        header = replace(header, base=relative, base_sha256=_sha256(base), differences=found)
    digest = _write(small, delta.encode(content, header, other))
    if small.stat().st_size > AT_MOST[original.name] * len(content):
        return None
    restored = hashlib.sha256()
    for piece in delta.decode(delta.FileBytes(small), other):
        restored.update(piece.data)
    return digest if restored.hexdigest() == sha256 else None


def _write(path: Path, parts: Iterable[bytes]) -> str:
    """Write a new file durably; its hash."""
    digest = hashlib.sha256()
    with FileIO(files.open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        for part in parts:
            digest.update(part)
            view = memoryview(part)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
    files.fsync_dir(path.parent)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with files.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
