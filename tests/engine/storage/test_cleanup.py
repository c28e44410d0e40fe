"""What need not take room is found and goes when asked; what is needed, and what is at work, never does."""

import errno
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import compose
from redsm5.engine import files, owned, paths
from redsm5.engine.records import FINISHED, Best, RetentionRow, TrialRecord
from redsm5.engine.spec import snapshot_of
from redsm5.engine.storage import cleanup as cleanup_module
from redsm5.engine.storage.cleanup import Found, Item, cleanup
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore, listed_digests, read_checkpoint, read_verified
from tests.engine.storage.cleaner import DIED
from tests.engine.storage.saver import STATE, WEIGHTS, contents, manifest_of, record_of

CLEANER = Path(__file__).with_name("cleaner.py")
STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
GONE = "22222222-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
EVERYTHING = Policy(keep_all=True)
HOLD = """
import pathlib, sys, time
from redsm5.engine import files
assert files.Lock(pathlib.Path(sys.argv[1])).acquire()
print("held", end="", flush=True)
time.sleep(60)
"""


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    paths.study_dir(tmp_path, STUDY).mkdir()
    return tmp_path


@cache
def saved_config() -> dict[str, Any]:
    return snapshot_of(compose([]))


class Trial:
    """A trial's folder as its process leaves it: `epochs` full checkpoints, and nothing dropped at the end."""

    def __init__(
        self,
        experiments: Path,
        state: str = "interrupted",
        score: float | None = 0.5,
        *,
        epochs: int = 1,
        study_id: str | None = STUDY,
        number: int = 0,
        **retention: Any,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.folder = paths.trial_dir(experiments, self.id)
        self.checkpoints = self.folder / paths.CHECKPOINTS
        store = self.store(EVERYTHING)
        for epoch in range(1, epochs + 1):
            store.commit(manifest_of(self.id, epoch, score or 0.0), contents(epoch))
        best = None if score is None else Best(epoch=1, value=score)
        record = record_of(self.id, study_id, state=state, best=best, number=number, bytes=10**9)
        files.write_atomic(self.folder / paths.TRIAL, record.to_json())
        config = {**saved_config(), "retention": {"keep_last_n": 1, **retention}}
        (self.folder / paths.CONFIG).write_text(json.dumps(config))
        (self.folder / paths.METRICS).write_text("{}\n")
        if state == "completed":
            (self.folder / paths.REPORT).write_text("{}\n")

    def store(self, policy: Policy | None = None) -> CheckpointStore:
        return CheckpointStore(self.folder, policy or Policy(), log=lambda *_, **__: None)

    def finish(self) -> "Trial":
        self.store().finish()
        return self

    def size(self) -> int:
        return files.tree_bytes(self.checkpoints)

    def record(self) -> TrialRecord:
        return TrialRecord.model_validate_json((self.folder / paths.TRIAL).read_bytes())

    def last_row(self) -> RetentionRow:
        return RetentionRow.model_validate(files.read_lines(self.folder / paths.RETENTION)[-1])

    def litter(self, name: str = ".tmp-epoch-0009") -> Path:
        (self.checkpoints / name).mkdir()
        (self.checkpoints / name / paths.WEIGHTS).write_bytes(bytes(1000))
        return self.checkpoints / name


@pytest.fixture
def hold() -> Iterator[Callable[[Trial], None]]:
    """Have another process hold a trial's lock."""
    processes = []

    def take(trial: Trial) -> None:
        command = [sys.executable, "-c", HOLD, str(trial.folder / paths.LOCK)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout is not None
        assert processes[-1].stdout.read(4) == "held"

    yield take
    for process in processes:
        process.kill()
        process.communicate()


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def of_kind(found: Found, *kinds: str) -> list[Item]:
    return [item for item in found.items if item.kind in kinds]


def unneeded(found: Found) -> list[tuple[str, Path, int]]:
    return [(item.kind, item.path, item.bytes) for item in of_kind(found, "litter", "orphan")]


def assert_cleaned(experiments: Path) -> None:
    """Litter and orphans go, as many bytes as was said, and a second time there is nothing."""
    before = files.tree_bytes(experiments)
    done = cleanup(experiments, execute=True)
    assert all(item.deleted for item in of_kind(done, "litter", "orphan"))
    gone = before - files.tree_bytes(experiments)
    said = sum(item.bytes for item in of_kind(done, "litter", "orphan"))
    assert abs(said - gone) < 2000, "but for the rows in retention.jsonl"
    assert unneeded(cleanup(experiments)) == []
    assert unneeded(cleanup(experiments, execute=True)) == []


# ---------------------------------------------------------------------------------------------------------------------
# litter


@pytest.mark.parametrize("name", [".tmp-epoch-0002", ".trash-epoch-0001", ".damaged-epoch-0002"])
@pytest.mark.parametrize("state", ["interrupted", "running", "completed", "failed"])
def test_what_a_crash_left_is_litter_in_any_trial_that_is_not_at_work(experiments: Path, name: str, state: str) -> None:
    trial = Trial(experiments, state).finish() if state in FINISHED else Trial(experiments, state)
    path = trial.litter(name)
    assert unneeded(cleanup(experiments)) == [("litter", path, 1000)]
    kept = snapshot(trial.checkpoints / "epoch-0001")
    assert_cleaned(experiments)
    assert not path.exists()
    assert snapshot(trial.checkpoints / "epoch-0001") == kept
    assert trial.record().bytes == trial.size()
    assert trial.record().state == state


def test_a_damaged_checkpoint_that_goes_leaves_its_row(experiments: Path) -> None:
    trial = Trial(experiments, epochs=2)
    trial.store().quarantine("epoch-0002", "a flipped bit")
    assert_cleaned(experiments)
    row = trial.last_row()
    assert (row.action, row.checkpoint, row.reason) == ("delete", "epoch-0002", "cleanup: damaged")


def test_a_file_that_no_sums_list_is_litter_and_the_checkpoint_verifies_as_before(experiments: Path) -> None:
    trial = Trial(experiments)
    folder = trial.checkpoints / "epoch-0001"
    trial.store().strip(read_checkpoint(folder), "as a crash in its middle leaves it")
    (folder / ".SHA256SUMS.tmp").write_bytes(bytes(10))
    (folder / paths.STATE_JSON).write_bytes(bytes(20))
    assert unneeded(cleanup(experiments)) == [
        ("litter", folder / ".SHA256SUMS.tmp", 10),
        ("litter", folder / paths.STATE_JSON, 20),
    ]
    assert_cleaned(experiments)
    assert read_verified(folder).keys() == listed_digests(folder).keys()
    assert {p.name for p in folder.iterdir()} == {paths.SUMS, *listed_digests(folder)}


def long_logs(folder: Path, *names: str) -> Path:
    """Files of 60 MB, most of it holes, with a line that begins in the middle and two at the end."""
    files.make_dir(folder / paths.LOGS)
    for name in names:
        with (folder / paths.LOGS / name).open("wb") as file:
            for place, text in ((35_000_050, b"\n"), (60_000_000, b"\nlast but one\nlast\n")):
                file.seek(place)
                file.write(text)
    return folder / paths.LOGS


def test_logs_that_an_older_version_left_beyond_their_bound_are_litter_in_trials_and_studies(experiments: Path) -> None:
    rotated = [f"log.jsonl.2026-01-{day:02d}.001" for day in range(1, 15)]
    of_trial = long_logs(
        Trial(experiments, "completed").finish().folder, *rotated, "log.jsonl", "output.log", "mine.log"
    )
    of_study = long_logs(paths.study_dir(experiments, STUDY), *rotated, "output.log")
    (of_study / "log.jsonl").write_text("short\n")
    (of_study.parent / paths.STUDY).write_text("{}")
    found = cleanup(experiments)
    assert [(item.kind, item.path) for item in found.items if item.path.name == paths.LOGS] == [
        ("litter", of_study),
        ("litter", of_trial),
    ]
    assert_cleaned(experiments)
    ours = [path for path in of_trial.iterdir() if path.name != "mine.log"]
    assert sum(path.stat().st_size for path in ours) <= 150_000_000
    assert {path.name for path in ours} >= {"log.jsonl", "output.log", rotated[-1]}
    assert all(path.read_bytes().endswith(b"last\n") for path in ours)
    assert (of_trial / "mine.log").stat().st_size > 60_000_000
    assert (of_study / "output.log").stat().st_size > 60_000_000, "no name of ours in a study's folder"
    assert (of_study / "log.jsonl").read_text() == "short\n"
    assert rotated[0] not in os.listdir(of_study)


def test_the_logs_of_a_trial_that_is_at_work_are_its_own_to_bound(
    experiments: Path, hold: Callable[[Trial], None]
) -> None:
    trial = Trial(experiments, "running")
    folder = long_logs(trial.folder, "log.jsonl", "output.log")
    hold(trial)
    assert unneeded(cleanup(experiments, execute=True)) == []
    assert files.tree_bytes(folder) > 120_000_000


@pytest.mark.parametrize("state", sorted(FINISHED))
def test_training_states_that_a_finished_trial_did_not_come_to_drop_are_litter(experiments: Path, state: str) -> None:
    trial = Trial(experiments, state)
    [item] = of_kind(cleanup(experiments), "litter")
    assert (item.path, item.bytes) == (trial.checkpoints / "epoch-0001", STATE + 200)
    assert state in item.reason
    assert_cleaned(experiments)
    assert [c.resumable for c in trial.store().checkpoints()] == [False]
    assert read_verified(trial.checkpoints / "epoch-0001").keys() == {paths.WEIGHTS, paths.MANIFEST}
    assert trial.last_row().action == "strip"
    assert trial.last_row().reason == f"cleanup: {item.reason}"
    assert trial.record().bytes == trial.size()


def test_a_finished_trial_s_checkpoints_that_are_not_the_best_are_litter(experiments: Path) -> None:
    trial = Trial(experiments, "completed", None)
    store = trial.store(EVERYTHING)
    store.commit(manifest_of(trial.id, 2, 0.9), contents(2))
    store.commit(manifest_of(trial.id, 3, 0.1), contents(3))
    assert_cleaned(experiments)
    assert [c.name for c in trial.store().checkpoints()] == ["epoch-0002"]


@pytest.mark.parametrize("kept", [{"keep_all": True}, {"keep_training_state": True}])
def test_what_the_trial_s_configuration_keeps_is_no_litter(experiments: Path, kept: dict[str, bool]) -> None:
    trial = Trial(experiments, "completed", **kept)
    before = snapshot(trial.checkpoints)
    assert unneeded(cleanup(experiments, execute=True)) == []
    assert snapshot(trial.checkpoints) == before


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_where_the_configuration_cannot_be_read_everything_counts_as_kept(
    experiments: Path, content: str | None
) -> None:
    trial = Trial(experiments, "completed", epochs=2)
    config = trial.folder / paths.CONFIG
    config.unlink() if content is None else config.write_text(content)
    assert unneeded(cleanup(experiments, execute=True)) == []
    assert len(trial.store().checkpoints()) == 2


# ---------------------------------------------------------------------------------------------------------------------
# orphans


def test_checkpoints_without_a_trial_are_orphans_and_what_else_is_there_stays(experiments: Path) -> None:
    trial = Trial(experiments, epochs=2)
    (trial.folder / paths.TRIAL).unlink()
    (trial.folder / paths.CONFIG).unlink()
    found = cleanup(experiments)
    assert [kind for kind, _, _ in unneeded(found)] == ["orphan", "orphan"]
    assert sum(item.bytes for item in found.items) == trial.size()
    assert_cleaned(experiments)
    assert trial.size() == 0
    assert (trial.last_row().action, trial.last_row().checkpoint) == ("delete", "epoch-0002")
    assert (trial.folder / paths.METRICS).exists()


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_trial_whose_record_is_lost_or_damaged_keeps_what_it_resumes_from(
    experiments: Path, content: bytes | None
) -> None:
    trial = Trial(experiments, epochs=2)
    record, before = trial.folder / paths.TRIAL, trial.size()
    record.unlink() if content is None else record.write_bytes(content)
    found = cleanup(experiments, execute=True, evict=True)
    assert found.items == []
    assert [folder for folder, _ in found.skipped] == [trial.folder]
    assert trial.size() == before


@pytest.mark.parametrize("lost", [paths.SUMS, paths.MANIFEST])
def test_a_checkpoint_that_cannot_be_loaded_is_an_orphan(experiments: Path, lost: str) -> None:
    trial = Trial(experiments, epochs=2)
    (trial.checkpoints / "epoch-0002" / lost).unlink()
    [item] = of_kind(cleanup(experiments), "orphan")
    assert item.path == trial.checkpoints / "epoch-0002"
    assert_cleaned(experiments)
    assert [c.name for c in trial.store().checkpoints()] == ["epoch-0001"]
    assert "cannot be loaded" in trial.last_row().reason


def test_a_trial_of_a_study_that_is_gone_goes_as_a_whole(experiments: Path) -> None:
    orphan, other = Trial(experiments, "completed", study_id=GONE), Trial(experiments, study_id=None)
    before = snapshot(other.folder)
    size = files.tree_bytes(orphan.folder)
    assert unneeded(cleanup(experiments)) == [("orphan", orphan.folder, size)]
    assert_cleaned(experiments)
    assert not orphan.folder.exists()
    assert not list(experiments.glob(".trash-*"))
    assert {p: c for p, c in snapshot(other.folder).items() if p.name != paths.LOCK} == before


def test_a_trial_s_folder_that_a_crash_left_half_removed_is_litter(experiments: Path) -> None:
    trash = experiments / f".trash-trial_{GONE}"
    trash.mkdir()
    (trash / paths.METRICS).write_bytes(bytes(7))
    assert unneeded(cleanup(experiments)) == [("litter", trash, 7)]
    assert_cleaned(experiments)
    assert not trash.exists()


# ---------------------------------------------------------------------------------------------------------------------
# evictable


def test_what_the_budget_would_take_next_is_listed_in_its_order_and_goes_only_when_asked(experiments: Path) -> None:
    best = Trial(experiments, "completed", 0.9).finish()
    worst = Trial(experiments, "completed", 0.1).finish()
    failed, pruned = Trial(experiments, "failed", None).finish(), Trial(experiments, "pruned", 0.3).finish()
    keeper = Trial(experiments, "completed", 0.5, keep_training_state=True)
    sizes = {t.checkpoints: t.size() for t in (best, worst, failed, pruned, keeper)}
    listed = of_kind(cleanup(experiments), "evictable")
    assert [(item.order, item.path) for item in listed] == [
        (1, failed.checkpoints),
        (2, pruned.checkpoints),
        (3, keeper.checkpoints),
        (4, worst.checkpoints),
        (5, keeper.checkpoints),
    ]
    assert [item.bytes for item in listed[:2]] == [sizes[failed.checkpoints], sizes[pruned.checkpoints]]
    assert listed[2].bytes == STATE + 200
    assert sum(item.bytes for item in listed) == sum(sizes.values()) - sizes[best.checkpoints]

    not_asked = cleanup(experiments, execute=True)
    assert of_kind(not_asked, "evictable") == listed, "not deleted"
    assert {path: files.tree_bytes(path) for path in sizes} == sizes

    done = of_kind(cleanup(experiments, execute=True, evict=True), "evictable")
    assert [item.deleted for item in done] == [True] * 5
    assert [t.size() for t in (failed, pruned, worst, keeper)] == [0] * 4
    assert best.size() == sizes[best.checkpoints], "the best of the study never goes"
    assert worst.last_row().reason.startswith("cleanup --evict: completed, rank ")
    assert worst.record().bytes == 0
    assert (worst.folder / paths.REPORT).exists()
    assert cleanup(experiments, execute=True, evict=True).items == []


def test_evict_alone_deletes_nothing(experiments: Path) -> None:
    trial = Trial(experiments, "failed").finish()
    before = snapshot(experiments)
    assert cleanup(experiments, evict=True).items
    assert snapshot(experiments) == before
    assert trial.size() > 0


def test_a_trial_that_is_given_more_epochs_in_the_meantime_is_passed_over(
    experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(experiments, "failed", keep_all=True)

    def meanwhile(*found: Any) -> Any:
        files.write_atomic(trial.folder / paths.TRIAL, record_of(trial.id, STUDY, state="interrupted").to_json())
        return real(*found)

    real = cleanup_module._evictable
    monkeypatch.setattr(cleanup_module, "_evictable", meanwhile)
    size = trial.size()
    found = cleanup(experiments, execute=True, evict=True)
    assert [item.deleted for item in found.items] == [False]
    assert found.skipped == [(trial.folder, "it is no longer finished")]
    assert trial.size() == size


@pytest.mark.parametrize("study_id", [STUDY, None])
def test_each_study_and_each_trial_outside_one_keeps_its_best(experiments: Path, study_id: str | None) -> None:
    trial = Trial(experiments, "completed", 0.1, study_id=study_id).finish()
    Trial(experiments, "completed", 0.9, study_id=None).finish()
    assert cleanup(experiments, execute=True, evict=True).items == []
    assert trial.size() > WEIGHTS


@pytest.mark.parametrize("state", ["queued", "preparing", "running", "finishing", "interrupted"])
def test_nothing_of_an_unfinished_trial_goes(experiments: Path, state: str) -> None:
    """Not even where more is there than its policy keeps: its next start decides that."""
    trial = Trial(experiments, state, epochs=3)
    Trial(experiments, "completed", 0.9).finish()
    before = snapshot(trial.checkpoints)
    assert cleanup(experiments, execute=True, evict=True).items == []
    assert snapshot(trial.checkpoints) == before
    assert all(c.resumable for c in trial.store().checkpoints())


# ---------------------------------------------------------------------------------------------------------------------
# never


def everything(experiments: Path) -> list[Trial]:
    """A folder with some of all that there can be."""
    unlisted = Trial(experiments, "running", epochs=2)
    (unlisted.checkpoints / "epoch-0001" / "unlisted").write_bytes(bytes(5))
    unlisted.litter()
    broken = Trial(experiments, epochs=2)
    (broken.checkpoints / "epoch-0001" / paths.SUMS).unlink()
    lost = Trial(experiments)
    (lost.folder / paths.TRIAL).unlink()
    trials = [unlisted, broken, lost, Trial(experiments, "completed", 0.9), Trial(experiments, "completed", 0.1)]
    trials += [Trial(experiments, "failed", epochs=2), Trial(experiments, "completed", study_id=GONE)]
    return [*trials, Trial(experiments, "completed", 0.2, keep_all=True, epochs=2)]


def test_looking_changes_nothing(experiments: Path) -> None:
    everything(experiments)
    before = snapshot(experiments)
    assert len(cleanup(experiments).items) > 8
    assert snapshot(experiments) == before, "not even a lock is made"


def test_a_trial_that_another_process_holds_is_passed_over(experiments: Path, hold: Callable[[Trial], None]) -> None:
    Trial(experiments, "completed", 0.9).finish()
    saving = Trial(experiments, "running")
    evaluated = Trial(experiments, "completed", 0.1).finish()
    orphan = Trial(experiments, "running", study_id=GONE)
    saving.litter()
    for trial in (saving, evaluated, orphan):
        hold(trial)
    before = snapshot(experiments)
    for execute in (False, True):
        found = cleanup(experiments, execute=execute, evict=execute)
        assert found.items == []
        assert sorted(found.skipped) == sorted((t.folder, "a process is using it") for t in (saving, evaluated, orphan))
    assert {p: c for p, c in snapshot(experiments).items() if p.name != paths.LOCK} == {
        p: c for p, c in before.items() if p.name != paths.LOCK
    }


def test_the_lock_is_held_while_a_trial_s_things_are_deleted(
    experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trial(experiments, "failed", epochs=2)
    Trial(experiments, "completed", study_id=GONE)
    held = []

    def watch(target: Any, name: str) -> None:
        real = getattr(target, name)

        def watched(path: Path) -> None:
            folder = next(p for p in (path, *path.parents) if "trial_" in p.name)
            with files.try_lock(folder / paths.LOCK) as free:
                held.append(not free)
            real(path)

        monkeypatch.setattr(target, name, watched)

    watch(cleanup_module, "rmtree")
    watch(owned, "remove_checkpoint")
    cleanup(experiments, execute=True, evict=True)
    assert len(held) >= 3
    assert all(held)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"state": "resting"},
        {"trial_id": "33333333-2f3a-4b5c-8d7e-9f0a1b2c3d4e"},
    ],
)
def test_a_trial_whose_record_this_version_does_not_read_is_passed_over(
    experiments: Path, change: dict[str, Any]
) -> None:
    trial = Trial(experiments, "completed", study_id=GONE)
    trial.litter()
    document = json.loads((trial.folder / paths.TRIAL).read_bytes())
    (trial.folder / paths.TRIAL).write_text(json.dumps(document | change))
    before = snapshot(trial.checkpoints)
    found = cleanup(experiments, execute=True, evict=True)
    assert found.items == []
    assert [path for path, _ in found.skipped] == [trial.folder]
    assert snapshot(trial.checkpoints) == before


def test_a_checkpoint_of_another_format_is_whole_and_stays(experiments: Path) -> None:
    trial = Trial(experiments, "failed")
    later = manifest_of(trial.id, 2, 0.9).model_copy(update={"format_version": 99})
    (trial.checkpoints / "epoch-0001").rename(trial.checkpoints / ".away")
    store = trial.store()
    store.apply_plan = lambda **_: None  # type: ignore[method-assign]
    store.commit(later, contents(2))
    before = snapshot(trial.checkpoints)
    found = cleanup(experiments, execute=True, evict=True)
    assert found.items == []
    assert "format version 99" in found.skipped[0][1]
    assert snapshot(trial.checkpoints) == before


def test_on_a_full_disk_what_needs_no_row_goes_first_and_the_rest_the_next_time(
    experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows cannot be appended until something has gone."""
    stuck, other = Trial(experiments, "failed", epochs=2), Trial(experiments)
    trash = other.litter()

    def append(path: Path, content: bytes) -> None:
        if trash.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    real = files.append_durable
    monkeypatch.setattr(files, "append_durable", append)
    first = cleanup(experiments, execute=True)
    second = cleanup(experiments, execute=True)
    assert not trash.exists()
    assert len(first.skipped) <= 1
    assert all("too full" in reason and path == stuck.folder for path, reason in first.skipped)
    assert second.skipped == []
    assert unneeded(cleanup(experiments)) == []


def test_a_cleanup_that_dies_at_any_change_leaves_valid_checkpoints_and_litter(tmp_path: Path) -> None:
    """After each death what is there verifies, and another cleanup ends what the first began. Every fifth is tried."""
    origin = tmp_path / "origin"
    paths.study_dir(origin, STUDY).mkdir(parents=True)
    trials = everything(origin)
    died, count, results = DIED, 0, []
    while died == DIED:
        count += 5
        there = tmp_path / "there"
        shutil.copytree(origin, there)
        died = subprocess.run([sys.executable, str(CLEANER), str(there), str(count)], check=False).returncode
        folders = [paths.trial_dir(there, trial.id) for trial in trials]
        for sums in there.glob(f"trial_*/checkpoints/[!.]*/{paths.SUMS}"):
            assert read_verified(sums.parent)
        assert (folders[0] / paths.CHECKPOINTS / "epoch-0002" / paths.STATE_JSON).exists(), "the resume point"
        cleanup(there, execute=True, evict=True)
        assert cleanup(there, execute=True, evict=True).items == []
        left = {p.relative_to(there): c for p, c in snapshot(there).items() if paths.CHECKPOINTS in p.parts}
        results.append(left)
        stay = [folder for folder in folders if folder.name != trials[6].folder.name]  # the study of that one is gone
        assert {p.name for p in there.iterdir()} == {f"study_{STUDY}", *(folder.name for folder in stay)}
        assert all((folder / paths.METRICS).exists() and (folder / paths.CONFIG).exists() for folder in stay)
        shutil.rmtree(there)
    assert died == 0
    assert count > 30
    assert all(result == results[-1] for result in results), "however often it was begun"
