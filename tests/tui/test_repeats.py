"""Repeats, which confirm a search's best, are listed as trials and count as no result of the search."""

from datetime import UTC, datetime

import pytest

from redsm5.engine import paths
from tests.tui.test_once import tui
from tui.panels import trials as panel
from tui.panels.objective import TIME, slice_chart
from tui.panels.parameters import ranked
from tui.panels.study import status
from tui.read.reader import Reader
from tui.read.view import View


@pytest.fixture
def confirmed(folder):
    """Four completed trials, and two repeats of the last one: with a better score than any, and at work."""
    study_id = folder.study(states=("completed",) * 4, wanted=4, index=False)
    for number, state in ((10, "completed"), (11, "running")):
        made = folder.trial(study_id, number, state)
        best = {"epoch": 1, "value": 0.99}
        path = paths.trial_dir(folder.root, made.trial_id) / paths.TRIAL
        folder.rewrite(path, number=3, confirms=folder.id(study_id, 3), repeat=number - 9, best=best)
    return folder.root


def test_a_repeat_is_neither_the_best_nor_a_point_nor_a_trial_of_the_search(confirmed):
    seen = Reader(confirmed).read()
    assert [trial.label for trial in seen.trials] == ["0", "1", "2", "3", "3·1", "3·2"]
    assert seen.trials.searched == 4
    assert seen.trials.best.confirms is None
    assert [number for number, _, _ in seen.trials.points] == [0, 1, 2, 3]
    assert seen.trials.span[0] == 4
    assert [trial.label for trial in seen.trials.active] == ["3·2"]
    assert {one.trial.confirms for one in ranked(seen.trials)} == {None}
    assert sum(len(line.xs) for line in slice_chart(seen.trials, TIME).lines) == 4
    assert "trial 4 of 4" in status(seen).plain


def test_the_table_names_a_repeat_by_its_configuration_and_number(confirmed):
    seen = Reader(confirmed).read()
    view = View(seen, now=datetime.now(UTC))
    columns = panel.columns(seen.trials, "val_f1_macro", {})
    width = next(column.width for column in columns if column.key == "#")
    shown = [str(panel.cells(trial, view, columns)[1]) for trial in seen.trials]
    assert shown == ["0", "1", "2", "3", "3·1", "3·2"]
    assert max(map(len, shown)) <= width
    by = panel.sorting("#", {})
    assert sorted(seen.trials, key=by) == list(seen.trials)
    assert panel.counts(view, 6).plain == "4 of 4 trials and 2 repeats"
    assert f"repeat of {seen.trials[3].trial_id}" in panel.detail(seen.trials[4], view).plain


def test_the_overview_is_printed(confirmed):
    done = tui("--experiments", str(confirmed), "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "#3·2" in done.stdout
