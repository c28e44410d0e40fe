"""The studies and trials that a person names."""

from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import files, paths
from redsm5.engine.errors import ConfigError, InputError, RedSM5Error
from redsm5.engine.records import Confirmed, StudyIndex, StudyRecord
from redsm5.engine.study.ids import find_study, find_trial, trial_folder
from tests.engine.storage.saver import record_of

OLD, NEW = "aa000000-0000-4000-8000-000000000001", "ab000000-0000-4000-8000-000000000002"
FIRST, SECOND = "1b000000-0000-4000-8000-000000000001", "1c000000-0000-4000-8000-000000000002"
REPEAT, COPY = "2d000000-0000-4000-8000-000000000003", "3e000000-0000-4000-8000-000000000004"


def add_study(experiments: Path, study_id: str, name: str, **changes: Any) -> Path:
    """A study; the one with the higher id is the newer."""
    created = f"2026-01-0{int(study_id[-1])}T00:00:00.000Z"
    fields = {"study_id": study_id, "name": name, "state": "running", "created_at": created, "metric": "val_f1_macro"}
    record = StudyRecord.model_validate({**fields, "trials": {"wanted": 9}, "config": {}, **changes})
    folder = paths.study_dir(experiments, study_id)
    files.make_dir(folder)
    files.write_atomic(folder / paths.STUDY, record.to_json())
    return folder


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """An old study, and a new one with trials 0 and 1, a repeat of 0, and a duplicate of 1, which is number 2."""
    add_study(tmp_path, OLD, "old")
    best = {"trial_id": SECOND, "number": 1, "value": 0.7}
    study = add_study(tmp_path, NEW, "night #2", best=best)
    trials = [
        record_of(FIRST, NEW, state="completed", number=0),
        record_of(SECOND, NEW, state="completed", number=1),
        record_of(REPEAT, NEW, state="completed", number=0, confirms=FIRST, repeat=1),
        record_of(COPY, NEW, state="completed", number=2, duplicate_of=SECOND),
    ]
    for record in trials:
        files.make_dir(paths.trial_dir(tmp_path, record.trial_id))
        files.write_atomic(paths.trial_dir(tmp_path, record.trial_id) / paths.TRIAL, record.to_json())
    index = StudyIndex(study_id=NEW, updated_at="2026-01-02T00:00:00.000Z", trials=[trials[2], trials[0]])
    files.write_atomic(study / paths.INDEX, index.to_json())  # it does not know the others yet
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (SECOND, SECOND),
        ("1c", SECOND),
        ("1c000000-0", SECOND),
        ("2", REPEAT),
        ("night #2#0", FIRST),
        ("night #2#1", SECOND),
        (f"{NEW}#1", SECOND),
        ("ab#1", SECOND),
        ("#1", SECOND),
        ("best", SECOND),
        ("best:night #2", SECOND),
        ("winner", SECOND),
        ("winner:ab", SECOND),
    ],
)
def test_a_trial_is_found_by_uuid_prefix_number_or_rank(experiments: Path, wanted: str, found: str) -> None:
    folder, record = find_trial(experiments, wanted)
    assert record.trial_id == found
    assert folder == trial_folder(experiments, wanted) == paths.trial_dir(experiments, found)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("1", f"the ids of 2 trials begin with 1: {FIRST}, {SECOND}"),
        ("9", "there is no trial 9 in"),
        ("", "there is no trial  in"),
        ("../study", "there is no trial ../study in"),
        ("night #2#7", "study night #2 has no trial 7"),
        ("night #2#2", f"was not trained: it is a duplicate of {SECOND}"),
        ("elsewhere#1", "there is no study elsewhere in"),
        ("a#1", f"the ids of 2 studies begin with a: {OLD}, {NEW}"),
        ("best:old", "study old has no completed trial yet"),
        ("winner:nowhere", "there is no study nowhere in"),
    ],
)
def test_what_names_no_trial_is_refused(experiments: Path, wanted: str, said: str) -> None:
    with pytest.raises(RedSM5Error) as caught:
        find_trial(experiments, wanted)
    assert said in str(caught.value)


def test_the_winner_is_the_one_that_was_confirmed_and_not_the_searchs_best(experiments: Path) -> None:
    raw = {"trial_id": SECOND, "number": 1, "value": 0.7, "mean": 0.5, "repeats": 2}
    said = {"trial_id": FIRST, "number": 0, "mean": 0.6, "sd": 0.1, "low": 0.5, "high": 0.7, "repeats": 2}
    confirmed = Confirmed.model_validate({**said, "raw_best": raw, "shrinkage": 0.1})
    asked = {"study": {"confirm": {"top": 2, "repeats": 2}}}
    best = {"trial_id": SECOND, "number": 1, "value": 0.7}
    add_study(experiments, NEW, "night #2", best=best, confirmed=confirmed, config=asked)
    assert find_trial(experiments, "winner")[1].trial_id == FIRST
    assert find_trial(experiments, "best")[1].trial_id == SECOND
    add_study(experiments, NEW, "night #2", best=best, config=asked)
    with pytest.raises(ConfigError, match="has no confirmed winner") as caught:
        find_trial(experiments, "winner")
    assert find_trial(experiments, (caught.value.remedy or "").split()[0] + " #2")[1].trial_id == SECOND


def test_a_study_is_found_by_name_uuid_or_prefix_and_the_newest_without(experiments: Path) -> None:
    assert find_study(experiments, None).name == "night #2"
    for wanted in ("old", OLD, "aa"):
        assert find_study(experiments, wanted).study_id == OLD
    with pytest.raises(InputError, match="there is no study other in ") as caught:
        find_study(experiments, "other")
    assert caught.value.remedy == "The studies there: night #2, old."
    add_study(experiments, NEW, "aa")  # a name comes before a prefix
    assert find_study(experiments, "aa").study_id == NEW


def test_where_there_is_none_or_only_a_damaged_one_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        find_study(tmp_path / "nowhere", None)
    with pytest.raises(InputError, match="there are no studies in ") as caught:
        find_study(tmp_path, None)
    assert caught.value.remedy == f"Run `just hpo experiments={tmp_path}` first."
    folder = add_study(tmp_path, OLD, "damaged")
    (folder / paths.STUDY).write_text("{")
    for wanted in (None, OLD, "night"):
        with pytest.raises(InputError, match="the file is damaged"):
            find_study(tmp_path, wanted)
    add_study(tmp_path, NEW, "whole")
    assert find_study(tmp_path, None).name == "whole"
