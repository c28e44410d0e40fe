"""The byte budget of a study: the upper limit of all its checkpoints on disk together, over all workers.

The size is the sum of st_size of everything under the study's `trial_*/checkpoints/`, temporary, retired and
quarantined files included, and of the pretrained weights in `study_*/base/`. Before a trial trains, it reserves the
most that its policy can hold at once; before each save, it makes sure that the new checkpoint fits its reservation. The
ledger, budget.json, is read and replaced under the flock on budget.lock, which is never renamed or removed. A
reservation holds while its owner holds the trial's lock, and so ends with the process, however that exits. The ledger
is rebuilt from the disk when it is missing or unreadable, and its sizes are measured again at each reservation.

Over budget, checkpoints are evicted in the order of `eviction_order`, which docs/storage.md explains. Never those of a
running or interrupted trial, and never the study's best.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from redsm5.engine import files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import BudgetMismatchError, DiskError, IncompatibleCheckpointError, InputError, Interrupted
from redsm5.engine.files import NotRegularError
from redsm5.engine.installed import command
from redsm5.engine.owned import NotOursError
from redsm5.engine.records import FINISHED, BudgetEntry, BudgetLedger, TrialRecord
from redsm5.engine.rungs import chances
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import OVERHEAD, CheckpointStore
from redsm5.engine.waiting import Stop, wait_until

LOW_DISK_BYTES = 100_000_000_000  # above it no disk is low, whatever the percentage
SLACK = 64_000  # bytes: a list renamed over another, and whatever else is small and short-lived
POLL_S = 0.5
GRACE_S = 60.0  # in which a trial that is being started or ended makes its reservation, or leaves its room
LARGEST_SHOWN = 3
SHARE_OF_BASE = 0.25
GONE_FIRST = ("failed", "pruned")
EVICTABLE = FINISHED | {"paused"}
REMEDIES = (
    "delete studies that are no longer needed",
    "raise retention.max_total_size",
    "lower retention.min_free_disk_percent",
    "use retention=minimal",
)


def reservation(policy: Policy, *, full: int, weights: int, epochs: int) -> int:
    """Bytes that a trial's policy may hold at once, 1 MB a checkpoint included for what is no tensor.

    Args:
        full: bytes of a checkpoint's tensors with its training state.
        weights: bytes of those without.
        epochs: of the trial; each leaves a checkpoint where all are kept.
    """
    if not policy.enabled:
        return 0
    states = (epochs if policy.keep_all else max(policy.keep_last_n, 1)) + 1
    return states * (full + OVERHEAD) + policy.keep_best_k * (weights + OVERHEAD)


class Budget:
    """A study's budget, as one trial's process sees it, which holds the trial's lock and its store.

    Args:
        store: the trial's own; on a low disk it is made to prune what its policy does not protect.
        study_id: None for a trial outside a study, which is its own study.
        max_total_size: bytes.
        min_free_disk_percent: below it, and below 100 GB, the disk is low.
        log: called with a sentence and its facts.
        report: the file without which a completed trial's weights are not evicted; None: there is no such file.
        settings: the section `study` of the configuration, by which the chances of paused trials are estimated.
    """

    def __init__(
        self,
        store: CheckpointStore,
        study_id: str | None,
        *,
        max_total_size: int,
        min_free_disk_percent: float,
        log: Callable[..., object],
        report: str | None = paths.REPORT,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = settings
        trial_dir = store.folder.parent
        self._store, self._study_id, self._log = store, study_id, log
        self._experiments, self._trial_id = trial_dir.parent, trial_dir.name.removeprefix("trial_")
        self._max, self._min_free, self._report = max_total_size, min_free_disk_percent, report
        scope = paths.study_dir(self._experiments, study_id) if study_id else trial_dir
        self._path, self._lock = scope / paths.BUDGET, files.Lock(scope / paths.BUDGET_LOCK)

    def reserve(self, size: int, *, stop: Stop | None = None) -> None:
        """Reserve `size` bytes for this trial; wait while other running trials have reserved the space.

        Raises:
            DiskError: they do not fit, and no trial at work will give room.
            BudgetMismatchError: another worker is at the study with another budget.
            Interrupted: a stop was requested while waiting.
        """
        begin: float | None = None

        def reserved() -> bool:
            nonlocal begin
            with self._lock:
                ledger = self._load()
                missing = self._try_to_reserve(ledger, size)
            if missing <= 0:
                return True
            others = [trial_id for trial_id in ledger.entries if trial_id != self._trial_id]
            if begin is None:
                begin = time.monotonic()
                self._log("the budget is full: waiting for other trials to release space", needed=size, missing=missing)
            # Trials with a reservation will release space. Others are starting, ending or waiting: wait a while.
            patient = any(ledger.entries[t].reserved for t in others) or (
                time.monotonic() - begin < GRACE_S and any(map(self._live, others))
            )
            if size > self._max or not patient:
                needed = max(size, self._own_bytes())
                raise self._no_room(needed, self._max - self._taken(ledger), "within retention.max_total_size")
            return False

        if not wait_until(reserved, stop, every=POLL_S):
            raise Interrupted("stopped while waiting for space in the budget")

    def make_room(self, size: int) -> None:
        """Make sure that `size` more bytes fit the reservation and the disk, before any is written.

        Raises:
            DiskError: they do not; nothing was written.
        """
        with self._lock:
            ledger = self._load()
            self._look_at_disk(ledger, size)
            reserved = ledger.entries[self._trial_id].reserved
            wanted = self._own_bytes() + size + SLACK
            if wanted > reserved:  # ties, or damaged checkpoints that were quarantined, take more than was foreseen
                self._measure(ledger)
                self._evict(ledger, self._missing(ledger, wanted))
                missing = self._missing(ledger, wanted)
                if missing > 0:
                    wanted -= self._free_own()
                    missing = self._missing(ledger, wanted)
                if missing > 0:
                    raise self._no_room(size, self._max - self._taken(ledger), "within retention.max_total_size")
                reserved = max(reserved, wanted)
            self._write(ledger, reserved)

    def spare(self, size: int) -> bool:
        """Reserve `size` bytes beside what the trial has now, if nothing must go for them; whether they were."""
        with self._lock:
            ledger = self._load()
            self._measure(ledger)
            wanted = self._own_bytes() + size + SLACK
            fits = self._missing(ledger, wanted) <= 0 and shutil.disk_usage(self._experiments).free > size + SLACK
            if fits:
                self._write(ledger, wanted)
            return fits

    def locked(self) -> files.Lock:
        """The lock under which what the study's trials share changes."""
        return self._lock

    @contextmanager
    def room_of_study(self, size: int) -> Iterator[bool]:
        """Whether the study may have `size` bytes for a file of pretrained weights: a quarter of what is left at the
        most, so that no trial lacks room for it. Nothing else is reserved meanwhile.
        """
        with self._lock:
            ledger = self._load()
            self._measure(ledger)
            left = -self._missing(ledger, ledger.entries[self._trial_id].reserved)
            yield size <= min(left, shutil.disk_usage(self._experiments).free) * SHARE_OF_BASE

    def release(self) -> None:
        """Release the reservation at the end of the trial: from now on it counts with its size on disk."""
        with self._lock:
            self._write(self._load(), 0)

    # -----------------------------------------------------------------------------------------------------------------
    # the ledger; the caller holds its lock

    def _try_to_reserve(self, ledger: BudgetLedger, size: int) -> int:
        """Reserve `size` bytes if they fit, after making room; by how many bytes they do not."""
        self._measure(ledger)
        self._agree(ledger)
        self._look_at_disk(ledger, max(size - self._own_bytes(), 0))
        self._evict(ledger, self._missing(ledger, size))
        missing = self._missing(ledger, size)
        if missing > 0 and self._own_bytes() > size:  # from a run under a larger budget
            self._free_own()
            missing = self._missing(ledger, size)
        self._write(ledger, size if missing <= 0 else 0)
        return missing

    def _load(self) -> BudgetLedger:
        """The ledger from its file; where there is none that can be read, from the trials on disk."""
        try:
            ledger = load(self._path, BudgetLedger)
        except InputError:
            ledger = None
        if ledger:
            known = self._in_index()
        else:
            if self._path.exists():
                self._log("budget.json cannot be read: it is rebuilt from the files on disk")
            ledger = BudgetLedger(max_total_size=self._max)
            known = self._on_disk()
        for trial_id in [*known, self._trial_id]:
            ledger.entries.setdefault(trial_id, BudgetEntry())
        return ledger

    def _in_index(self) -> list[str]:
        """The trials that the study's index names: in one file, not one for each of them."""
        index = files.read_json(self._path.with_name(paths.INDEX)) or {"trials": []}
        return [row["trial_id"] for row in index["trials"] if isinstance(row, dict) and "trial_id" in row]

    def _on_disk(self) -> list[str]:
        if self._study_id is None:
            return []
        records = [(f, files.read_json(f / paths.TRIAL)) for f in paths.trial_dirs(self._experiments)]
        return [f.name.removeprefix("trial_") for f, r in records if r and r.get("study_id") == self._study_id]

    def _write(self, ledger: BudgetLedger, reserved: int) -> None:
        ledger.entries[self._trial_id] = BudgetEntry(reserved=reserved, bytes=self._own_bytes())
        files.write_atomic(self._path, ledger.to_json())

    def _measure(self, ledger: BudgetLedger) -> None:
        """Take in what is on disk now, and take back the reservations that have no live owner."""
        for trial_id, entry in ledger.entries.items():
            stands = entry.reserved > 0 and (trial_id == self._trial_id or self._live(trial_id))
            reserved = entry.reserved if stands else 0
            ledger.entries[trial_id] = BudgetEntry(
                reserved=reserved, bytes=files.tree_bytes(self._checkpoints(trial_id))
            )

    def _agree(self, ledger: BudgetLedger) -> None:
        """All workers at a study have one budget; with nobody else at work, ours is the new one."""
        if ledger.max_total_size != self._max:
            if any(entry.reserved for trial_id, entry in ledger.entries.items() if trial_id != self._trial_id):
                raise BudgetMismatchError(
                    f"retention.max_total_size={self._max}, but another worker of this study uses "
                    f"{ledger.max_total_size}",
                    remedy="Use the same value, or wait until the other worker has ended.",
                )
            ledger.max_total_size = self._max

    def _taken(self, ledger: BudgetLedger) -> int:
        """Bytes that the other trials hold or have reserved, and those of the study's pretrained weights."""
        others = [entry for trial_id, entry in ledger.entries.items() if trial_id != self._trial_id]
        return sum(max(e.reserved, e.bytes) for e in others) + files.tree_bytes(self._path.parent / paths.BASE)

    def _missing(self, ledger: BudgetLedger, wanted: int) -> int:
        """Bytes by which `wanted` for this trial exceeds what the others leave; negative where there is room."""
        return self._taken(ledger) + max(wanted, self._own_bytes()) - self._max

    def _live(self, trial_id: str) -> bool:
        with files.try_lock(self._folder(trial_id) / paths.LOCK) as free:
            return not free

    def _folder(self, trial_id: str) -> Path:
        return paths.trial_dir(self._experiments, trial_id)

    def _checkpoints(self, trial_id: str) -> Path:
        return self._folder(trial_id) / paths.CHECKPOINTS

    def _own_bytes(self) -> int:
        return self._store.size()

    # -----------------------------------------------------------------------------------------------------------------
    # making room; the caller holds the ledger's lock

    def _evict(self, ledger: BudgetLedger, wanted: float) -> None:
        """Take `wanted` bytes, or what there is, from trials that are over, in the order above."""
        freed = 0
        for trial_id, states_only, reason in self._evictable(ledger) if wanted > 0 else ():
            if freed >= wanted:
                break
            folder = self._folder(trial_id)
            with files.try_lock(folder / paths.LOCK) as held:
                record = self._record(trial_id)
                if not held or record is None or record.state not in EVICTABLE:
                    continue  # it is being evaluated, or has just been extended or promoted
                try:
                    free_trial(folder, record, states_only=states_only, reason=reason, log=self._log)
                except (NotOursError, NotRegularError, IncompatibleCheckpointError) as error:
                    self._log("the checkpoints of a trial are not touched", where=error.where, reason=error.what)
                before, left = ledger.entries[trial_id], BudgetEntry(bytes=files.tree_bytes(folder / paths.CHECKPOINTS))
                freed += before.bytes - left.bytes  # litter that went as its store was opened included
                ledger.entries[trial_id] = left

    def _evictable(self, ledger: BudgetLedger) -> list[tuple[str, bool, str]]:
        """(trial, whether only its training state goes, why), in the order in which they go."""
        others = [trial_id for trial_id, e in ledger.entries.items() if e.bytes and trial_id != self._trial_id]
        records = [record for trial_id in others if (record := self._record(trial_id))]

        def reported(trial_id: str) -> bool:
            return self._report is None or (self._folder(trial_id) / self._report).exists()

        chance = lazy_chances(self._path.parent, self._settings)
        return eviction_order(records, maximize=self._store.policy.maximize, reported=reported, chance=chance)

    def _record(self, trial_id: str) -> TrialRecord | None:
        """A trial's record; None where there is none that can be read: then nothing of the trial is touched."""
        path = self._folder(trial_id) / paths.TRIAL
        try:
            return load(path, TrialRecord)
        except InputError as error:
            self._log(
                "the record of a trial cannot be read, so nothing of it is evicted", where=str(path), reason=error.what
            )
            return None

    def _free_own(self) -> int:
        """Give back what the policy does not protect: damaged checkpoints, and ties; how many bytes it was."""
        before = self._own_bytes()
        self._store.drop_quarantined()
        self._store.apply_plan(finished=False, tight=True)
        return before - self._own_bytes()

    def _look_at_disk(self, ledger: BudgetLedger, size: int) -> None:
        """Where the disk is low, or has no room for `size` bytes, make room on it, step by step."""
        if ledger.austere:
            self._store.policy = austere(self._store.policy)
        if not (low := self._low(size)):
            return
        self._log("low disk space: deleting checkpoints that are not protected", free=low.free, needed=low.needed)
        self._free_own()
        if low := self._low(size):
            self._log(
                "disk space is still low: from now on the study keeps one best checkpoint per trial", free=low.free
            )
            ledger.austere = True
            self._store.policy = austere(self._store.policy)
            self._free_own()
        if low := self._low(size):
            self._measure(ledger)
            self._evict(ledger, math.inf)
        if low := self._low(size):
            self._write(ledger, 0)
            raise self._no_room(low.needed, low.free, "on the disk")

    def _low(self, size: int) -> "_Low | None":
        usage = shutil.disk_usage(self._experiments)
        floor = min(usage.total * self._min_free / 100, LOW_DISK_BYTES)
        needed = max(floor, size + SLACK)
        return _Low(usage.free, int(needed)) if usage.free < needed else None

    def _no_room(self, needed: int, free: int, where: str) -> DiskError:
        largest = largest_files(self._experiments)
        remedies = (command("cleanup", "--execute", experiments=self._experiments), *REMEDIES)
        payload = {
            "needed_bytes": needed,
            "free_bytes": max(free, 0),
            "where": where,
            "largest_files": [{"path": str(path), "bytes": size} for path, size in largest],
            "commands": remedies,
        }
        self._log("not enough space for checkpoints", **payload)
        names = "".join(f"\n    {size:>14,} bytes  {path}" for path, size in largest)
        return DiskError(
            f"{needed:,} bytes are needed, but only {max(free, 0):,} are free {where}",
            remedy=f"The largest files:{names}\n  Possible remedies: {'; '.join(remedies)}.",
        )


class _Low(NamedTuple):
    free: int
    needed: int


def austere(policy: Policy) -> Policy:
    """The policy when disk space is low: the resume point of an unfinished trial, and one best checkpoint."""
    return replace(policy, keep_last_n=0, keep_best_k=1, keep_all=False, keep_training_state=False)


def eviction_order(
    records: Sequence[TrialRecord],
    *,
    maximize: bool,
    reported: Callable[[str], bool],
    chance: Callable[[int], float] = lambda number: 1.0,
) -> list[tuple[str, bool, str]]:
    """(trial, whether only its training state goes, why), first to go first; a pure function but for `reported` and
    `chance`.

    1. Checkpoints of failed trials, 2. of pruned ones: nothing needs them. 3. Training states of completed trials,
    which do not go on. 4. Weights of completed trials, whose reports stay; never of the study's best. First the worst
    for their price: those with the fewest seconds of training a byte, divided by the rank, as if the trial of rank r
    were needed again with probability 1/r.
    5. Checkpoints of paused trials, which may be needed: first those whose eviction costs the fewest expected seconds a
    byte, that is the probability of a promotion, times the seconds that it took to come so far, divided by the bytes.

    Args:
        records: of trials that are over, or paused.
        maximize: whether a higher score is better.
        reported: whether a trial has its report, without which its weights stay.
        chance: the probability that the paused trial of this number is promoted.
    """
    sign = 1 if maximize else -1

    def score(record: TrialRecord) -> float:
        return sign * record.best.value if record.best and math.isfinite(record.best.value) else -math.inf

    def shown(record: TrialRecord) -> str:
        return f"{record.best.value:.4f}" if record.best and math.isfinite(record.best.value) else "without a score"

    def seconds(record: TrialRecord) -> float:
        return record.active_seconds - record.repeated_seconds

    # Of those tied for the best, the first stays: it is the one that study.json names, and no repeat of it.
    completed = sorted(
        (r for r in records if r.state == "completed"),
        key=lambda r: (r.confirms is None, score(r), -(r.number or 0)),
    )
    worst_first = enumerate(completed[:-1])  # never the best of the study
    ranked = [(len(completed) - i, r) for i, r in worst_first]
    priced = [(seconds(r) / max(r.bytes, 1) / rank, rank, r) for rank, r in ranked]
    paused = [(chance(record.number or 0), record) for record in records if record.state == "paused"]
    paused.sort(key=lambda pair: (pair[0] * seconds(pair[1]) / max(pair[1].bytes, 1), -(pair[1].number or 0)))
    order = [
        (r.trial_id, False, f"budget: the trial {state}") for state in GONE_FIRST for r in records if r.state == state
    ]
    order += [(r.trial_id, True, "budget: the trial is completed and needs no resume") for r in completed]
    order += [
        (
            r.trial_id,
            False,
            f"budget: completed, rank {rank} of {len(completed)}: {shown(r)}, trained again in {seconds(r):.0f} s",
        )
        for _, rank, r in sorted(priced, key=lambda pair: pair[0])
        if reported(r.trial_id)
    ]
    order += [
        (r.trial_id, False, f"budget: paused; promoted with probability {p:.2f}, it takes {seconds(r):.0f} s again")
        for p, r in paused
    ]
    return order


def lazy_chances(study: Path, settings: Mapping[str, Any] | None) -> Callable[[int], float]:
    """`chances`, for which the study's rungs.jsonl is read only if a chance is asked for; 1 if nothing is known."""
    known: list[Callable[[int], float]] = []

    def chance(number: int) -> float:
        if not known:
            try:
                known.append(chances(study, settings or {}))
            except (InputError, KeyError, ValueError):
                known.append(lambda number: 1.0)
        return known[0](number)

    return chance


def free_trial(
    folder: Path, record: TrialRecord, *, states_only: bool, reason: str, log: Callable[..., object]
) -> None:
    """Delete a finished or paused trial's checkpoints, or only their training states, and update its record.

    The caller holds the trial's lock.
    """
    files.fsync_dir(folder)  # its record may be in the cache alone: a killed process did not come to sync it
    store = CheckpointStore(folder, Policy(), log)
    for checkpoint in store.checkpoints():
        if not states_only:
            store.delete(checkpoint, reason)
        elif checkpoint.resumable:
            store.strip(checkpoint, reason)
    store.drop_quarantined()
    if record.bytes != (left := store.size()):
        files.write_atomic(folder / paths.TRIAL, record.model_copy(update={"bytes": left}).to_json())


def largest_files(experiments: Path) -> list[tuple[Path, int]]:
    """The largest files of an experiments folder with their bytes, largest first."""
    found = [(path, files.file_bytes(path)) for path in experiments.rglob("*") if path.is_file()]
    return sorted(found, key=lambda pair: -pair[1])[:LARGEST_SHOWN]
