"""The search space as part of a configuration: its file, its checks, and the conditions of its parameters."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import yaml  # OmegaConf's own reader of YAML
from omegaconf import OmegaConf

from redsm5.engine.errors import ConfigError, nearest
from redsm5.engine.sections import Parameter
from redsm5.engine.spec import StudySpec, as_choice, flatten, known_keys, searchable_keys, with_parameters

C = TypeVar("C", bound=StudySpec)


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


def read_space(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters that a file of `study.space` searches, and the values that it fixes, both by key.

    A mapping with `type`, and `choices` or `low` and `high`, is searched; any other value is fixed.

    Raises:
        ConfigError: the file cannot be read, or is no mapping.
    """
    example = "keys and what to try for each, such as `lr: {type: float, low: 1e-4, high: 1e-1, log: true}`"
    document, _ = read_yaml("study.space", path, example)
    if not isinstance(document, dict):
        raise ConfigError(f"study.space={path} is not a mapping", remedy=f"Use {example}.")
    entries = {str(key): value for key, value in document.items()}
    searched = {key: value for key, value in entries.items() if isinstance(value, dict) and "type" in value}
    return searched, {key: value for key, value in entries.items() if key not in searched}


def check_space(config: StudySpec) -> None:
    """Refuse a search space that could propose values that the configuration refuses."""
    space = config.search.space
    searchable = searchable_keys(config)
    for key in space:
        if key not in searchable and not config.can_be_searched(key):
            raise ConfigError(
                f"search.space names {key}{nearest(key, searchable)}",
                remedy=f"Only keys of {', '.join(_sections(searchable))} can be searched.",
            )
    _check_conditions(config)
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
                near = nearest(parent, [*above, *(name for name in known if name not in space)])
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
    return whole[name] if isinstance(whole, Mapping) else getattr(whole, name)


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
