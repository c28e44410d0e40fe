"""Migrations of documents from older versions: pure functions from each schema number to the next.

Every JSON document, and every line of a JSON Lines file, has `schema`, the number of its format; without one it is 0.
Older documents are migrated in memory, and rewritten only when they change; newer ones are refused with a message. A
change of a document's fields adds a migration here, increments the number of its class (redsm5/records.py,
redsm5/reports.py) or CONFIG_SCHEMA, and adds a golden folder to tests/golden.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redsm5 import paths
from redsm5.jsonio import dumps, loads

Document = dict[str, Any]
Step = Callable[[Document], Document]

CONFIG = "Config"
CONFIG_SCHEMA = 1
# Keys that were added after schema 0: the value with the behaviour of the versions before.
LEGACY: Mapping[str, Any] = {"data.group_duplicates": False, "data.path": None, "data.columns": None}
SCHEMA = "schema"


class NewerSchemaError(ValueError):
    """A document has a schema number that this version does not know."""


def _unchanged(document: Document) -> Document:
    return document


def with_legacy_values(config: Document) -> Document:
    """A saved configuration with the values of LEGACY for the keys that it lacks."""
    filled = dict(config)
    for name, value in LEGACY.items():
        section, _, key = name.partition(".")
        if isinstance(keys := filled.get(section), dict) and key not in keys:
            filled[section] = {**keys, key: value}
    return filled


# By class: the step at index n leads from schema n to n + 1. Of a class that is not here, schema 1 adds the number.
STEPS: Mapping[str, Sequence[Step]] = {}
FIRST: Sequence[Step] = (_unchanged,)


def migrated(kind: str, document: Document) -> Document:
    """A document as this version writes it.

    Args:
        kind: the name of its class.
        document: as it stands in its file; it is left as it is.

    Raises:
        NewerSchemaError: a newer version wrote it.
        ValueError: its schema number is none.
    """
    steps = STEPS.get(kind, FIRST)
    number = document.get(SCHEMA, 0)
    if type(number) is not int or number < 0:
        raise ValueError(f"schema {number!r} is not a number")
    if number > len(steps):
        by = document.get("code_version")
        raise NewerSchemaError(
            f"it has schema {number}{f' of version {by}' if isinstance(by, str) else ''}, and this version of redsm5 "
            f"reads up to schema {len(steps)}"
        )
    for step in steps[number:]:
        document = step(document)
    if number < len(steps):
        document = {SCHEMA: len(steps), **{k: v for k, v in document.items() if k != SCHEMA}}
    return COMPLETE.get(kind, _unchanged)(document)


def _study(document: Document) -> Document:
    config = document.get("config")
    return {**document, "config": migrated(CONFIG, config)} if isinstance(config, dict) else document


def _index(document: Document) -> Document:
    rows = document.get("trials")
    if not isinstance(rows, list):
        return document
    return {**document, "trials": [migrated("TrialRecord", row) if isinstance(row, dict) else row for row in rows]}


# What is done whatever the number: keys that are missing get their legacy values, and what has a number of its own
# within another document is migrated by it.
COMPLETE: Mapping[str, Step] = {CONFIG: with_legacy_values, "StudyRecord": _study, "StudyIndex": _index}


# ---------------------------------------------------------------------------------------------------------------------
# checkpoints

Contents = Mapping[str, bytes | bytearray]
"""The files of a checkpoint, by their names."""


def _with_schema_numbers(contents: Contents) -> Contents:
    """Format 2: manifest.json and training_state.json have a schema number."""
    documents = {name: loads(contents[name]) for name in (paths.MANIFEST, paths.STATE_JSON) if name in contents}
    return {**contents, **{name: dumps({SCHEMA: 1, **document}) for name, document in documents.items()}}


# The step at index n leads from checkpoint format n + 1 to n + 2. It takes any of a checkpoint's files, or the manifest
# alone, and changes nothing on disk.
CHECKPOINT_STEPS: Sequence[Callable[[Contents], Contents]] = (_with_schema_numbers,)
CHECKPOINT_FORMAT = 1 + len(CHECKPOINT_STEPS)


def converted(contents: Contents) -> Contents:
    """The files of a checkpoint as this version writes them.

    Args:
        contents: with the manifest among them.

    Raises:
        ValueError: its format is none that this version reads.
    """
    manifest = loads(contents[paths.MANIFEST])
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if type(found) is not int or not 1 <= found <= CHECKPOINT_FORMAT:
        raise ValueError(
            f"the checkpoint has format version {found}; this version of redsm5 reads 1 to {CHECKPOINT_FORMAT}"
        )
    for step in CHECKPOINT_STEPS[found - 1 :]:
        contents = step(contents)
    if found < CHECKPOINT_FORMAT:
        manifest = loads(contents[paths.MANIFEST]) | {"format_version": CHECKPOINT_FORMAT}
        contents = {**contents, paths.MANIFEST: dumps(manifest)}
    return contents


def legacy_of(section: str, keys: Iterable[str]) -> Document:
    """Of these keys of a section, those of LEGACY, with their values."""
    return {key: LEGACY[f"{section}.{key}"] for key in keys if f"{section}.{key}" in LEGACY}
