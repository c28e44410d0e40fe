"""Command-line overrides (key=value) for Hydra: text fields take the text as typed, and secrets are refused.

Hydra's grammar parses numbers, booleans and lists, and rejects characters that it does not know. A text field takes
what was typed, verbatim: 007, 1_000, 1.10, true, 20261130, André, `posts (old)`. There are three exceptions: quotes
around a value are removed; `${...}` refers to another key or to the environment; `null` means no value, and is refused
for a field that needs one. To pass the word itself, quote it: 'study.name="null"'. The same holds for each text in a
list or mapping: [2026,1e5].

The configuration is saved with each trial, so it must not contain the value of a secret environment variable, neither
through `${oc.env:...}` nor through the shell's $HF_TOKEN. The exception is the password of an address, which is not
saved.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from pydantic import BaseModel

from redsm5.engine.errors import ConfigError, nearest
from redsm5.engine.installed import between_quotes
from redsm5.engine.redaction import SHORTEST, redact_address, secret_variables

ADDRESSES = ("study.storage", "study.tracking_uri")  # saved without their passwords
SPACE = "search.space"
KEY = re.compile(r"(?:\+{1,2}|~)?[A-Za-z_][\w@/-]*(?:\.\w[\w@/-]*)*")
UNMISTAKABLE = 16  # characters; a shorter secret is recognized only as a separate word

# ---------------------------------------------------------------------------------------------------------------------
# the grammar


def is_group(folders: Sequence[Path], word: str) -> bool:
    """Whether the word chooses a config group's file, in one of these folders."""
    group = word.partition("=")[0]
    return bool(re.fullmatch(r"[\w/-]+", group)) and any((folder / group).is_dir() for folder in folders)


def parsed(words: Sequence[str]) -> list[Override]:
    """The words as parsed by Hydra.

    Raises:
        ConfigError: Hydra cannot parse them; the message is ours, since its own are about its grammar.
    """
    return [_parsed(word) for word in words]


def _parsed(word: str) -> Override:
    key, _, value = word.partition("=")
    if KEY.fullmatch(key) is None:
        raise ConfigError(f"{key!r} in {word!r} is not a key", remedy="Write key=value, for example train.epochs=10.")
    with suppress(Exception):  # its lexer's and parser's exceptions have no other common base
        override = OverridesParser.create().parse_override(word)
        override.value()  # a cast such as int(x) is made now
        return override
    what = f"the value of {key} cannot be read: {value!r}"
    if "${" in value and value.count("{") > value.count("}"):
        remedy = "Close the reference: ${...}; to have the characters themselves, write \\${."
    elif odd := next((pair for pair in ("[]", "{}", "()") if value.count(pair[0]) != value.count(pair[1])), None):
        remedy = f"Close each {odd[0]} with {odd[1]}, or quote the value: '{key}=\"a{odd[0]}b\"'."
    else:
        remedy = f"Quote values with spaces, commas, quotes or brackets: '{key}=\"a, b\"'."
    raise ConfigError(what, remedy=remedy)


def check_words(folders: Sequence[Path], words: Sequence[str]) -> None:
    """Refuse words that are not overrides, name an unknown choice of a group, or cannot be parsed."""
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word!r} is not an override", remedy="Write key=value, for example train.epochs=10.")
        if re.match(r"[+~]*hydra\b", word):
            raise ConfigError(f"unknown key {word}", remedy="Write key=value, for example train.epochs=10.")
        if not is_group(folders, word):
            continue
        group, _, choice = word.partition("=")
        known = sorted(p.stem for folder in folders for p in (folder / group).glob("*.yaml"))
        if choice not in known:
            raise ConfigError(
                f"{group}={choice} is unknown{nearest(choice, known)}", remedy=f"Allowed: {', '.join(known)}."
            )
    parsed(words)


# ---------------------------------------------------------------------------------------------------------------------
# text


def as_typed(folders: Sequence[Path], words: Sequence[str], model: type[BaseModel]) -> list[str]:
    """The words, with quotes around values of text fields of `model` that Hydra would not parse as text, also in lists
    and mappings of text.
    """
    return [word if is_group(folders, word) else _as_typed(word, model) for word in words]


def _as_typed(word: str, model: type[BaseModel]) -> str:
    found = re.fullmatch(r"(?s)(\+{0,2}([\w.]+)=)\s*(.*?)\s*", word)
    if found is None:
        return word
    value = _quoted_space(found[3], model) if found[2] == SPACE else _quoted(found[3], kinds_of(model, found[2]))
    return word if value == found[3] else f"{found[1]}{value}"


def _quoted(value: str, kinds: set[Any]) -> str:
    """A typed value, quoted where one of these kinds is text and Hydra would parse another value."""
    some = kinds - {type(None)}
    if value.lower() == "null" or len(some) != 1:
        return value
    (kind,) = some
    if kind is str:
        return value if _is_read_as_text(value) else between_quotes(value)
    if get_origin(kind) is list and value[:1] == "[" and value[-1:] == "]":
        within = _kinds(get_args(kind)[0])
        return f"[{','.join(_quoted(item, within) if item else item for item in _items(value[1:-1]))}]"
    if get_origin(kind) is dict and value[:1] == "{" and value[-1:] == "}":
        return _mapping(value, lambda _, item: _quoted(item, _kinds(get_args(kind)[1])))
    return value


def _is_read_as_text(value: str) -> bool:
    try:
        override = OverridesParser.create().parse_override(f"x={value}")
        return not override.is_sweep_override() and isinstance(override.value(), str)
    except Exception:  # see _parsed
        return value.startswith(("'", '"'))  # Hydra refuses wrong quotes


def _quoted_space(value: str, model: type[BaseModel]) -> str:
    """A typed search space: the choices of a text field are text."""

    def parameter(key: str, typed: str) -> str:
        if not is_text(model, key) or not (typed[:1] == "{" and typed[-1:] == "}"):
            return typed
        return _mapping(typed, lambda name, item: _quoted(item, {list[str]}) if name == "choices" else item)

    return _mapping(value, parameter) if value[:1] == "{" and value[-1:] == "}" else value


def _mapping(value: str, change: Callable[[str, str], str]) -> str:
    """A typed mapping, {a:1,b:2}, with each of its values changed."""
    entries = [entry.partition(":") for entry in _items(value[1:-1])]
    return f"{{{','.join(k + colon + (change(k.strip(), v.strip()) if v.strip() else v) for k, colon, v in entries)}}}"


def _items(text: str) -> list[str]:
    """What stands between the commas that are in no brackets and no quotes."""
    items, depth, quote, escaped = [""], 0, "", False
    for c in text:
        if c == "," and not (depth or quote or escaped):
            items.append("")
            continue
        items[-1] += c
        if escaped or c == "\\":
            escaped = not escaped
        elif quote:
            quote = "" if c == quote else quote
        elif c in "\"'" and items[-1][:-1].rstrip()[-1:] in ("", *"[{(,:"):  # else it is an apostrophe
            quote = c
        else:
            depth += (c in "[{(") - (c in "]})")
    return [item.strip() for item in items]


def text_as_typed(model: type[BaseModel], key: str, value: Any, words: Any) -> Any:
    """A value of a YAML file, with the text as typed where the key takes text or a list or mapping of text.

    Args:
        value: as YAML reads it. words: the same with every value as text.
    """
    return _text(value, words, kinds_of(model, key))


def _text(value: Any, words: Any, kinds: set[Any]) -> Any:
    some = kinds - {type(None)}
    kind = next(iter(some)) if len(some) == 1 else None
    if kind is str and isinstance(words, str):
        return value if value is None else words
    if get_origin(kind) is list and isinstance(value, list) and isinstance(words, list):
        return [_text(*both, _kinds(get_args(kind)[0])) for both in zip(value, words, strict=True)]
    if get_origin(kind) is dict and isinstance(value, dict) and isinstance(words, dict):
        within = _kinds(get_args(kind)[1])
        return {k: _text(v, words.get(str(k), v), within) for k, v in value.items()}
    return value


def is_text(model: type[BaseModel], key: str) -> bool:
    """Whether a dotted key of `model` takes text, or text and null, and nothing else."""
    return kinds_of(model, key) - {type(None)} == {str}


def kinds_of(model: type[BaseModel], key: str) -> set[Any]:
    """The types that a dotted key of `model` takes; none if there is no such key."""
    kinds: set[Any] = {model}
    for part in key.split("."):
        kind = next(iter(kinds - {type(None)}), None)
        if get_origin(kind) is dict:
            kinds = _kinds(get_args(kind)[1])
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
            kinds = _kinds(kind.model_fields[part].annotation)
        else:
            return set()
    return kinds


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows; a literal counts as the types of its values."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for part in get_args(annotation) for kind in _kinds(part)}
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    return {annotation}


# ---------------------------------------------------------------------------------------------------------------------
# secrets


def refuse_secrets(values: Mapping[str, str]) -> None:
    """Refuse values, given by key, that contain the value of a secret environment variable."""
    for key, value in values.items():
        saved = redact_address(value.strip("'\"")) if key in ADDRESSES else value
        for name, secret in secret_variables().items():
            pattern = re.escape(secret)
            if len(secret) < UNMISTAKABLE:
                pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"
            if len(secret) >= SHORTEST and re.search(pattern, saved):
                raise _secret_error(key, name)


def values_of(words: Sequence[str]) -> dict[str, str]:
    """The typed values by key."""
    return {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in words)}


@contextmanager
def stand_ins() -> Iterator[dict[str, str]]:
    """A context in which the value of each secret environment variable is a placeholder, which can be found in the
    configuration however it got there.
    """
    real = secret_variables()
    names = {name: f"value-of-{name}-{secrets.token_hex(8)}" for name in real}
    os.environ.update(names)
    try:
        yield names
    finally:
        os.environ.update(real)


def refuse_stand_ins(seen: Any, real: Any, names: Mapping[str, str], key: str = "") -> None:
    """Refuse a configuration that contains a placeholder, except as the password of an address.

    Args:
        seen: the configuration, resolved with the stand-ins. real: the same without them.
    """
    if isinstance(seen, Mapping):
        for (name, value), actual in zip(seen.items(), real.values(), strict=True):
            inner = f"{key}.{name}" if key else str(name)
            refuse_stand_ins(str(name), str(name), names, inner)
            refuse_stand_ins(value, actual, names, inner)
    elif isinstance(seen, list):
        for value, actual in zip(seen, real, strict=True):
            refuse_stand_ins(value, actual, names, key)
    elif isinstance(seen, str):
        for name, stand_in in names.items():
            if stand_in not in seen:
                continue
            saved = redact_address(seen)
            if key not in ADDRESSES or stand_in in saved or saved != redact_address(str(real)):
                raise _secret_error(key, name)


def _secret_error(key: str, name: str) -> ConfigError:
    return ConfigError(
        f"{key} contains the value of {name}, a secret, but the configuration is saved with each trial",
        remedy=f"Remove {name}: secrets are read from the environment. Only the password in {' and '.join(ADDRESSES)} "
        "may refer to one, since it is not saved.",
    )
