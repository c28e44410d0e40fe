"""What the driver decides by itself, with a real Optuna study and no process to train."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from redsm5.config import Config, compose
from redsm5.data import resources
from redsm5.engine import files, paths
from redsm5.engine.documents import load, now
from redsm5.engine.errors import ConfigError, InputError, Interrupted, TrainingError
from redsm5.engine.records import Best, Decision, ErrorRecord, Event, StudyRecord, TrialRecord
from redsm5.engine.study import claims, failures
from redsm5.engine.study import driver as driver_module
from redsm5.engine.study.access import CheckedData
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.optuna_private import reopen
from redsm5.engine.study.outcomes import note_failed
from redsm5.engine.study.pruning import decide
from redsm5.engine.study.trial import read_record, write_record
from redsm5.engine.tracking.journal import Journal
from redsm5.task import METHODS as METHODS_KEY
from redsm5.task import ReDSM5

SPACE = "search.space={train.weight_decay:{type:float,low:0.0,high:0.1}}"


pytestmark = pytest.mark.usefixtures("no_posts_and_no_mlflow")


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    """A driver whose study has five completed trials with 0.5, 0.6, 0.7 after their epochs."""
    driver = Driver(
        ReDSM5(),
        compose([f"experiments={tmp_path / 'e'}", "data.posts=60", SPACE, "study.pruner=median", "study.trials=9"]),
    )
    for _ in range(5):
        driver.optuna.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=0.7,
                params={"train.weight_decay": 0.0},
                distributions={"train.weight_decay": FloatDistribution(0.0, 0.1)},
                intermediate_values={1: 0.5, 2: 0.6, 3: 0.7},
            )
        )
    return driver


def begin_trial(driver: Driver) -> tuple[int, str, Path, Journal]:
    """The driver's next trial: its number, id, folder and journal."""
    claimed = driver._next_trial()
    assert claimed is not None
    _, number, trial_id = claimed
    folder = paths.trial_dir(driver.experiments, trial_id)
    return number, trial_id, folder, Journal(folder, trial_id, log=lambda *_, **__: None)


def test_each_epoch_is_decided_once_and_what_falls_below_the_median_is_pruned(driver: Driver) -> None:
    number, _, folder, journal = begin_trial(driver)

    def after(epoch: int, score: float) -> list[Decision]:
        journal.add("val_f1_macro", score, step=epoch, epoch=epoch)
        journal.add("val_loss", 0.0, step=epoch, epoch=epoch)
        journal.commit()
        for _ in range(2):  # again and again, while the trial runs
            decide(driver.optuna, driver.config, number, folder)
        return [Decision.model_validate(line) for line in files.read_lines(folder / paths.DECISIONS)]

    assert [(d.epoch, d.prune) for d in after(1, 0.55)] == [(1, False)]
    assert [(d.epoch, d.prune) for d in after(2, 0.56)] == [(1, False), (2, True)]
    last = after(2, 0.56)[-1]
    assert last.reason == "val_f1_macro 0.5600 is below the median of earlier trials"
    assert driver.optuna.get_trials()[number].intermediate_values == {1: 0.55, 2: 0.56}


def test_a_decision_torn_by_a_kill_is_made_again(driver: Driver) -> None:
    number, _, folder, journal = begin_trial(driver)
    journal.add("val_f1_macro", 0.1, step=1, epoch=1)
    journal.commit()
    decide(driver.optuna, driver.config, number, folder)
    whole = (folder / paths.DECISIONS).read_bytes()
    (folder / paths.DECISIONS).write_bytes(whole[:20])
    decide(driver.optuna, driver.config, number, folder)
    assert (folder / paths.DECISIONS).read_bytes() == whole
    assert Decision.model_validate_json(whole).prune


def test_a_trial_that_has_done_its_last_epoch_is_not_pruned(driver: Driver) -> None:
    """It would save nothing, and the trial would have no report."""
    number, _, folder, journal = begin_trial(driver)
    record = read_record(folder)
    assert record is not None
    for epoch in (record.epochs - 1, record.epochs):
        journal.add("val_f1_macro", 0.1, step=epoch, epoch=epoch)
        journal.commit()
    for trial in (t for t in driver.optuna.get_trials(deepcopy=False) if t.state.is_finished()):
        trial.intermediate_values.update({record.epochs - 1: 0.7, record.epochs: 0.7})
    decide(driver.optuna, driver.config, number, folder)
    decisions = [Decision.model_validate(line) for line in files.read_lines(folder / paths.DECISIONS)]
    assert [d.prune for d in decisions] == [True, False]


# ---------------------------------------------------------------------------------------------------------------------
# whole studies, whose trials end as soon as they begin


class QuickDriver(Driver):
    """Its trials train nothing; `end_trial` writes their outcome.

    Attributes:
        trained: the parameters of each trial that was started, in order.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(ReDSM5(), config)

    trained: list[dict[str, Any]]

    def run(self, standby: Any = None) -> None:
        super().run(standby)

    def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        record = read_record(folder)
        assert record is not None
        self.trained = [*getattr(self, "trained", []), record.parameters]
        record = record.model_copy(update={"started_at": now(), "epoch": 2, "best": Best(epoch=2, value=0.5)})
        return bool(self.end_trial(folder, record, seconds))

    def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> object:
        return complete(folder, record)


def complete(folder: Path, record: TrialRecord, **changes: Any) -> None:
    """The trial's outcome; its score depends on its parameters."""
    rate = record.parameters.get("train.learning_rate", 0)
    changes = {"best": Best(epoch=2, value=0.5 + rate), "state": "completed", "exit_code": 0} | changes
    write_record(folder, record.model_copy(update=changes | {"finished_at": now()}))


WEIGHTS = "search.space={train.optimizer:{type:categorical,choices:[adamw,adam]}}"


def overrides(folder: Path, *more: str, space: str = WEIGHTS) -> list[str]:
    return [f"experiments={folder}", "search=default", "~search.space", f"+{space}", *more]


def trials_of(driver: Driver) -> list[TrialRecord]:
    found = [read_record(folder) for folder in paths.trial_dirs(driver.experiments)]
    return sorted((record for record in found if record), key=lambda record: record.number or 0)


def run(driver: Driver) -> bool:
    """Run it as a process of its own would, whose locks end with it; whether it came to the study's end."""
    try:
        driver.run()
    except Interrupted:
        return False
    finally:
        files._let_go_of_locks()
    return True


def told(driver: Driver) -> list[tuple[str, float | None]]:
    return [(trial.state.name, trial.value) for trial in driver.optuna.get_trials()]


# -- repeated configurations


def test_a_repeated_configuration_is_not_trained_again(tmp_path: Path) -> None:
    driver = QuickDriver(compose(overrides(tmp_path, "study.trials=6")))
    driver.run()
    assert driver.trained == [{"train.optimizer": "adamw"}, {"train.optimizer": "adam"}]
    trials = trials_of(driver)
    assert [trial.state for trial in trials] == ["completed"] * 6
    for trial in trials:
        (first,) = [t for t in trials if t.parameters == trial.parameters and t.duplicate_of is None]
        assert trial.duplicate_of == (None if trial is first else first.trial_id)
        assert (trial.best, trial.epoch, trial.exit_code) == (first.best, first.epoch, 0)
        assert trial.finished_at
        assert (trial.started_at is None) == (trial is not first)
    assert told(driver) == [("COMPLETE", 0.5)] * 6
    assert driver.board.study.trials.finished == 6
    events = [Event.model_validate(line) for line in files.read_lines(driver.folder / paths.EVENTS)]
    repeated = [e for e in events if e.state == "completed" and e.message]
    assert len(repeated) == 4
    assert all("duplicate of" in str(e.message) for e in repeated)


def test_a_repetition_is_of_the_trial_that_was_trained(tmp_path: Path) -> None:
    """Of several workers one may come to trial 1 after another has trained trial 2 of the same parameters."""
    driver = QuickDriver(compose(overrides(tmp_path)))
    one, two, three = (
        TrialRecord(trial_id=f"t{n}", study_id="s", number=n, state="completed", created_at=now(), epochs=1)
        for n in (1, 2, 3)
    )
    driver.board.trials = {t.trial_id: t for t in (one.model_copy(update={"duplicate_of": "t2"}), two)}
    assert driver._duplicate_of(three) == two


def test_a_repetition_of_a_pruned_trial_tells_optuna_what_that_was_told(tmp_path: Path) -> None:
    class Pruning(QuickDriver):
        def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> None:
            trial = reopen(self.optuna, self.optuna.get_trials()[record.number or 0])
            trial.report(0.3, 1)
            trial.report(0.2, 2)
            complete(folder, record, state="pruned")

    driver = Pruning(compose(overrides(tmp_path, "study.trials=6")))
    with pytest.raises(TrainingError, match="no trial completed: 6 pruned"):
        driver.run()
    assert driver.board.study.state == "completed"
    assert len(driver.trained) == 2
    assert [trial.state for trial in trials_of(driver)] == ["pruned"] * 6
    assert told(driver) == [("PRUNED", 0.2)] * 6


def test_a_configuration_that_failed_is_tried_again_and_a_repetition_is_no_success(tmp_path: Path) -> None:
    """adamw completes; adam fails three times, whatever is repeated in between, and that stops the study."""

    class Failing(QuickDriver):
        def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> None:
            if record.parameters["train.optimizer"] == "adamw":
                complete(folder, record)
            else:
                note_failed(folder, record, "out_of_memory", "no memory")

    driver = Failing(compose(overrides(tmp_path, "study.trials=20")))
    with pytest.raises(TrainingError, match="3 trials in a row failed for the same reason: out_of_memory"):
        driver.run()
    states = [trial.state for trial in trials_of(driver)]
    assert states.count("failed") == 3
    between = states[states.index("failed") :]
    assert "completed" in between, "the seed was chosen for it"


# -- failures before the first step


class Unfit(QuickDriver):
    """Its trials say that they failed before their first step, or end without a word, as `failing` has it by their
    number: the kind of the error, or a list of kinds for one start after the other; "" is a start that trains.
    """

    failing: dict[int, Any]

    def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> None:
        kinds = self.failing.get(record.number or 0, "")
        kind = kinds.pop(0) if isinstance(kinds, list) and kinds else kinds or ""
        if kind == "silent":
            return
        if not kind:
            complete(folder, record, error=None)
            return
        error = ErrorRecord(kind=kind, message="no such luck")
        changes = {"state": "interrupted", "exit_code": 2, "error": error, "epoch": 0, "best": None}
        write_record(folder, record.model_copy(update=changes))


def unfit(config: Config, **failing: Any) -> Unfit:
    driver = Unfit(config)
    driver.failing = {int(number.removeprefix("t")): kinds for number, kinds in failing.items()}
    return driver


DRAWN = "search.space={train.learning_rate:{type:float,low:0.001,high:0.1,log:true}}"


def test_a_machine_on_which_nothing_starts_uses_up_no_trial_and_changes_no_proposal(tmp_path: Path) -> None:
    """Whether it says so or dies without a word, run after run, and also where a driver is killed in between."""
    words = ["study.trials=5", "study.enqueue_defaults=false"]
    straight = QuickDriver(compose(overrides(tmp_path / "straight", *words, space=DRAWN)))
    straight.run()
    config = compose(overrides(tmp_path / "e", *words, space=DRAWN))
    everything = dict.fromkeys(("t0", "t1", "t2", "t3", "t4"), "ValueError")
    for kind in ("ValueError", "silent", "ValueError"):
        driver = unfit(config, **dict.fromkeys(everything, kind))
        with pytest.raises(
            TrainingError, match="failed 3 times in a row before its first step, for the same"
        ) as caught:
            run(driver)
        assert caught.value.exit_code == 2
        assert "run the same command again" in str(caught.value.remedy)
        assert [trial.state for trial in trials_of(driver)] == ["interrupted"] * 3
        assert [state for state, _ in told(driver)] == ["RUNNING"] * 3
        assert (driver.board.study.state, driver.board.study.trials.finished) == ("stopped", 0)
    mended = unfit(config)
    assert run(mended)
    assert [t.parameters for t in trials_of(mended)] == [t.parameters for t in trials_of(straight)]
    assert told(mended) == told(straight)


def test_once_one_trial_is_trained_those_that_were_not_have_failed(tmp_path: Path) -> None:
    driver = unfit(compose(overrides(tmp_path, "study.trials=4", space=DRAWN)), t0="ValueError", t1="out_of_memory")
    assert run(driver)
    assert [(t.state, t.error and t.error.kind) for t in trials_of(driver)] == [
        ("failed", "ValueError"),
        ("failed", "out_of_memory"),
        ("completed", None),
        ("completed", None),
    ]
    assert [state for state, _ in told(driver)] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert len(driver.trained) == 4, "none of them is tried again"


def test_what_fails_for_other_reasons_each_time_is_tried_three_times(tmp_path: Path) -> None:
    reasons = ["ValueError", "KeyError", "ValueError"]
    driver = unfit(compose(overrides(tmp_path, "study.trials=1", space=DRAWN)), t0=reasons)
    with pytest.raises(TrainingError, match="no trial completed: 1 failed\n    1 × ValueError: no such luck"):
        run(driver)
    again = unfit(compose(overrides(tmp_path, "study.trials=2", space=DRAWN)), t0=[], t1=["KeyError", "", ""])
    assert run(again), "the second trial trains when it is tried again"
    assert [t.state for t in trials_of(again)] == ["failed", "completed"]


@pytest.mark.parametrize("starts", [True, False])
def test_where_one_has_been_trained_it_shows_whose_fault_a_failure_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    """Before another one is proposed, which would not know the score of the one that failed."""
    config = compose(overrides(tmp_path, "study.trials=3", space=DRAWN))
    tried: list[float] = []

    def trains(tried_again: Config, stop: object) -> bool:
        tried.append(tried_again.train.learning_rate)
        return starts

    monkeypatch.setattr(failures, "trains", trains)
    driver = unfit(config, t1="ValueError")
    if starts:
        assert run(driver)
        assert [t.state for t in trials_of(driver)] == ["completed", "failed", "completed"]
    else:
        with pytest.raises(
            TrainingError, match=r"trial 1 failed .*, and trial 0, which was trained before, no longer starts"
        ):
            run(driver)
        assert [t.state for t in trials_of(driver)] == ["completed", "interrupted"]
        assert [state for state, _ in told(driver)] == ["COMPLETE", "RUNNING"]
        assert run(unfit(config))
    assert tried == [trials_of(driver)[0].parameters["train.learning_rate"]]


def test_a_held_trial_is_no_other_worker_s_meanwhile(tmp_path: Path) -> None:
    config = compose(overrides(tmp_path, "study.trials=3", space=DRAWN))
    one, other = unfit(config, t0="ValueError"), QuickDriver(config)
    claimed = one._next_trial()
    assert claimed is not None
    assert not one._run_trial(*claimed[1:])
    one.failures.hold(*claimed)
    next_one = other._next_trial()
    assert next_one is not None
    assert next_one[1] == 1
    assert one.failures.let_go()
    again = other._next_trial()
    assert again is not None
    assert again[1] == 0


def test_a_record_that_somebody_removes_is_named_and_the_trial_begun_anew(tmp_path: Path) -> None:
    class Removing(QuickDriver):
        def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> None:
            (folder / paths.TRIAL).unlink()

    config = compose(overrides(tmp_path, "study.trials=1"))
    with pytest.raises(InputError, match=r"trial\.json: the trial's record was removed"):
        run(Removing(config))
    again = QuickDriver(config)
    assert run(again)
    assert [trial.state for trial in trials_of(again)] == ["completed"]


# -- sets that are tried first


def test_sets_are_kept_with_the_study_whatever_becomes_of_their_file(tmp_path: Path) -> None:
    sets = tmp_path / "sets.yaml"
    sets.write_text("- {train.optimizer: adam, train.weight_decay: 0.5}\n- {train.optimizer: adam}")
    words = overrides(tmp_path / "e", f"study.enqueue={sets}")
    driver = QuickDriver(compose([*words, "study.trials=1"]))
    driver.run()
    study = load(driver.folder / paths.STUDY, StudyRecord)
    assert study is not None
    assert study.enqueued == [{"train.optimizer": "adam", "train.weight_decay": 0.5}, {"train.optimizer": "adam"}]
    sets.unlink()
    again = QuickDriver(compose([*words, "study.trials=3"]))
    again.run()
    parameters = [trial.parameters for trial in trials_of(again)]
    assert parameters == [{"train.optimizer": "adamw"}, *study.enqueued]
    folder = paths.trial_dir(tmp_path / "e", trials_of(again)[1].trial_id)
    saved = json.loads((folder / paths.CONFIG).read_bytes())
    assert (saved["train"]["optimizer"], saved["train"]["weight_decay"]) == ("adam", 0.5)


def test_what_is_not_drawn_is_null_in_the_trial_s_configuration_and_absent_from_its_parameters(tmp_path: Path) -> None:
    heads = (
        "search.space={model.criteria_head_type:{type:categorical,choices:[linear,mlp]},model.criteria_hidden_dim:"
        "{type:int,low:64,high:128,when:{model.criteria_head_type:mlp}}}"
    )
    config = compose(overrides(tmp_path, "study.sampler=grid", "study.trials=4", space=heads))
    driver = QuickDriver(config)
    driver.run()
    for trial in trials_of(driver):
        model = json.loads((paths.trial_dir(tmp_path, trial.trial_id) / paths.CONFIG).read_bytes())["model"]
        assert model["criteria_head_type"] == trial.parameters["model.criteria_head_type"]
        assert model["criteria_hidden_dim"] == trial.parameters.get("model.criteria_hidden_dim")
        assert ("model.criteria_hidden_dim" in trial.parameters) == (model["criteria_head_type"] == "mlp")


@pytest.mark.parametrize(
    "fault",
    [
        "study.sampler=grid search=default",
        "study.enqueue=/nowhere.yaml",
        "train.augmentation.methods=[synonym] train.augmentation.probability=0.1",
    ],
)
def test_a_study_that_cannot_be_tried_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(resources, "missing_data", lambda methods, _: dict.fromkeys(methods, "Install WordNet."))
    with pytest.raises(ConfigError) as caught:
        Driver(ReDSM5(), compose([f"experiments={tmp_path / 'e'}", SPACE, *fault.split()]))
    assert caught.value.remedy
    assert not (tmp_path / "e").exists()


# -- the grid


def test_a_grid_ends_the_study_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver = QuickDriver(compose(overrides(tmp_path, "study.sampler=grid", "study.trials=99")))
    driver.run()
    assert driver.trained == [{"train.optimizer": "adamw"}, {"train.optimizer": "adam"}]
    assert (driver.board.study.state, driver.board.study.trials.wanted) == ("completed", 2)
    assert "the grid is exhausted after 2 trials" in capsys.readouterr().err
    again = QuickDriver(compose(overrides(tmp_path, "study.sampler=grid", "study.trials=120")))
    again.run()
    assert len(trials_of(again)) == 2


def test_a_trial_that_another_worker_told_since_this_one_looked_is_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = QuickDriver(compose(overrides(tmp_path, "study.trials=1")))
    driver.run()
    (told,) = driver.optuna.get_trials()
    looked = [SimpleNamespace(**{**vars(told), "number": told.number, "user_attrs": told.user_attrs})]
    monkeypatch.setattr(driver_module.search, "unfinished", lambda _: [looked.pop()] if looked else [])
    assert driver._next_trial() is None
    assert [trial.state for trial in driver.optuna.get_trials()] == [TrialState.COMPLETE]


def test_workers_share_a_grid_without_doing_a_point_twice(tmp_path: Path) -> None:
    sizes = "search.space={train.batch_size:{type:int,low:1,high:7}}"
    words = overrides(tmp_path, "study.sampler=grid", "study.trials=7", "study.enqueue_defaults=false", space=sizes)
    workers = [QuickDriver(compose(words)) for _ in range(3)]
    found = []
    for turn in range(7):
        worker = workers[turn % 3]
        claimed = worker._next_trial()  # all are claimed before one is finished
        assert claimed is not None
        record = read_record(paths.trial_dir(tmp_path, claimed[2]))
        assert record is not None
        found.append((claimed, record))
    assert sorted(record.parameters["train.batch_size"] for _, record in found) == list(range(1, 8))
    for turn, (claimed, _) in enumerate(found):
        workers[turn % 3]._run_trial(claimed[1], claimed[2])
        claimed[0].release()
    assert [worker._next_trial() for worker in workers] == [None] * 3


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_study_that_is_interrupted_at_every_trial_ends_as_one_that_is_not(tmp_path: Path, sampler: str) -> None:
    space = (
        "search.space={train.learning_rate:{type:float,low:0.001,high:0.1,log:true,points:2},"
        "train.loss_function:{type:categorical,choices:[bce,focal]},"
        "train.focal_gamma:{type:int,low:1,high:2,when:{train.loss_function:focal}}}"
    )
    (tmp_path / "sets.yaml").write_text("- {train.learning_rate: 0.05, train.loss_function: bce}\n" * 2)
    words = [f"study.sampler={sampler}", "study.trials=12", f"study.enqueue={tmp_path / 'sets.yaml'}"]
    straight = QuickDriver(compose(overrides(tmp_path / "straight", *words, space=space)))
    straight.run()

    class Interrupting(QuickDriver):
        def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> None:
            if record.resumes == 0:
                error = ErrorRecord(kind="interrupted", message="stopped")
                changes = {"state": "interrupted", "exit_code": 75, "error": error, "resumes": 1}
                write_record(folder, record.model_copy(update=changes))
                raise Interrupted("stopped")
            complete(folder, record, error=None)

    config = compose(overrides(tmp_path / "interrupted", *words, space=space))
    starts = 1
    while not run(driver := Interrupting(config)):
        starts += 1
    assert starts > 5
    numbers = {trial.trial_id: trial.number for d in (straight, driver) for trial in trials_of(d)}
    outcomes = [
        [(t.state, t.parameters, t.best, numbers.get(t.duplicate_of or "")) for t in trials_of(d)]
        for d in (straight, driver)
    ]
    assert outcomes[0] == outcomes[1]
    assert told(straight) == told(driver)
    assert {trial.number for trial in trials_of(driver) if trial.duplicate_of} >= {2}, "the second set is the first"


# -- the time limit


class Slow(QuickDriver):
    """Its trials are stopped for their time, and say so as an interrupted one does."""

    def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> bool:
        changes = {"state": "interrupted", "exit_code": 75, "active_seconds": 10.0}
        write_record(folder, record.model_copy(update=changes))
        return seconds <= 10


def test_a_trial_that_takes_longer_than_its_time_has_failed(tmp_path: Path) -> None:
    config = compose(overrides(tmp_path, "study.trials=2", "study.trial_timeout=10"))
    driver = Slow(config)
    with pytest.raises(TrainingError, match=r"2 failed\n    2 × timeout: it ran longer than study\.trial_timeout=10 s"):
        driver.run()
    for trial in trials_of(driver):
        assert trial.error is not None
        assert (trial.state, trial.exit_code, trial.error.kind) == ("failed", 2, "timeout")
        assert "study.trial_timeout=10 s" in trial.error.message
        assert "train.epochs" in trial.error.message, "a remedy"
    assert [state for state, _ in told(driver)] == ["FAIL", "FAIL"]
    files._let_go_of_locks()
    with pytest.raises(TrainingError, match="study demo has no result, since no trial completed: 2 failed") as again:
        Slow(config).run()
    assert again.value.exit_code == 2


def test_earlier_starts_count_and_a_driver_that_ended_before_it_could_say_so_says_it_now(tmp_path: Path) -> None:
    given: list[float] = []

    class Resumed(Slow):
        def end_trial(self, folder: Path, record: TrialRecord, seconds: float) -> bool:
            given.append(seconds)
            super().end_trial(folder, record, seconds)
            raise Interrupted("the driver is suspended")

    config = compose(overrides(tmp_path, "study.trials=1", "study.trial_timeout=30"))
    first, second = Resumed(config), Resumed(config)
    assert not run(first)
    assert not run(second)
    assert given == [30.0, 20.0]
    (record,) = trials_of(second)
    write_record(paths.trial_dir(tmp_path, record.trial_id), record.model_copy(update={"active_seconds": 30.5}))
    last = QuickDriver(config)
    with pytest.raises(TrainingError, match="no trial completed: 1 failed"):
        run(last)
    assert not hasattr(last, "trained"), "it was not started again"
    (trial,) = trials_of(last)
    assert trial.error is not None
    assert (trial.state, trial.error.kind) == ("failed", "timeout")


# -- what a machine lacks the data for

METHODS = (
    "search.space={train.augmentation.methods:{type:categorical,choices:['',swap,synonym,insert+synonym]},"
    "train.augmentation.probability:{type:float,low:0.1,high:0.5,when:{train.augmentation.methods:[swap,synonym,"
    "insert+synonym]}}}"
)


def test_methods_without_data_are_left_out_as_the_study_is_made_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = {"synonym"}

    def missing_data(methods: list[str], translation_models: object) -> dict[str, str]:
        return {method: "Install WordNet." for method in methods if method in lacks}

    monkeypatch.setattr(resources, "missing_data", missing_data)
    words = overrides(tmp_path, space=METHODS)

    def run_to(trials: int) -> QuickDriver:
        driver = QuickDriver(compose([*words, f"study.trials={trials}"]))
        driver.run()
        return driver

    driver = run_to(6)
    warnings = capsys.readouterr().err
    assert warnings.count("WARNING") == 1
    assert "Install WordNet." in warnings
    assert "synonym" in warnings
    assert driver.board.study.left_out == ["synonym"]
    lacks.clear()
    driver = run_to(12)
    assert "WARNING" not in capsys.readouterr().err
    assert driver.board.study.left_out == ["synonym"]
    assert {trial.parameters[METHODS_KEY] for trial in trials_of(driver)} == {"", "swap"}
    lacks.add("swap")
    with pytest.raises(ConfigError, match="swap") as caught:
        run_to(13)
    assert caught.value.remedy == "Install WordNet."


# -- the data


def test_a_study_whose_posts_have_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = overrides(tmp_path, "study.trials=2")
    assert run(QuickDriver(compose(words)))
    monkeypatch.setattr(driver_module, "check_data", lambda task, config, stop: CheckedData({}, "cd" * 32, ()))
    with pytest.raises(ConfigError, match="other data or splits") as caught:
        QuickDriver(compose(words))
    assert "another study.name" in str(caught.value)


# -- other workers


def test_a_trial_whose_process_does_not_end_is_left_alone_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its worker has ended, and what trains it goes on, perhaps on another machine that hangs."""
    config = compose(overrides(tmp_path, "study.trials=2"))
    number, trial_id, _, _ = begin_trial(QuickDriver(config))
    files._let_go_of_locks()
    process = files.Lock(paths.trial_dir(tmp_path, trial_id) / paths.LOCK)
    assert process.acquire()
    monkeypatch.setattr(claims, "ORPHAN_S", -1.0)
    driver = QuickDriver(config)
    trained_at_the_end: list[list[int | None]] = []

    def end_at_last(*_: object, **__: object) -> bool:
        trained_at_the_end.append([t.number for t in trials_of(driver) if t.state == "completed"])
        process.release()
        return False

    monkeypatch.setattr(driver_module, "wait_until", end_at_last)
    assert run(driver)
    assert trained_at_the_end == [[1 - number]], "the other trial is trained meanwhile"
    assert [t.state for t in trials_of(driver)] == ["completed"] * 2
    said = capsys.readouterr().err
    assert said.count("is still running although its worker has exited") == 1
    assert said.count("other workers are running the last trials") == 1


def test_a_study_is_not_begun_again_in_another_storage(tmp_path: Path) -> None:
    """Its trials would get the same numbers a second time."""
    assert run(QuickDriver(compose(overrides(tmp_path, "study.trials=1"))))
    with pytest.raises(ConfigError, match="this storage has none of them"):
        QuickDriver(compose(overrides(tmp_path, "study.trials=2", f"study.storage='sqlite:///{tmp_path}/other.db'")))
    files._let_go_of_locks()
    assert run(QuickDriver(compose(overrides(tmp_path, "study.trials=2"))))


def test_without_its_database_a_study_is_not_begun(tmp_path: Path) -> None:
    away = "postgresql://me:hunter22@127.0.0.1:1/db"
    with pytest.raises(
        ConfigError, match=r"^study\.storage, postgresql at 127\.0\.0\.1:1/db: .*Connection refused"
    ) as caught:
        QuickDriver(compose(overrides(tmp_path / "e", f"study.storage='{away}'")))
    assert "hunter22" not in str(caught.value)
    assert not (tmp_path / "e").exists()


def test_one_worker_at_a_time_asks_for_a_trial_and_who_waits_can_be_stopped(tmp_path: Path) -> None:
    with (
        claims.asking(tmp_path, SimpleNamespace(requested=False)),
        pytest.raises(Interrupted),
        claims.asking(tmp_path, SimpleNamespace(requested=True)),
    ):
        pass
