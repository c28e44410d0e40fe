"""A study is found again by its name, refuses another configuration, and its files say what its trials' records say."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import Config, compose
from redsm5.engine import files, paths
from redsm5.engine.errors import ConfigError, InputError
from redsm5.engine.records import Best, StudyIndex, StudyRecord, TrialRecord
from redsm5.engine.study.registry import Scoreboard, list_studies, open_study, read_studies, study_by_name, study_config
from redsm5.engine.study.trial import create_trial
from redsm5.task import ReDSM5


def configuration(experiments: Path, *overrides: str) -> Config:
    return compose([f"experiments={experiments}", *overrides])


def begin(config: Config) -> StudyRecord:
    """Open a study and write its files, as the driver does."""
    study = open_study(config, ReDSM5())
    board = Scoreboard(Path(config.experiments), study)
    board.write()
    return board.study


def index_of(experiments: Path, study: StudyRecord) -> StudyIndex:
    return StudyIndex.model_validate_json((paths.study_dir(experiments, study.study_id) / paths.INDEX).read_bytes())


def trial_id_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def write_trial(experiments: Path, number: int, state: str, best: float | None = None, **changes: Any) -> str:
    trial_id = trial_id_of(number)
    folder = paths.trial_dir(experiments, trial_id)
    files.make_dir(folder)
    record = {
        "trial_id": trial_id,
        "study_id": "s",
        "number": number,
        "state": state,
        "created_at": "2026-01-31T12:00:00.000Z",
        "epochs": 3,
        "best": None if best is None else Best(epoch=1, value=best),
    }
    files.write_atomic(folder / paths.TRIAL, TrialRecord.model_validate(record | changes).to_json())
    return trial_id


def test_a_study_is_found_by_its_name_and_continued(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    assert study_by_name(tmp_path, "demo") is None
    made = begin(config)
    found = study_by_name(tmp_path, "demo")
    assert found == made
    assert open_study(config, ReDSM5()).study_id == made.study_id
    assert begin(configuration(tmp_path, "study.name=other")).study_id != made.study_id
    assert len(paths.study_dirs(tmp_path)) == 2
    assert (paths.study_dir(tmp_path, made.study_id) / paths.CONTROL).is_dir()


def test_what_a_second_run_may_change_is_taken_over(tmp_path: Path) -> None:
    begin(configuration(tmp_path))
    again = open_study(
        configuration(tmp_path, "study.trials=9", "launch=gpu", "study.tracking_uri=http://host"), ReDSM5()
    )
    assert again.trials.wanted == 9
    assert again.config["launch"] == "gpu"
    assert again.config["study"]["tracking_uri"] == "http://host"
    assert again.state == "running"


@pytest.mark.parametrize(
    ("override", "key", "before", "after"),
    [
        ("train.epochs=9", "train.epochs", "5", "9"),
        ("study.seed=1", "study.seed", "42", "1"),
        ("study.sampler=random", "study.sampler", "tpe", "random"),
        ("data.posts=99", "data.posts", "400", "99"),
        ("search.space={train.weight_decay:{type:float,low:0,high:0.2}}", "search.space", "0.1", "0.2"),
    ],
)
def test_another_configuration_is_refused_with_both_values(
    tmp_path: Path, override: str, key: str, before: str, after: str
) -> None:
    begin(configuration(tmp_path))
    with pytest.raises(ConfigError) as caught:
        open_study(configuration(tmp_path, override), ReDSM5())
    [line] = [line for line in str(caught.value).splitlines() if line.strip().startswith(key)]
    then, _, now = line.partition(" before, ")
    assert before in then
    assert after in now
    assert "study demo" in str(caught.value)
    assert "study.name" in str(caught.value.remedy)
    assert caught.value.exit_code == 1


def forget(experiments: Path, study: StudyRecord, key: str) -> Path:
    """Take a key of the section data out of a study's record, as if it had been written before there was the key."""
    path = paths.study_dir(experiments, study.study_id) / paths.STUDY
    document = json.loads(path.read_bytes())
    del document["config"]["data"][key]
    path.write_text(json.dumps(document))
    return path


def test_a_study_that_an_older_version_began_is_continued_as_it_was_again_and_again(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    path = forget(tmp_path, begin(config), "group_duplicates")
    for _ in range(2):
        older, _ = study_config(Config, [f"experiments={tmp_path}"])
        assert (config.data.group_duplicates, older.data.group_duplicates) == (True, False)
        begin(older)
        assert json.loads(path.read_bytes())["config"]["data"]["group_duplicates"] is False
    with pytest.raises(ConfigError, match=r"data\.group_duplicates: False before, True now"):
        open_study(config, ReDSM5())


@pytest.mark.parametrize(("first", "then"), [("true", "false"), ("false", "true")])
def test_a_study_begun_with_one_way_to_split_is_not_continued_with_the_other(
    tmp_path: Path, first: str, then: str
) -> None:
    begin(configuration(tmp_path, f"data.group_duplicates={first}"))
    config = configuration(tmp_path, f"data.group_duplicates={then}")
    with pytest.raises(ConfigError, match=r"data\.group_duplicates"):
        open_study(config, ReDSM5())


def test_the_files_say_what_the_trials_say(tmp_path: Path) -> None:
    study = begin(configuration(tmp_path, "study.trials=6"))
    states = ["completed", "completed", "failed", "pruned", "running", "interrupted", "queued"]
    bests = [0.4, 0.7, 0.9, 0.8, 0.95, None, None]
    board = Scoreboard(tmp_path, study)
    board.refresh([write_trial(tmp_path, n, s, b) for n, (s, b) in enumerate(zip(states, bests, strict=True))])
    board.write()
    folder = paths.study_dir(tmp_path, study.study_id)
    written = StudyRecord.model_validate_json((folder / paths.STUDY).read_bytes())
    assert (written.trials.wanted, written.trials.finished, written.trials.running) == (6, 4, 1)
    assert written.best is not None
    assert (written.best.number, written.best.value) == (1, 0.7), "only completed trials count"
    index = StudyIndex.model_validate_json((folder / paths.INDEX).read_bytes())
    assert [t.number for t in index.trials] == list(range(7))
    assert [t.state for t in index.trials] == states


def test_a_scoreboard_starts_from_the_index_without_opening_the_trials(tmp_path: Path) -> None:
    study = begin(configuration(tmp_path))
    board = Scoreboard(tmp_path, study)
    trial_id = write_trial(tmp_path, 0, "completed", 0.5, bytes=7)
    board.refresh([trial_id, "never-made"])
    board.write(state="completed")
    (paths.trial_dir(tmp_path, trial_id) / paths.TRIAL).unlink()
    again = Scoreboard(tmp_path, board.study)
    assert list(again.trials) == [trial_id]
    assert again.bytes() == 7
    again.write()
    document = json.loads((paths.study_dir(tmp_path, study.study_id) / paths.STUDY).read_bytes())
    assert document["trials"]["finished"] == 1
    assert document["state"] == "completed"


def test_of_tied_trials_the_first_is_the_best(tmp_path: Path) -> None:
    board = Scoreboard(tmp_path, begin(configuration(tmp_path)))
    board.refresh([write_trial(tmp_path, n, "completed", 0.5) for n in (2, 0, 1)])
    board.write()
    assert board.study.best is not None
    assert board.study.best.number == 0


def test_a_best_below_zero_is_still_a_best(tmp_path: Path) -> None:
    board = Scoreboard(tmp_path, begin(configuration(tmp_path)))
    board.refresh([write_trial(tmp_path, n, "completed", value) for n, value in enumerate([-0.5, -0.2])])
    board.write()
    assert board.study.best is not None
    assert board.study.best.value == -0.2


def test_of_a_metric_that_is_minimized_the_lowest_is_the_best(tmp_path: Path) -> None:
    minimized = configuration(tmp_path, "study.metric=val_loss", "study.direction=minimize")
    board = Scoreboard(tmp_path, begin(minimized))
    board.refresh([write_trial(tmp_path, n, "completed", value) for n, value in enumerate([0.5, 0.2, 0.2])])
    board.write()
    assert board.study.best is not None
    assert (board.study.best.number, board.study.best.value) == (1, 0.2)


def test_the_time_left_is_that_of_the_trials_still_wanted(tmp_path: Path) -> None:
    board = Scoreboard(tmp_path, begin(configuration(tmp_path, "study.trials=5")))
    board.write()
    assert board.time_left() is None, "nothing is known before the first epoch"
    for number, seconds in enumerate([10, 20]):
        times = {"started_at": "2026-01-31T12:00:00.000Z", "finished_at": "2026-01-31T23:00:00.000Z"}
        board.refresh([write_trial(tmp_path, number, "completed", 0.5, active_seconds=float(seconds), **times)])
    board.write()
    left = board.time_left()
    assert left is not None
    assert left.seconds == pytest.approx(15 * 3)


def test_studies_are_listed_oldest_first_with_the_bytes_of_their_own_trials_and_of_logs(tmp_path: Path) -> None:
    first, second = begin(configuration(tmp_path)), begin(configuration(tmp_path, "study.name=alpha"))
    for number, study_id in enumerate([first.study_id, second.study_id, second.study_id, None]):
        folder = paths.trial_dir(tmp_path, write_trial(tmp_path, number, "completed", 0.5, study_id=study_id))
        files.make_dir(folder / paths.CHECKPOINTS / "epoch-0001")
        (folder / paths.CHECKPOINTS / "epoch-0001" / paths.WEIGHTS).write_bytes(bytes(100 + number))
        (folder / "not_counted").write_bytes(bytes(5))
        files.make_dir(folder / paths.LOGS)
        (folder / paths.LOGS / "log.jsonl").write_bytes(bytes(10))
        (folder / paths.LOGS / "output.log").write_bytes(bytes(number))
    files.make_dir(paths.study_dir(tmp_path, second.study_id) / paths.LOGS)
    (paths.study_dir(tmp_path, second.study_id) / paths.LOGS / "log.jsonl.2026-01-31.001").write_bytes(bytes(1000))
    listed = [(study.name, size, logs) for study, size, logs in list_studies(tmp_path)]
    assert listed == [("demo", 100, 10), ("alpha", 203, 1023)]


def test_what_two_workers_write_in_turn_holds_the_trials_of_both(tmp_path: Path) -> None:
    study = begin(configuration(tmp_path, "study.trials=4"))
    boards = [Scoreboard(tmp_path, study), Scoreboard(tmp_path, study)]
    for number, best in enumerate([0.9, 0.1, 0.2, 0.3]):
        board = boards[number % 2]
        board.refresh([write_trial(tmp_path, number, "running")])
        board.write()
        board.refresh([write_trial(tmp_path, number, "completed", best)])
        board.write()
    assert {row.trial_id: row.state for row in index_of(tmp_path, study).trials} == {
        trial_id_of(n): "completed" for n in range(4)
    }
    last = boards[1].study
    assert (last.trials.finished, last.best and last.best.number) == (4, 0)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"x": 1}', b'{"name": "demo"}'])
def test_a_damaged_study_is_named_and_no_second_one_made(tmp_path: Path, content: bytes) -> None:
    study = begin(configuration(tmp_path))
    create_trial(configuration(tmp_path), trial_id=trial_id_of(0), study_id=study.study_id, number=0)
    board = Scoreboard(tmp_path, study)
    board.refresh([trial_id_of(0)])
    board.write()
    (paths.study_dir(tmp_path, study.study_id) / paths.STUDY).write_bytes(content)
    with pytest.raises(InputError, match=r"study\.json: the file is damaged"):
        open_study(configuration(tmp_path), ReDSM5())
    assert len(paths.study_dirs(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"", b'{"name": "other", "schema": 99}', None])
def test_a_study_that_cannot_be_read_keeps_no_other_one_from_its_work(tmp_path: Path, content: bytes | None) -> None:
    begin(configuration(tmp_path))
    foreign = paths.study_dir(tmp_path, "33333333-1111-4111-8111-111111111111") / paths.STUDY
    foreign.parent.mkdir()
    os.mkfifo(foreign) if content is None else foreign.write_bytes(content)
    assert [study.name for study, _, _ in list_studies(tmp_path)] == ["demo"]
    assert study_config(Config, [f"experiments={tmp_path}"])[0].study.name == "demo"
    begin(configuration(tmp_path, "study.name=new"))
    (damaged,) = read_studies(tmp_path)[1]
    assert damaged.folder == foreign.parent
    assert foreign.exists()


def test_a_trial_that_cannot_be_read_stays_as_it_was_known(tmp_path: Path) -> None:
    board = Scoreboard(tmp_path, begin(configuration(tmp_path)))
    trial_id = write_trial(tmp_path, 0, "completed", 0.5)
    board.refresh([trial_id])
    (paths.trial_dir(tmp_path, trial_id) / paths.TRIAL).write_text("{")
    board.refresh([trial_id])
    board.write()
    assert board.unreadable.keys() == {trial_id}
    assert board.study.best is not None
    assert board.study.best.trial_id == trial_id


def test_a_study_killed_while_it_was_made_leaves_nothing(tmp_path: Path) -> None:
    open_study(configuration(tmp_path), ReDSM5())  # and dies
    begin(configuration(tmp_path))
    assert len(paths.study_dirs(tmp_path)) == 1


# ---------------------------------------------------------------------------------------------------------------------
# a study continues from its own snapshot


def test_a_study_goes_on_by_its_name_alone_with_all_that_it_was_begun_with(tmp_path: Path) -> None:
    words = ["study.name=night", "train.epochs=9", "data.posts=99", "study.pruner=median", "train.learning_rate=1e-4"]
    begun = configuration(tmp_path, *words)
    begin(begun)
    config, kept = study_config(Config, [f"experiments={tmp_path}", "study.name=night"])
    assert config == begun
    assert kept.keys() == {"train.epochs", "data.posts", "study.pruner", "train.learning_rate", "search.space"}
    again = open_study(config, ReDSM5())
    assert again.config == {"schema": 3, **begun.model_dump(mode="json")}


def test_a_default_that_has_changed_since_concerns_new_studies_alone(tmp_path: Path) -> None:
    path = paths.study_dir(tmp_path, begin(configuration(tmp_path)).study_id) / paths.STUDY
    document = json.loads(path.read_bytes())
    document["config"]["train"]["weight_decay"] = 0.07  # as the version that began it had it
    document["config"]["model"]["max_length"] = 64
    path.write_text(json.dumps(document))
    for words in ([], ["model=tiny"], ["model=tiny", "data=synthetic", "study.trials=20"]):
        config, kept = study_config(Config, [f"experiments={tmp_path}", *words])
        assert (config.train.weight_decay, config.model.max_length) == (0.07, 64)
        assert kept == {"train.weight_decay": 0.07, "model.max_length": 64}
    assert config.study.trials == 20


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["train.epochs=9"], "train.epochs: 5 before, 9 now"),
        (["model=bert_base"], "model.model_id: tiny before, google-bert/bert-base-uncased now"),
        (["retention=minimal"], "retention.keep_best_k_max: 2 before, 1 now"),
        (["search.space={train.weight_decay:{type:float,low:0,high:0.2}}"], "search.space: "),
        (["train.learning_rate=1e-4"], "train.learning_rate: 0.004 before, 0.0001 now"),
        (["train.learning_rate=4e-3"], "train.learning_rate: searched before, 0.004 now"),
    ],
)
def test_what_a_command_names_and_may_not_change_is_refused(tmp_path: Path, words: list[str], refused: str) -> None:
    begin(configuration(tmp_path))
    with pytest.raises(ConfigError) as caught:
        study_config(Config, [f"experiments={tmp_path}", *words])
    assert refused in str(caught.value)


def test_what_may_change_is_taken_from_the_command_and_kept(tmp_path: Path) -> None:
    begin(configuration(tmp_path, "train.epochs=9"))
    words = ["study.trials=9", "launch=gpu", "study.tracking_uri=http://u:word@host", "retention.max_total_size=1GB"]
    config, _ = study_config(Config, [f"experiments={tmp_path}", *words])
    assert (config.study.trials, config.launch, config.train.epochs) == (9, "gpu", 9)
    assert (config.study.tracking_uri, config.retention.max_total_size) == ("http://u:word@host", 10**9)
    begin(config)
    with pytest.raises(ConfigError, match=r"the password of study\.tracking_uri is not saved"):
        study_config(Config, [f"experiments={tmp_path}"])
    assert study_config(Config, [f"experiments={tmp_path}", "study.tracking_uri=http://host"])[0].launch == "gpu"
