"""The file of `study.space`: what it may say, and what is refused with a sentence, for whatever a person writes."""

import math
from pathlib import Path

import pytest

from redsm5.engine.compose import compose
from redsm5.engine.errors import ConfigError
from redsm5.engine.script import ScriptSpec
from redsm5.engine.searchspace import holds
from redsm5.engine.spec import with_parameters


def composed(folder: Path, text: str, *words: str) -> ScriptSpec:
    (folder / "space.yaml").write_text(text)
    return compose(ScriptSpec, [f"study.script={folder}/train.py", f"study.space={folder}/space.yaml", *words])


def test_a_mapping_without_type_is_a_section(tmp_path: Path) -> None:
    text = "train: {epochs: 3}\nmodel:\n  width: {type: int, low: 1, high: 3}\n  depth: 2\n"
    config = composed(tmp_path, text, "model.depth=4")
    assert config.train.epochs == 3
    assert list(config.search.space) == ["model.width"]
    assert config.parameters == {"model.width": None, "model.depth": 4}


def test_the_study_s_name_may_be_in_the_file(tmp_path: Path) -> None:
    assert composed(tmp_path, "study.name: mine\n").study.name == "mine"
    assert composed(tmp_path, "study.name: mine\n", "study.name=other").study.name == "other"


def test_a_condition_on_a_parameter_with_the_name_of_a_property(tmp_path: Path) -> None:
    config = composed(tmp_path, "maximize: 3\nlr: {type: float, low: 1, high: 2, when: {maximize: 3}}\n")
    assert holds(config.search.space["lr"], {}, config)


def test_a_study_has_one_search_space(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"search\.space and study\.space=.* are both given"):
        composed(tmp_path, "lr: {type: int, low: 1, high: 2}\n", "search.space={lr:{high:3}}")


def test_no_value_of_a_searched_parameter_is_infinite(tmp_path: Path) -> None:
    config = composed(tmp_path, "lr: {type: int, low: 1, high: 2}\n")
    with pytest.raises(ConfigError, match="lr=inf has no finite number"):
        with_parameters(config, {"lr": math.inf})


REFUSED = {
    "optimizer: adam\noptimizer.lr: 0.1": "optimizer cannot be a value and the beginning of optimizer.lr",
    "optimizer.lr: {type: int, low: 1, high: 2}\noptimizer: adam": "optimizer cannot be a value",
    "o: {type: categorical, choices: [a]}\no.lr: {type: int, low: 1, high: 2}": "o cannot be a value",
    "study: 5": "study cannot be a value",
    "search: 5": "search cannot be set in this file",
    "search.space: {lr: {type: int, low: 1, high: 2}}": "search.space.lr cannot be set in this file",
    "study.space: other.yaml": "study.space cannot be set in this file",
    "schema: 4": "schema cannot be set in this file",
    "lr: {tpye: float, low: 0.1, high: 1}": "lr: .* has no type",
    "model.width: 1\nmodel: {width: 2}": "model.width is there twice",
    "a: ${b}\nb: 1": "references are not resolved",
    "a: .inf": "a=inf has no finite number",
    "a: [1, {b: .nan}]": "has no finite number",
    "a: 99999999999999999999": "has no finite number of 64 bits",
    "a: {type: float, low: 0, high: .inf}": "has no finite number",
    "token: {type: categorical, choices: [a-secret-of-16-characters]}": "contains the value of HF_TOKEN",
    "token: a-secret-of-16-characters": "contains the value of HF_TOKEN",
    "o: {inner: [a-secret-of-16-characters]}": "contains the value of HF_TOKEN",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_mistake_is_told_in_a_sentence(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-16-characters")
    with pytest.raises(ConfigError, match=REFUSED[text]):
        composed(tmp_path, text)
