"""List the configuration's keys: `just keys [WORD ...] [KEY=VALUE ...] [--format table|json|csv]`.

Of each key: its type, the values that it may have, its default, whether the search varies it, and what it is for. A
WORD lists the keys whose names or descriptions contain it; `lr` and other short names of the terminal app count too.
KEY=VALUE, such as model=bert_base or search=default, shows the defaults and the search of that choice.
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from redsm5.config import Config, compose
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.sections import allowed, as_typed, models_in, proposed, said_of
from redsm5.engine.tables import SHORT_NAMES, Row, add_format, nearest_key, render
from redsm5.engine.terminal import Parser, one_line, show

COLUMNS = ("key", "type", "allowed", "default", "searched", "description")
TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}


def rows_of(model: type[BaseModel], values: Mapping[str, Any], space: Mapping[str, Any], prefix: str) -> Iterator[Row]:
    """A row for each key of a section and of the sections in it, in their order."""
    properties, (_, meanings) = model.model_json_schema()["properties"], said_of(model)
    for name, field in model.model_fields.items():
        key, models = f"{prefix}{name}", models_in(field.annotation)
        if models and models[0] is field.annotation:
            yield from rows_of(models[0], values[name], space, f"{key}.")
            continue
        parameter = space.get(key)
        yield {
            "key": key,
            "type": type_of(properties[name]),
            "allowed": plain(allowed(properties[name])),
            "default": as_typed(values[name]),
            "searched": plain(proposed(parameter.model_dump(exclude_none=True))) if parameter else None,
            "description": plain(meanings.get(name, "")),
        }


def type_of(schema: Mapping[str, Any]) -> str:
    """The type of a field by its JSON Schema, in a word or two."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(type_of(each) for each in schema["anyOf"]))
    return TYPES[schema["type"]] if "type" in schema else "any"


def plain(text: str) -> str:
    return text.replace("`", "")


def chosen(rows: list[Row], words: list[str]) -> list[Row]:
    """The rows that contain one of the words, or all without one.

    Raises:
        InputError: there is none; names the nearest key.
    """
    full = {short: name for name, short in SHORT_NAMES.items()}
    found = [
        row
        for row in rows
        if not words
        or any(
            word.lower() in f"{row['key']} {row['description']}".lower()
            or str(row["key"]).rpartition(".")[2] == full.get(word)
            for word in words
        )
    ]
    if not found:
        near = nearest_key(words[0], [str(row["key"]) for row in rows])
        raise InputError(f"no key or description contains {' or '.join(words)}{near}", remedy="Try a shorter word.")
    return found


def as_text(rows: list[Row]) -> str:
    """Two lines or three for each key."""
    lines = []
    for row in rows:
        default = str(row["default"])
        lines.append(f"{row['key']}={default if len(default) < SHORT else '…'}")
        lines.append(f"    {row['allowed']}" + (f"; searched: {row['searched']}" if row["searched"] else ""))
        lines += [f"    {row['description']}"] if row["description"] else []
    return "\n".join(map(one_line, lines))


SHORT = 60  # characters of a default that is shown


def main() -> int:
    parser = Parser(prog="just keys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="what the key or its description contains")
    add_format(parser)
    arguments = parser.parse_intermixed_args()
    config = compose([word for word in arguments.words if "=" in word])
    values = config.model_dump(mode="json")
    rows = list(rows_of(Config, values, config.search.space, ""))
    rows = chosen(rows, [word for word in arguments.words if "=" not in word])
    if arguments.format == "table":
        show(as_text(rows))
    else:
        show(render(arguments.format, COLUMNS, rows, empty=""))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
