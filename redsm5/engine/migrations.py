"""Migrations of documents from older versions: pure functions from each schema number to the next.

Every JSON document, and every line of a JSON Lines file, has `schema`, the number of its format; without one it is 0.
Older documents are migrated in memory, and rewritten only when they change; newer ones are refused with a message. A
change of a document's fields adds a migration here, increments the number of its class (redsm5/engine/records.py,
redsm5/reports.py) or CONFIG_SCHEMA, and adds a golden folder to tests/golden.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redsm5.engine import paths
from redsm5.engine.jsonio import dumps, loads

Document = dict[str, Any]
Step = Callable[[Document], Document]

CONFIG = "Config"
CONFIG_SCHEMA = 3
# Keys of the engine that were added after schema 0, each with the value that keeps the behaviour of earlier versions. A
# task's keys are in its class (redsm5/config.py).
LEGACY: Mapping[str, Any] = {
    "study.direction": "maximize",
    "study.multivariate": False,
    "study.script": None,
    "study.space": None,
    "study.reduction_factor": 3,
    "study.min_epochs": 1,
    "study.brackets": 1,
    "study.rungs": "epochs",
    "retention.compact": False,
    "study.confirm.top": 0,
    "study.confirm.repeats": 5,
}
SCHEMA = "schema"


class NewerSchemaError(ValueError):
    """A document has a schema number that this version does not know."""


def _unchanged(document: Document) -> Document:
    return document


def with_values(config: Document, legacy: Mapping[str, Any]) -> Document:
    """A saved configuration, with the values of `legacy` for missing keys of its sections, and of sections in them."""
    filled = dict(config)
    for name, value in legacy.items():
        section, _, key = name.partition(".")
        if isinstance(keys := filled.get(section), dict):
            filled[section] = _with_value(keys, key, value)
    return filled


def _with_value(keys: Document, name: str, value: Any) -> Document:
    """The keys of a section, with this value where the dotted key is missing."""
    section, _, key = name.partition(".")
    if not key:
        return keys if name in keys else {**keys, name: value}
    inner = keys.get(section, {})
    return {**keys, section: _with_value(inner, key, value)} if isinstance(inner, dict) else keys


# By class: the step at index n migrates from schema n to n + 1. For other classes, schema 1 only adds the number.
FIRST: Sequence[Step] = (_unchanged,)
TWICE = (_unchanged, _unchanged)  # schema 2 has more fields, which older documents lack
STEPS: Mapping[str, Sequence[Step]] = {
    CONFIG: (*TWICE, _unchanged),
    "TrialRecord": TWICE,
    "StudyRecord": TWICE,
    "StudyIndex": TWICE,
    "Decision": TWICE,
    "StudySummary": TWICE,
    "EvaluationReport": TWICE,
    "PredictionsRecord": TWICE,
}


def migrated(kind: str, document: Document) -> Document:
    """A document in this version's format.

    Args:
        kind: the name of its class.
        document: the content of the file; not modified.

    Raises:
        NewerSchemaError: a newer version wrote it.
        ValueError: its schema number is invalid.
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
    current = len(STEPS.get("TrialRecord", FIRST))
    if all(isinstance(row, dict) and row.get(SCHEMA) == current for row in rows):
        return document
    return {**document, "trials": [migrated("TrialRecord", row) if isinstance(row, dict) else row for row in rows]}


# Done for every schema number: missing keys get their legacy values, and nested documents with their own number are
# migrated.
COMPLETE: Mapping[str, Step] = {
    CONFIG: lambda config: with_values(config, LEGACY),
    "StudyRecord": _study,
    "StudyIndex": _index,
}


# ---------------------------------------------------------------------------------------------------------------------
# checkpoints

Contents = Mapping[str, bytes | bytearray]
"""The files of a checkpoint by name."""


def _with_schema_numbers(contents: Contents) -> Contents:
    """Format 2: manifest.json and training_state.json have a schema number."""
    documents = {name: loads(contents[name]) for name in (paths.MANIFEST, paths.STATE_JSON) if name in contents}
    return {**contents, **{name: dumps({SCHEMA: 1, **document}) for name, document in documents.items()}}


# The step at index n migrates from checkpoint format n + 1 to n + 2. It takes any of a checkpoint's files, or the
# manifest alone, and does not change the disk.
CHECKPOINT_STEPS: Sequence[Callable[[Contents], Contents]] = (_with_schema_numbers,)
CHECKPOINT_FORMAT = 1 + len(CHECKPOINT_STEPS)


def converted(contents: Contents) -> Contents:
    """The files of a checkpoint in this version's format.

    Args:
        contents: any of its files, including the manifest.

    Raises:
        ValueError: this version cannot read its format.
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
