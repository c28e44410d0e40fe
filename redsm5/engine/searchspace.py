"""The search space as part of a configuration: its file, its checks, and the conditions of its parameters."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import yaml  # OmegaConf's own reader of YAML
from omegaconf import OmegaConf

from redsm5.engine import migrations
from redsm5.engine.errors import ConfigError
from redsm5.engine.overrides import is_text, refuse_secrets, text_as_typed
from redsm5.engine.sections import CategoricalParameter, Parameter, RangeParameter
from redsm5.engine.spec import StudySpec, as_choice, flatten, known_keys, searchable_keys, with_parameters
from redsm5.engine.tables import nearest_key

C = TypeVar("C", bound=StudySpec)

TYPES = ("categorical", "float", "int")
PARAMETER_KEYS = frozenset({"low", "high", "choices"})  # no section has these
# What finds the file and the study, or would be another search space; and the number of a saved file's format.
NOT_IN_A_FILE = ("study.script", "study.space", "search", "trial", "experiments", migrations.SCHEMA)


def read_yaml(key: str, path: Path, example: str) -> tuple[Any, Any]:
    """The content of a YAML file that a configuration names, once with types and once with every value as text.

    Args:
        key: the key that names the file. example: of its content, for the message.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        # Not PyYAML's own loader, for which 1e-5 is a word.
        document = OmegaConf.to_container(OmegaConf.load(path))
        return document, yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except Exception as error:  # the file system's, PyYAML's and OmegaConf's have no common base
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ConfigError(f"{key}={path} cannot be read: {reason}", remedy=f"Use a YAML file with {example}.") from None


def read_space(path: Path, kind: type[StudySpec] = StudySpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that a file of `study.space` searches, and the values that it fixes, both by key. Text fields of
    `kind` have the text as typed.

    A mapping with `type`, and `choices` or `low` and `high`, is searched; any other mapping is a section, whose keys
    follow its name and a dot; any other value is fixed.

    Raises:
        ConfigError: the file cannot be read or is no mapping, or a value is refused.
    """
    example = "keys and what to try for each, such as `lr: {type: float, low: 1e-4, high: 1e-1, log: true}`"
    document, words = read_yaml("study.space", path, example)
    if not isinstance(document, dict):
        raise ConfigError(f"study.space={path} is not a mapping", remedy=f"Use {example}.")
    typed = _entries(path, words)
    entries = {
        key: _with_text(kind, key, value, typed.get(key, value)) for key, value in _entries(path, document).items()
    }
    refuse_secrets({key: str(value) for key, value in entries.items()})
    for key, value in entries.items():
        _check_entry(key, value, f"study.space={path}")
    searched = {key: value for key, value in entries.items() if isinstance(value, dict)}
    return searched, {key: value for key, value in entries.items() if key not in searched}


def _entries(path: Path, document: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The file's values by dotted key: a mapping without `type` is a section of keys."""
    found = dict[str, Any]()
    for name, value in document.items():
        key = f"{prefix}{name}"
        inner = {key: value}
        if isinstance(value, dict) and "type" not in value:
            if value.keys() & PARAMETER_KEYS:
                raise ConfigError(
                    f"{key}: {value} has no type", where=f"study.space={path}", remedy=f"Use {', '.join(TYPES)}."
                )
            inner = _entries(path, value, f"{key}.")
        if twice := found.keys() & inner.keys():
            raise ConfigError(f"{min(twice)} is there twice", where=f"study.space={path}", remedy="Remove one.")
        found |= inner
    return found


def _with_text(kind: type[StudySpec], key: str, value: Any, words: Any) -> Any:
    if not (isinstance(value, dict) and isinstance(words, dict)):
        return text_as_typed(kind, key, value, words)
    choices, typed = value.get("choices"), words.get("choices")
    if not (is_text(kind, key) and isinstance(choices, list) and isinstance(typed, list)):
        return value
    return {**value, "choices": [text_as_typed(kind, key, *both) for both in zip(choices, typed, strict=True)]}


def _check_entry(key: str, value: Any, where: str) -> None:
    if key in NOT_IN_A_FILE or key.split(".")[0] in NOT_IN_A_FILE:
        raise ConfigError(
            f"{key} cannot be set in this file",
            where=where,
            remedy="Give a parameter another name; a key of the engine is set on the command line.",
        )
    if "${" in str(value):
        raise ConfigError(
            f"{key}: {value}", where=where, remedy="The file holds plain values; references are not resolved."
        )


def check_space(config: StudySpec) -> None:
    """Refuse a search space that could propose values that the configuration refuses."""
    space = config.search.space
    searchable = searchable_keys(config)
    for key in space:
        if key not in searchable and not config.can_be_searched(key):
            raise ConfigError(
                f"search.space names {key}{nearest_key(key, searchable)}",
                remedy=f"Only keys of {', '.join(_sections(searchable))} can be searched.",
            )
    _check_conditions(config)
    _check_sampler(config)
    for key, parameter in space.items():
        for value in parameter.checked():
            try:
                with_parameters(config, completed(config, {key: value}))
            except ConfigError as error:
                raise ConfigError(f"search.space: {error.what}", remedy=error.remedy) from None


def _sections(keys: list[str]) -> list[str]:
    return sorted({key.split(".")[0] for key in keys})


def _check_conditions(config: StudySpec) -> None:
    """Refuse a condition on a parameter that is not declared before it, or on a value that is never proposed."""
    space, known = config.search.space, known_keys(config)
    above: list[str] = []
    for key, parameter in space.items():
        for parent, allowed in parameter.when.items():
            if parent not in above and (parent in space or parent not in known):
                near = nearest_key(parent, [*above, *(name for name in known if name not in space)])
                raise ConfigError(
                    f"search.space: {key} depends on {parent}, which must be declared before it{near}",
                    remedy=f"Declare {parent} before it, or use another key of the configuration.",
                )
            never = [value for value in allowed if parent in space and not space[parent].holds_value(value)]
            if never:
                raise ConfigError(
                    f"search.space: {key} is conditional on {parent}={never[0]}, which the search never proposes",
                    remedy=f"Use values that {parent} has in the search space.",
                )
        above.append(key)


def _check_sampler(config: StudySpec) -> None:
    if config.study.sampler != "cmaes" or always_drawn(config):
        return
    kinds = {key: _kind(parameter) for key, parameter in config.search.space.items()}
    found = "; ".join(
        f"{', '.join(k for k in kinds if kinds[k] == kind)}: {kind}" for kind in sorted({*kinds.values()})
    )
    raise ConfigError(
        "study.sampler=cmaes needs a float or int parameter that every trial draws, and search.space has none"
        + (f" ({found})" if found else ""),
        remedy="Search a range without a condition, or choose study.sampler=tpe.",
    )


def _kind(parameter: Parameter) -> str:
    if isinstance(parameter, CategoricalParameter):
        return "categorical"
    return "one value" if parameter.low == parameter.high else "conditional"


def always_drawn(config: StudySpec) -> dict[str, RangeParameter]:
    """The ranges of more than one value that every trial draws from: their conditions hold whatever the others are."""
    space = config.search.space
    return {
        key: parameter
        for key, parameter in space.items()
        if isinstance(parameter, RangeParameter)
        and parameter.low < parameter.high
        and space.keys().isdisjoint(parameter.when)
        and holds(parameter, {}, config)
    }


def holds(parameter: Parameter, values: Mapping[str, Any], config: StudySpec) -> bool:
    """Whether a parameter's conditions hold, given the values of the parameters before it and the configuration."""
    for parent, allowed in parameter.when.items():
        value = values.get(parent)
        if parent not in values and parent not in config.search.space:
            value = as_choice(reduce(_part, parent.split("."), config))
        if value not in allowed:
            return False
    return True


def _part(whole: Any, name: str) -> Any:
    if isinstance(whole, Mapping):
        return whole[name]
    extra = whole.model_extra or {}  # a script's parameter may have the name of a method
    return extra[name] if name in extra else getattr(whole, name)


def with_first_values(config: C) -> C:
    """The configuration for a try: where the search would draw a value and the configuration has none, its first."""
    own = flatten(config.model_dump())
    have = {key: as_choice(own[key]) for key in config.search.space if own.get(key) is not None}
    point = completed(
        config, {key: value for key, value in have.items() if config.search.space[key].holds_value(value)}
    )
    return with_parameters(config, {key: value for key, value in point.items() if key not in have})


def completed(config: StudySpec, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A point of the search space with these values, such that their conditions hold. Other parameters have their first
    value, or None if they are not sampled there.
    """
    space = config.search.space
    values = dict(fixed)
    wanted = list(fixed)
    while wanted:
        for parent, allowed in space[wanted.pop()].when.items():
            if parent in space and parent not in values:
                values[parent] = allowed[0]
                wanted.append(parent)
    for key, parameter in space.items():
        if holds(parameter, values, config):
            values.setdefault(key, next(iter(parameter.checked())))
        else:
            values[key] = None
    return values
