"""What redsm5 uses of Optuna's private interface, all of it.

Optuna gives a `Trial`, which samples, reports and prunes, only to the process that asks for it. Of a trial that was
asked for earlier, by a driver that was killed or by another worker, `get_trials` gives a frozen copy, which
`Trial(study, id)` continues; but only the private `_trial_id` tells its id, which is not its number.

`QMCSampler` counts its points in the study's storage. A point that was counted and then lost by a kill would be
skipped, and two samplers could take the same one; a trial's number is a better count.

`CmaEsSampler` stores its optimizer as a pickle, and unpickles what the storage has: a database would execute code. The
results that the optimizer was told are enough to compute it again. Its search space shrinks to what all trials had so
far, and it stops working when that changes; the parameters that every trial draws are known beforehand.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler, QMCSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

TOLD = "cma:told"  # of the first trial of a generation: the number of the last one, and its trials with their results


def reopen(study: optuna.Study, trial: FrozenTrial | optuna.Trial) -> optuna.Trial:
    """This trial of the study as it is in the storage now: what it has drawn and reported is there, and can go on."""
    return optuna.Trial(study, trial._trial_id)


def copy_system_attrs(source: optuna.Trial, study: optuna.Study, trial: optuna.Trial) -> None:
    """Give a trial of this study what a sampler has noted on another one."""
    for key, value in source.storage.get_trial_system_attrs(source._trial_id).items():
        study._storage.set_trial_system_attr(trial._trial_id, key, value)


class NumberedQMCSampler(QMCSampler):
    """Gives each trial the point of the sequence that has the trial's number."""

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        self._number = trial.number
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, Any]) -> int:
        return self._number


class ReplayedCmaEsSampler(CmaEsSampler):
    """CMA-ES that starts anew with each trial, and is told again what it was told before.

    Args:
        space: the parameters that it samples, which every trial draws; all others are sampled independently.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(n_startup_trials=0, warn_independent_sampling=False, **options)
        self._space = space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        self._asked = study, trial
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> None:
        """No optimizer is stored: this has Optuna call `_init_optimizer`."""
        self._finished = completed_trials

    def _init_optimizer(self, trans: Any, direction: StudyDirection) -> Any:
        """The optimizer of the newest generation. One that is complete by now is told, and noted on this trial."""
        study, trial = self._asked
        optimizer = super()._init_optimizer(trans, direction)
        trials = study.get_trials(deepcopy=False)
        told: dict[int, Sequence[tuple[int, float]]] = {}
        for noted in (t.system_attrs[TOLD] for t in trials if TOLD in t.system_attrs):
            told.setdefault(*noted)
        sign = 1 if direction == StudyDirection.MINIMIZE else -1

        def tell(results: Sequence[tuple[int, float]]) -> None:
            optimizer.tell([(trans.transform(trials[number].params), sign * value) for number, value in results])

        while optimizer.generation in told:
            tell(told[optimizer.generation])
        drawn = self._get_solution_trials(self._finished, optimizer.generation)
        results = [(t.number, t.value) for t in drawn if t.value is not None and math.isfinite(t.value)]
        if len(results) >= optimizer.population_size:
            results = results[: optimizer.population_size]
            study._storage.set_trial_system_attr(trial._trial_id, TOLD, (optimizer.generation, results))
            tell(results)
        return optimizer
