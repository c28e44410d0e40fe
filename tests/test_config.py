"""The configuration: every fault is one message that names the key, the value and what to do; what is good composes."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redsm5.config import Config, compose
from redsm5.engine.errors import ConfigError, nearest
from redsm5.engine.installed import LAUNCH_DIR
from redsm5.engine.redaction import redact
from redsm5.engine.spec import differences, known_keys, validate, with_parameters

RATE = "search.space={train.learning_rate:{type:float,low:%s,high:%s,log:%s}}"
SIZE = "search.space={train.batch_size:{type:categorical,choices:%s}}"
LOSS = "train.loss_function:{type:categorical,choices:[bce,focal]}"
TRIAL_ID = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"

# The words of a command line, and what the message must hold: the key, the value, and what is allowed or to be done.
BAD = {
    "unknown key": (["train.epoch=3"], ["train.epoch=3", "nearest: train.epochs"]),
    "unknown key of a section": (["model.dropout=0.1"], ["model.dropout=0.1", "model has: model_id"]),
    "unknown key at the top": (["seeds=1"], ["unknown key seeds=1", "experiments, launch"]),
    "unknown group": (["modle=tiny"], ["modle=tiny", "nearest: model"]),
    "key of an unknown section": (["tran.epochs=3"], ["tran", "nearest: train"]),
    "unknown choice of a group": (["model=tny"], ["model=tny", "nearest: tiny", "Allowed: bert_base"]),
    "unknown choice, none near": (["retention=x"], ["retention=x", "Allowed: aggressive, default, keep_all, minimal"]),
    "words for a number": (["train.epochs=many"], ["train.epochs=many", "a valid integer"]),
    "a fraction for a whole number": (["train.epochs=2.5"], ["train.epochs=2.5", "a valid integer"]),
    "a number for yes or no": (["train.deterministic=1"], ["train.deterministic=1", "a valid boolean"]),
    "null where a name is needed": (
        ["study.name=null"],
        ["study.name=null", "a valid string", "'study.name=\"null\"'"],
    ),
    "below the range": (["train.epochs=0"], ["train.epochs=0", "at least 1"]),
    "above the range": (["train.epochs=10000"], ["train.epochs=10000", "at most 9999"]),
    "an open end": (["train.learning_rate=0"], ["train.learning_rate=0", "greater than 0"]),
    "nested, above the range": (["train.task_weights.criteria=3"], ["train.task_weights.criteria=3", "at most 2"]),
    "too few posts": (["data.posts=59"], ["data.posts=59", "at least 60"]),
    "a negative seed": (["study.seed=-1"], ["study.seed=-1", "at least 0"]),
    "nothing to keep": (["retention.keep_last_n=-1"], ["retention.keep_last_n=-1", "at least 0"]),
    "no member of the list": (["train.mixed_precision=fp8"], ["train.mixed_precision=fp8", "'fp16' or 'bf16'"]),
    "csv without its folder": (["data=csv"], ["data.dir is required", "data.source=csv", "Add data.dir=..."]),
    "a folder for invented posts": (["data.dir=/x"], ["data.dir=/x", "data.source=synthetic", "Leave data.dir out"]),
    "a count of posts with csv": (
        ["data=csv", "data.dir=/x", "data.posts=99"],
        ["data.posts=99", "Leave data.posts out"],
    ),
    "a loss as the metric": (["study.metric=val_loss"], ["study.metric=val_loss", "maximized", "val_f1_macro"]),
    "a metric that nobody logs": (["study.metric=val_f1"], ["study.metric=val_f1", "nearest: val_f1_m", "Allowed:"]),
    "an unknown launch": (["launch=gpus"], ["launch=gpus", "nearest: gpu", "Allowed: cpu"]),
    "no equals sign": (["train.epochs"], ["'train.epochs'", "key=value"]),
    "an open bracket": (["train.epochs=["], ["train.epochs", "'['", "quote"]),
    "open brackets": (["a=[[{"], ["the value of a cannot be read: '[[{'", "Close each [ with ]"]),
    "a key that is none": (["3=3"], ["'3' in '3=3' is not a key", "key=value"]),
    "no key": (["=3"], ["'' in '=3' is not a key", "key=value"]),
    "no space after a reference": (["train.epochs=${"], ["train.epochs", "'${'", "Close the reference"]),
    "a reference to nothing": (["train.epochs=${nope}"], ["${nope}", "not there"]),
    "no such variable": (["train.epochs=${oc.env:NO_SUCH_ONE}"], ["NO_SUCH_ONE", "Set it"]),
    "a reference of another kind": (["train.epochs=${x:3}"], ["train.epochs=${x:3}", "A reference is ${KEY}"]),
    "a key of Hydra's": (["hydra.verbose=true"], ["hydra.verbose=true", "key=value"]),
    "a section taken away with a value": (["~study=1"], ["~study=1"]),
    "two values": (["train.epochs=1,2"], ["train.epochs=1,2", "key=value"]),
    "a key taken away": (["~study.name"], ["study.name is missing"]),
    "a key added that is there": (["+train.epochs=3"], ["+train.epochs=3: + adds a key", "key=value"]),
    "a key taken away that is not there": (["~study.x"], ["~study.x: ~ removes a key", "key=value"]),
    "more best than may be": (
        ["retention.keep_best_k=3"],
        ["retention.keep_best_k=3", "keep_best_k_max=2", "Set retention.keep_best_k_max=3"],
    ),
    "a study's name with a slash": (["study.name=a/b"], ["study.name=a/b", "allowed: up to 100 of the characters A-Z"]),
    "a study's name that is hidden": (["study.name=.a"], ["study.name=.a", "beginning with a letter or digit"]),
    "a trial's id that is none": (["trial.id=0b5c"], ["trial.id=0b5c", "a trial's whole id, such as"]),
    "a data set's id without its owner": (["data=hub", "data.repo_id=x"], ["data.repo_id=x", "allowed: OWNER/NAME"]),
    "a revision with a space": (["data=hub", "data.revision=a b"], ["data.revision=a b", "allowed: letters, digits"]),
    "a length that is no multiple": (["model.max_length=100"], ["model.max_length=100", "a multiple of 8"]),
    "a length beyond every model": (["model.max_length=8200"], ["model.max_length=8200", "at most 8192"]),
    "no folder for experiments": (["experiments="], ["experiments=", "at least 1 character"]),
    "space: an unknown key": (
        ["search.space={train.learning_rat:{type:float,low:0.1,high:0.2}}"],
        ["search.space", "train.learning_rat=", "nearest: train.learning_rate"],
    ),
    "space: a key that no search varies": (
        ["search.space={study.seed:{type:int,low:1,high:2}}"],
        ["search.space", "study.seed", "Only keys of data, model, symptoms, train can be searched"],
    ),
    "space: an end out of range": (
        [RATE % (0.1, 2, "false")],
        ["search.space", "train.learning_rate=2.0", "at most 1"],
    ),
    "space: low above high": (
        [RATE % (0.2, 0.1, "false")],
        ["search.space", "train.learning_rate", "low=0.2", "high=0.1", "Swap them"],
    ),
    "space: log from 0": (
        [RATE % (0, 0.1, "true")],
        ["search.space", "train.learning_rate", "low=0", "A logarithmic range must start above 0"],
    ),
    "space: int between": (
        ["search.space={train.epochs:{type:int,low:1.5,high:4}}"],
        ["search.space", "train.epochs", "low=1.5", "Use whole numbers"],
    ),
    "space: no choice": ([SIZE % "[]"], ["search.space.train.batch_size.choices=[]", "at least 1"]),
    "space: a choice of a wrong type": ([SIZE % "[8,x]"], ["search.space", "train.batch_size=x", "a valid integer"]),
    "space: whole numbers of which only some are allowed": (
        ["search.space={model.max_length:{type:int,low:64,high:128}}"],
        ["search.space", "model.max_length=65", "a multiple of 8"],
    ),
    "space: a condition on what stands below": (
        [
            "search.space={train.patience:{type:int,low:1,high:2,when:{train.schedule:cosine}},"
            "train.schedule:{type:categorical,choices:[linear,cosine]}}"
        ],
        ["search.space", "train.patience", "train.schedule", "declared before it"],
    ),
    "space: a condition on nothing": (
        ["search.space={train.focal_gamma:{type:float,low:1,high:5,when:{train.loss_functio:focal}}}"],
        ["search.space", "train.loss_functio", "declared before it", "nearest: train.loss_function"],
    ),
    "space: a condition that never holds": (
        [f"search.space={{{LOSS},train.focal_gamma:{{type:float,low:1,high:5,when:{{train.loss_function:hybrid}}}}}}"],
        ["search.space", "train.loss_function=hybrid", "never proposes"],
    ),
    "space: a choice without what it needs": (
        [f"search.space={{{LOSS}}}"],
        ["search.space", "train.focal_gamma is required", "train.loss_function=focal"],
    ),
    "space: an unknown distribution": (
        ["search.space={train.epochs:{type:normal,low:1,high:2}}"],
        ["search.space.train.epochs", "'normal'", "'categorical', 'int', 'float'"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_names_the_key_the_value_and_the_remedy(case: str) -> None:
    overrides, expected = BAD[case]
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    message = str(caught.value)
    assert [words for words in expected if words not in message] == [], message
    assert caught.value.remedy, "what can the person do?"
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("case", BAD)
def test_no_message_is_about_the_grammar_or_a_pattern(case: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(BAD[case][0])
    shown = redact(str(caught.value))
    assert (
        re.findall(r"(?i)hydra(?!\.)|omegaconf|exception|viable|token recog|pattern|should|\[redacted|\^\[", shown)
        == []
    )


WORDS = st.builds(
    "{}{}{}".format,
    st.sampled_from(
        ["", "a", "study.name", "train", "~study", "+train.epochs", "model", "search.space", "data.columns"]
    ),
    st.sampled_from(["=", ""]),
    st.text("[]{}()'\"$,=~+@:. a1\\", max_size=6),
)


@settings(max_examples=60, deadline=None)
@given(WORDS)
@example("a=[[{")
@example("~study=[]")
def test_whatever_is_typed_composes_or_is_refused_in_our_words(word: str) -> None:
    try:
        compose([word])
    except ConfigError as error:
        told = str(error).replace(word, "").replace(repr(word.partition("=")[2]), "")
        assert not re.search(r"(?i)omegaconf|exception|viable|token recog|mismatched|extraneous|pattern", told)


def test_every_pattern_of_the_configuration_has_words() -> None:
    patterns = [schema for schema in _schemas(Config.model_json_schema()) if "pattern" in schema]
    assert len(patterns) >= 4
    for schema in patterns:
        assert schema["description"]
        assert not re.search(r"[\\^$]|\[", schema["description"]), schema


def _schemas(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _schemas(inner)


def test_several_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["train.epochs=0", "model.max_length=100", "data.posts=1"])
    for key in ("train.epochs=0", "model.max_length=100", "data.posts=1"):
        assert key in str(caught.value)


def test_a_name_that_is_like_none_has_no_nearest() -> None:
    for name in ("fp8", "", "RESTLESSNESS", "tape"):
        assert nearest(name, ["fp16", "WORTHLESSNESS", "tpe_multivariate", "nothing"]) == ""
    assert nearest("val_f1", ["val_loss", "val_f1_micro"]) == "; nearest: val_f1_micro"
    assert nearest("modle", ["data", "model"]) == "; nearest: model"


def test_a_remedy_never_names_the_refused_key_as_its_own_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["search.space={study.seed:{type:int,low:1,high:2}}"])
    assert "nearest: study.seed" not in str(caught.value)


CHOICES = [f"{file.parent.name}={file.stem}" for conf in Config.CONF for file in sorted(conf.glob("*/*.yaml"))]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_composes(choice: str) -> None:
    needed = {"data=csv": ["data.dir=/posts"], "data=dataset": ["data.path=/posts"]}
    config = compose([choice, *needed.get(choice, [])])
    assert isinstance(config, Config)


@pytest.mark.parametrize("launch", sorted(p.stem for p in LAUNCH_DIR.glob("*.yaml")))
def test_every_launch_composes(launch: str) -> None:
    assert compose([f"launch={launch}"]).launch == launch


def test_a_value_given_beats_the_groups_and_the_model_s_own_defaults() -> None:
    assert compose([]).train.epochs == compose(["model=tiny"]).train.epochs == 5
    assert compose(["train.epochs=2", "model=tiny"]).train.epochs == 2
    assert compose(["model=bert_base"]).train.learning_rate == pytest.approx(2e-5)
    assert compose(["retention=keep_all"]).retention.keep_all


def test_a_configuration_survives_json() -> None:
    config = compose(["study.pruner=median", "train.patience=2", f"trial.id={TRIAL_ID}", "retention.keep_last_n=0"])
    text = json.dumps(config.model_dump(mode="json"))
    assert Config.model_validate_json(text) == config
    assert validate(Config, json.loads(text)) == config


def test_with_parameters_replaces_these_values_alone() -> None:
    config = compose([])
    changed = with_parameters(config, {"train.task_weights.criteria": 2.0, "model.criteria_dropout": 0.25})
    assert differences(config.model_dump(), changed.model_dump()) == {
        "model.criteria_dropout": (0.1, 0.25),
        "train.task_weights.criteria": (1.0, 2.0),
    }
    assert config == compose([]), "the configuration given stays as it was"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.learning_rte", 0.1, "nearest: train.learning_rate"),
        ("trai.learning_rate", 0.1, "nearest: train.learning_rate"),
        ("train.batch_size", 0, "at least 1"),
    ],
)
def test_with_parameters_refuses_what_the_configuration_would(key: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}={value}") as caught:
        with_parameters(compose([]), {key: value})
    assert words in str(caught.value)


def test_differences_name_each_key_with_both_values_and_a_search_space_as_one() -> None:
    before, after = compose([]).model_dump(), compose(["study.seed=7", "search=default"]).model_dump()
    changed = differences(before, after)
    assert set(changed) == {"study.seed", "search.space"}
    assert changed["study.seed"] == (42, 7)
    assert differences({"a": 1}, {"b": {"c": 2}}) == {"a": (1, None), "b.c": (None, 2)}
    assert differences(before, before) == {}


def test_known_keys_are_those_that_an_override_may_name() -> None:
    config = compose([])
    assert {"train.epochs", "train.task_weights.evidence", "search.space", "trial.id", "launch"} <= set(
        known_keys(config)
    )
    assert "search" not in known_keys(config)


def test_a_value_given_for_a_key_of_the_search_space_is_fixed_and_leaves_the_space() -> None:
    whole, fixed = compose([]), compose(["train.learning_rate=1e-3"])
    assert set(whole.search.space) - set(fixed.search.space) == {"train.learning_rate"}
    given = compose(["train.learning_rate=1e-3", "search.space={train.weight_decay:{type:float,low:0.0,high:0.1}}"])
    assert "train.learning_rate" in given.search.space


def test_a_conditional_field_goes_with_the_condition_that_a_trial_ends() -> None:
    focal = compose(["train.loss_function=focal", "train.focal_gamma=2"])
    assert with_parameters(focal, {"train.loss_function": "bce"}).train.focal_gamma is None
    assert with_parameters(focal, {"train.loss_function": "adaptive_focal"}).train.focal_gamma == 2
    augmented = compose(["train.augmentation.methods=[swap]", "train.augmentation.probability=0.2"])
    assert with_parameters(augmented, {"train.augmentation.methods": ""}).train.augmentation.probability is None
    with pytest.raises(ConfigError, match=r"train\.focal_gamma=2"):
        with_parameters(focal, {"train.loss_function": "bce", "train.focal_gamma": 2.0})


@pytest.mark.parametrize(
    ("word", "child"),
    [
        ("train.loss_function=hybrid", "train.focal_gamma"),
        ("model.task_coupling=coupled", "model.coupling_method"),
        ("train.augmentation.methods=[swap]", "train.augmentation.probability"),
    ],
)
def test_where_a_fixed_value_asks_for_fields_that_are_searched_they_stay_searched(word: str, child: str) -> None:
    config = compose(["search=default", word])
    assert word.partition("=")[0] not in config.search.space
    assert child in config.search.space


@pytest.mark.parametrize("word", ["~search", "~search.space"])
def test_a_configuration_without_a_space_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        compose([word])


def test_half_precision_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16 with launch=cpu"):
        compose(["train.mixed_precision=fp16"])
    assert compose(["train.mixed_precision=fp16", "launch=gpu"]).train.mixed_precision == "fp16"
    with pytest.raises(ConfigError, match=r"model\.dtype=float16"):
        compose(["model.dtype=float16"])
