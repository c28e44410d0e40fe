"""A configuration from command-line overrides: composed by Hydra from the task's folder of YAML files and the engine's.

A searched key that gets a value is fixed: it leaves the search space, unless the space is given as well. Text fields
take the text as typed (redsm5/engine/overrides.py).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from redsm5.engine.errors import ConfigError
from redsm5.engine.installed import quoted
from redsm5.engine.overrides import (
    as_typed,
    check_words,
    is_group,
    parsed,
    refuse_secrets,
    refuse_stand_ins,
    stand_ins,
    values_of,
)
from redsm5.engine.searchspace import check_space, read_space
from redsm5.engine.spec import StudySpec, flatten, put, validate

C = TypeVar("C", bound=StudySpec)


def compose(kind: type[C], overrides: Sequence[str]) -> C:
    """The task's configuration for these Hydra overrides, validated, search space included.

    Raises:
        ConfigError: the configuration is invalid, or would contain a secret.
    """
    refuse_secrets(values_of(overrides))
    words = as_typed(kind.CONF, overrides, kind)
    check_words(kind.CONF, words)
    # With ++, Hydra accepts an unknown key, so that the validation alone refuses it and names the nearest known key.
    words = [word if word.startswith(("+", "~")) or is_group(kind.CONF, word) else f"++{word}" for word in words]
    raw = _composed(kind, words)
    named = {word.lstrip("+").partition("=")[0] for word in overrides}
    given = any(name.startswith("search.space") for name in named)
    declared = set[str]()
    if path := (raw.get("study") or {}).get("space"):
        if given:
            raise ConfigError(
                f"search.space and study.space={path} are both given, and a study has one search space",
                remedy=f"Change {path}, or a copy of it.",
            )
        searched, fixed = read_space(Path(str(path)), kind)
        _take_in(raw, searched, fixed, named)
        declared = {*searched, *fixed}
    space = (raw.get("search") or {}).get("space") or {}
    if not given:
        for key in named & space.keys():
            del space[key]
    kind.prepare(raw, named, declared)
    _begin_with_what_is_searched(kind, raw, space)
    config = validate(kind, raw)
    check_space(config)
    return config


def _composed(kind: type[StudySpec], words: Sequence[str]) -> dict[Any, Any]:
    """The resolved tree that Hydra composes from the words; it contains secrets of the environment only as parts of
    addresses.
    """
    first, *others = kind.CONF
    search = f"hydra.searchpath=[{','.join(quoted(f'file://{folder}') for folder in others)}]"
    try:
        with initialize_config_dir(str(first), version_base="1.3"):
            with stand_ins() as names:
                tree = hydra_compose("config", overrides=[*words, *([search] if others else [])])
                seen = OmegaConf.to_container(tree, resolve=True)
            raw = OmegaConf.to_container(tree, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _refused(error, words) from None
    assert isinstance(raw, dict)
    refuse_stand_ins(seen, raw, names)
    return raw


def _refused(error: Exception, words: Sequence[str]) -> ConfigError:
    """In our words, what Hydra or OmegaConf refuse; theirs are about their own notions."""
    told, shown = str(error), [word.removeprefix("++") for word in words]
    written = "Write key=value, for example train.epochs=10."
    if "Environment variable" in told:
        name = re.findall(r"Environment variable '([^']*)'", told)[0]
        return ConfigError(
            f"the environment has no variable {name}",
            remedy=f"Set it, or give a value for it: ${{oc.env:{name},VALUE}}.",
        )
    if isinstance(error, InterpolationKeyError):
        name = re.findall(r"'([^']*)'", told)[0]
        return ConfigError(f"${{{name}}} refers to a key that is not there", remedy="Name a key: ${train.seed}.")
    if isinstance(error, GrammarParseError | InterpolationResolutionError | UnsupportedInterpolationType):
        referring = " ".join(word for word in shown if "${" in word)
        remedy = "A reference is ${KEY} or ${oc.env:NAME}; to have the characters themselves, write \\${."
        return ConfigError(f"a reference cannot be resolved: {referring}", remedy=remedy)
    if several := [word for word in shown if parsed([word])[0].is_sweep_override()]:
        remedy = "Write key=value with one value; quote it if it has a comma: 'key=\"a, b\"'."
        return ConfigError(f"{several[0]}: several values", remedy=remedy)
    special = " ".join(word for word in shown if word[:1] in "+~" or "@" in word) or " ".join(shown)
    if "already at" in told:
        return ConfigError(f"{special}: + adds a key, and this one is there already", remedy=written)
    if "does not exist" in told or "Could not delete" in told:
        return ConfigError(f"{special}: ~ removes a key, and this one is not there", remedy=written)
    return ConfigError(f"these overrides cannot be combined: {special}", remedy=written)


def _take_in(raw: dict[Any, Any], searched: Mapping[str, Any], fixed: Mapping[str, Any], named: set[str]) -> None:
    """Put what a space's file searches and fixes into the tree; a value on the command line counts more."""
    raw.setdefault("search", {})["space"] = dict(searched)
    for key, value in fixed.items():
        if key not in named:
            put(raw, key, value)


def plain_values(kind: type[StudySpec], overrides: Sequence[str]) -> dict[str, Any] | None:
    """The values by key, if all words are plain key=value assignments; None if one of them chooses a group, adds,
    deletes, refers to another key, lists choices, or is merged with existing values.
    """
    if not all(re.match(r"[\w.]+=[^$]*$", word) and not is_group(kind.CONF, word) for word in overrides):
        return None
    read = parsed(as_typed(kind.CONF, overrides, kind))
    values = {str(word.key_or_group): word.value() for word in read}
    merged = any(
        isinstance(value, dict) or key.startswith("search.") or key == "study.space" for key, value in values.items()
    )
    return None if merged or any(word.is_sweep_override() for word in read) else values


def _begin_with_what_is_searched(kind: type[StudySpec], raw: dict[Any, Any], space: Mapping[str, Any]) -> None:
    """Set a missing conditional field to the first value of its search space, if it is searched."""
    flat = flatten(raw)
    for key, (parent, asks) in kind.CONDITIONS.items():
        if asks(flat.get(parent)) and flat.get(key) is None and isinstance(parameter := space.get(key), dict):
            put(raw, key, parameter["choices"][0] if parameter.get("choices") else parameter.get("low"))
