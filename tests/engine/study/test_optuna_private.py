"""A trial that another process asked for is continued: fails where a new version of Optuna no longer lets us."""

from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage

from redsm5.config import compose
from redsm5.engine.study.optuna_private import reopen
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
