"""The folder is read as it stands, at any moment of its being written, and nothing is read twice for nothing."""

import json
import math
import os
import shutil

import pytest

from redsm5.engine import paths
from redsm5.engine.records import Best, BudgetEntry, BudgetLedger, Event, MetricRow
from tui.panels.parameters import ranked
from tui.read import files, reader
from tui.read.reader import Reader
from tui.read.trials import Trials, score


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace(path, content):
    """As our own writers do: a new file in the place of the old one."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.replace(path)


def happened(root, **changes):
    """Add an event to the study's file."""
    event = {"timestamp": "2026-01-01T00:00:00.000Z", "number": 1, "state": "running"} | changes
    with next(root.glob("study_*/events.jsonl")).open("ab") as file:
        file.write(Event(**event).model_dump_json().encode() + b"\n")


def own_file(root, trial_id):
    return paths.trial_dir(root, trial_id) / paths.TRIAL


# ---------------------------------------------------------------------------------------------------------------------
# what is there


def test_a_study_with_all_its_trials(sample, folder):
    seen = Reader(sample).read()
    assert seen.exists
    assert not seen.empty
    assert seen.study.name == "night-search"
    assert [t.number for t in seen.trials] == list(range(8))
    assert dict(seen.trials.counts) == {"completed": 4, "pruned": 1, "failed": 1, "interrupted": 1, "running": 1}
    assert seen.trials.best.number == 6
    assert seen.trials.bytes == 7 * 438_000_000
    assert [t.number for t in seen.trials.active] == [7]
    assert seen.latest[seen.trials.active[0].trial_id].epoch == 4
    assert seen.events[-1].number == 7
    assert seen.unreadable == ()
    assert seen.error is None
    assert seen.disk_total > seen.disk_free > 0


def test_a_missing_and_an_empty_folder(tmp_path):
    assert not Reader(tmp_path / "none").read().exists
    (tmp_path / "file").touch()
    assert not Reader(tmp_path / "file").read().exists
    (tmp_path / "empty").mkdir()
    seen = Reader(tmp_path / "empty").read()
    assert seen.exists
    assert seen.empty


def test_without_an_index_the_trials_own_folders_are_read(folder):
    folder.study()
    with_index = Reader(folder.root).read()
    for index in folder.root.glob("study_*/index.json"):
        index.unlink()
    assert Reader(folder.root).read().trials == with_index.trials


def test_without_events_the_index_is_enough(sample):
    before = Reader(sample).read()
    next(sample.glob("study_*/events.jsonl")).unlink()
    seen = Reader(sample).read()
    assert seen.trials == before.trials
    assert seen.events == ()


def test_without_either_the_folders_are_enough_and_new_ones_are_found(sample, folder, monkeypatch):
    for name in (paths.INDEX, paths.EVENTS):
        next(sample.glob(f"study_*/{name}")).unlink()
    watching = Reader(sample)
    assert len(watching.read().trials) == 8
    folder.trial(folder.id("night-search"), 8, "queued")
    monkeypatch.setattr(reader.time, "monotonic", lambda: 1e9)
    assert len(watching.read().trials) == 9


def test_a_running_trial_is_read_from_its_own_folder_since_the_index_lags(sample, folder):
    trial_id = folder.id(folder.id("night-search"), 7)
    rewrite(own_file(sample, trial_id), epoch=9, state="finishing")
    trial = Reader(sample).read().trials[7]
    assert (trial.epoch, trial.state) == (9, "finishing")


def test_a_trial_that_only_the_events_know_is_there(sample, folder):
    index = next(sample.glob("study_*/index.json"))
    rewrite(index, trials=json.loads(index.read_text())["trials"][:-1])
    assert len(Reader(sample).read().trials) == 8


def test_an_event_brings_a_new_trial_and_a_change_of_a_finished_one(sample, folder):
    watching = Reader(sample)
    before = watching.read().trials
    added = folder.trial(folder.id("night-search"), 8, "running")
    assert watching.read().trials is before
    happened(sample, trial_id=added.trial_id, number=8)
    assert watching.read().trials[8] == added
    rewrite(own_file(sample, before[3].trial_id), state="interrupted")
    assert watching.read().trials[3].state == "failed"
    happened(sample, trial_id=before[3].trial_id, number=3, state="interrupted")
    assert watching.read().trials[3].state == "interrupted"


def test_the_newest_study_is_shown_unless_another_is_asked_for(folder):
    old = folder.study("old", created=500)
    new = folder.study("new", created=5)
    both = Reader(folder.root)
    assert [s.name for s in both.read().studies] == ["old", "new"]
    assert both.read().study.study_id == new
    assert both.read(old).study.name == "old"
    assert {t.study_id for t in both.read(old).trials} == {old}
    assert both.read("gone").study.study_id == new


def test_of_many_studies_each_has_its_own_trials(folder):
    ids = [folder.study(f"study {n}", states=("completed",) * (n % 3), created=n) for n in range(30)]
    many = Reader(folder.root)
    assert len(many.read().studies) == 30
    assert [len(many.read(study_id).trials) for study_id in ids] == [n % 3 for n in range(30)]


def test_trials_without_a_study_are_shown_where_there_is_none(folder):
    folder.trial(None, 3, "completed")
    seen = Reader(folder.root).read()
    assert seen.study is None
    assert len(seen.trials) == 1
    assert not seen.empty


def test_the_ledger_says_what_is_reserved_and_the_configuration_the_budget_until_then(sample, folder):
    study = next(sample.glob("study_*"))
    running = folder.id(folder.id("night-search"), 7)
    assert Reader(sample).read().budget is None
    rewrite(study / paths.STUDY, config={"retention": {"max_total_size": 5_000}})
    assert Reader(sample).read().budget == 5_000
    entries = {running: BudgetEntry(reserved=10**9, bytes=1), "gone": BudgetEntry(reserved=10**12)}
    (study / paths.BUDGET).write_bytes(BudgetLedger(max_total_size=7_000, entries=entries).to_json())
    seen = Reader(sample).read()
    assert seen.budget == 7_000
    assert seen.reserved == 10**9 - 438_000_000


def test_orders_are_the_files_in_the_control_folder(sample):
    control = next(sample.glob("study_*")) / paths.CONTROL
    assert Reader(sample).read().orders == frozenset()
    control.mkdir()
    (control / "pause").touch()
    assert Reader(sample).read().orders == {"pause"}


# ---------------------------------------------------------------------------------------------------------------------
# while it is written


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b'{"state": "new word"}', b"\xff\xfe", b"null"])
@pytest.mark.parametrize("name", ["study.json", "index.json", "events.jsonl", "trial.json", "metrics.jsonl"])
def test_a_broken_file_hides_nothing_but_itself(sample, name, broken):
    for path in sample.glob(f"*/{name}"):
        path.write_bytes(broken)
    seen = Reader(sample).read()
    assert seen.exists
    if name == "study.json":
        assert seen.study is None
        assert len(seen.unreadable) == 1
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
    assert during.unreadable == (study,)
    study.write_bytes(whole)
    assert watching.read().unreadable == ()


def test_at_every_length_of_its_files_the_study_can_be_read(sample):
    events = next(sample.glob("study_*/events.jsonl"))
    whole, watching = events.read_bytes(), Reader(sample)
    for length in range(0, len(whole) + 1, 61):
        events.write_bytes(whole[:length])
        seen = watching.read()
        assert len(seen.trials) == 8
        assert len(seen.events) == whole[:length].count(b"\n")


@pytest.mark.parametrize("how", ["cut off", "replaced", "removed"])
def test_another_history_of_events_is_told_anew(sample, folder, how):
    watching = Reader(sample)
    watching.read()
    events = next(sample.glob("study_*/events.jsonl"))
    index = next(sample.glob("study_*/index.json"))
    rewrite(index, trials=json.loads(index.read_text())["trials"][:2])
    first = events.read_bytes().splitlines(keepends=True)[:2]
    if how == "cut off":
        events.write_bytes(b"".join(first))
    elif how == "replaced":
        replace(events, b"".join(first))
    else:
        events.unlink()
    seen = watching.read()
    assert [t.number for t in seen.trials] == [0, 1]
    assert len(seen.events) == (0 if how == "removed" else 2)


def test_a_study_that_goes_is_gone_and_one_that_comes_again_is_seen(sample, folder):
    watching = Reader(sample)
    before = watching.read()
    away = sample.with_name("away")
    sample.rename(away)
    assert not watching.read().exists
    away.rename(sample)
    assert watching.read().trials == before.trials
    shutil.rmtree(sample)
    assert watching.read().empty
    sample.mkdir()
    assert watching.read().exists
    folder.study(states=("queued",))  # under the same id
    assert [t.state for t in watching.read().trials] == ["queued"]
    shutil.rmtree(next(sample.glob("study_*")))
    assert watching.read().study is None


# ---------------------------------------------------------------------------------------------------------------------
# what is not as it should be


@pytest.mark.parametrize("name", ["../..", "/etc", "a\0b", "..", "", "x/../y", "y" * 300, "\ud800"])
def test_no_record_leads_out_of_the_folder(sample, folder, name):
    """By an event, by the index, by a trial's own record, by the study's."""
    outside = {t.trial_id for t in Reader(sample).read().trials}
    shown = name.encode(errors="replace").decode()
    happened(sample, trial_id=shown)
    index = next(sample.glob("study_*/index.json"))
    trials = json.loads(index.read_text())["trials"]
    index.write_text(json.dumps(json.loads(index.read_text()) | {"trials": [*trials, trials[0] | {"trial_id": name}]}))
    rewrite(own_file(sample, folder.id(folder.id("night-search"), 7)), trial_id=name)
    seen = Reader(sample).read()
    assert {t.trial_id for t in seen.trials} - outside <= {"..", "", "y" * 300}  # names of folders that are in it
    for trial in seen.trials:
        assert paths.trial_dir(sample, trial.trial_id).parent == sample
    rewrite(next(sample.glob("study_*/study.json")), study_id=name)
    assert Reader(sample).read().study is None


def test_a_trial_of_another_study_is_not_taken_for_ones_own(folder):
    other = folder.study("other", created=500)
    folder.study("mine", states=("completed",))
    stranger = folder.id(other, 3)
    events = paths.study_dir(folder.root, folder.id("mine")) / paths.EVENTS
    told = Event(timestamp="", trial_id=stranger, number=3, state="failed")
    events.write_bytes(told.model_dump_json().encode() + b"\n")
    assert len(Reader(folder.root).read().trials) == 1


def test_duplicate_and_missing_and_huge_numbers(sample, folder):
    index = next(sample.glob("study_*/index.json"))
    trials = json.loads(index.read_text())["trials"]
    for trial, number in zip(trials, (1, 1, None, None, -5, 2**63, 2**62, 7), strict=True):
        trial["number"] = number
    rewrite(index, trials=trials)
    next(sample.glob("study_*/events.jsonl")).unlink()
    shutil.rmtree(paths.trial_dir(sample, trials[5]["trial_id"]))  # interrupted: its own record would come in its place
    seen = Reader(sample).read().trials
    assert [t.number for t in seen] == [-5, 1, 1, 7, None, None]
    assert len(seen.points) == len(seen) - sum(score(t) is None for t in seen)


def test_of_an_index_with_a_number_beyond_measure_the_trials_own_records_count(sample):
    index = next(sample.glob("study_*/index.json"))
    trials = json.loads(index.read_text())["trials"]
    trials[5]["number"] = 10**400
    rewrite(index, trials=trials)
    assert [t.number for t in Reader(sample).read().trials] == list(range(8))


def test_times_that_are_none_and_clocks_that_jump(folder):
    folder.study("future", created=-1e6)
    folder.study("now", created=0)
    seen = Reader(folder.root).read()
    assert seen.study.name == "future"
    for path in folder.root.glob("trial_*/trial.json"):
        rewrite(path, created_at="never", started_at="0001-01-01T00:00:00", finished_at="9999-12-31T23:59:59")
    next(folder.root.glob(f"study_{seen.study.study_id}/index.json")).unlink()
    assert len(Reader(folder.root).read().trials) == 8


def test_trials_without_a_finite_score_are_never_the_best(folder):
    folder.study(states=("completed",) * 4)
    for value in (math.nan, math.inf, -math.inf):
        best = Best(epoch=1, value=value)
        trials = Trials(t.model_copy(update={"best": best}) for t in Reader(folder.root).read().trials)
        assert trials.best is None
        assert trials.points == []
    assert Trials().best is None


def test_of_a_metric_that_is_minimized_the_lowest_is_the_best(folder):
    folder.study(states=("completed",) * 4)
    (path,) = folder.root.glob("study_*/study.json")
    rewrite(path, config={"study": {"direction": "minimize"}})
    trials = Reader(folder.root).read().trials
    scores = [trial.best.value for trial in trials]
    assert trials.best.best.value == min(scores) < max(scores)
    running = [value for _, value in trials.running_best]
    assert running == sorted(running, reverse=True)
    assert running[-1] == min(scores)
    assert [one.value for one in ranked(trials)] == sorted(scores)


def test_the_running_best_never_falls_and_counts_completed_trials_alone(sample):
    trials = Reader(sample).read().trials
    heights = [value for _, value in trials.running_best]
    assert heights == sorted(heights)
    assert heights[-1] == trials.best.best.value
    assert len(heights) == trials.counts["completed"]


def test_the_newest_row_of_the_objective_is_shown_of_a_trial_at_work(sample, folder):
    watching, running = Reader(sample), folder.id(folder.id("night-search"), 7)
    watching.read()

    def row(step, metric="val_f1_macro"):
        made = MetricRow(trial_id="t", metric=metric, step=step, epoch=9, value=0.5, timestamp="")
        return made.model_dump_json().encode() + b"\n"

    with (paths.trial_dir(sample, running) / paths.METRICS).open("ab") as file:
        file.write(row(500) + row(900, "train_loss") + row(400) + b"{}\n" + row(600)[:-9])
    assert watching.read().latest[running].step == 500


# ---------------------------------------------------------------------------------------------------------------------
# nothing for nothing


@pytest.fixture
def opened(monkeypatch):
    """The paths of all files that are opened from now on."""
    found, original = [], files.open_regular
    monkeypatch.setattr(files, "open_regular", lambda path: found.append(path) or original(path))
    return found


def test_what_has_not_changed_is_not_read_again(sample, opened):
    watching = Reader(sample)
    before = watching.read()
    opened.clear()
    assert watching.read().trials is before.trials
    assert opened == []


def test_the_reader_writes_nothing_and_takes_no_lock(sample):
    os.utime(sample, (0, 0))
    before = {p: p.stat().st_mtime_ns for p in sample.rglob("*")}
    Reader(sample).read()
    assert {p: p.stat().st_mtime_ns for p in sample.rglob("*")} == before


def test_of_finished_trials_no_folder_is_opened_but_those_that_events_name(folder, opened):
    folder.study(states=("completed",) * 400)
    next(folder.root.glob("study_*/events.jsonl")).write_bytes(b"")
    watching = Reader(folder.root)
    assert len(watching.read().trials) == 400
    assert [path.name for path in opened] == [paths.STUDY, paths.EVENTS, paths.INDEX]
    opened.clear()
    happened(folder.root, trial_id=folder.id(folder.id("night-search"), 5))
    watching.read()
    assert [path.name for path in opened] == [paths.EVENTS, paths.TRIAL]
