"""Finds and deletes reclaimable files in an experiments folder.

- litter: checkpoints that are half written, retired or quarantined; files that no SHA256SUMS lists; training states and
  checkpoints that a finished trial was killed before it could delete; and logs of older versions beyond the limit of a
  folder of logs (redsm5/engine/tracking/logs.py), of which the newest lines are kept;
- orphan: checkpoints that no trial refers to or that cannot be loaded, whole trials whose study's folder was deleted,
  and pretrained weights that no checkpoint of a study refers to any more;
- evictable: what the budget would evict next, in its order; never from an unfinished trial, and never a study's best.

Files that redsm5 does not own (redsm5/engine/owned.py) are never deleted, but named if they are in the way: other
people's files, folders with similar names, and everything that is, or is behind, a symbolic link.

A dry run changes nothing. Files are deleted under the trial's lock; a trial that another process has locked is skipped.
Each deleted checkpoint adds a row to its trial's retention.jsonl, and trial.json is updated. Except where a trial's
study was deleted, no metric, report or configuration is deleted, nor the resume point of an unfinished trial. A crash
leaves litter at most; a second run finds nothing more to delete.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, get_args

from redsm5.engine import files, owned, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import NO_ROOM, IncompatibleCheckpointError, InputError
from redsm5.engine.records import FINISHED, TrialRecord
from redsm5.engine.spec import load_snapshot
from redsm5.engine.storage.budget import EVICTABLE, eviction_order, free_trial, lazy_chances
from redsm5.engine.storage.compaction import drop_unused_bases, unused_bases
from redsm5.engine.storage.retention import Checkpoint, Policy, plan
from redsm5.engine.storage.store import (
    STATES,
    CheckpointStore,
    DamagedCheckpoint,
    listed_digests,
    read_checkpoint,
)
from redsm5.engine.tracking.logs import FILES, MAX_BYTES, bound, excess_bytes

Kind = Literal["litter", "orphan", "evictable"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LITTER = {
    paths.TEMPORARY: "half written",
    paths.TRASH: "retired, but not completely removed",
    paths.DAMAGED: "damaged, quarantined",
}
SHOWN = 3  # names of what is not ours, in one sentence


@dataclass(frozen=True)
class Item:
    """A reclaimable file or folder.

    Attributes:
        reason: why it may.
        order: of the evictable, the place in its study's order, from 1.
        study: the study's id; None for a trial outside a study, and for what belongs to no trial.
        checkpoint: as it is to be told of in retention.jsonl; None where it is no checkpoint, or not by itself.
        states_only: only training states go, the weights stay.
    """

    kind: Kind
    path: Path
    bytes: int
    reason: str
    order: int | None = None
    study: str | None = None
    checkpoint: Checkpoint | None = None
    states_only: bool = False
    deleted: bool = False


@dataclass
class Found:
    """What was found, and what was skipped, with reasons."""

    items: list[Item] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)


@dataclass
class _Trial:
    """A trial's folder: what may go, and what is left after that, in bytes.

    Attributes:
        strangers: what lies among its checkpoints and is not ours.
    """

    folder: Path
    record: TrialRecord | None
    items: list[Item] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)
    states: int = 0
    weights: int = 0


class _PassedOver(Exception):
    """A trial is skipped; the message says why."""


def cleanup(experiments: Path, *, execute: bool = False, evict: bool = False) -> Found:
    """Find reclaimable files. With `execute` litter and orphans are deleted; with `evict` also what is evictable."""
    found = Found()
    for path in sorted(p for p in experiments.iterdir() if not _is_folder_of_ours(p)):
        if path.name.startswith(("study_", "trial_")):
            what = "a symbolic link" if path.is_symlink() else "not the folder of a study or a trial"
            found.skipped.append((path, f"it is {what}, and is not touched"))
    for path in sorted(experiments.glob(f"{paths.TRASH}trial_*")):
        with _passing_over(path, found):
            _refuse_strangers(path)
            item = Item("litter", path, _bytes(path), "a partly removed trial")
            if execute:
                rmtree(path)
            found.items.append(replace(item, deleted=execute))
    for folder in paths.study_dirs(experiments):
        if not (folder / paths.STUDY).exists() and not owned.was_never_begun(folder):
            found.skipped.append((folder, f"it has no {paths.STUDY}: a study without its record is not touched"))
            continue
        for item in _too_long_logs(folder):
            if execute:
                bound(item.path)
            found.items.append(replace(item, deleted=execute))
    trials = []
    for folder in paths.trial_dirs(experiments):
        with _passing_over(folder, found), _free(folder, create=execute):
            trial = _look(folder)
            trials.append(trial)
            found.items += trial.items
            found.skipped += [
                (path, "not written by redsm5: it is not touched, but its bytes count") for path in trial.strangers
            ]
            if execute and trial.items:
                _delete(trial)
                found.items[-len(trial.items) :] = [replace(item, deleted=True) for item in trial.items]
    for folder, item in _evictable(trials, experiments):
        found.items.append(item)
        if execute and evict:
            with _passing_over(folder, found), _free(folder, create=True):
                _evict(folder, item)
                found.items[-1] = replace(item, deleted=True)
    for study in paths.study_dirs(experiments):
        if (files.read_json(study / paths.STUDY) or {}).get("state") != "running":  # else its next trial needs them
            unused = [Item("orphan", path, _bytes(path), "no checkpoint refers to it") for path in unused_bases(study)]
            if execute and unused:
                drop_unused_bases(study)
            found.items += [replace(item, deleted=execute) for item in unused]
    return found


@contextmanager
def _passing_over(folder: Path, found: Found) -> Iterator[None]:
    """Record why a trial is skipped, and continue with the next."""
    try:
        yield
    except _PassedOver as error:
        reason = str(error)
    except (IncompatibleCheckpointError, owned.NotOursError, files.NotRegularError) as error:
        reason = error.what if error.where == str(folder) else f"{error.where}: {error.what}"
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        reason = "the disk is too full to record the deletion: run cleanup again"  # others may have made room by then
    else:
        return
    found.skipped.append((folder, reason))


@contextmanager
def _free(folder: Path, *, create: bool) -> Iterator[None]:
    """Hold the trial's lock. A trial that no process was ever at has none, and looking at it makes none."""
    if not create and not (folder / paths.LOCK).exists():
        yield
        return
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            raise _PassedOver("a process is using it")
        yield


# ---------------------------------------------------------------------------------------------------------------------
# looking; the caller holds the trial's lock


def _look(folder: Path) -> _Trial:
    record = _record(folder)
    trial = _Trial(folder, record)
    if record and record.study_id and not os.path.lexists(paths.study_dir(folder.parent, record.study_id)):
        _refuse_strangers(folder)
        reason = f"its study {record.study_id} no longer exists: the whole trial is deleted"
        trial.items.append(Item("orphan", folder, _bytes(folder), reason))
        return trial
    owned.refuse_links(folder)
    committed = []
    checkpoints = folder / paths.CHECKPOINTS
    trial.strangers = [path for path in owned.strangers(folder) if checkpoints in path.parents]
    for path in sorted(checkpoints.iterdir()) if checkpoints.is_dir() else ():
        if owned.is_litter(path):
            reason = next(reason for prefix, reason in LITTER.items() if path.name.startswith(prefix))
            trial.items.append(Item("litter", path, owned.own_bytes(path), reason))
        if not owned.is_checkpoint(path):
            continue
        try:
            checkpoint = read_checkpoint(path)
        except DamagedCheckpoint:
            step = int(path.name.removeprefix("step-")) if path.name.startswith("step-") else 0
            unknown = Checkpoint(path.name, step, None, False)
            reason = f"it cannot be loaded: no valid {paths.SUMS} and {paths.MANIFEST}"
            trial.items.append(Item("orphan", path, owned.own_bytes(path), reason, checkpoint=unknown))
            continue
        if record is None:
            reason = f"no trial refers to it: there is no {paths.TRIAL}"
            trial.items.append(Item("orphan", path, owned.own_bytes(path), reason, checkpoint=checkpoint))
            continue
        known = {paths.SUMS, *listed_digests(path)}
        unlisted = [file for file in owned.own_files(path) if file.name not in known]
        trial.items += [Item("litter", file, _bytes(file), f"{paths.SUMS} does not list it") for file in unlisted]
        committed.append(checkpoint)
    if record:
        _look_at_committed(trial, record, committed)
    trial.items += _too_long_logs(folder)
    return trial


def _too_long_logs(folder: Path) -> list[Item]:
    """What a study's or a trial's logs take beyond their bound. Who writes to a study's is not disturbed."""
    logs = folder / paths.LOGS
    excess = excess_bytes(logs)
    return [Item("litter", logs, excess, f"logs beyond {FILES} × {MAX_BYTES / 1e6:.0f} MB")] if excess else []


def _look_at_committed(trial: _Trial, record: TrialRecord, committed: list[Checkpoint]) -> None:
    """What of whole checkpoints a finished trial should have dropped, by its own policy; the rest is left."""
    finished = record.state in FINISHED
    for step in plan(committed, _policy(trial.folder) if finished else Policy(keep_all=True), finished=finished):
        path = trial.folder / paths.CHECKPOINTS / step.checkpoint.name
        states = sum(files.file_bytes(path / name) for name in STATES & listed_digests(path).keys())
        weights = sum(files.file_bytes(path / name) for name in {paths.SUMS, *listed_digests(path)}) - states
        if step.action == "keep":
            trial.states += states
        if step.action != "delete":
            trial.weights += weights
        if step.action != "keep":
            strip = step.action == "strip"
            size, reason = states if strip else states + weights, f"left by a {record.state} trial: {step.reason}"
            trial.items.append(
                Item("litter", path, size, reason, checkpoint=step.checkpoint, states_only=strip),
            )


def _record(folder: Path) -> TrialRecord | None:
    """trial.json; None if neither it nor a configuration exists, with which the trial could resume."""
    try:
        record = load(folder / paths.TRIAL, TrialRecord)
    except InputError as error:  # damaged, or a later version's: no reason to delete anything
        raise _PassedOver(f"its {paths.TRIAL} is damaged, or was written by another version") from error
    if record is None:
        if (folder / paths.CONFIG).exists():
            raise _PassedOver(f"it has no {paths.TRIAL}, and resumes from its {paths.CONFIG}")
        return None
    if paths.trial_dir(folder.parent, record.trial_id) != folder:
        raise _PassedOver(f"its {paths.TRIAL} belongs to trial {record.trial_id}")
    return record


def _policy(folder: Path) -> Policy:
    """The retention policy of the trial's own configuration; keep everything if that cannot be read."""
    if (snapshot := _snapshot(folder)) is None:
        return Policy(keep_all=True)
    retention = snapshot["retention"]
    kept = {f.name: retention[f.name] for f in fields(Policy) if f.name in retention}
    return Policy(**kept, maximize=_maximize(snapshot))


def _snapshot(folder: Path) -> dict[str, Any] | None:
    """The trial's own configuration; None if it cannot be read."""
    try:
        return load_snapshot(folder)
    except InputError:
        return None


def _maximize(snapshot: dict[str, Any] | None) -> bool:
    return snapshot is None or snapshot["study"]["direction"] == "maximize"


def _evictable(trials: list[_Trial], experiments: Path) -> list[tuple[Path, Item]]:
    """What the budget would evict next, by study; a trial outside a study is its own study."""
    studies: dict[str, list[_Trial]] = defaultdict(list)
    for trial in trials:
        if trial.record and (trial.states or trial.weights):
            studies[trial.record.study_id or trial.record.trial_id].append(trial)
    found = []
    for of_study in studies.values():
        by_id = {trial.record.trial_id: trial for trial in of_study if trial.record}
        snapshot = _snapshot(of_study[0].folder)  # one task and one direction for all
        own_script = snapshot is not None and snapshot["study"]["script"] is not None  # its report is its own affair
        reported = {t_id for t_id, trial in by_id.items() if own_script or (trial.folder / paths.REPORT).exists()}
        records = [trial.record for trial in of_study if trial.record]
        order = 0
        study = paths.study_dir(experiments, str(records[0].study_id))
        for trial_id, states_only, reason in eviction_order(
            records,
            maximize=_maximize(snapshot),
            reported=reported.__contains__,
            chance=lazy_chances(study, snapshot and snapshot["study"]),
        ):
            trial = by_id[trial_id]
            size = trial.states if states_only else trial.states + trial.weights
            if states_only:
                trial.states = 0  # they go before the weights do
            if size:
                order += 1
                reason = reason.removeprefix("budget: ")
                item = Item(
                    "evictable",
                    trial.folder / paths.CHECKPOINTS,
                    size,
                    reason,
                    order,
                    records[0].study_id,
                    states_only=states_only,
                )
                found.append((trial.folder, item))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# deleting; the caller holds the trial's lock


def _delete(trial: _Trial) -> None:
    """Delete what was found. What needs no row is deleted first: on a full disk that makes space for the rows."""
    folder = trial.folder
    if trial.items[0].path == folder:
        trash = folder.with_name(f"{paths.TRASH}{folder.name}")
        folder.rename(trash)
        files.fsync_dir(folder.parent)
        rmtree(trash)
        return
    files.fsync_dir(folder)  # its record may be in the cache alone
    for item in trial.items:
        if item.path == folder / paths.LOGS:
            bound(item.path)
        elif item.checkpoint is None and owned.is_litter(item.path):
            if not item.path.name.startswith(paths.DAMAGED):
                owned.remove_checkpoint(item.path)
        elif item.checkpoint is None:
            item.path.unlink(missing_ok=True)
    store = CheckpointStore(folder, Policy(), _silent)
    store.drop_quarantined("cleanup: damaged")
    for item in trial.items:
        if item.checkpoint and item.states_only:
            store.strip(item.checkpoint, f"cleanup: {item.reason}")
        elif item.checkpoint:
            store.delete(item.checkpoint, f"cleanup: {item.reason}")
    if trial.record:
        trial.record = trial.record.model_copy(update={"bytes": store.size()})
        files.write_atomic(folder / paths.TRIAL, trial.record.to_json())


def _evict(folder: Path, item: Item) -> None:
    record = _record(folder)
    if record is None or record.state not in EVICTABLE:
        raise _PassedOver("it is no longer finished")
    free_trial(folder, record, states_only=item.states_only, reason=f"cleanup --evict: {item.reason}", log=_silent)


def _is_folder_of_ours(path: Path) -> bool:
    return paths.is_ours(path.name) and path.is_dir() and not path.is_symlink()


def _refuse_strangers(folder: Path) -> None:
    """Skip a folder that would be deleted as a whole but contains files that redsm5 does not own."""
    if folder.is_symlink() or not folder.is_dir():
        raise _PassedOver("it is a symbolic link, or not a folder")
    if strangers := owned.strangers(folder):
        names = ", ".join(str(path.relative_to(folder)) for path in strangers[:SHOWN])
        more = f" and {len(strangers) - SHOWN} more" if len(strangers) > SHOWN else ""
        raise _PassedOver(f"not deleted, since it contains files that redsm5 did not write: {names}{more}")


def _bytes(path: Path) -> int:
    return files.tree_bytes(path) if path.is_dir() and not path.is_symlink() else files.file_bytes(path)


def _silent(*_: object, **__: object) -> None:
    """The rows in retention.jsonl say it, and the command prints it."""
