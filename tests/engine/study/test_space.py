"""What a study tries beside what its sampler proposes: sets, grids, conditions, and what a machine has no data for."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from redsm5.config import Config, compose
from redsm5.data import resources
from redsm5.engine.errors import ConfigError
from redsm5.engine.searchspace import holds
from redsm5.engine.study import space
from redsm5.engine.study.search import draw
from redsm5.task import METHODS as METHODS_KEY
from redsm5.task import ReDSM5

LOSSES = (
    "search.space={train.loss_function:{type:categorical,choices:[bce,hybrid,focal]},"
    "train.hybrid_weight_alpha:{type:float,low:0.1,high:0.9,points:3,when:{train.loss_function:hybrid}},"
    "train.focal_gamma:{type:int,low:1,high:3,when:{train.loss_function:[focal,hybrid]}},"
    "train.patience:{type:int,low:1,high:2,when:{model.criteria_head_type:mlp}}}"
)


def configuration(*overrides: str, space: str = LOSSES) -> Config:
    """A configuration with this space alone."""
    return compose(["search=default", "~search.space", f"+{space}", *overrides])


def parameter(kind: str, **fields: object) -> str:
    words = ",".join(f"{k}:{v}" for k, v in {"type": kind, **fields}.items())
    return f"search.space={{train.patience:{{{words}}}}}"


# ---------------------------------------------------------------------------------------------------------------------
# the grid


def test_a_grid_has_every_point_that_the_conditions_allow_once() -> None:
    points = space.grid(configuration())
    alphas, gammas = (0.1, 0.5, 0.9), (1, 2, 3)
    expected: list[Mapping[str, Any]] = [{"train.loss_function": "bce"}]
    expected += [{"train.loss_function": "focal", "train.focal_gamma": g} for g in gammas]
    expected += [
        {"train.loss_function": "hybrid", "train.hybrid_weight_alpha": a, "train.focal_gamma": g}
        for a, g in itertools.product(alphas, gammas)
    ]
    assert len(points) == len(expected)
    assert all(point in points for point in expected)


def test_a_condition_may_be_a_key_beside_the_space() -> None:
    mlp = ("model.criteria_head_type=mlp", "model.criteria_hidden_dim=64")
    points = space.grid(configuration(*mlp))
    assert {point["train.patience"] for point in points} == {1, 2}
    assert len(points) == 2 * 13


def test_the_order_of_a_grid_is_that_of_the_study_s_seed_and_not_that_of_the_space() -> None:
    first, again, other = (space.grid(configuration(f"study.seed={seed}")) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(map(str, first)) == sorted(map(str, other))
    losses = [point["train.loss_function"] for point in first]
    assert losses != sorted(losses, key=losses.index)


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"low": 2, "high": 5}, [2, 3, 4, 5]),
        ({"low": 1, "high": 9, "points": 3}, [1, 5, 9]),
        ({"low": 1, "high": 100, "log": "true", "points": 3}, [1, 10, 100]),
        ({"low": 1, "high": 3, "points": 9}, [1, 2, 3]),
        ({"low": 4, "high": 4}, [4]),
    ],
)
def test_whole_numbers_of_a_grid(fields: dict[str, object], values: list[int]) -> None:
    points = space.grid(configuration(space=parameter("int", **fields)))
    found = sorted(point["train.patience"] for point in points)
    assert found == values
    assert all(type(value) is int for value in found)


def test_floats_of_a_grid_reach_both_ends_and_no_further() -> None:
    ranges = "search.space={train.learning_rate:{type:float,low:1e-6,high:1e-4,log:true,points:5}}"
    config = configuration(space=ranges)
    values = sorted(point["train.learning_rate"] for point in space.grid(config))
    assert values == pytest.approx([1e-6, 10**-5.5, 1e-5, 10**-4.5, 1e-4])
    assert (values[0], values[-1]) == (1e-6, 1e-4)
    assert all(config.search.space["train.learning_rate"].holds_value(value) for value in values)


def test_a_range_of_floats_without_points_is_no_grid() -> None:
    ranges = "search.space={train.weight_decay:{type:float,low:0,high:0.1}}"
    with pytest.raises(ConfigError, match=r"search\.space\.train\.weight_decay") as caught:
        space.grid(configuration(space=ranges))
    assert "points:5" in str(caught.value.remedy)


def test_a_grid_too_large_for_a_folder_is_refused_before_it_is_made() -> None:
    with pytest.raises(ConfigError, match=r"more than 10,000 points") as caught:
        space.grid(compose(["search=default", "model=bert_base"]))
    assert "study.sampler=random" in str(caught.value.remedy)


def test_a_grid_goes_on_after_what_was_set_and_does_not_try_that_again() -> None:
    config = configuration("study.sampler=grid", "study.trials=99")
    sets = [{"train.loss_function": "focal", "train.focal_gamma": 2}, {"train.optimizer": "adam"}]
    presets = space.presets(config, sets)
    assert presets[:3] == [{}, *sets]
    rest = presets[3:]
    assert len(rest) == 13 - 2, "the defaults and the first set are points of the grid, the second set is none"
    assert {"train.loss_function": "bce"} not in rest
    assert sets[0] not in rest
    assert space.wanted(config, sets) == 14
    assert space.wanted(configuration("study.sampler=grid", "study.trials=5"), sets) == 5
    assert space.wanted(configuration("study.trials=99"), sets) == 99


# ---------------------------------------------------------------------------------------------------------------------
# the spaces that come along


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_trial_of_the_default_space_is_valid_and_every_choice_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose(["search=default", "model=bert_base", "study.sampler=random"])
    study = optuna.create_study()
    found: dict[str, set[Any]] = {name: set() for name in config.search.space}
    for _ in range(60):
        parameters = draw(study, study.ask(), config)
        trial = space.configured(config, parameters)
        assert (trial.model.criteria_hidden_dim is None) == ("model.criteria_hidden_dim" not in parameters)
        assert (trial.train.focal_gamma is None) == (trial.train.loss_function in ("bce", "weighted_bce"))
        assert (trial.train.augmentation.probability is None) == (trial.train.augmentation.methods == [])
        for name, value in parameters.items():
            assert holds(config.search.space[name], parameters, config)
            found[name].add(value)
    for name, parameter in config.search.space.items():
        if parameter.type == "categorical":
            assert found[name] == set(parameter.choices), name
        else:
            assert len(found[name]) > 5, name


def test_the_quick_space_has_a_grid() -> None:
    assert len(space.grid(compose(["search=quick"]))) > 4


# ---------------------------------------------------------------------------------------------------------------------
# the sets of study.enqueue

BAD_SETS = {
    "no YAML": ("- {a: 1", ["sets.yaml cannot be read", "line 1"]),
    "nothing": ("", ["is not a list of parameter sets", "dash"]),
    "a mapping": ("train.batch_size: 8", ["is not a list of parameter sets", "dash"]),
    "a word as a set": ("- {}\n- x", ["set 2: 'x' is not a parameter set"]),
    "an unknown key": ("- {train.batchsize: 8}", ["set 1", "train.batchsize=8", "nearest: train.batch_size"]),
    "sections": ("- {train: {batch_size: 8}}", ["set 1", "unknown key train=", "dotted keys"]),
    "a key of the study": (
        "- {study.seed: 8}",
        ["set 1", "unknown key study.seed=8", "dotted keys that can be searched"],
    ),
    "a wrong type": ("- {train.batch_size: x}", ["set 1", "train.batch_size=x", "a valid integer"]),
    "out of the range": ("- {train.batch_size: 8}\n- {train.epochs: 0}", ["set 2", "train.epochs=0", "at least 1"]),
    "a condition not met": ("- {train.focal_gamma: 2}", ["set 1", "train.focal_gamma=2", "Give train.loss_function"]),
    "half of a pair": ("- {model.criteria_head_type: mlp}", ["set 1", "criteria_hidden_dim", "Add model.criteria_hid"]),
}


def configuration_with(sets: str, folder: Path, *overrides: str) -> Config:
    (folder / "sets.yaml").write_text(sets)
    return configuration(f"study.enqueue={folder / 'sets.yaml'}", *overrides)


@pytest.mark.parametrize("case", BAD_SETS)
def test_a_bad_set_is_refused_with_file_position_key_value_and_remedy(case: str, tmp_path: Path) -> None:
    content, words = BAD_SETS[case]
    with pytest.raises(ConfigError) as caught:
        space.read_enqueued(configuration_with(content, tmp_path), ReDSM5())
    message = str(caught.value)
    assert [w for w in [*words, str(tmp_path / "sets.yaml")] if w not in message] == [], message
    assert caught.value.remedy
    assert caught.value.exit_code == 1


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"study\.enqueue=/nowhere/sets\.yaml cannot be read: No such file") as caught:
        space.read_enqueued(configuration("study.enqueue=/nowhere/sets.yaml"), ReDSM5())
    assert caught.value.remedy


def test_a_condition_that_is_left_to_chance_does_not_carry_a_set(tmp_path: Path) -> None:
    """The configuration's own loss is not in the space, so it would be drawn: the set must name one."""
    config = configuration_with("- {train.focal_gamma: 2}", tmp_path, "train.loss_function=weighted_bce")
    with pytest.raises(ConfigError, match=r"Give train\.loss_function too"):
        space.read_enqueued(config, ReDSM5())


def test_sets_are_read_as_the_configuration_reads_numbers_and_methods(tmp_path: Path) -> None:
    sets = "- {train.learning_rate: 1e-5}\n- train.augmentation.methods: []\n- {}"
    assert space.read_enqueued(configuration_with(sets, tmp_path), ReDSM5()) == [
        {"train.learning_rate": 1e-5},
        {"train.augmentation.methods": []},
        {},
    ]


# ---------------------------------------------------------------------------------------------------------------------
# what a machine has no data for

METHODS = "search.space={train.augmentation.methods:{type:categorical,choices:['',swap,synonym,synonym+swap]}}"
PROBABILITY = "train.augmentation.probability=0.5"


@pytest.fixture
def no_synonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without WordNet."""

    def missing_data(methods: list[str], translation_models: list[str] | None) -> dict[str, str]:
        return {"synonym": "Install WordNet."} if "synonym" in methods else {}

    monkeypatch.setattr(resources, "missing_data", missing_data)


def with_methods(*overrides: str) -> Config:
    return configuration("train.augmentation.methods=[swap]", PROBABILITY, *overrides, space=METHODS.replace("'',", ""))


@pytest.mark.usefixtures("no_synonyms")
def test_a_space_loses_the_choices_that_need_missing_data() -> None:
    config = with_methods()
    assert ReDSM5().missing(config) == {"synonym": "Install WordNet."}
    left = ReDSM5().without(config, ["synonym"])
    assert left.search.space[METHODS_KEY].choices == ["swap"]
    assert ReDSM5().missing(left) == {}
    assert ReDSM5().without(config, []) is config


@pytest.mark.usefixtures("no_synonyms")
def test_what_is_asked_for_without_its_data_is_refused_with_the_remedy(tmp_path: Path) -> None:
    asked = with_methods("train.augmentation.methods=[synonym]")
    for check in (
        lambda: ReDSM5().check_study(ReDSM5().without(asked, ["synonym"]), []),
        lambda: ReDSM5().check_study(with_methods(), []),
        lambda: ReDSM5().check_study(ReDSM5().without(with_methods(), ["synonym"]), [{METHODS_KEY: "synonym+swap"}]),
        lambda: ReDSM5().without(
            configuration(PROBABILITY, "train.augmentation.methods=[swap]", space=ONLY), ["synonym"]
        ),
    ):
        with pytest.raises(ConfigError, match="synonym") as caught:
            check()
        assert caught.value.remedy == "Install WordNet."
    sets = f"- {{{METHODS_KEY}: [synonym], train.augmentation.probability: 0.1}}"
    with pytest.raises(ConfigError, match=r"set 1.*synonym"):
        space.read_enqueued(configuration_with(sets, tmp_path), ReDSM5())


ONLY = "search.space={train.augmentation.methods:{type:categorical,choices:[synonym]}}"
