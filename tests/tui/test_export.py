"""The written table: in the order of the screen, raw values, and nothing that a spreadsheet would run."""

import csv
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redsm5.engine import paths
from redsm5.engine.records import TrialRecord
from tests.tui.hostile import NASTY, harmful
from tui.read.reader import Reader
from tui.write import export


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def test_the_rows_are_those_asked_for_with_full_keys_and_raw_values(night, folder, tmp_path):
    snapshot = Reader(night).read()
    ids = [folder.of(6), folder.of(3), folder.of(0), "gone"]
    path = export.write(tmp_path, snapshot, ids, {folder.of(0): 'good, "very"'})
    assert path.name.startswith("redsm5-trials-night-search-")
    best, failed, first = table(path)
    of = snapshot.trials.by_id
    assert [row["number"] for row in (best, failed, first)] == ["6", "3", "0"]
    assert float(best["val_f1_macro"]) == of[folder.of(6)].best.value
    assert float(best["train.learning_rate"]) == 2.1e-05 * 7
    assert best["model.criteria_head_type"] == "mlp_residual"
    assert best["started_at"] == of[folder.of(6)].started_at
    assert best["started_at"].endswith("Z")
    assert (failed["val_f1_macro"], failed["error"]) == ("", "not_finite: loss is NaN at [red]step[/red] 212")
    assert (first["id"], first["note"], best["note"]) == (folder.of(0), 'good, "very"', "")
    assert [*best][-2:] == ["id", "note"]


@pytest.mark.parametrize("word", ["=1+1", "+cmd", "-cmd|' /C calc'!A0", "@SUM(A1)", "  =1", "\t=1", "\x00=1", "＝1"])
def test_a_word_that_a_spreadsheet_would_run_is_written_after_an_apostrophe(word):
    assert export.cell(word)[0] == "'"


@pytest.mark.parametrize("number", [-1, -1.5e-07, 0.1 + 0.2, 10**30, -math.inf, "-3", "+1e5"])
def test_numbers_are_untouched(number):
    assert float(export.cell(number)) == float(number)


@given(st.one_of(st.text(max_size=50), st.recursive(st.floats() | st.booleans() | st.none(), st.lists, max_leaves=4)))
def test_no_cell_begins_a_formula_or_holds_what_a_terminal_obeys(value):
    cell = export.cell(value)
    assert not harmful(cell)
    assert not cell.startswith(("=", "@"))
    assert not cell.startswith(("+", "-")) or float(cell) is not None


def test_hostile_names_stay_in_the_folder_and_in_their_cells(folder, tmp_path):
    study_id = folder.study()
    folder.rewrite(paths.study_dir(folder.root, study_id) / paths.STUDY, name="../../=evil/\x1b[31m", metric="=metric")
    path = paths.study_dir(folder.root, study_id) / paths.INDEX
    index = json.loads(path.read_text())
    index["trials"][0]["parameters"] = {f"={i}{word}": word for i, word in enumerate(NASTY)}
    folder.rewrite(path, trials=index["trials"])
    snapshot = Reader(folder.root).read()
    written = export.write(tmp_path, snapshot, [trial.trial_id for trial in snapshot.trials], {})
    assert written.parent == tmp_path
    assert len(table(written)) == 8
    assert not harmful(written.read_text().replace("\r\n", "\n"))
    assert all(not title.startswith("=") for title in table(written)[0])


def test_a_file_that_lies_there_is_not_written_through(night, tmp_path, monkeypatch):
    class At(export.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 3, 14, 7, 41, 12)

    monkeypatch.setattr(export, "datetime", At)
    (tmp_path / "redsm5-trials-night-search-20260314-074112.csv").symlink_to(tmp_path / "other")
    with pytest.raises(FileExistsError):
        export.write(tmp_path, Reader(night).read(), [], {})
    assert not (tmp_path / "other").exists()


def test_trials_without_a_study_can_be_written_too(folder, tmp_path):
    folder.trial(None, 0, "completed")
    snapshot = Reader(folder.root).read()
    assert isinstance(snapshot.trials[0], TrialRecord)
    (row,) = table(export.write(tmp_path, snapshot, [snapshot.trials[0].trial_id], {}))
    assert row["state"] == "completed"
    assert float(row["objective"]) == 0.3
