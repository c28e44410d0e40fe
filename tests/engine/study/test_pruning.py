"""Pruners are Optuna's, or decide as Optuna's do; and what they decide does not depend on where a driver was killed."""

import random

import optuna
import pytest
from optuna.trial import TrialState

from redsm5.config import compose
from redsm5.engine.study.optuna_private import reopen
from redsm5.engine.study.pruning import Hyperband, make_pruner, reason

EPOCHS = 10


def test_the_pruner_is_the_one_that_the_study_names() -> None:
    kinds = {"none": "NopPruner", "median": "MedianPruner", "percentile": "PercentilePruner", "hyperband": "Hyperband"}
    for name, kind in kinds.items():
        assert type(make_pruner(compose([f"study.pruner={name}"]))).__name__ == kind


def test_each_pruner_has_its_words() -> None:
    words = {"median": "is below the median", "percentile": "the best 25% of", "hyperband": "the best third of"}
    for name, expected in words.items():
        text = reason(compose([f"study.pruner={name}"]), 3, 0.25)
        assert text.startswith("val_f1_macro 0.2500 ")
        assert expected in text


def test_the_percentile_pruner_keeps_the_best_quarter() -> None:
    study = optuna.create_study(direction="maximize", pruner=make_pruner(compose(["study.pruner=percentile"])))
    for score in range(8):
        study.add_trial(
            optuna.trial.create_trial(state=TrialState.COMPLETE, value=score, intermediate_values={1: score})
        )
    pruned = []
    for score in (4.9, 5.5):  # three quarters of 0 to 7 are below 5.25
        trial = study.ask()
        trial.report(score, 1)
        pruned.append(trial.should_prune())
    assert pruned == [True, False]


def decisions(study: optuna.Study) -> list[int]:
    """Train 60 trials with scores from a seed; after how many epochs each was pruned, or all."""
    dice, ended = random.Random(3), []
    for _ in range(60):
        trial, epoch = study.ask(), 0
        scores = [round(dice.random(), 1) for _ in range(EPOCHS)]  # ties too
        for epoch, score in enumerate(scores, 1):
            trial.report(score, epoch)
            if trial.should_prune():
                break
        study.tell(trial, state=TrialState.PRUNED)
        ended.append(epoch)
    return ended


@pytest.mark.parametrize("seed", [0, 7])
def test_hyperband_decides_as_optuna_s_does(seed: int) -> None:
    """Optuna's draws the brackets from the study's name: the seed's, here."""
    theirs = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3)
    ours = make_pruner(compose(["study.pruner=hyperband", f"train.epochs={EPOCHS}", f"study.seed={seed}"]))
    expected = decisions(optuna.create_study(study_name=str(seed), direction="maximize", pruner=theirs))
    assert decisions(optuna.create_study(direction="maximize", pruner=ours)) == expected
    assert set(expected) == {1, 3, 9, 10}


@pytest.mark.parametrize("seed", [0, 1])
def test_hyperband_of_a_metric_that_is_minimized_decides_as_optuna_s_does(seed: int) -> None:
    theirs = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3)
    ours = Hyperband(epochs=EPOCHS, seed=seed, maximize=False)
    expected = decisions(optuna.create_study(study_name=str(seed), direction="minimize", pruner=theirs))
    assert decisions(optuna.create_study(direction="minimize", pruner=ours)) == expected


def test_hyperband_decides_the_same_again() -> None:
    """A driver is killed between the pruner's decision and its being written down, and asks again."""
    study = optuna.create_study(direction="maximize", pruner=Hyperband(epochs=EPOCHS, seed=0, maximize=True))
    answers = set()
    for score in range(20, 0, -1):
        trial = study.ask()
        trial.report(score, 1)
        trial = reopen(study, trial)
        first = trial.should_prune()
        assert trial.should_prune() == first
        answers.add(first)
    assert answers == {True, False}


def test_hyperband_s_brackets_are_those_of_the_longest_trial() -> None:
    assert [Hyperband(epochs=epochs, seed=0, maximize=True).brackets for epochs in (1, 2, 3, 8, 9, 243)] == [
        1,
        1,
        2,
        2,
        3,
        6,
    ]
    longest = "search.space={train.epochs:{type:int,low:2,high:27}}"
    pruner = make_pruner(compose(["study.pruner=hyperband", longest]))
    assert isinstance(pruner, Hyperband)
    assert pruner.brackets == 4
    shares = [[pruner.bracket(n) for n in range(2000)].count(bracket) for bracket in range(4)]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) > 50
