"""Decides what in an experiments folder redsm5 owns, and so may delete. No other module decides this.

Owned are the folders `study_<uuid>` and `trial_<uuid>`, and in them the names that redsm5 writes; everything else, and
every symbolic link, belongs to the user and stays. A folder is deleted only if it contains nothing but owned files.
Nothing is deleted through a link, with one exception: a trial's `checkpoints` may be a link to another disk if it was
one before the trial's first start, which the trial's record then says.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.errors import InputError


class NotOursError(InputError):
    """A link or a file that redsm5 did not create has replaced one of redsm5's folders."""

    kind = "not_ours"
    resumable = True


CHECKPOINT = r"(?:epoch-\d{4,}|step-\d{8,})"
CHECKPOINT_FILES = (
    *(paths.SUMS, paths.MANIFEST, paths.WEIGHTS, paths.STATE_TENSORS, paths.STATE_JSON),
    *paths.DELTAS.values(),
)
BASE_FILE = r"[0-9a-f]{16}\.safetensors"

_LITTER = re.compile(
    rf"(?:{re.escape(paths.TEMPORARY)}|{re.escape(paths.TRASH)}){CHECKPOINT}(?:-\w+)?"
    rf"|{re.escape(paths.DAMAGED)}{CHECKPOINT}"
)
_ROTATED = re.compile(rf"{re.escape(paths.LOG)}\.(\d{{4}}-\d\d-\d\d)\.(\d+)")
_LOG = rf"{paths.LOGS}(?:/(?:{re.escape(paths.LOG)}|{_ROTATED.pattern}))?"


def _any(*names: str) -> str:
    """A pattern for files that are replaced or locked: their own names, and those of their temporary and lock-holder
    files.
    """
    joined = "|".join(map(re.escape, names))
    return rf"(?:{joined})(?:\.held)?|\.(?:{joined})\.tmp"


# What a folder contains, by name or, in subfolders, by relative path.
_IN_CHECKPOINT = re.compile(_any(*CHECKPOINT_FILES))
_IN_STUDY = re.compile(
    "|".join(
        (
            _any(paths.STUDY, paths.EVENTS, paths.INDEX, paths.SUMMARY, paths.SUMMARY_PAGE, paths.BUDGET),
            _any(paths.BUDGET_LOCK, paths.LOCK, paths.RUNGS),
            _LOG,
            rf"{paths.CLAIMS}(?:/[\w.]+\.lock(?:\.held)?)?",
            rf"{paths.BASE}(?:/(?:{BASE_FILE}|\.{BASE_FILE}\.tmp))?",
            rf"{paths.CONTROL}(?:/(?:{paths.STOP}|{paths.STOP_NOW}|{paths.PAUSE}|{paths.PRUNE}[0-9a-f-]{{36}}))?",
        )
    )
)
_IN_TRIAL = re.compile(
    "|".join(
        (
            _any(paths.CONFIG, paths.TRIAL, paths.METRICS, paths.DECISIONS, paths.RETENTION, paths.SHIPPED),
            _any(paths.REPORT, paths.REPORT_PAGE, paths.THRESHOLDS, paths.PREDICTIONS, paths.BUDGET),
            _any(paths.BUDGET_LOCK, paths.LOCK, paths.SHIPPING_LOCK),
            _LOG,
            rf"{paths.LOGS}/{re.escape(paths.OUTPUT)}",
            rf"{paths.CHECKPOINTS}(?:/(?:{CHECKPOINT}|{_LITTER.pattern})(?:/(?:{_IN_CHECKPOINT.pattern}))?)?",
        )
    )
)


def strangers(folder: Path) -> list[Path]:
    """Entries of a study's, a trial's or a checkpoint's folder that redsm5 does not own, links included; sorted."""
    name = folder.name.removeprefix(paths.TRASH)
    known = _IN_CHECKPOINT
    if paths.is_ours(name):
        known = _IN_STUDY if name.startswith("study_") else _IN_TRIAL
    found, stack = [], [""]
    while stack:
        inside = stack.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_symlink() or known.fullmatch(path) is None:
                    found.append(folder / path)
                elif entry.is_dir(follow_symlinks=False):
                    stack.append(path)
    return sorted(found)


def written_logs(folder: Path) -> list[Path]:
    """The files in a folder of logs that are being written: the log and, for a trial, its output."""
    in_trial = folder.parent.name.startswith("trial_") and paths.is_ours(folder.parent.name)
    found = [folder / name for name in ((paths.LOG, paths.OUTPUT) if in_trial else (paths.LOG,))]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def rotated_logs(folder: Path) -> list[tuple[str, int, Path]]:
    """(day, number, path) of the rotated files in a folder of logs, oldest first."""
    found = ((_ROTATED.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((m[1], int(m[2]), path) for m, path in found if m and path.is_file() and not path.is_symlink())


def was_never_begun(study: Path) -> bool:
    """Whether a study's folder was left by a process that was killed while creating it: it has no record
    and no trial.
    """
    index = files.read_json(study / paths.INDEX)
    made = {paths.LOCK, paths.CONTROL, f".{paths.STUDY}.tmp", f".{paths.INDEX}.tmp"}
    if index is not None and not index.get("trials"):
        made.add(paths.INDEX)
    control = study / paths.CONTROL
    return set(os.listdir(study)) <= made and not (control.is_dir() and os.listdir(control))


def is_base(path: Path) -> bool:
    """Whether this is a file of a study's pretrained weights, complete or not."""
    return re.fullmatch(rf"{BASE_FILE}|\.{BASE_FILE}\.tmp", path.name) is not None and not path.is_symlink()


def is_litter(path: Path) -> bool:
    """Whether this is the folder of a checkpoint that is half written, half deleted, or quarantined."""
    return _LITTER.fullmatch(path.name) is not None and not path.is_symlink() and path.is_dir()


def is_checkpoint(path: Path) -> bool:
    """Whether this is the folder of an owned checkpoint, complete or not. A folder with that name that contains only
    other files is not owned.
    """
    if not re.fullmatch(CHECKPOINT, path.name) or path.is_symlink() or not path.is_dir():
        return False
    names = os.listdir(path)
    return not names or any(_IN_CHECKPOINT.fullmatch(name) for name in names)


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint's files, and its folder unless it contains other files."""
    for path in own_files(folder):
        path.unlink(missing_ok=True)
    with suppress(OSError):  # it contains a file that is not ours
        folder.rmdir()


def move_checkpoint(folder: Path, target: Path) -> None:
    """Rename a checkpoint, atomically. If it contains other files, those stay and the checkpoint's files are moved one
    by one, SHA256SUMS first, so that a partly moved checkpoint does not verify.
    """
    if not strangers(folder) and not target.exists():
        folder.rename(target)
        return
    target.mkdir(mode=0o700, exist_ok=True)
    for path in own_files(folder):
        path.rename(target / path.name)
    files.fsync_dir(folder)
    with suppress(OSError):  # it contains a file that is not ours
        folder.rmdir()


def own_bytes(folder: Path) -> int:
    """The total size in bytes of a checkpoint's own files."""
    return sum(map(files.file_bytes, own_files(folder)))


def own_files(folder: Path) -> list[Path]:
    """A checkpoint's files, SHA256SUMS first; none if the folder is a link."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    own = [p for p in folder.iterdir() if _IN_CHECKPOINT.fullmatch(p.name) and not p.is_symlink() and not p.is_dir()]
    return sorted(own, key=lambda path: (path.name != paths.SUMS, path.name))


def refuse_in_place_of_folder(path: Path) -> None:
    """Refuse the path of a new checkpoint's folder if it exists and is not a folder.

    Raises:
        NotOursError: it is a link or a file.
    """
    if path.is_symlink() or not path.is_dir():
        raise NotOursError(
            "a checkpoint must be saved there, but it is not a folder", where=str(path), remedy="Move it away."
        )


def refuse_links(folder: Path, *, begins: bool = False) -> str | None:
    """Refuse a study's or a trial's folder that is a link, or in which one of redsm5's folders is a link.

    Args:
        begins: the trial starts for the first time: then its `checkpoints` may be a link to an empty folder, and the
            caller must save the target in the record. Later the link is accepted if its target is the recorded one.

    Returns:
        The folder of its checkpoints, if `checkpoints` is a link; else None.

    Raises:
        NotOursError: the folder, or a folder in it, is a link that is not accepted.
    """
    for path in (folder, *(folder / name for name in (paths.LOGS, paths.CONTROL, paths.CLAIMS, paths.BASE))):
        if path.is_symlink():
            raise NotOursError(
                f"it is a symbolic link to {os.readlink(path)}; redsm5 does not follow symbolic links",
                where=str(path),
                remedy="Replace the link with the folder itself.",
            )
    link = folder / paths.CHECKPOINTS
    if not link.is_symlink():
        return None
    target = os.path.realpath(link)
    noted = (files.read_json(folder / paths.TRIAL) or {}).get("checkpoints_at")
    if not (begins and os.path.isdir(target) and not os.listdir(target)) and noted != target:
        raise NotOursError(
            f"it is a symbolic link to {os.readlink(link)}, which did not exist when the trial started",
            where=str(link),
            remedy="Replace the link with the folder itself. A trial's checkpoints may only be "
            "linked before its first start, to an empty folder.",
        )
    return target
