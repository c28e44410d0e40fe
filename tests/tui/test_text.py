"""Numbers have units, states have symbols, and an empty screen says what to do next."""

from datetime import UTC, datetime

import pytest

from redsm5.records import StudyRecord
from tui import text
from tui.reader import Reader, Snapshot


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (438_000_000, "438 MB"),
        (1_314_000_000, "1.3 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes(count, shown):
    assert text.size(int(count)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (-5, "0:00"), (252, "4:12"), (3852, "1:04:12"), (183_600, "2 d 3 h")]
)
def test_durations(seconds, shown):
    assert text.duration(seconds) == shown


def test_every_state_of_a_trial_and_of_a_study_has_a_symbol():
    from typing import get_args

    from redsm5.records import TrialState

    words = {*get_args(TrialState), *get_args(StudyRecord.model_fields["state"].annotation)}
    assert words == set(text.SYMBOLS)


def test_control_characters_do_not_get_through():
    assert text.clean("a\x1b[2Jb\nc\td\u202e") == "a[2Jb c d"


def show(snapshot):
    return text.overview(snapshot, datetime.now(UTC))


def test_the_overview_says_it_all(sample):
    page = show(Reader(sample).read())
    for part in (
        "night-search   ● running   trial 8 of 20",
        "val_f1_macro: best 0.487 · #6",
        "3.1 GB of checkpoints, 7 trials",
        "4 ✔ completed   1 ✂ pruned   1 ✗ failed   1 ⏸ interrupted",
        "trials/h, done about",
        "● #7  running  epoch 4 of 10",
        "✗ failed: loss is NaN at [red]step[/red] 212",
    ):
        assert part in page


@pytest.mark.parametrize(
    ("states", "state", "says"),
    [
        (("completed",) * 3, "completed", "The study is done"),
        (("completed", "interrupted"), "running", "1 interrupted: `just hpo study.name=night-search` goes on."),
        (("completed",), "stopped", "`just hpo study.name=night-search` goes on."),
        ((), "running", "Nothing is running."),
    ],
)
def test_where_nothing_runs_it_says_how_to_go_on(folder, states, state, says):
    folder.study(states=states, state=state, wanted=3)
    assert says in show(Reader(folder.root).read())


def test_many_at_work_have_a_line_each(folder):
    folder.study(states=("running",) * 5)
    lines = text.happening(Reader(folder.root).read(), datetime.now(UTC)).plain.split("\n")
    assert len(lines) == 4
    assert lines[-1] == "and 2 more at work"


def test_trials_that_have_not_begun_have_no_score_and_no_time(folder):
    folder.study(states=("preparing", "queued"))
    seen = Reader(folder.root).read()
    assert "no score yet" in show(seen)
    assert "no trial completed yet" in show(seen)
    assert text.running_time(seen.trials[1], datetime.now(UTC)) == "–"


def test_a_broken_time_in_a_record_does_not_break_the_page(folder):
    folder.ago = lambda minutes: "yesterday"
    folder.study()
    assert "night-search" in show(Reader(folder.root).read())


def test_an_empty_folder_says_what_to_do_next(tmp_path):
    assert show(Snapshot(tmp_path, exists=True)) == f"No experiments in {tmp_path} yet: run `just hpo`"
