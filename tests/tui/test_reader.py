"""The folder is read as it stands, at any moment of its being written, and nothing is read twice for nothing."""

import json
import os
from pathlib import Path

import pytest

from redsm5 import paths
from redsm5.records import MetricRow, TrialRecord
from tui import reader
from tui.reader import Reader, read_metrics, read_retention


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_study_with_all_its_trials(sample, folder):
    seen = Reader(sample).read()
    assert seen.exists
    assert not seen.empty
    assert seen.study.name == "night-search"
    assert [t.number for t in seen.trials] == list(range(8))
    assert dict(seen.counts) == {"completed": 4, "pruned": 1, "failed": 1, "interrupted": 1, "running": 1}
    assert seen.best.number == 6
    assert seen.bytes == 7 * 438_000_000
    assert [t.number for t in seen.active()] == [7]
    assert seen.latest[seen.active()[0].trial_id].epoch == 4
    assert seen.events[-1].number == 7
    assert seen.unreadable == 0
    assert seen.disk_total > seen.disk_free > 0


def test_a_missing_and_an_empty_folder(tmp_path):
    assert not Reader(tmp_path / "none").read().exists
    seen = Reader(tmp_path).read()
    assert seen.exists
    assert seen.empty


def test_without_an_index_the_trials_own_folders_are_read(folder):
    folder.study()
    with_index = Reader(folder.root).read()
    for index in folder.root.glob("study_*/index.json"):
        index.unlink()
    assert Reader(folder.root).read().trials == with_index.trials


def test_a_running_trial_is_read_from_its_own_folder_since_the_index_lags(sample, folder):
    trial_id = folder.id(folder.id("night-search"), 7)
    rewrite(paths.trial_dir(sample, trial_id) / paths.TRIAL, epoch=9, state="finishing")
    trial = Reader(sample).read().trials[7]
    assert (trial.epoch, trial.state) == (9, "finishing")


def test_a_trial_that_only_the_events_know_is_there(sample, folder):
    index = next(sample.glob("study_*/index.json"))
    rewrite(index, trials=json.loads(index.read_text())["trials"][:-1])
    assert len(Reader(sample).read().trials) == 8


def test_the_newest_study_is_shown_unless_another_is_asked_for(folder):
    old = folder.study("old", created=500)
    new = folder.study("new", created=5)
    both = Reader(folder.root)
    assert [s.name for s in both.read().studies] == ["old", "new"]
    assert both.read().study.study_id == new
    assert both.read(old).study.name == "old"
    assert {t.study_id for t in both.read(old).trials} == {old}
    assert both.read("gone").study.study_id == new


def test_trials_without_a_study_are_shown_where_there_is_none(folder):
    folder.trial(None, 3, "completed")
    seen = Reader(folder.root).read()
    assert seen.study is None
    assert len(seen.trials) == 1
    assert not seen.empty


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"state": "new word"}', b"\xff\xfe", b"null"])
@pytest.mark.parametrize("name", ["study.json", "index.json", "events.jsonl", "trial.json", "metrics.jsonl"])
def test_a_broken_file_hides_nothing_but_itself(sample, name, broken):
    for path in sample.glob(f"*/{name}"):
        path.write_bytes(broken)
    seen = Reader(sample).read()
    assert seen.exists
    if name == "study.json":
        assert seen.study is None
        assert seen.unreadable == 1
    else:
        assert len(seen.trials) == 8
    if name == "events.jsonl":
        assert seen.events == ()


def test_a_file_being_replaced_keeps_its_last_content(sample):
    watching = Reader(sample)
    before = watching.read()
    study = next(sample.glob("study_*/study.json"))
    whole = study.read_bytes()
    study.write_bytes(whole[:100])
    during = watching.read()
    assert during.study == before.study
    assert during.unreadable == 1
    study.write_bytes(whole)
    assert watching.read().unreadable == 0


def test_every_prefix_of_a_growing_file_can_be_read(sample, folder):
    trial_id = folder.id(folder.id("night-search"), 7)
    metrics = paths.trial_dir(sample, trial_id) / paths.METRICS
    whole = metrics.read_bytes()
    counts = []
    for length in range(0, len(whole) + 1, 7):
        metrics.write_bytes(whole[:length])
        counts.append(sum(map(len, read_metrics(metrics.parent).values())))
        Reader(sample).read()
    assert counts == sorted(counts)


def test_for_each_metric_and_step_the_first_line_wins(folder):
    trial = folder.trial("s", 0, "running")
    path = paths.trial_dir(folder.root, trial.trial_id)

    def row(step, value):
        return MetricRow(trial_id="t", metric="loss", step=step, epoch=1, value=value, timestamp="")

    folder.lines(path / paths.METRICS, [row(2, 0.2), row(1, 0.1), row(2, 9.0), row(3, float("nan"))])
    with (path / paths.METRICS).open("ab") as file:
        file.write(b"not json\n" + row(4, 0.4).model_dump_json().encode())
    found = read_metrics(path)["loss"]
    assert [r.step for r in found] == [1, 2, 3]
    assert found[1].value == 0.2


def test_retention_and_what_is_missing(folder):
    trial = folder.trial("s", 0, "running")
    rows = read_retention(paths.trial_dir(folder.root, trial.trial_id))
    assert [r.checkpoint for r in rows] == ["epoch-0001", "epoch-0002", "epoch-0003", "epoch-0004"]
    assert read_retention(folder.root / "none") == []
    assert read_metrics(folder.root / "none") == {}


def test_of_a_long_file_only_the_tail_is_read(folder, monkeypatch):
    trial = folder.trial("s", 0, "completed")
    monkeypatch.setattr(reader, "TAIL_BYTES", 500)
    rows = read_retention(paths.trial_dir(folder.root, trial.trial_id))
    assert 1 <= len(rows) < 10
    assert rows[-1].checkpoint == "epoch-0010"


def test_what_has_not_changed_is_not_read_again(sample, monkeypatch):
    watching = Reader(sample)
    watching.read()
    read = []
    monkeypatch.setattr(TrialRecord, "model_validate_json", lambda content: read.append(content))
    watching.read()
    assert read == []


def test_the_reader_writes_nothing_and_takes_no_lock(sample):
    os.utime(sample, (0, 0))
    before = {p: p.stat().st_mtime_ns for p in sample.rglob("*")}
    Reader(sample).read()
    assert {p: p.stat().st_mtime_ns for p in sample.rglob("*")} == before


def test_of_a_thousand_finished_trials_no_folder_is_opened_again(folder, monkeypatch):
    folder.study(states=("completed",) * 1000)
    watching = Reader(folder.root)
    watching.read()
    opened = []
    for name in ("open", "read_bytes", "iterdir"):
        original = getattr(Path, name)

        def counted(path, *args, original=original, **more):
            opened.append(path)
            return original(path, *args, **more)

        monkeypatch.setattr(Path, name, counted)
    assert len(watching.read().trials) == 1000
    assert len(opened) < 10, "the index says it all"
