"""Paused and promoted trials as the driver decides them, killed at each of its writes, with no process to train."""

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.documents import load_lines, now
from redsm5.engine.errors import ConfigError
from redsm5.engine.records import Best, Decision, TrialRecord
from redsm5.engine.study import pruning
from redsm5.engine.study.control import BY_HAND
from redsm5.engine.study.outcomes import note_failed
from redsm5.engine.study.space import ladder_of
from redsm5.engine.study.trial import read_record, write_record
from redsm5.engine.tracking.journal import Journal
from tests.engine.study.test_driver import QuickDriver, overrides, run, trials_of

pytestmark = pytest.mark.usefixtures("no_posts_and_no_mlflow")

SPACE = "search.space={train.weight_decay:{type:float,low:0.0,high:0.1}}"
WORDS = ["study.pruner=asha", "study.trials=12", "train.epochs=9"]


class Killed(BaseException):
    """A kill: nothing that follows is done."""


class Pausing(QuickDriver):
    """Its trials train an epoch in no time, with a score by their number, and hear the pruner as real ones do."""

    fails: frozenset[int] = frozenset()
    epochs_trained: int

    def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        record = read_record(folder)
        assert record is not None
        if number in self.fails and record.epoch:
            note_failed(folder, record, "out_of_memory", "no memory")
            return False
        journal = Journal(folder, trial_id, log=lambda *_, **__: None)
        first = record.epoch + 1
        pruning.decide(self.optuna, self.config, number, folder)  # what its driver was killed before
        if record.epoch and self._decision(folder, record.epoch).rung is not None:
            self._end(folder, record, "paused", rung=self._decision(folder, record.epoch).rung)
            return False
        for epoch in range(first, record.epochs + 1):
            journal.add("val_f1_macro", score(number, epoch), step=epoch, epoch=epoch)
            journal.commit()
            self.epochs_trained = getattr(self, "epochs_trained", 0) + 1
            best = max((score(number, e), -e) for e in range(1, epoch + 1))
            changes = {"epoch": epoch, "best": Best(epoch=-best[1], value=best[0]), "started_at": now()}
            record = record.model_copy(update=changes)
            write_record(folder, record.model_copy(update={"state": "running"}))
            pruning.decide(self.optuna, self.config, number, folder)
            decision = self._decision(folder, epoch)
            if decision.rung is not None:
                self._end(folder, record, "paused", rung=decision.rung)
                return False
        self._end(folder, record, "completed", exit_code=0, finished_at=now())
        return False

    def _decision(self, folder: Path, epoch: int) -> Decision:
        decisions = load_lines(folder / paths.DECISIONS, Decision)
        return next(decision for decision in reversed(decisions) if decision.epoch == epoch)

    def _end(self, folder: Path, record: TrialRecord, state: str, **changes: Any) -> None:
        write_record(folder, record.model_copy(update={"state": state, **changes}))


def score(number: int, epoch: int) -> float:
    return round(0.1 + (number * 37 % 23) / 50 + epoch / 100, 6)


def driver_at(folder: Path, *words: str) -> Pausing:
    return Pausing(compose(overrides(folder, *WORDS, *words, space=SPACE)))


def decisions(driver: Pausing) -> list[dict[str, Any]]:
    lines = (driver.folder / paths.RUNGS).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "timestamp"} for line in lines]


def outcome(driver: Pausing) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.epoch, t.rung, t.best, t.parameters) for t in trials_of(driver)]


def optunas(driver: Pausing) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.params, t.intermediate_values, t.values) for t in driver.optuna.get_trials()]


@pytest.fixture
def once(tmp_path: Path) -> Pausing:
    driver = driver_at(tmp_path / "once")
    assert run(driver)
    return driver


def test_the_best_third_of_each_rung_goes_on(once: Pausing) -> None:
    epochs = sorted(t.epoch for t in trials_of(once))
    assert {t.state for t in trials_of(once)} == {"completed", "pruned"}
    assert epochs.count(9) >= 1
    assert sum(e >= 3 for e in epochs) >= 4
    assert sum(epochs) < 12 * 9 / 2
    assert once.epochs_trained == sum(epochs), "no epoch is trained twice"
    assert all(t.state != TrialState.RUNNING for t in once.optuna.get_trials())
    reasons = {d["state"] for d in decisions(once) if d["action"] == "end"}
    assert reasons == {"completed", "pruned"}


@pytest.mark.parametrize("after", [False, True])
def test_a_driver_killed_at_each_of_its_writes_makes_the_same_decisions(
    after: bool, once: Pausing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One search, whose drivers are killed one after the other, each before (or after) another one of its writes."""
    writes, at = 0, 0
    append, atomic = files.append_durable, files.write_atomic

    def counted(write: Any) -> Any:
        def wrapper(path: Path, content: bytes) -> None:
            nonlocal writes
            writes += 1
            if writes == at and not after:
                raise Killed
            write(path, content)
            if writes == at:
                raise Killed

        return wrapper

    monkeypatch.setattr(files, "append_durable", counted(append))
    monkeypatch.setattr(files, "write_atomic", counted(atomic))
    kills = 0
    for step in range(1, 4000, 7):
        writes, at = 0, 1 + step % 37
        try:
            if run(driver_at(tmp_path / "often")):
                break
        except Killed:
            kills += 1
        finally:
            files._let_go_of_locks()
    assert kills > 15
    writes, at = 0, 0
    driver = driver_at(tmp_path / "often")
    assert run(driver)
    assert decisions(driver) == decisions(once)
    assert outcome(driver) == outcome(once)
    assert optunas(driver) == optunas(once)


def test_a_trial_that_fails_after_its_promotion_leaves_its_place_to_the_next(tmp_path: Path) -> None:
    driver = driver_at(tmp_path, "study.trials=3")
    best = max(range(3), key=lambda number: score(number, 1))
    driver.fails = frozenset({best})
    assert run(driver)
    states = {t.number: t.state for t in trials_of(driver)}
    assert states.pop(best) == "failed"
    assert sorted(states.values()) == ["completed", "pruned"], "the study has a result"


def test_a_paused_trial_that_a_person_prunes_is_pruned(tmp_path: Path) -> None:
    class Ordered(Pausing):
        def _next_trial(self) -> Any:
            for trial in trials_of(self):
                if trial.number == 0 and trial.state == "paused":
                    (self.folder / paths.CONTROL / f"{paths.PRUNE}{trial.trial_id}").touch()
            return super()._next_trial()

    driver = Ordered(compose(overrides(tmp_path, *WORDS, space=SPACE)))
    assert run(driver)
    first = trials_of(driver)[0]
    assert (first.state, first.epoch) == ("pruned", 1)
    heard = load_lines(paths.trial_dir(driver.experiments, first.trial_id) / paths.DECISIONS, Decision)
    assert heard[-1].reason == BY_HAND
    assert not list((driver.folder / paths.CONTROL).iterdir())


def test_a_repeated_configuration_is_pruned_while_its_original_is_paused(tmp_path: Path) -> None:
    space = "search.space={train.optimizer:{type:categorical,choices:[adamw,adam]}}"
    driver = Pausing(compose(overrides(tmp_path, *WORDS, space=space)))
    assert run(driver)
    trials = trials_of(driver)
    assert sum(t.duplicate_of is None for t in trials) == 2
    assert all(t.state in ("pruned", "completed") for t in trials)


def test_a_paused_trial_that_a_person_started_by_itself_still_goes_on_once_it_is_promoted(tmp_path: Path) -> None:
    """`just train trial.id=…` of a paused trial that is killed leaves it interrupted."""

    class Meddled(Pausing):
        def _promote(self, promotion: Any) -> None:
            folder = paths.trial_dir(self.experiments, trials_of(self)[promotion.number].trial_id)
            record = read_record(folder)
            assert record is not None
            write_record(folder, record.model_copy(update={"state": "interrupted"}))
            super()._promote(promotion)

    driver = Meddled(compose(overrides(tmp_path, *WORDS, space=SPACE)))
    assert run(driver)
    assert {t.state for t in trials_of(driver)} == {"completed", "pruned"}


def test_a_study_that_is_extended_goes_on_with_its_rungs(once: Pausing, tmp_path: Path) -> None:
    more = driver_at(tmp_path / "once", "study.trials=15")
    assert run(more)
    assert len(trials_of(more)) == 15
    assert decisions(more)[: len(decisions(once))] == decisions(once)
    assert {t.state for t in trials_of(more)} == {"completed", "pruned"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study.min_epochs=9"], "no trial could be paused"),
        (["study.brackets=3"], "only 2 rungs, after 1, 3 of 9 epochs"),
        (["study.reduction_factor=5", "study.brackets=3"], "only 2 rungs, after 1, 5 of 9 epochs"),
        (["train.epochs=2", "study.brackets=2"], "there is only 1 rung, after 1 of 2 epochs"),
    ],
)
def test_a_ladder_without_rungs_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ladder_of(compose([*WORDS, *words]))
