"""The study's checkpoints never take more than the budget, whoever writes them, and whoever is killed."""

import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import files, paths
from redsm5.engine.errors import ConfigError, DiskError, Interrupted
from redsm5.engine.records import Best, BudgetLedger, RetentionRow, TrialRecord
from redsm5.engine.storage import budget as budget_module
from redsm5.engine.storage.budget import Budget, eviction_order, reservation
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import OVERHEAD, CheckpointStore
from tests.engine.storage.saver import STATE, WEIGHTS, contents, manifest_of, record_of

SAVER = Path(__file__).with_name("saver.py")
STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
FULL = WEIGHTS + STATE
RESERVE = reservation(Policy(), full=FULL, weights=WEIGHTS, epochs=9)


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    paths.study_dir(tmp_path, STUDY).mkdir()
    return tmp_path


def used(experiments: Path) -> int:
    """What counts, measured from outside."""
    return sum(files.tree_bytes(folder / paths.CHECKPOINTS) for folder in paths.trial_dirs(experiments))


class Trial:
    """A trial of the study with its lock, store and budget."""

    def __init__(self, experiments: Path, limit: int, *, percent: float = 0.0, study_id: str | None = STUDY) -> None:
        self.id = new_id()
        self.folder = paths.trial_dir(experiments, self.id)
        self.lock = files.Lock(self.folder / paths.LOCK)
        assert self.lock.acquire()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.state("running")
        self.store = CheckpointStore(self.folder, Policy(), log=lambda *_, **__: None)
        self.budget = Budget(
            self.store,
            study_id,
            max_total_size=limit,
            min_free_disk_percent=percent,
            log=lambda sentence, **facts: self.said.append((sentence, facts)),
        )
        self.store.make_room = self.budget.make_room

    def state(self, state: str, score: float | None = None, study_id: str | None = STUDY) -> None:
        best = None if score is None else Best(epoch=1, value=score)
        record = record_of(self.id, study_id, state=state, best=best)
        files.write_atomic(self.folder / paths.TRIAL, record.to_json())

    def reserve(self, size: int = RESERVE) -> "Trial":
        self.budget.reserve(size)
        return self

    def save(self, epoch: int, score: float = 0.1) -> None:
        self.store.commit(manifest_of(self.id, epoch, score), contents(epoch))

    def end(self, state: str, score: float | None = None, *, finish: bool = True) -> "Trial":
        """The trial is over; with `finish` its training state goes, as it does."""
        self.state(state, score)
        if state == "completed":
            files.write_atomic(self.folder / paths.REPORT, b"{}\n")
        if finish:
            self.store.finish()
        self.budget.release()
        self.lock.release()
        return self

    def rows(self) -> list[RetentionRow]:
        return [RetentionRow.model_validate(row) for row in files.read_lines(self.folder / paths.RETENTION)]


def finished(experiments: Path, state: str, score: float | None = None, *, finish: bool = True) -> Trial:
    trial = Trial(experiments, 10**9).reserve()
    trial.save(1)
    return trial.end(state, score, finish=finish)


def ledger(experiments: Path) -> BudgetLedger:
    return BudgetLedger.model_validate_json((paths.study_dir(experiments, STUDY) / paths.BUDGET).read_bytes())


# ---------------------------------------------------------------------------------------------------------------------
# many workers


def sampled(experiments: Path, workers: list["subprocess.Popen[str]"]) -> Iterator[int]:
    """The bytes in use, again and again, until all workers have ended."""
    while any(worker.poll() is None for worker in workers):
        yield used(experiments)
        time.sleep(0.002)


def start(experiments: Path, trial_id: str, limit: int, seed: int) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SAVER), str(experiments), STUDY, trial_id, "12", str(limit), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_workers_at_once_never_exceed_the_budget_and_all_get_their_turn(experiments: Path) -> None:
    """Room for two at a time: the third waits, and old weights go for the new trials."""
    limit = 2 * RESERVE + 100_000
    highest = 0
    for turn in range(3):
        workers = [start(experiments, new_id(), limit, 10 * turn + n) for n in range(3)]
        highest = max(highest, *sampled(experiments, workers))
        assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert 2 * FULL < highest <= limit, "they did work side by side"
    assert used(experiments) == sum(entry.bytes for entry in ledger(experiments).entries.values())


def test_a_killed_worker_s_reservation_is_taken_back_and_the_budget_holds(experiments: Path) -> None:
    """Room for three: whoever comes first finds the resume points of the killed ones, and nobody there to wait for."""
    limit = 3 * RESERVE + 100_000
    dice = random.Random(3)
    *victims, companion = trials = [new_id() for _ in range(4)]
    highest = kills = 0
    for turn in range(6):  # each victim twice: as it begins, and when it has been resumed
        victim = paths.trial_dir(experiments, victims[turn // 2]) / paths.CHECKPOINTS
        workers = [start(experiments, trial_id, limit, turn) for trial_id in (victims[turn // 2], companion)]
        epoch = dice.randint(1, 4) + 5 * (turn % 2)
        for size in sampled(experiments, workers):
            highest = max(highest, size)
            if list(victim.glob(f"epoch-{epoch:04d}")) and workers[0].poll() is None:
                workers[0].kill()
                kills += 1
                workers[0].wait()
    assert kills >= 3
    assert FULL < highest <= limit
    workers = [start(experiments, trial_id, limit, 9) for trial_id in trials]
    highest = max(sampled(experiments, workers))
    assert highest <= limit
    assert [worker.wait() for worker in workers] == [0, 0, 0, 0]


# ---------------------------------------------------------------------------------------------------------------------
# admission and reservation


def test_what_does_not_fit_is_refused_before_a_byte_is_written(experiments: Path) -> None:
    trial = Trial(experiments, RESERVE - 1)
    with pytest.raises(DiskError) as caught:
        trial.reserve()
    assert caught.value.exit_code == 3
    assert f"{RESERVE:,} bytes are needed, but only {RESERVE - 1:,} are free within retention.max_total_size" in str(
        caught.value
    )
    assert "raise retention.max_total_size" in str(caught.value)
    assert used(experiments) == 0
    [payload] = [facts for sentence, facts in trial.said if sentence == "not enough space for checkpoints"]
    assert payload["needed_bytes"] == RESERVE
    assert payload["commands"][0] == f"just cleanup --execute --experiments {experiments}"
    assert json.dumps(payload)


def test_what_others_have_reserved_is_waited_for_and_a_stop_ends_the_wait(experiments: Path) -> None:
    limit = RESERVE + 1000
    Trial(experiments, limit).reserve()
    late = Trial(experiments, limit)
    asked = iter([False, True])
    stop = type("Stop", (), {"requested": property(lambda _: next(asked))})()
    with pytest.raises(Interrupted):
        late.budget.reserve(RESERVE, stop=stop)
    assert "the budget is full: waiting for other trials to release space" in [sentence for sentence, _ in late.said]


def test_a_save_beyond_the_reservation_is_refused_before_it_is_written(experiments: Path) -> None:
    trial = Trial(experiments, FULL * 2 + 200_000).reserve(size=1000)
    trial.save(1, score=0.1)
    trial.save(2, score=0.2)
    before = used(experiments)
    with pytest.raises(DiskError, match="bytes are needed"):
        trial.budget.make_room(FULL * 2)
    assert used(experiments) == before


def test_ties_stay_while_there_is_room_and_then_the_oldest_goes_first(experiments: Path) -> None:
    limit = 2 * FULL + 2 * WEIGHTS + 200_000
    trial = Trial(experiments, limit).reserve(size=FULL)
    for epoch in range(1, 8):
        trial.save(epoch, score=0.5)
        assert used(experiments) <= limit
    left = sorted(p.name for p in trial.store.folder.iterdir())
    assert left[-1] == "epoch-0007"
    assert left == [f"epoch-{n:04d}" for n in range(8 - len(left), 8)], "the newest of those that are tied"
    gone = [row for row in trial.rows() if row.action == "delete"]
    assert gone
    assert all("tied" in row.reason and "no space" in row.reason for row in gone)


def test_ties_from_under_a_larger_budget_give_way_when_the_trial_is_resumed(experiments: Path) -> None:
    trial = Trial(experiments, 10**9).reserve()
    for epoch in range(1, 26):
        trial.save(epoch, score=0.5)
    trial.budget.release()
    assert used(experiments) > RESERVE
    trial.budget = Budget(
        trial.store, STUDY, max_total_size=RESERVE + 1000, min_free_disk_percent=0, log=lambda *_, **__: None
    )
    trial.reserve()
    assert used(experiments) <= RESERVE
    assert "epoch-0025" in trial.store.names()


def test_damaged_checkpoints_count_and_give_way(experiments: Path) -> None:
    trial = Trial(experiments, 2 * FULL + WEIGHTS + 200_000).reserve(size=FULL)
    trial.save(1)
    trial.store.quarantine("epoch-0001", "a flipped bit")
    trial.save(1)
    trial.save(2, score=0.3)
    trial.save(3, score=0.4)
    assert not list(trial.store.folder.glob(".damaged-*"))


def test_workers_that_disagree_about_the_budget_are_refused_while_both_are_there(experiments: Path) -> None:
    first = Trial(experiments, 10**8).reserve()
    with pytest.raises(ConfigError) as caught:
        Trial(experiments, 10**9).reserve()
    assert "1000000000" in str(caught.value)
    assert "100000000" in str(caught.value)
    first.end("completed", 0.1)
    Trial(experiments, 10**9).reserve()
    assert ledger(experiments).max_total_size == 10**9


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"entries": {}}', b"[1]", b'{"max_total_size": "x"}'])
def test_a_ledger_that_is_missing_or_wrong_is_made_anew_from_the_disk(experiments: Path, content: bytes | None) -> None:
    old = finished(experiments, "completed", 0.3)
    path = paths.study_dir(experiments, STUDY) / paths.BUDGET
    path.unlink() if content is None else path.write_bytes(content)
    stranger = record_of(new_id(), "22222222-2f3a-4b5c-8d7e-9f0a1b2c3d4e")
    folder = paths.trial_dir(experiments, stranger.trial_id)
    folder.mkdir()
    (folder / paths.TRIAL).write_bytes(stranger.to_json())
    trial = Trial(experiments, 10**8).reserve()
    assert ledger(experiments).entries.keys() == {old.id, trial.id}
    assert ledger(experiments).entries[old.id].bytes == used(experiments)


def test_bytes_in_the_ledger_that_are_wrong_are_put_right_when_a_trial_reserves(experiments: Path) -> None:
    old = finished(experiments, "completed", 0.3)
    path = paths.study_dir(experiments, STUDY) / paths.BUDGET
    document = json.loads(path.read_bytes())
    document["entries"][old.id] = {"reserved": 10**15, "bytes": 1}
    path.write_text(json.dumps(document))
    Trial(experiments, 10**8).reserve()
    assert (ledger(experiments).entries[old.id].reserved, ledger(experiments).entries[old.id].bytes) == (
        0,
        used(experiments),
    )


def test_a_trial_outside_a_study_is_its_own_study(experiments: Path) -> None:
    finished(experiments, "completed", 0.3)
    trial = Trial(experiments, RESERVE, study_id=None).reserve()
    assert (trial.folder / paths.BUDGET).exists()


# ---------------------------------------------------------------------------------------------------------------------
# eviction


def test_the_order_in_which_trials_give_way() -> None:
    def record(name: str, state: str, score: float | None = None) -> TrialRecord:
        return record_of(name, STUDY, state=state, best=None if score is None else Best(epoch=1, value=score))

    records = [
        record("best", "completed", 0.9),
        record("at work", "running", 0.1),
        record("worst", "completed", 0.2),
        record("pruned", "pruned", 0.1),
        record("interrupted", "interrupted", 0.0),
        record("not finite", "completed", float("nan")),
        record("failed", "failed"),
        record("unreported", "completed", 0.1),
        record("finishing", "finishing", 0.1),
    ]
    order = [
        (name, state)
        for name, state, _ in eviction_order(records, maximize=True, reported=lambda name: name != "unreported")
    ]
    assert order == [
        ("failed", False),
        ("pruned", False),
        ("not finite", True),
        ("unreported", True),
        ("worst", True),
        ("best", True),
        ("not finite", False),
        ("worst", False),
    ]


def test_what_is_cheap_to_train_again_for_its_bytes_goes_before_what_is_dear() -> None:
    def completed(name: str, score: float, seconds: float, size: int) -> TrialRecord:
        best = Best(epoch=1, value=score)
        record = record_of(name, STUDY, state="completed", best=best, active_seconds=seconds, bytes=size)
        return record.model_copy(update={"repeated_seconds": seconds / 2})

    records = [
        completed("best", 0.9, 2.0, 100),
        completed("second", 0.8, 360.0, 100),  # 180 / 100 / 2
        completed("small", 0.7, 60.0, 10),  # 30 / 10 / 3
        completed("dear", 0.6, 8000.0, 100),  # 4000 / 100 / 4
        completed("worst", 0.5, 800.0, 100),  # 400 / 100 / 5
    ]
    order = eviction_order(records, maximize=True, reported=lambda name: True)
    assert [name for name, states_only, _ in order if not states_only] == ["worst", "second", "small", "dear"]
    assert order[5][2] == "budget: completed, rank 5 of 5: 0.5000, trained again in 400 s"
    assert [why.split(":")[1] for _, only, why in order if not only] == [
        f" completed, rank {rank} of 5" for rank in (5, 2, 3, 4)
    ]


def test_paused_trials_go_last_and_first_those_that_cost_the_fewest_expected_seconds_a_byte() -> None:
    def paused(number: int, seconds: float, size: int) -> TrialRecord:
        return record_of(
            f"paused {number}", STUDY, state="paused", number=number, active_seconds=seconds, bytes=size
        ).model_copy(update={"repeated_seconds": seconds / 2})

    records = [
        paused(0, 20.0, 100),  # 1.0 * 10 / 100
        paused(1, 20.0, 100),  # 0.5 * 10 / 100
        paused(2, 400.0, 100),  # 0.1 * 200 / 100
        paused(3, 20.0, 400),  # 1.0 * 10 / 400
        record_of("bad", STUDY, state="completed", best=Best(epoch=1, value=0.1)),
        record_of("good", STUDY, state="completed", best=Best(epoch=1, value=0.2)),
        record_of("failed", STUDY, state="failed"),
    ]
    chance = {0: 1.0, 1: 0.5, 2: 0.1, 3: 1.0}.__getitem__
    order = eviction_order(records, maximize=True, reported=lambda name: True, chance=chance)
    assert [name for name, states_only, _ in order if not states_only] == [
        *("failed", "bad", "paused 3", "paused 1", "paused 0", "paused 2")
    ]
    assert order[-1][2] == "budget: paused; promoted with probability 0.10, it takes 200 s again"


def test_a_paused_trial_s_checkpoints_are_evicted_when_nothing_else_gives_room(experiments: Path) -> None:
    paused = finished(experiments, "paused", finish=False)
    pruned = finished(experiments, "pruned", finish=False)
    Trial(experiments, used(experiments) + RESERVE - 1).reserve().end("pruned")
    assert (pruned.store.size(), paused.store.size() > 0) == (0, True)
    Trial(experiments, used(experiments) + RESERVE - 1).reserve().end("pruned")
    assert paused.store.size() == 0
    assert TrialRecord.model_validate_json((paused.folder / paths.TRIAL).read_bytes()).state == "paused"


def test_of_a_metric_that_is_minimized_the_highest_give_way_first() -> None:
    scores = {"low": 0.1, "high": 0.9, "middle": 0.5}
    records = [record_of(n, STUDY, state="completed", best=Best(epoch=1, value=v)) for n, v in scores.items()]
    order = eviction_order(records, maximize=False, reported=lambda name: True)
    assert [name for name, states_only, _ in order if not states_only] == ["high", "middle"]


def test_of_trials_tied_for_the_best_the_one_that_the_study_names_stays() -> None:
    """study.json names the first by number, in whatever order they are found."""
    tied = [
        record_of(f"trial {n}", STUDY, state="completed", number=n, best=Best(epoch=1, value=0.5)) for n in (1, 0, 2)
    ]
    for records in (tied, tied[::-1]):
        gone = [
            name
            for name, states_only, _ in eviction_order(records, maximize=True, reported=lambda name: True)
            if not states_only
        ]
        assert gone == ["trial 2", "trial 1"]


def test_failed_trials_go_before_pruned_ones_before_the_worst_completed(experiments: Path) -> None:
    """Each new trial needs a little more room than there is, so that one after another gives way."""
    good = finished(experiments, "completed", 0.9)
    bad = finished(experiments, "completed", 0.1)
    pruned = finished(experiments, "pruned", finish=False)
    failed = finished(experiments, "failed", finish=False)
    order = []
    for _ in range(3):
        trial = Trial(experiments, used(experiments) + RESERVE - 1)
        trial.reserve().end("completed", 0.05)
        empty = [t for t in (good, bad, pruned, failed) if t.store.size() == 0 and t not in order]
        order += empty
    assert order == [failed, pruned, bad]
    with pytest.raises(DiskError):
        Trial(experiments, used(experiments) + RESERVE - 1).reserve()
    assert good.store.size() > 0, "the best of the study never goes"
    row = bad.rows()[-1]
    assert row.action == "delete"
    assert "completed, rank " in row.reason
    assert TrialRecord.model_validate_json((bad.folder / paths.TRIAL).read_bytes()).bytes == 0
    assert (bad.folder / paths.REPORT).exists()


def test_a_completed_trial_s_training_state_goes_before_any_weights(experiments: Path) -> None:
    kept = finished(experiments, "completed", 0.5, finish=False)
    Trial(experiments, used(experiments) + RESERVE - 1).reserve()
    assert [c.resumable for c in kept.store.checkpoints()] == [False]


def test_what_a_killed_strip_left_counts_as_room_that_a_new_trial_gets(experiments: Path) -> None:
    """Its store removes the file as it is opened, before anything is evicted."""
    old = finished(experiments, "pruned", 0.1)
    checkpoint = old.folder / paths.CHECKPOINTS / "epoch-0001"
    (checkpoint / paths.STATE_TENSORS).write_bytes(bytes(STATE))
    Trial(experiments, RESERVE + 100).reserve()
    assert not checkpoint.exists()


@pytest.mark.parametrize("state", ["running", "interrupted", "queued", "preparing", "finishing"])
def test_a_trial_that_is_not_over_never_gives_way(experiments: Path, state: str) -> None:
    other = finished(experiments, state, finish=False)
    before = used(experiments)
    with pytest.raises(DiskError):
        Trial(experiments, before + RESERVE - 1).reserve()
    assert other.store.size() == before


def test_a_trial_that_somebody_evaluates_is_passed_over(experiments: Path) -> None:
    finished(experiments, "completed", 0.9)
    held, other = finished(experiments, "failed", finish=False), finished(experiments, "pruned", finish=False)
    assert held.lock.acquire()
    Trial(experiments, used(experiments) + RESERVE - 1).reserve()
    assert held.store.size() > 0
    assert other.store.size() == 0


# ---------------------------------------------------------------------------------------------------------------------
# the disk


class Disk:
    """A file system whose free bytes are what is left of `total`, for what cannot be filled in a test."""

    def __init__(self, experiments: Path, total: int, free: int) -> None:
        self.experiments, self.total, self.room = experiments, total, free + used(experiments)

    def __call__(self, path: object) -> Any:
        free = self.room - used(self.experiments)
        return type("usage", (), {"total": self.total, "free": free, "used": self.total - free})


def test_on_a_low_disk_three_steps_make_room_one_after_another(
    experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(experiments, "completed", 0.9)
    old = finished(experiments, "completed", 0.1)
    trial = Trial(experiments, 10**9, percent=10).reserve()
    for epoch in (1, 2):
        trial.save(epoch, score=0.5)
    total = 10 * (used(experiments) + 10**6)

    def low_by(missing: int) -> None:
        disk = Disk(experiments, total, total // 10 - missing)
        monkeypatch.setattr(budget_module.shutil, "disk_usage", disk)

    trial.store.quarantine("epoch-0001", "a flipped bit")
    low_by(1)
    trial.budget.make_room(1000)
    assert not list(trial.store.folder.glob(".damaged-*")), "first what is not protected"
    assert not ledger(experiments).austere
    assert old.store.size() > 0

    low_by(1)
    trial.budget.make_room(1000)
    assert ledger(experiments).austere, "then one best checkpoint per trial, for the rest of the study"
    assert (trial.store.policy.keep_last_n, trial.store.policy.keep_best_k) == (0, 1)
    assert old.store.size() == 0, "and at last the best of the study alone"

    low_by(1)
    with pytest.raises(DiskError) as caught:
        trial.budget.make_room(1000)
    assert f"{total // 10:,} bytes are needed, but only {total // 10 - 1:,} are free on the disk" in str(caught.value)
    assert [c.name for c in trial.store.checkpoints() if c.resumable] == ["epoch-0002"], "never a resume point"


def test_a_checkpoint_larger_than_what_is_free_is_refused(experiments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(experiments, 10**9).reserve()
    monkeypatch.setattr(budget_module.shutil, "disk_usage", Disk(experiments, 10**12, 500_000))
    with pytest.raises(DiskError, match="on the disk"):
        trial.save(1)
    assert used(experiments) == 0


def test_above_100_gb_no_disk_is_low(experiments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module.shutil, "disk_usage", Disk(experiments, 10**14, 101 * 10**9))
    Trial(experiments, 10**9, percent=10).reserve()


def test_the_reservation_is_that_of_the_design() -> None:
    def of(**policy: Any) -> int:
        return reservation(Policy(**policy), full=1000, weights=300, epochs=10)

    assert of() == 2 * (1000 + OVERHEAD) + 300 + OVERHEAD
    assert of(keep_last_n=0) == of()
    assert of(keep_last_n=3, keep_best_k=2) == 4 * (1000 + OVERHEAD) + 2 * (300 + OVERHEAD)
    assert of(keep_all=True) == 11 * (1000 + OVERHEAD) + 300 + OVERHEAD
    assert of(enabled=False) == 0
    sizes = [of(keep_last_n=n) for n in range(1, 5)]
    assert all(a < b for a, b in pairwise(sizes))
