"""The bytes are counted bit by bit, by kind, as they lie on the disk; and told back over the last hours."""

import json
import os
import shutil
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redsm5.engine import paths
from redsm5.engine.documents import timestamp
from redsm5.engine.files import open_regular
from redsm5.engine.records import RetentionAction, RetentionRow
from redsm5.engine.timeline import changes
from tui.panels.storage import going, usage
from tui.panels.text import size
from tui.read import journals, storage
from tui.read.journals import Move
from tui.read.reader import Reader, Snapshot
from tui.read.storage import WINDOW_MS, StorageReader, kinds_of, used_over_time
from tui.read.view import View

FUZZ = settings(deadline=None, max_examples=200, derandomize=True, database=None)


def write(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def row(action, bytes, name="epoch-0001", ago=10.0, **more):
    time = timestamp(datetime.now(UTC) - timedelta(minutes=ago))
    fields = {"timestamp": time, "epoch": 1, "step": 1, "score": None, "reason": ""} | more
    return RetentionRow(action=action, checkpoint=name, bytes=bytes, **fields)


def looked(folder, *rows, seconds=5.0):
    """What is known of a trial with these rows."""
    trial = folder.trial(None, 1, "completed")
    folder.lines(paths.trial_dir(folder.root, trial.trial_id) / paths.RETENTION, rows)
    return StorageReader(folder.root).look(None, [trial], seconds)


# ---------------------------------------------------------------------------------------------------------------------
# by kind


def test_the_files_of_a_trial_by_kind(tmp_path):
    checkpoint = tmp_path / paths.CHECKPOINTS / "epoch-0001"
    write(checkpoint / paths.WEIGHTS, 100)
    write(checkpoint / paths.STATE_TENSORS, 200)
    write(checkpoint / paths.STATE_JSON, 10)
    write(tmp_path / paths.CHECKPOINTS / ".tmp-x" / paths.WEIGHTS, 50)
    write(tmp_path / paths.CHECKPOINTS / ".trash-x" / "deep" / paths.WEIGHTS, 5)
    write(tmp_path / paths.LOGS / "log.jsonl", 7)
    write(tmp_path / paths.TRIAL, 3)
    assert kinds_of(tmp_path) == {
        "weights": 100,
        "training state": 210,
        "temporary": 55,
        "elsewhere": 0,
        "logs": 7,
        "other": 3,
    }


@pytest.mark.timeout(10)
def test_no_link_is_followed_and_what_is_no_file_counts_nothing(tmp_path):
    outside = tmp_path / "outside"
    write(outside / "large", 1000)
    trial = tmp_path / "trial"
    write(trial / paths.TRIAL, 3)
    (trial / "link").symlink_to(outside)
    (trial / "file").symlink_to(outside / "large")
    (trial / "loop").symlink_to(trial)
    (trial / "endless").symlink_to("/dev/zero")
    os.mkfifo(trial / "pipe")
    assert sum(kinds_of(trial).values()) == 3
    assert sum(kinds_of(tmp_path / "none").values()) == 0
    assert sum(kinds_of(outside / "large").values()) == 0


def test_what_vanishes_while_it_is_counted_counts_nothing(tmp_path, monkeypatch):
    write(tmp_path / "a", 3)
    write(tmp_path / "folder" / "b", 4)
    listed = os.scandir

    def vanishing(path):
        entries = list(listed(path))
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)
        return nullcontext(entries)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert sum(kinds_of(tmp_path).values()) == 0


def test_of_a_folder_of_many_files_so_many_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MOST_FILES", 10)
    for n in range(30):
        write(tmp_path / str(n), 1)
    assert sum(kinds_of(tmp_path).values()) == 10


# ---------------------------------------------------------------------------------------------------------------------
# bit by bit


def test_in_no_time_nothing_is_counted_and_later_everything(sample):
    trials = Reader(sample).read().trials
    counting = StorageReader(sample)
    first = counting.look("s", trials, -1)
    assert (first.looked_at, first.pending) == (0, 8)
    last = counting.look("s", trials, 10)
    assert (last.looked_at, last.pending) == (8, 0)
    assert last.by_trial.keys() == trials.by_id.keys()
    assert last.kinds["other"] == sum(p.stat().st_size for p in sample.glob("trial_*/*"))
    assert last.keep_all == sum(438_000_000 * t.epoch for t in trials)


def test_what_is_over_and_holds_nothing_is_not_counted_again(sample, folder, monkeypatch):
    trials, looked = Reader(sample).read().trials, []
    counting = StorageReader(sample)
    folder.checkpoint(trials[0], 9)
    first = counting.look("s", trials, 10)
    with_checkpoints = {i: any(held[k] for k in ("weights", "training state")) for i, held in first.by_trial.items()}
    monkeypatch.setattr(storage, "kinds_of", lambda folder: looked.append(folder) or dict.fromkeys(storage.KINDS, 0))
    counting.look("s", trials, 10)
    assert [Path(folder).name for folder in looked] == [f"trial_{t.trial_id}" for t in trials if t.state == "running"]
    monkeypatch.setattr(storage.time, "monotonic", lambda: 1e9)
    looked.clear()
    counting.look("s", trials, 10)
    assert {Path(folder).name for folder in looked} == {
        f"trial_{t.trial_id}" for t in trials if with_checkpoints[t.trial_id] or t.state == "running"
    }
    assert 1 < len(looked) < 8


@pytest.mark.parametrize("change", ["delete", "strip", "nothing", None])
def test_a_trial_that_is_over_is_counted_again_where_its_checkpoints_have_changed(folder, monkeypatch, change):
    """The time of each change is an hour ago, or seconds: only then it says that nothing came after it."""
    trial = folder.trial(None, 1, "completed")
    checkpoints = paths.trial_dir(folder.root, trial.trial_id) / paths.CHECKPOINTS
    for name in ("epoch-0001", "epoch-0002"):
        write(checkpoints / name / paths.WEIGHTS, 100)
        write(checkpoints / name / paths.STATE_TENSORS, 200)
    for path in (checkpoints, *checkpoints.iterdir()) if change else ():
        os.utime(path, (time.time() - 3600,) * 2)
    counting, trials = StorageReader(folder.root), (trial,)
    assert counting.look(None, trials, 10).kinds["training state"] == 400
    if change == "delete":
        shutil.rmtree(checkpoints / "epoch-0001")
    elif change == "strip":
        (checkpoints / "epoch-0001" / paths.STATE_TENSORS).unlink()
    counted = []
    monkeypatch.setattr(storage, "kinds_of", lambda folder: counted.append(folder) or kinds_of(folder))
    monkeypatch.setattr(storage.time, "monotonic", lambda: 1e9)
    left = counting.look(None, trials, 10)
    assert len(counted) == (change != "nothing")
    assert left.kinds["training state"] == (200 if change in ("delete", "strip") else 400)
    assert left.pending == 0


def test_of_another_study_nothing_is_left_of_the_first(sample):
    counting = StorageReader(sample)
    assert counting.look("s", Reader(sample).read().trials, 10).looked_at == 8
    empty = counting.look("t", (), 10)
    assert (empty.looked_at, empty.by_trial, empty.moves, empty.keep_all) == (0, {}, (), 0)
    assert sum(empty.kinds.values()) == 0


def test_the_version_stays_where_nothing_has_changed(sample):
    trials = [t for t in Reader(sample).read().trials if t.state == "completed"]
    counting = StorageReader(sample)
    first = counting.look("s", trials, 10)
    assert counting.look("s", trials, 10) is first


@pytest.mark.parametrize("recorded", [0, 5_000_000])
def test_total_and_parts_are_of_one_count_and_not_of_the_record_which_is_older(folder, recorded):
    """At a trial's start its record says 0 B though a checkpoint is on the disk."""
    study = folder.study(states=("running",))
    trial = Reader(folder.root).read().trials[0]
    place = paths.trial_dir(folder.root, trial.trial_id)
    folder.rewrite(place / paths.TRIAL, bytes=recorded)
    write(place / paths.CHECKPOINTS / "epoch-0001" / paths.WEIGHTS, 461_000)
    folder.lines(place / paths.RETENTION, [row("keep", 461_000)])
    snapshot = Reader(folder.root).read()
    counting = StorageReader(folder.root)
    told = usage(snapshot, counting.look(study, snapshot.trials, -1)).plain.split("\n")
    assert told[0].startswith(f"{size(recorded)} of checkpoints")
    assert "weights" not in " ".join(told)
    told = usage(snapshot, counting.look(study, snapshot.trials, 10)).plain.split("\n")
    assert told[:2] == ["461 kB of checkpoints, no budget", "weights 461 kB"]
    assert told[3] == "keep-all would hold 461 kB"


def test_where_nothing_is_left_or_nothing_was_written_there_is_nothing_to_compare(folder):
    study = folder.study(states=("running",))
    snapshot = Reader(folder.root).read()
    place = paths.trial_dir(folder.root, snapshot.trials[0].trial_id)
    told = usage(snapshot, StorageReader(folder.root).look(study, snapshot.trials, 10)).plain
    assert "keep-all would hold 1.8 GB" in told  # four checkpoints were written, and none is here
    assert "less" not in told
    (place / paths.RETENTION).write_bytes(b"")
    assert "keep-all" not in usage(snapshot, StorageReader(folder.root).look(study, snapshot.trials, 10)).plain


def test_checkpoints_behind_a_link_count_as_their_trial_records_them(folder, tmp_path):
    trial = folder.trial(None, 1, "completed").model_copy(update={"checkpoints_at": str(tmp_path), "bytes": 700})
    write(tmp_path / paths.WEIGHTS, 90)
    (paths.trial_dir(folder.root, trial.trial_id) / paths.CHECKPOINTS).symlink_to(tmp_path)
    seen = StorageReader(folder.root).look(None, [trial], 10)
    assert (seen.held, seen.kinds["elsewhere"], seen.kinds["weights"]) == (700, 700, 0)


# ---------------------------------------------------------------------------------------------------------------------
# how it came about


def test_writes_and_prunes_are_moves_and_keeping_all_counts_each_checkpoint_once(folder):
    seen = looked(folder, row("keep", 100), row("strip", 70), row("keep", 100, "epoch-0002"), row("delete", 30))
    assert sorted(move.bytes for move in seen.moves) == [-70, -30, 100, 100]
    assert seen.keep_all == 200


def test_what_is_older_than_the_window_is_no_move(folder):
    seen = looked(folder, row("keep", 100, ago=600), row("keep", 7, "epoch-0002", ago=5))
    assert [move.bytes for move in seen.moves] == [7]
    assert seen.keep_all == 107


@pytest.mark.parametrize("time", ["", "never", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999+00:00", "2126-01-01"])
def test_times_that_are_none_and_clocks_that_jump(folder, time):
    seen = looked(folder, row("keep", 100, timestamp=time), row("keep", 50, "epoch-0002"))
    heights = used_over_time(150, seen.moves, int(datetime.now(UTC).timestamp() * 1000), 20)
    assert all(height >= 0 for height in heights)


def test_moves_of_trials_with_and_without_a_number_at_the_same_moment(folder):
    trials = [folder.trial(None, n, "completed") for n in range(3)]
    told = row("keep", 5)
    for trial in trials:
        folder.lines(paths.trial_dir(folder.root, trial.trial_id) / paths.RETENTION, [told])
    mixed = [t.model_copy(update={"number": n}) for t, n in zip(trials, (None, 1, None), strict=True)]
    assert len(StorageReader(folder.root).look(None, mixed, 5).moves) == 3


moves = st.lists(
    st.builds(Move, st.integers(-(10**12), 10**15), st.integers(-(2**62), 2**62), st.one_of(st.none(), st.integers()))
)


@FUZZ
@given(st.integers(-(2**62), 2**62), moves, st.integers(-(10**12), 10**15), st.integers(1, 80))
def test_the_bytes_over_time_are_never_negative_and_there_are_as_many_as_columns(now, moves, until, columns):
    heights = used_over_time(now, moves, until, columns)
    assert len(heights) == columns
    assert all(0 <= height < float("inf") for height in heights)
    assert heights[-1] >= max(now, 0)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, WINDOW_MS), st.integers(0, 1000)), max_size=20), st.integers(1, 60))
def test_bytes_that_only_grow_end_at_what_is_there_and_begin_at_what_was(grown, columns):
    until, now = 10**13, 10**9
    moves = [Move(until - ago, bytes, 1) for ago, bytes in grown]
    heights = used_over_time(now, moves, until, columns)
    assert heights == sorted(heights)
    assert heights[-1] == now
    assert heights[0] >= now - sum(bytes for _, bytes in grown)


def test_a_prune_is_seen_as_a_step_down():
    until = WINDOW_MS * 2
    heights = used_over_time(100, [Move(until - WINDOW_MS, 0, 1), Move(until - WINDOW_MS // 2, -300, 1)], until, 4)
    assert heights == [400, 400, 400, 100]


def test_what_cleanup_would_take_of_a_study_s_logs_is_named(tmp_path):
    path = paths.study_dir(tmp_path, "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e") / paths.LOGS
    found = {"items": [{"kind": "litter", "path": str(path), "bytes": 5, "reason": "logs beyond"}], "freed": 5}
    assert "study 11111111 logs " in going(found, "", View(Snapshot(tmp_path))).plain


# ---------------------------------------------------------------------------------------------------------------------
# what is read for it


@pytest.fixture
def opened(monkeypatch):
    """The names of the trials whose journal was opened, in this order."""
    names = []

    def recording(path):
        names.append(Path(path).parent.name)
        return open_regular(path)

    monkeypatch.setattr(journals, "open_regular", recording)
    return names


def test_a_journal_is_opened_once_and_again_only_when_it_has_changed(sample, folder, opened):
    trials, counting = Reader(sample).read().trials, StorageReader(sample)
    counting.look("s", trials, 0)
    assert opened == []
    first = counting.look("s", trials, 10)
    assert sorted(opened) == sorted(f"trial_{t.trial_id}" for t in trials)
    opened.clear()
    for _ in range(3):
        counting.look("s", trials, 10)
    assert opened == []
    running = trials.active[0]
    journal = paths.trial_dir(sample, running.trial_id) / paths.RETENTION
    journal.write_bytes(journal.read_bytes() + row("keep", 70, "epoch-0099").to_line())
    grown = counting.look("s", trials, 10)
    assert opened == [f"trial_{running.trial_id}"]
    assert grown.keep_all == first.keep_all + 70
    assert 70 in [move.bytes for move in grown.moves]


def test_after_an_eviction_only_that_trial_is_read_again_and_the_total_is_right(night, folder, opened, monkeypatch):
    snapshot = Reader(night).read()
    study, trials = snapshot.study.study_id, snapshot.trials
    for path in night.glob(f"trial_*/{paths.CHECKPOINTS}/*"):
        for changed in (path, path.parent):
            os.utime(changed, (time.time() - 3600,) * 2)
    counting = StorageReader(night)
    before = counting.look(study, trials, 10)
    assert before.complete
    opened.clear()
    evicted = next(t for t in trials if t.state == "completed" and before.by_trial[t.trial_id]["weights"])
    place = paths.trial_dir(night, evicted.trial_id)
    freed = before.by_trial[evicted.trial_id]["weights"]
    shutil.rmtree(next((place / paths.CHECKPOINTS).iterdir()))
    told = row("delete", freed, "epoch-0009", ago=0).to_line()
    (place / paths.RETENTION).write_bytes((place / paths.RETENTION).read_bytes() + told)
    monkeypatch.setattr(storage.time, "monotonic", lambda: 1e9)
    after = counting.look(study, trials, 10)
    assert opened == [f"trial_{evicted.trial_id}"]
    assert (after.held, after.keep_all) == (before.held - freed, before.keep_all)
    assert evicted.trial_id not in after.largest[:1]


def test_a_trial_whose_record_changes_is_counted_again(night, opened):
    reader, counting = Reader(night), StorageReader(night)
    snapshot = reader.read()
    study, trials = snapshot.study.study_id, snapshot.trials
    before = counting.look(study, trials, 10)
    changed = trials[0].model_copy(update={"bytes": 1})
    write(paths.trial_dir(night, changed.trial_id) / paths.CHECKPOINTS / "epoch-0099" / paths.WEIGHTS, 5)
    after = counting.look(study, trials.with_changed([changed]), 10)
    assert after.held == before.held + 5
    assert opened.count(f"trial_{changed.trial_id}") == 1  # its journal is as before


def test_of_a_folder_of_an_older_version_without_sizes_the_same_is_counted(night):
    """Neither its records nor its journals' rows say what this version says."""
    snapshot = Reader(night).read()
    seen = StorageReader(night).look(snapshot.study.study_id, snapshot.trials, 10)
    for path in night.glob(f"trial_*/{paths.RETENTION}"):
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        path.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "schema"}) + "\n" for r in rows))
    older = [trial.model_copy(update={"bytes": 0}) for trial in snapshot.trials]
    again = StorageReader(night).look(snapshot.study.study_id, older, 10)
    assert (again.held, again.kinds["weights"], again.keep_all) == (seen.held, seen.kinds["weights"], seen.keep_all)
    assert again.moves == seen.moves
    assert seen.held > 0


actions = st.sampled_from(get_args(RetentionAction))
names = st.one_of(st.sampled_from(["epoch-0001", "epoch-0002", "step-3"]), st.text(max_size=6))
times = st.builds(lambda ago: timestamp(datetime.now(UTC) - timedelta(minutes=ago)), st.integers(0, 600))
rows = st.builds(
    RetentionRow,
    timestamp=times,
    action=actions,
    checkpoint=names,
    epoch=st.integers(-3, 10**6),
    step=st.integers(0, 10**9),
    score=st.one_of(st.none(), st.floats()),
    bytes=st.one_of(st.integers(0, 10**13), st.integers(-5, 5), st.integers(2**60, 2**61)),
    reason=st.text(),
)


@FUZZ
@given(st.lists(rows, max_size=12), st.sampled_from([b"", b"{", b'{"schema":1}\n', b"\xff\n"]))
def test_a_journal_says_the_same_as_its_rows_one_by_one(tmp_path_factory, journal, torn):
    path = tmp_path_factory.mktemp("journal") / paths.RETENTION
    path.write_bytes(b"".join(row.to_line() for row in journal) + torn)
    since = journals.Since.of(time.time() * 1000 - WINDOW_MS)
    seen, by_row = journals.told(str(path), 1, since), changes(journal)
    assert seen.keep_all == sum(change.keep_all for change in by_row)
    assert [m.bytes for m in seen.moves] == [c.on_disk for c in by_row if c.time >= since.ms and c.on_disk]


def test_of_very_many_moves_the_newest_are_kept(folder, monkeypatch):
    monkeypatch.setattr(storage, "MOST_MOVES", 3)
    trials = [folder.trial(None, n, "completed") for n in range(4)]
    for n, trial in enumerate(trials):
        told = [row("keep", 10 * n + k, f"epoch-000{k}", ago=60 - 10 * n - k) for k in (1, 2)]
        folder.lines(paths.trial_dir(folder.root, trial.trial_id) / paths.RETENTION, told)
    counting = StorageReader(folder.root)
    for most in range(1, 5):
        seen = counting.look(None, trials[:most], 10)
    assert [move.bytes for move in seen.moves] == [22, 31, 32]
    assert seen.keep_all == sum(10 * n + k for n in range(4) for k in (1, 2))


def test_a_journal_as_this_version_writes_it_is_not_parsed_row_by_row(night, monkeypatch):
    snapshot, parsed = Reader(night).read(), []
    monkeypatch.setattr(journals, "records", lambda lines, kind: parsed.extend(lines) or ())
    seen = StorageReader(night).look(snapshot.study.study_id, snapshot.trials, 10)
    assert seen.keep_all > 0
    assert parsed == []
