"""Parameter importance of a study by functional ANOVA over its completed trials.

fANOVA (Hutter, Hoos and Leyton-Brown 2014, section 3) fits a random forest to the objective values and computes the
share of their variance that each parameter explains alone; interactions explain the rest. It needs a value of every
parameter in every trial. So unconditional parameters are assessed over the trials that have all of them, and a
conditional one over those of these trials in which it was sampled; its share refers to the variance among those.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator
from optuna.trial import create_trial

from redsm5.engine.sections import CategoricalParameter, Choice, Parameter, RangeParameter
from redsm5.reports import ParameterImportance

FEWEST = 10  # trials; with fewer, the importances are mostly noise
# Optuna's default of 64 trees of unlimited depth takes minutes for 1,000 trials; the shares agree within 0.05.
TREES, DEPTH, SEED = 32, 6, 0

Values = Mapping[str, Choice]
"""The parameters drawn for a trial."""


def parameter_importance(
    space: Mapping[str, Parameter], trials: Sequence[tuple[Values, float]]
) -> dict[str, ParameterImportance]:
    """The importance of each parameter of the space, null with a reason if it cannot be computed.

    Args:
        space: the study's search space.
        trials: the drawn parameters and the finite value of each completed trial. A parameter value outside the space,
            such as one that the user enqueued, counts as not drawn.
    """
    common = [key for key, parameter in space.items() if not parameter.when]
    drawn = [
        ({key: v for key, v in values.items() if key in space and space[key].holds_value(v)}, score)
        for values, score in trials
    ]
    whole = [(values, score) for values, score in drawn if all(key in values for key in common)]
    study = _study(space, whole)
    found = _shares(study, common, common, [score for _, score in whole])
    # Conditional parameters that were drawn in the same trials share a forest.
    together: dict[tuple[int, ...], list[str]] = {}
    for key in space:
        if key not in common:
            together.setdefault(tuple(i for i, (values, _) in enumerate(whole) if key in values), []).append(key)
    for rows, keys in together.items():
        found |= _shares(study, keys, common + keys, [whole[i][1] for i in rows])
    return {key: found[key].model_copy(update={"conditional": key not in common}) for key in space}


def _study(space: Mapping[str, Parameter], trials: Sequence[tuple[Values, float]]) -> optuna.Study:
    """The trials as an in-memory Optuna study, each with the parameters that it has."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: _distribution(parameter) for key, parameter in space.items()}
    study = optuna.create_study(direction="maximize")
    for values, score in trials:
        present = {key: distributions[key] for key in values}
        scaled = {key: _scaled(space[key], value) for key, value in values.items()}
        study.add_trial(create_trial(value=score, params=scaled, distributions=present))
    return study


def _shares(
    study: optuna.Study, wanted: Sequence[str], present: Sequence[str], scores: Sequence[float]
) -> dict[str, ParameterImportance]:
    """The importances of the parameters `wanted`, which are among `present`. `study` holds the trials that have all of
    `present`; `scores` are their values.
    """

    def each(share: Callable[[str], float | None], reason: str | None = None) -> dict[str, ParameterImportance]:
        return {
            key: ParameterImportance(share=share(key), trials=len(scores), conditional=False, reason=reason)
            for key in wanted
        }

    if len(scores) < FEWEST:
        return each(lambda _: None, f"fewer than {FEWEST} completed trials have it")
    if len(set(scores)) == 1:
        return each(lambda _: None, "all trials that have it have the same value")
    evaluator = FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=SEED)
    try:
        shares = evaluator.evaluate(study, params=list(present))
    except RuntimeError:  # raised if its trees have no splits
        return each(lambda _: None, "its effect cannot be told from chance")
    return each(lambda key: float(min(max(shares[key], 0.0), 1.0)))


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, CategoricalParameter):
        return CategoricalDistribution(parameter.choices)
    if parameter.log:
        return FloatDistribution(math.log(parameter.low), math.log(parameter.high))
    if parameter.type == "int":
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high)


def _scaled(parameter: Parameter, value: Any) -> Any:
    """The value on the scale on which it was drawn, since fANOVA assumes a uniform distribution."""
    return math.log(value) if isinstance(parameter, RangeParameter) and parameter.log else value
