"""The trials' bytes on disk by kind, and their history; collected step by step, since it opens every folder.

Sizes are st_size. The size if nothing had been deleted, and the writes and deletions, come from the trials' retention
journals.
"""

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice, zip_longest
from pathlib import Path
from time import thread_time

from redsm5.engine import paths
from redsm5.engine.records import TrialRecord

from .journals import NOTHING, Move, Since, Told, told
from .trials import ACTIVE

LOOK_AGAIN_S = 60.0  # at a trial that is not at work and still has checkpoints: they may be evicted
SETTLED_NS = 2e9  # timestamps of changes are as coarse as a second on some disks
WINDOW_MS = 6 * 3600 * 1000
KINDS = ("weights", "training state", "temporary", "elsewhere", "logs", "other")
CHECKPOINT_KINDS = KINDS[:4]  # elsewhere: of a trial whose checkpoints folder is a link, as its record says
MOST_MOVES = 5000  # the newest ones
MOST_RANKED = 200  # the largest trials
RECENT = 1000  # running trials are among so many newest ones
MOST_FILES = 20_000  # per trial folder


@dataclass(slots=True)
class Holding:
    """One trial's files, in bytes by kind, and what its journal says.

    `stamp` is the last change of its checkpoints; None if that was too recent when they were counted.
    """

    kinds: dict[str, int]
    told: Told
    record: TrialRecord
    stamp: tuple[int, ...] | None

    @property
    def has_checkpoints(self) -> bool:
        kinds = self.kinds
        return bool(kinds["weights"] or kinds["training state"] or kinds["temporary"] or kinds["elsewhere"])


@dataclass(frozen=True)
class StorageView:
    """The storage counted so far.

    Attributes:
        by_trial: the bytes by kind. largest: the ids of the largest trials, the largest first.
        moves: the newest ones, oldest first.
        pending: trials whose folders are to be counted, for the first time or again.
        complete: whether each has been counted at least once.
    """

    kinds: dict[str, int] = field(default_factory=dict)
    by_trial: dict[str, dict[str, int]] = field(default_factory=dict)
    largest: tuple[str, ...] = ()
    keep_all: int = 0
    moves: tuple[Move, ...] = ()
    looked_at: int = 0
    pending: int = 0
    complete: bool = False
    version: int = 0

    @property
    def held(self) -> int | None:
        """The bytes of all checkpoints, counted together with their kinds; None until all have been counted."""
        return sum(self.kinds.get(kind, 0) for kind in CHECKPOINT_KINDS) if self.complete else None


class StorageReader:
    """Counts the bytes in the folders of one study's trials, the active and the newest ones first."""

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments
        self._study: str | None = None
        self._held: dict[str, Holding] = {}
        self._queue: deque[TrialRecord] = deque()
        self._queued: set[str] = set()
        self._view = StorageView()
        self._clear()
        self._checked = time.monotonic()
        self._filled: Sequence[TrialRecord] = ()

    def look(self, study_id: str | None, trials: Sequence[TrialRecord], seconds: float) -> StorageView:
        """Continue counting for at most `seconds` of work, or twice that on a busy machine or a slow disk; return the
        result so far.
        """
        if study_id != self._study:
            self._study, self._held, self._view = study_id, {}, StorageView(version=self._view.version + 1)
            self._queue.clear()
            self._queued.clear()
            self._clear()
        self._fill(trials)
        deadline, worked = time.monotonic() + 2 * seconds, thread_time() + seconds
        since = Since.of(max(time.time() * 1000 - WINDOW_MS, self._oldest))
        changed = False
        while self._queue and time.monotonic() < deadline and thread_time() < worked:
            record = self._queue.popleft()
            self._queued.discard(record.trial_id)
            if not self._as_before(record):
                changed |= self._take_in(self._holding(record, since))
        if changed or study_id is None or self._view.pending != len(self._queue):
            self._view = self._sum()
        return self._view

    def _fill(self, trials: Sequence[TrialRecord]) -> None:
        """Queue trials that are new or have changed, and once a minute all that still have checkpoints."""
        if time.monotonic() - self._checked > LOOK_AGAIN_S:
            self._checked = time.monotonic()
            for trial_id in self._with_checkpoints:
                if trial_id not in self._queued:
                    self._queued.add(trial_id)
                    self._queue.append(self._held[trial_id].record)
        before, self._filled = self._filled, trials
        new = []
        if trials is not before:
            new = [trial for trial, old in zip_longest(trials, before) if trial is not old and trial is not None]
        at_work = [record for record in trials[-RECENT:] if record.state in ACTIVE]
        for record in reversed(new + at_work):
            if record.trial_id in self._queued:
                continue
            held = self._held.get(record.trial_id)
            if held is None or held.record is not record or record.state in ACTIVE:
                self._queued.add(record.trial_id)
                (self._queue.appendleft if held and record.state in ACTIVE else self._queue.append)(record)

    def _as_before(self, record: TrialRecord) -> bool:
        """Whether nothing has changed, without opening every folder: of a trial not at work, only checkpoints do."""
        held = self._held.get(record.trial_id)
        if held is None or held.record is not record or held.stamp is None or record.state in ACTIVE:
            return False
        return held.stamp == stamp_of(self._folder(record))

    def _folder(self, record: TrialRecord) -> str:
        return os.fspath(paths.trial_dir(self._experiments, record.trial_id))

    def _holding(self, record: TrialRecord, since: Since) -> Holding:
        folder, before = self._folder(record), self._held.get(record.trial_id)
        stamp, now = stamp_of(folder), time.time()
        settled = now * 1e9 - max(stamp, default=0) > SETTLED_NS
        journal = told(f"{folder}/{paths.RETENTION}", record.number, since, before.told if before else NOTHING)
        kinds = kinds_of(folder)
        kinds["elsewhere"] = record.bytes if record.checkpoints_at else 0
        return Holding(kinds, journal, record, stamp if settled else None)

    def _clear(self) -> None:
        """Reset the sums over all trials, which are updated by each new holding's difference."""
        self._kinds = dict.fromkeys(KINDS, 0)
        self._by_trial: dict[str, dict[str, int]] = {}
        self._sizes: dict[str, int] = {}
        self._with_checkpoints: set[str] = set()
        self._moves: dict[str, tuple[Move, ...]] = {}
        self._oldest = 0.0  # the first move that is kept, in ms since 1970
        self._merged: tuple[Move, ...] | None = ()
        self._keep_all = 0

    def _take_in(self, now: Holding) -> bool:
        """Replace a trial's holding; return whether that changes anything."""
        trial_id = now.record.trial_id
        before = self._held.get(trial_id)
        self._held[trial_id] = now
        if before and (before.kinds, before.told) == (now.kinds, now.told):
            return False
        for kind, size in now.kinds.items():
            self._kinds[kind] += size - (before.kinds[kind] if before else 0)
        self._keep_all += now.told.keep_all - (before.told.keep_all if before else 0)
        self._by_trial[trial_id] = now.kinds
        self._sizes[trial_id] = sum(now.kinds.values())
        (self._with_checkpoints.add if now.has_checkpoints else self._with_checkpoints.discard)(trial_id)
        if now.told.moves != (before.told.moves if before else ()):
            self._moves[trial_id], self._merged = now.told.moves, None
        return True

    def _sum(self) -> StorageView:
        return StorageView(
            kinds=dict(self._kinds),
            by_trial=dict(self._by_trial),
            largest=tuple(nlargest(MOST_RANKED, self._sizes, key=self._sizes.__getitem__)),
            keep_all=self._keep_all,
            moves=self._merge(),
            looked_at=len(self._held),
            pending=len(self._queue),
            complete=len(self._held) >= len(self._filled),
            version=self._view.version + 1,
        )

    def _merge(self) -> tuple[Move, ...]:
        """The newest moves of all trials. Older ones than these are dropped, and read no more."""
        if self._merged is None:
            moves = sorted((move for told in self._moves.values() for move in told), key=lambda m: m.time)
            if len(moves) > MOST_MOVES:
                moves = moves[-MOST_MOVES:]
                self._oldest = moves[0].time
                kept = {i: tuple(m for m in told if m.time >= self._oldest) for i, told in self._moves.items()}
                self._moves = {trial_id: told for trial_id, told in kept.items() if told}
            self._merged = tuple(moves)
        return self._merged


def stamp_of(folder: str) -> tuple[int, ...]:
    """The times, in ns, of the last change of a trial's checkpoints folder and of each checkpoint in it; empty if there
    are none.
    """
    checkpoints = f"{folder}/{paths.CHECKPOINTS}"
    try:
        with os.scandir(checkpoints) as found:
            times = sorted(entry.stat(follow_symlinks=False).st_mtime_ns for entry in islice(found, MOST_FILES))
        return os.stat(checkpoints).st_mtime_ns, *times
    except OSError:
        return ()


def kinds_of(folder: Path | str) -> dict[str, int]:
    """The bytes of a trial's files by kind; files that vanish meanwhile are skipped. Links are not followed."""
    found = dict.fromkeys(KINDS, 0)
    stack = [(os.fspath(folder), "")]
    files = 0
    while stack and files < MOST_FILES:
        parent, kind = stack.pop()
        try:
            with os.scandir(parent) as found_here:
                entries = list(islice(found_here, MOST_FILES - files))
        except OSError:
            continue
        for entry in entries:
            files += 1
            try:
                if entry.is_dir(follow_symlinks=False):
                    stack.append((entry.path, kind or _kind_of_folder(entry.name)))
                elif entry.is_file(follow_symlinks=False):
                    found[_kind(kind, entry.name)] += entry.stat(follow_symlinks=False).st_size
            except OSError:
                continue
    return found


def _kind_of_folder(name: str) -> str:
    if name.startswith((".tmp-", ".trash-", ".damaged-")):
        return "temporary"
    return "logs" if name == paths.LOGS else ""


def _kind(folder: str, name: str) -> str:
    if folder:
        return folder
    if name in (paths.WEIGHTS, paths.WEIGHTS_DELTA):
        return "weights"
    return "training state" if name in (paths.STATE_TENSORS, paths.STATE_DELTA, paths.STATE_JSON) else "other"


def used_over_time(now_bytes: int, moves: Sequence[Move], until_ms: int, columns: int) -> list[float]:
    """The bytes of checkpoints over the last hours, in `width` columns: computed backwards from the current bytes."""
    began = max(min((m.time for m in moves), default=until_ms), until_ms - WINDOW_MS)
    width = max((until_ms - began) / columns, 1.0)
    heights: list[float] = []
    left = sorted(moves, key=lambda m: m.time)
    held = float(now_bytes)
    for column in range(columns, 0, -1):
        start = began + (column - 1) * width
        highest = held
        while left and left[-1].time >= start:
            held -= left.pop().bytes
            highest = max(highest, held)
        heights.append(max(highest, 0.0))
    return heights[::-1]
