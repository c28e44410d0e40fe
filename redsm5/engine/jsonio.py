"""All reading and writing of JSON, with orjson.

The standard library handles what orjson does not support: text with lone surrogates (a path whose bytes are not UTF-8),
integers of more than 64 bits, a bare NaN in a foreign file. JSON that is hashed or seeds a generator is always written
by the standard library, since its bytes must not change.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

try:
    import orjson
except ImportError:  # `just doctor` runs without any package, and says which are missing
    orjson = None  # type: ignore[assignment]


def dumps(value: Any, *, indent: bool = False, strict: bool = False) -> bytes:
    """A value as JSON in UTF-8, with keys in their order and without a final newline.

    Values that are not finite become the strings "NaN", "Infinity", "-Infinity": JSON has no word for them.

    Args:
        value: JSON types, mappings and tuples.
        indent: whether each item gets its own line.
        strict: whether lone surrogates are escaped as text, so that every JSON parser accepts the result.

    Raises:
        TypeError: it contains another type.
    """
    value = finite(value)
    if orjson is None:
        return json.dumps(value, indent=2 if indent else None).encode()
    option = orjson.OPT_INDENT_2 if indent else None
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        text = json.dumps(value, indent=2 if indent else None)
    return orjson.dumps(_written_out(value), option=option) if strict else text.encode()


def loads(content: bytes | bytearray | memoryview | str, *, strict: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        content: the text, in UTF-8.
        strict: whether to refuse what orjson refuses.

    Raises:
        ValueError: it is not JSON, or is nested too deeply.
    """
    try:
        if orjson is not None:
            return orjson.loads(content)
    except ValueError:
        if strict:
            raise
    text = content if isinstance(content, str) else str(content, "utf-8", "surrogatepass")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


_PLAIN = frozenset({str, int, bool, type(None)})  # tested first: to write a record takes half the time so


def finite(value: Any) -> Any:
    """The value, with non-finite numbers at any depth replaced by strings."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        return to_json_number(value)
    if type(value) is dict or isinstance(value, Mapping):
        return {name: item if type(item) in _PLAIN else finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _written_out(value: Any) -> Any:
    """The value, with lone surrogates in its text written as \\udcff."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_written_out(name): _written_out(item) for name, item in value.items()}
    return [_written_out(item) for item in value] if isinstance(value, list | tuple) else value


def to_json_number(value: float | None) -> float | str | None:
    """A float for JSON: non-finite numbers become strings."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def from_json_number(value: Any) -> Any:
    """A value from JSON; the string of a non-finite float becomes a float."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
