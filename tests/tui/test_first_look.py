"""The first look reads the study and its trials, and no more; and what comes later is read a piece at a time."""

import builtins
import io
import os
from pathlib import Path

import pytest

from redsm5.engine import paths
from redsm5.engine.records import Event
from tests.tui.pilots import settled, shown
from tui.app import TerminalApp
from tui.panels import overview, storage
from tui.panels.study import READING, status
from tui.read import many as many_module
from tui.read import reader as reader_module
from tui.read import scores, standing, studies
from tui.read.look import Looker, Wanted
from tui.read.many import ManyReader
from tui.read.reader import Reader
from tui.read.scores import ScoresReader
from tui.read.standing import StandingReader
from tui.read.studies import StudiesReader


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that were opened for reading, in this order."""
    names = []
    really_open, really_builtin = os.open, builtins.open

    def recording(path, *args, **kwargs):
        names.append(Path(os.fsdecode(path)).name)
        return really_open(path, *args, **kwargs)

    def recording_too(path, *args, **kwargs):
        if not isinstance(path, int):
            names.append(Path(os.fsdecode(path)).name)
        return really_builtin(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", recording)
    monkeypatch.setattr(builtins, "open", recording_too)
    monkeypatch.setattr(io, "open", recording_too)
    return names


class Clock:
    """Each look at it takes a second."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("needs", ["", "active", "many", "tests", "studies", "storage", "parameters"])
def test_the_first_look_reads_no_more_than_the_study_and_its_trials(night, opened, needs):
    looker = Looker(night)
    first = looker.look(Wanted(needs=needs, counting_s=10))
    assert len(first.snapshot.trials) == 8
    own = {paths.STUDY, paths.INDEX, paths.EVENTS, paths.BUDGET, paths.TRIAL, paths.METRICS, paths.WORKERS_LOCK}
    shown_at_once = {"config.json", paths.RETENTION, paths.DECISIONS, "log.jsonl", paths.REPORT, paths.SUMMARY}
    assert paths.PREDICTIONS not in opened
    if needs in ("active", "many"):  # the details of the running trial
        assert set(opened) <= own | shown_at_once
        assert opened.count(paths.RETENTION) == 1
    else:
        assert set(opened) <= own | {paths.SUMMARY}
    assert opened.count(paths.INDEX) == 1
    assert opened.count(paths.REPORT) == 0


def test_studies_are_read_one_by_one(folder, opened, monkeypatch):
    for n in range(4):
        folder.study(f"study-{n}", created=900 - n, states=("completed",) * 2, state="completed")
    found = Reader(folder.root).read().studies
    reader = StudiesReader(folder.root)
    opened.clear()
    assert [line.bytes for line in reader.look(found, 0)] == [None] * 4
    assert paths.INDEX not in opened
    monkeypatch.setattr(studies.time, "monotonic", lambda: float(opened.count(paths.INDEX)))  # a second for each
    known = [sum(line.bytes is not None for line in reader.look(found, 0.5)) for _ in range(4)]
    assert known == [1, 2, 3, 4]
    assert all(line.bytes for line in reader.look(found, 0.5))
    assert opened.count(paths.INDEX) == 4


def test_curves_and_events_are_read_a_piece_at_a_time(sample, opened, monkeypatch):
    snapshot = Reader(sample).read()
    study, trials = snapshot.study.study_id, snapshot.trials
    reader = ManyReader(sample)
    opened.clear()
    assert reader.look(study, "val_f1_macro", trials, 0).pending == 8
    assert opened == []
    monkeypatch.setattr(many_module, "AT_ONCE", 2)
    monkeypatch.setattr(many_module.time, "monotonic", Clock())
    events = sum(1 for line in (paths.study_dir(sample, study) / paths.EVENTS).read_bytes().splitlines() if line)
    parsed = []
    records = many_module.records
    monkeypatch.setattr(
        many_module, "records", lambda lines, kind: parsed.append(kind) or records(lines, kind)  # how often, of which
    )
    reader.look(study, "val_f1_macro", trials, 2.5)
    assert 0 < parsed.count(Event) < events / 2
    for _ in range(30):
        seen = reader.look(study, "val_f1_macro", trials, 4.5)
    assert seen.pending == 0
    whole = ManyReader(sample)
    monkeypatch.undo()
    at_once = whole.look(study, "val_f1_macro", trials, 10)
    assert (seen.curves, seen.spans) == (at_once.curves, at_once.spans)


def test_test_scores_are_read_a_few_at_a_time(night, opened, monkeypatch):
    trials = Reader(night).read().trials
    completed = [t.trial_id for t in trials if t.state == "completed"]
    reader = ScoresReader(night)
    opened.clear()
    assert reader.look(trials, 0) == {}
    assert opened == []
    monkeypatch.setattr(scores.time, "monotonic", Clock())
    assert len(reader.look(trials, 1.5)) == 1
    assert opened.count(paths.REPORT) == 1
    assert reader.look(trials, 100).keys() == set(completed)
    assert opened.count(paths.REPORT) == len(completed)
    assert reader.look(trials, 100) is reader.look(trials, 100)


def test_scores_of_the_best_trials_are_read_and_compared_a_few_at_a_time(night, opened, monkeypatch):
    snapshot = Reader(night).read()
    reader, asked = StandingReader(night), []
    really = standing.scores_of
    monkeypatch.setattr(standing, "scores_of", lambda folder: asked.append(folder) or really(folder))
    opened.clear()
    reader.look(snapshot.study, snapshot.trials, 0)
    assert (asked, opened) == ([], [])
    monkeypatch.setattr(standing, "monotonic", Clock())
    for most in (1, 2, 3):
        reader.look(snapshot.study, snapshot.trials, 1.5)
        assert len(asked) == most


# ---------------------------------------------------------------------------------------------------------------------
# very many trials


@pytest.fixture
def large(night, monkeypatch):
    """A study whose index counts as large."""
    monkeypatch.setattr(reader_module, "QUICK_INDEX", 100)
    return night


def test_a_large_study_is_shown_first_and_its_trials_in_the_next_look(large, opened):
    looker = Looker(large)
    first = looker.look(Wanted(needs="active", counting_s=10))
    assert paths.INDEX not in opened
    assert paths.RETENTION not in opened
    assert first.snapshot.reading
    said = [status(first.snapshot).plain, overview.happening(first).plain, overview.pace(first).plain]
    said += [overview.leader(first).plain, storage.usage(first.snapshot, first.storage).plain]
    assert "trial 7 of 20" in said[0]
    assert all(READING in part for part in said[1:])
    second = looker.look(Wanted(needs="active", counting_s=10))
    assert not second.snapshot.reading
    assert len(second.snapshot.trials) == 8
    assert second.storage.complete


@pytest.mark.asyncio
async def test_what_was_selected_and_marked_is_still_so_after_the_trials_are_read(large, folder):
    app = TerminalApp(large)
    app._selected, app._marked = folder.of(2), [folder.of(1)]
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        assert not app.snapshot.reading
        assert (app.selected, app._marked) == (folder.of(2), [folder.of(1)])
        assert READING not in shown(app)


def test_a_study_printed_once_is_read_whole(large):
    assert not Reader(large).read().reading
