"""What decides the value matters most, a conditional parameter is judged where it was drawn, and too little says so."""

import random
from typing import Any

import pytest

from redsm5.engine.sections import Parameter, SearchConfig
from redsm5.evaluation.importance import FEWEST, parameter_importance
from tests.evaluation.conftest import SPACE

LR, LOSS, GAMMA = SPACE


@pytest.fixture
def space() -> dict[str, Parameter]:
    return SearchConfig.model_validate({"space": SPACE}).space


def drawn(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        focal = draw.random() < 0.5
        values = {LR: 10 ** draw.uniform(-6, -4), LOSS: "focal" if focal else "bce"}
        found.append(values | {GAMMA: draw.uniform(1, 5) if focal else None})
    return found


def test_what_decides_the_value_has_the_largest_share(space: dict[str, Parameter]) -> None:
    by_loss = parameter_importance(space, [(v, float(v[LOSS] == "focal")) for v in drawn(40)])
    assert (by_loss[LOSS].share or 0) > 0.9
    assert (by_loss[LR].share or 0) < 0.1
    by_rate = parameter_importance(space, [(v, v[LR]) for v in drawn(40)])
    assert (by_rate[LR].share or 0) > 0.9


def test_a_logarithmic_parameter_is_judged_on_its_own_scale(space: dict[str, Parameter]) -> None:
    """The value is high in the lower half of the exponents, a twentieth of the range itself, and loss has the rest."""
    trials = [(v, 1.0 * (v[LR] < 1e-5) + 0.3 * (v[LOSS] == "focal")) for v in drawn(60)]
    found = parameter_importance(space, trials)
    assert (found[LR].share or 0) > 2 * (found[LOSS].share or 0)


def test_a_conditional_parameter_is_judged_over_the_trials_in_which_it_was_drawn(space: dict[str, Parameter]) -> None:
    values = drawn(60)
    found = parameter_importance(space, [(v, v[GAMMA] or 3.0) for v in values])
    assert found[GAMMA].trials == sum(v[GAMMA] is not None for v in values)
    assert found[LR].trials == found[LOSS].trials == 60
    assert (found[GAMMA].share or 0) > 0.9
    assert [found[key].conditional for key in (LR, LOSS, GAMMA)] == [False, False, True]


def test_too_few_trials_or_one_value_alone_are_a_reason_and_no_share(space: dict[str, Parameter]) -> None:
    assert parameter_importance(space, [])[LR].share is None
    few = parameter_importance(space, [(v, v[LR]) for v in drawn(FEWEST)])
    assert few[LR].share is not None
    assert (few[GAMMA].share, few[GAMMA].reason) == (None, f"fewer than {FEWEST} completed trials have it")
    flat = parameter_importance(space, [(v, 0.5) for v in drawn(20)])
    assert flat[LR].reason == "all trials that have it have the same value"


def test_a_configuration_from_outside_the_space_does_not_count(space: dict[str, Parameter]) -> None:
    inside = [(v, v[LR]) for v in drawn(20)]
    outside = [({LR: 0.5, LOSS: "bce"}, 9.0), ({LR: 1e-5, LOSS: "hybrid"}, 9.0), ({}, 9.0), ({"train.seed": 1}, 9.0)]
    assert parameter_importance(space, inside + outside) == parameter_importance(space, inside)


def test_a_parameter_with_one_value_has_no_share_of_the_variance() -> None:
    space = SearchConfig.model_validate({"space": {"train.epochs": {"type": "int", "low": 3, "high": 3}}}).space
    found = parameter_importance(space, [({"train.epochs": 3}, i / 20) for i in range(20)])
    assert found["train.epochs"].share == 0.0
