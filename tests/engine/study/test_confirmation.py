"""The driver confirms the best of a search: real driver, records, locks and Optuna; the trials end as they begin."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import Config, compose
from redsm5.engine import paths
from redsm5.engine.documents import load, now
from redsm5.engine.errors import ConfigError, Interrupted, TrainingError
from redsm5.engine.records import Best, ErrorRecord, StudyRecord, TrialRecord
from redsm5.engine.study import driver as driver_module
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.outcomes import note_failed
from redsm5.engine.study.registry import study_config
from redsm5.engine.study.trial import read_record, write_record
from redsm5.task import ReDSM5
from tests.engine.study.test_driver import run

pytestmark = pytest.mark.usefixtures("no_posts_and_no_mlflow")

SPACE = "+search.space={train.learning_rate:{type:float,low:1e-5,high:1e-3}}"
CONFIRM = ["study.confirm.top=3", "study.confirm.repeats=3"]


def words(folder: Path, *more: str) -> list[str]:
    return [f"experiments={folder}", "search=default", "~search.space", SPACE, "study.trials=6", *more]


class QuickDriver(Driver):
    """Its trials train nothing; a score follows from parameters, seed and split alone, as that of a real trial does.

    Attributes:
        stop_after: so many trials are trained; then it is as if a signal had come.
        fails: labels of trials that fail in training.
    """

    def __init__(self, config: Config, *, stop_after: int | None = None, fails: tuple[str, ...] = ()) -> None:
        super().__init__(ReDSM5(), config)
        self.left, self.fails = stop_after, fails
        self.trained = list[str]()

    def run(self, standby: Any = None) -> None:
        super().run(standby)

    def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        record = read_record(folder)
        assert record is not None
        if self.left == 0:
            raise Interrupted("a signal")
        self.left = None if self.left is None else self.left - 1
        self.trained.append(record.label)
        record = record.model_copy(update={"started_at": now(), "epoch": 1, "active_seconds": 1.0})
        if record.label in self.fails:
            note_failed(folder, record, "not_finite", "the loss is nan")
            return False
        config = json.loads((folder / paths.CONFIG).read_bytes())
        chance = random.Random(f"{config['train']['seed']} {config['data']['validation_seed']}")
        value = 100 * config["train"]["learning_rate"] + chance.gauss(0, 0.01)
        changes = {"state": "completed", "exit_code": 0, "finished_at": now(), "best": Best(epoch=1, value=value)}
        write_record(folder, record.model_copy(update=changes))
        return False


def records(folder: Path) -> list[TrialRecord]:
    found = [read_record(trial) for trial in paths.trial_dirs(folder)]
    return sorted((r for r in found if r), key=lambda r: (r.number or 0, r.repeat or 0))


def repeats(folder: Path) -> list[TrialRecord]:
    return [record for record in records(folder) if record.confirms]


def study_of(driver: Driver) -> StudyRecord:
    study = load(driver.folder / paths.STUDY, StudyRecord)
    assert study
    return study


def config_of(folder: Path, record: TrialRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((paths.trial_dir(folder, record.trial_id) / paths.CONFIG).read_bytes())
    return found


def test_the_best_are_trained_again_and_the_study_names_the_winner(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    driver = QuickDriver(compose(words(tmp_path, *CONFIRM)))
    assert run(driver)
    searched = [r for r in records(tmp_path) if not r.confirms]
    ranked = sorted(searched, key=lambda r: -r.best.value if r.best else 0)[:3]
    made = repeats(tmp_path)
    assert driver.trained[6:9] == [f"{r.number}·1" for r in ranked], "round by round, in the order of the ranking"
    assert {r.confirms for r in made} == {r.trial_id for r in ranked}
    by_id = {r.trial_id: r for r in searched}
    for record in made:
        origin = by_id[record.confirms or ""]
        assert (record.number, record.parameters, record.study_id) == (
            origin.number,
            origin.parameters,
            origin.study_id,
        )
        config = config_of(tmp_path, record)
        assert config["study"]["pruner"] == "none"
        assert config["train"]["learning_rate"] == origin.parameters["train.learning_rate"]
    seeds = [config_of(tmp_path, r)["train"]["seed"] for r in records(tmp_path)]
    assert len({*seeds}) == len(seeds), "every training has a seed of its own"
    splits = {(r.repeat, config_of(tmp_path, r)["data"]["validation_seed"]) for r in made}
    assert len(splits) == len({seed for _, seed in splits}) == 3, "one split for each round, the same for all"
    assert None not in {seed for _, seed in splits}
    study = study_of(driver)
    assert study.confirmed
    assert study.confirmed.raw_best.trial_id == ranked[0].trial_id
    assert study.best
    assert study.best.trial_id == ranked[0].trial_id, "the search's best stays what it was"
    (last,) = [line for line in capfd.readouterr().err.splitlines() if "is complete" in line]
    assert f"trial {study.confirmed.number} with {study.confirmed.mean:.4f}" in last
    raw = study.confirmed.raw_best
    assert f"{study.confirmed.shrinkage:.4f} of trial {raw.number}: {raw.value:.4f} in the search" in last


def test_the_search_does_not_see_the_repeats(tmp_path: Path) -> None:
    plain, driver = QuickDriver(compose(words(tmp_path / "a"))), QuickDriver(compose(words(tmp_path / "b", *CONFIRM)))
    assert run(plain)
    assert run(driver)
    assert len(driver.optuna.get_trials()) == 6
    assert study_of(driver).trials == study_of(plain).trials
    assert study_of(plain).confirmed is None
    assert not repeats(tmp_path / "a")
    index = json.loads((driver.folder / paths.INDEX).read_bytes())
    assert len(index["trials"]) == 6 + len(repeats(tmp_path / "b"))
    # and more trials are proposed as if nothing had been confirmed; the new best ones are confirmed
    more = [QuickDriver(compose([*words(tmp_path / x), "study.trials=12", *y])) for x, y in (("a", []), ("b", CONFIRM))]
    assert [run(each) for each in more] == [True, True]
    searched = [[r.parameters for r in records(tmp_path / x) if not r.confirms] for x in ("a", "b")]
    assert searched[0] == searched[1]
    assert len(searched[0]) == 12
    ranked = sorted(
        (r for r in records(tmp_path / "b") if not r.confirms), key=lambda r: -r.best.value if r.best else 0
    )
    assert {r.trial_id for r in ranked[:3]} <= {r.confirms for r in repeats(tmp_path / "b")}


def test_stopped_anywhere_it_trains_the_same_repeats_and_names_the_same_winner(tmp_path: Path) -> None:
    whole = QuickDriver(compose(words(tmp_path / "whole", *CONFIRM)))
    assert run(whole)
    expected = [(r.label, r.best) for r in repeats(tmp_path / "whole")]
    piecemeal: list[str] = []
    for _ in range(40):
        driver = QuickDriver(compose(words(tmp_path / "cut", *CONFIRM)), stop_after=1)
        done = run(driver)
        piecemeal += driver.trained
        if done:
            break
    assert piecemeal == whole.trained, "each is trained once, in the same order"
    assert [(r.label, r.best) for r in repeats(tmp_path / "cut")] == expected
    varies = {"trial_id": True, "raw_best": {"trial_id"}}
    one, other = (study_of(driver).confirmed for driver in (whole, driver))
    assert one
    assert other
    assert one.model_dump(exclude=varies) == other.model_dump(exclude=varies)
    assert max(Counter(piecemeal).values()) == 1


def test_killed_between_the_folder_and_the_index_it_makes_no_second_repeat(tmp_path: Path) -> None:
    driver = QuickDriver(compose(words(tmp_path, *CONFIRM)), stop_after=6)
    assert not run(driver)
    made = repeats(tmp_path)
    assert [r.state for r in made] == ["queued"]
    index = json.loads((driver.folder / paths.INDEX).read_bytes())
    index["trials"] = [row for row in index["trials"] if row["confirms"] is None]
    (driver.folder / paths.INDEX).write_text(json.dumps(index))
    assert run(QuickDriver(compose(words(tmp_path, *CONFIRM))))
    labels = [r.label for r in repeats(tmp_path)]
    assert len({*labels}) == len(labels)
    assert made[0].trial_id in {r.trial_id for r in repeats(tmp_path)}


def test_a_finished_study_is_confirmed_later(tmp_path: Path) -> None:
    assert run(QuickDriver(compose(words(tmp_path))))
    config, kept = study_config(Config, [f"experiments={tmp_path}", "study.name=demo", *CONFIRM])
    assert (config.study.confirm.top, kept.keys() & {"study.confirm.top"}) == (3, set())
    driver = QuickDriver(config)
    assert run(driver)
    assert len(driver.trained) == len(repeats(tmp_path)) >= 6
    assert study_of(driver).confirmed
    # one more repeat of each adds a round, and nothing else is trained again
    rounds = max(r.repeat or 0 for r in repeats(tmp_path))
    config, _ = study_config(Config, [f"experiments={tmp_path}", "study.name=demo", "study.confirm.repeats=4"])
    again = QuickDriver(config)
    assert run(again)
    assert {label.partition("·")[2] for label in again.trained} == {str(rounds + 1)}
    said = study_of(again).confirmed
    assert said
    assert said.repeats == 4


def test_two_workers_share_a_round_and_begin_the_next_one_together(tmp_path: Path) -> None:
    config = compose(words(tmp_path, *CONFIRM))
    assert run(QuickDriver(compose(words(tmp_path))))
    one, other = QuickDriver(config), QuickDriver(config)
    claims = [worker.confirmation.next_trial() for worker in (one, other, one)]
    taken = [(read_record(paths.trial_dir(tmp_path, claim[2])), claim) for claim in claims if claim]
    assert len({record.trial_id for record, _ in taken if record}) == 3
    assert {record.repeat for record, _ in taken if record} == {1}
    other.confirmation._wait = lambda: (_ for _ in ()).throw(Interrupted("it waits"))  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="it waits"):
        other.confirmation.next_trial()
    for record, claim in taken:
        assert record
        one._run_trial(record.number or 0, record.trial_id)
        claim[0].release()
    following = other.confirmation.next_trial()
    assert following
    begun = read_record(paths.trial_dir(tmp_path, following[2]))
    assert begun
    assert begun.repeat == 2


def test_a_configuration_that_fails_is_out_and_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(QuickDriver(compose(words(tmp_path))))
    best = max(records(tmp_path), key=lambda r: r.best.value if r.best else 0)
    driver = QuickDriver(compose(words(tmp_path, *CONFIRM)), fails=(f"{best.number}·1",))
    assert run(driver)
    assert f"trial {best.number} is dropped after round 1" in capfd.readouterr().err
    said = study_of(driver).confirmed
    assert said
    assert said.number != best.number
    assert (said.raw_best.number, said.raw_best.mean, said.shrinkage) == (best.number, None, None)
    assert f"{best.number}·2" not in driver.trained
    assert study_of(driver).trials.finished == 6


def test_failures_of_the_search_do_not_add_to_those_of_the_confirmation(tmp_path: Path) -> None:
    failing = ("4", "5")
    driver = QuickDriver(compose(words(tmp_path, *CONFIRM)), fails=(*failing, "0·1", "1·1", "2·1", "3·1"))
    with pytest.raises(TrainingError, match="3 trials in a row failed"):  # three repeats, and not one
        run(driver)
    assert [r.state for r in repeats(tmp_path)] == ["failed"] * 3


def test_a_pruner_neither_sees_nor_ends_a_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(QuickDriver(compose(words(tmp_path, "study.pruner=median"))))
    decided: list[int] = []
    monkeypatch.setattr(driver_module.pruning, "decide", lambda study, config, number, folder: decided.append(number))

    class Attending(QuickDriver):
        """Stays with its trials as a driver does."""

        def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
            class Launched:
                def attend(launched, stop: object, meanwhile: Any, seconds: float) -> bool:
                    meanwhile()
                    return super(Attending, self)._train(number, trial_id, folder, seconds)

            class Standby:
                def launch(standby, *_: object) -> Launched:
                    return Launched()

            self.standby = Standby()  # type: ignore[assignment]
            return Driver._train(self, number, trial_id, folder, seconds)

    driver = Attending(compose(words(tmp_path, "study.pruner=median", "study.trials=7", *CONFIRM)))
    assert run(driver)
    assert decided == [6], "that of the search alone"
    assert len(repeats(tmp_path)) >= 6
    assert {config_of(tmp_path, r)["study"]["pruner"] for r in repeats(tmp_path)} == {"none"}, "so it waits for none"


def test_without_a_completed_trial_the_study_has_no_result_as_ever(tmp_path: Path) -> None:
    driver = QuickDriver(compose([*words(tmp_path, *CONFIRM), "study.trials=2"]), fails=("0", "1"))
    with pytest.raises(TrainingError, match="no trial completed"):
        run(driver)
    assert not repeats(tmp_path)


def test_of_duplicates_the_first_alone_is_confirmed(tmp_path: Path) -> None:
    space = "+search.space={train.optimizer:{type:categorical,choices:[adamw,adam]}}"
    parts = [f"experiments={tmp_path}", "search=default", "~search.space", space, "study.trials=6"]
    driver = QuickDriver(compose([*parts, "study.confirm.top=5", "study.confirm.repeats=2"]))
    assert run(driver)
    assert Counter(r.repeat for r in repeats(tmp_path)) == {1: 2, 2: 2}
    assert all(r.duplicate_of is None for r in repeats(tmp_path)), "repeats are no duplicates"


@pytest.mark.parametrize("repeats", ["1", "0", "-1", "101", "x"])
def test_an_interval_needs_two_repeats(repeats: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.confirm\.repeats=.*: allowed: "):
        compose([f"study.confirm.repeats={repeats}", "study.confirm.top=3"])


def test_repeats_alone_confirm_nothing(tmp_path: Path) -> None:
    driver = QuickDriver(compose(words(tmp_path, "study.confirm.repeats=3")))
    assert run(driver)
    assert not repeats(tmp_path)
    assert study_of(driver).confirmed is None


def test_the_weights_of_repeats_go_before_those_of_the_search(tmp_path: Path) -> None:
    from redsm5.engine.storage.budget import eviction_order

    assert run(QuickDriver(compose(words(tmp_path, *CONFIRM))))
    found = records(tmp_path)
    best = max((r for r in found if not r.confirms), key=lambda r: r.best.value if r.best else 0)
    order = [
        trial_id for trial_id, states, _ in eviction_order(found, maximize=True, reported=lambda _: True) if not states
    ]
    made = {r.trial_id for r in found if r.confirms}
    assert {*order[: len(made)]} == made
    assert best.trial_id not in order


def test_errors_are_named_by_the_repeat(tmp_path: Path) -> None:
    record = TrialRecord.model_validate(
        {"trial_id": "t", "study_id": "s", "number": 7, "state": "failed", "created_at": now(), "epochs": 1}
        | {"confirms": "u", "repeat": 2, "error": ErrorRecord(kind="x", message="y")}
    )
    assert record.label == "7·2"
