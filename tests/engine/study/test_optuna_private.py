"""A trial that another process asked for is continued: fails where a new version of Optuna no longer lets us."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import CmaEsSampler, RandomSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from redsm5.config import compose
from redsm5.engine.study.optuna_private import ReplayedCmaEsSampler, reopen
from redsm5.engine.study.search import open_storage


def storage_at(folder: Path, kind: str) -> BaseStorage:
    """As a process that starts has it: nothing in memory."""
    if kind == "journal":
        return open_storage(compose([f"experiments={folder}"]))
    return RDBStorage(f"sqlite:///{folder / 'optuna.db'}")


def study_at(folder: Path, kind: str) -> optuna.Study:
    sampler, pruner = optuna.samplers.RandomSampler(seed=0), optuna.pruners.ThresholdPruner(lower=0.5)
    return optuna.create_study(
        study_name="s", storage=storage_at(folder, kind), sampler=sampler, pruner=pruner, load_if_exists=True
    )


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_a_trial_is_continued_from_its_frozen_copy_by_another_process(tmp_path: Path, kind: str) -> None:
    other = optuna.create_study(study_name="other", storage=storage_at(tmp_path, kind))
    other.ask()  # so that ids differ from numbers
    begun = study_at(tmp_path, kind).ask()
    drawn = begun.suggest_float("x", 0, 1)

    study = study_at(tmp_path, kind)
    (frozen,) = study.get_trials()
    trial = reopen(study, frozen)
    assert (trial.number, trial.params) == (0, {"x": drawn})
    assert trial.suggest_float("x", 0, 1) == drawn
    trial.suggest_int("n", 1, 9)
    trial.set_user_attr("key", "value")
    trial.report(0.7, 1)
    assert not reopen(study, trial).should_prune()
    reopen(study, trial).report(0.3, 2)
    assert reopen(study, trial).should_prune()

    (after,) = study_at(tmp_path, kind).get_trials()
    assert set(after.params) == {"x", "n"}
    assert (after.user_attrs, after.intermediate_values) == ({"key": "value"}, {1: 0.7, 2: 0.3})
    assert not any(t.params or t.intermediate_values for t in other.get_trials())


SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(1e-4, 1, log=True), "n": IntDistribution(1, 99)}


class Stored(CmaEsSampler):
    """Optuna's own, which stores its optimizer, on the same space."""

    def __init__(self, **options: Any) -> None:
        super().__init__(n_startup_trials=0, **options)

    def infer_relative_search_space(self, *_: Any) -> dict[str, BaseDistribution]:
        return dict(SPACE)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        restored = super()._restore_optimizer(completed_trials)
        if restored is not None:
            self._cma_rng.rng.randint(1, 2**31 - 2)  # as an optimizer that is made anew takes a seed
        return restored


def drawn(direction: str, pruned: bool, make: Callable[..., CmaEsSampler]) -> list[dict[str, Any]]:
    study = optuna.create_study(direction=direction)
    for number in range(60):
        study.sampler = make(seed=number, independent_sampler=RandomSampler(seed=number), consider_pruned_trials=pruned)
        trial = study.ask()
        x, n = trial.suggest_float("x", 1e-4, 1, log=True), trial.suggest_int("n", 1, 99)
        value = abs(math.log10(x) + 1.5) + abs(n - 70) / 40
        value = value if direction == "minimize" else -value
        if number % 7 == 2:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 3 == 1:
            trial.report(value, 1)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
    return [trial.params for trial in study.get_trials()]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("pruned", [False, True])
def test_cmaes_draws_what_optuna_s_own_sampler_would(direction: str, pruned: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        ours = drawn(direction, pruned, partial(ReplayedCmaEsSampler, SPACE))
        theirs = drawn(direction, pruned, Stored)
    for own, other in zip(ours, theirs, strict=True):
        assert own == pytest.approx(other, rel=1e-9)
    assert all(abs(math.log10(params["x"]) + 1.5) < 1 for params in ours[-10:]), "it found the optimum"
