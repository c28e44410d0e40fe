"""Files that outlive their version: numbers, steps, legacy values, and one way to read each kind of document."""

import ast
import json
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from redsm5 import reports
from redsm5.config import Config, compose
from redsm5.engine import documents, migrations, paths
from redsm5.engine.documents import Document, SecondForm, load, load_lines, parse
from redsm5.engine.errors import IncompatibleCheckpointError, InputError
from redsm5.engine.migrations import CONFIG, CONFIG_SCHEMA, LEGACY, NewerSchemaError, converted, migrated
from redsm5.engine.records import MetricRow, StudyIndex, StudyRecord, TrialRecord
from redsm5.engine.spec import flatten, from_snapshot, known_keys, load_config, load_snapshot, snapshot_of
from redsm5.model import MultiTaskModel, identity_of
from tests.engine.storage.saver import manifest_of

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
FORMS = GOLDEN / "forms.json"
TRIAL_SCHEMA = len(migrations.STEPS["TrialRecord"])
TIME = "2026-01-31T12:00:00.000Z"
TRIAL = {"trial_id": "t", "study_id": "s", "number": 0, "state": "queued", "created_at": TIME, "epochs": 3}


def forms() -> dict[str, list[str]]:
    """The names of all fields of each document, nested ones with their path, by its name and schema number."""
    found = {}
    for kind in reports.SCHEMAS.values():
        found[f"{kind.form()} {kind.model_fields['schema_number'].default}"] = sorted(_fields(kind))
    return {**found, f"{CONFIG} {CONFIG_SCHEMA}": sorted(k for k in known_keys(compose([])) if k != "search.space")}


def _fields(kind: type[documents.Record], prefix: str = "") -> list[str]:
    schema = kind.model_json_schema(mode="serialization")
    names = [f"{prefix}{name}" for name in schema["properties"]]
    for name, part in schema.get("$defs", {}).items():
        names += [f"{name}.{field}" for field in part.get("properties", {})]
    return names


def test_a_document_whose_fields_changed_has_another_number() -> None:
    """Where this fails: raise the number, add a step to migrations.py, and the form of the new number to the file."""
    frozen: dict[str, list[str]] = json.loads(FORMS.read_text())
    for name, fields in forms().items():
        assert frozen.get(name) == fields, name


def test_the_number_of_each_class_is_that_of_its_steps() -> None:
    for kind in reports.SCHEMAS.values():
        number = kind.model_fields["schema_number"].default
        assert number == len(migrations.STEPS.get(kind.form(), migrations.FIRST)), kind
    assert len(migrations.STEPS.get(CONFIG, migrations.FIRST)) == CONFIG_SCHEMA


ALL = {**LEGACY, **Config.LEGACY}


def golden_configs(tmp_path: Path) -> list[dict[str, Any]]:
    found = []
    for archive in sorted(GOLDEN.glob("*.tar.xz")):
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path / archive.name, filter="data")
        found += [json.loads(p.read_bytes()) for p in (tmp_path / archive.name).glob(f"experiments/*/{paths.CONFIG}")]
    return found


def test_each_key_that_came_since_has_a_legacy_value(tmp_path: Path) -> None:
    configs = golden_configs(tmp_path)
    assert len(configs) > 6
    known = set(known_keys(compose([]))) - {"search.space"}
    for snapshot in configs:
        lacking = known - flatten(snapshot).keys()
        assert lacking <= ALL.keys(), "its legacy value belongs into migrations.py or redsm5/config.py"
        config = from_snapshot(Config, snapshot)
        saved = flatten(config.model_dump())
        assert {key: saved[key] for key in lacking} == {key: ALL[key] for key in lacking}
    assert ALL.keys() <= known, "a legacy value of no key"


def test_what_is_written_has_a_number_and_older_ones_have_none(tmp_path: Path) -> None:
    record = parse(dict(TRIAL), TrialRecord)
    assert json.loads(record.to_json())["schema"] == json.loads(record.to_line())["schema"] == TRIAL_SCHEMA
    assert parse(record.to_json(), TrialRecord) == record
    snapshot = snapshot_of(compose([]))
    assert next(iter(snapshot)) == "schema"
    assert from_snapshot(Config, snapshot) == compose([])
    without = {section: dict(keys) if isinstance(keys, dict) else keys for section, keys in snapshot.items()}
    del without["schema"], without["data"]["group_duplicates"]
    assert from_snapshot(Config, without).data.group_duplicates is False
    assert "group_duplicates" not in without["data"], "the document itself stays as it is"


@pytest.mark.parametrize("number", [TRIAL_SCHEMA + 1, 99])
def test_a_newer_document_is_refused_with_what_it_needs(number: int, tmp_path: Path) -> None:
    for name, content in (("one.json", TRIAL), ("two.json", {**TRIAL, "new": 1, "state": "unheard of"})):
        (tmp_path / name).write_text(json.dumps({**content, "schema": number}))
        said = rf"newer version of redsm5.*schema {number}.*reads up to schema {TRIAL_SCHEMA}"
        with pytest.raises(InputError, match=said):
            load(tmp_path / name, TrialRecord)
    (tmp_path / paths.CONFIG).write_text(json.dumps({**snapshot_of(compose([])), "schema": number + CONFIG_SCHEMA - 1}))
    for read in (load_snapshot, partial(load_config, Config)):
        with pytest.raises(InputError, match="newer version"):
            read(tmp_path)
    row = {"trial_id": "t", "metric": "m", "step": 1, "epoch": 0, "value": 1.0, "timestamp": TIME}
    lines = [row, {**row, "schema": 1}, {**row, "schema": number}]
    (tmp_path / "rows").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=r"wrote line 3: it has schema"):
        load_lines(tmp_path / "rows", MetricRow)


@pytest.mark.parametrize("number", [-1, 1.0, "1", True, None, [1]])
def test_a_number_that_is_none_is_damage(number: Any, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({**TRIAL, "schema": number}))
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path / "one.json", TrialRecord)


def test_what_lies_within_a_document_is_migrated_by_its_own_number() -> None:
    head = {"study_id": "s", "updated_at": TIME, "schema": 1}
    index = parse({**head, "trials": [dict(TRIAL), {**TRIAL, "schema": 1}]}, StudyIndex)
    assert index.trials[0] == index.trials[1]
    with pytest.raises(NewerSchemaError):
        parse({**head, "trials": [{**TRIAL, "schema": TRIAL_SCHEMA + 1}]}, StudyIndex)
    study = {"study_id": "s", "name": "n", "state": "running", "created_at": TIME, "metric": "val_f1_macro"}
    study = parse({**study, "trials": {"wanted": 1}, "config": {"study": {}, "retention": {}}}, StudyRecord)
    assert study.config["schema"] == CONFIG_SCHEMA
    assert flatten(study.config) == LEGACY


def test_steps_are_taken_one_after_the_other_from_the_number_that_a_document_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = [lambda d: d, lambda d: {**d, "b": d["a"] + 1}, lambda d: {**d, "c": d["b"] + 1}]
    monkeypatch.setattr(migrations, "STEPS", {"Thing": steps})
    assert migrated("Thing", {"a": 1}) == {"schema": 3, "a": 1, "b": 2, "c": 3}
    assert migrated("Thing", {"schema": 2, "a": 1, "b": 5}) == {"schema": 3, "a": 1, "b": 5, "c": 6}
    assert migrated("Thing", {"schema": 3, "a": 1}) == {"schema": 3, "a": 1}
    with pytest.raises(NewerSchemaError, match=r"of version 0\.9, and"):
        migrated("Thing", {"schema": 4, "code_version": "0.9"})


def test_a_checkpoint_s_files_are_converted_in_memory() -> None:
    older = {paths.MANIFEST: b'{"format_version": 1, "epoch": 2}', paths.STATE_JSON: b'{"x": 1}', "w": b"\x00"}
    newer = converted(older)
    assert json.loads(newer[paths.MANIFEST]) == {"schema": 1, "format_version": 2, "epoch": 2}
    assert json.loads(newer[paths.STATE_JSON]) == {"schema": 1, "x": 1}
    assert newer["w"] is older["w"]
    assert converted(newer) == newer
    for version in (0, 3, "1", True, None):
        with pytest.raises(ValueError, match="reads 1 to 2"):
            converted({paths.MANIFEST: json.dumps({"format_version": version}).encode()})


def test_an_older_checkpoint_is_of_the_same_model_once_its_legacy_values_are_filled_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Config, "LEGACY", {"model.max_length": 64, "data.x": 1})
    config = compose(["trial.id=0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"])
    identity = identity_of(config, MultiTaskModel(config.model, vocab_size=99), "ab" * 32)
    assert identity.legacy == {"max_length": 64}
    older = {name: value for name, value in identity.head_config.items() if name != "max_length"}
    manifest = manifest_of(config.trial.id or "", 1, 0.5).model_copy(
        update={"architecture": identity.architecture, "head_config": older, "data_fingerprint": "ab" * 32}
    )
    if config.model.max_length != 64:
        with pytest.raises(IncompatibleCheckpointError, match="head configuration"):
            identity.check(manifest, "here")
    replace(identity, head_config={**older, "max_length": 64}).check(manifest, "here")


# ---------------------------------------------------------------------------------------------------------------------
# one way to read each kind

READERS = {"redsm5/engine/documents.py", "redsm5/engine/spec.py"}
# What is no document of an experiments folder: parts of a study's configuration, which may be refused by themselves,
# and the thresholds of an exported model, which a person may edit.
APART = {
    "redsm5/evaluation/exported.py": {"Thresholds"},
    "redsm5/evaluation/summary.py": {"SearchConfig"},
    "redsm5/evaluation/confirmation.py": {"ConfirmConfig"},
}


def test_no_caller_validates_a_document_by_itself() -> None:
    for path in sorted([*ROOT.glob("redsm5/**/*.py"), *ROOT.glob("tui/**/*.py"), *ROOT.glob("scripts/*.py")]):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("model_validate", "model_validate_json"):
                of = node.value.id if isinstance(node.value, ast.Name) else ""
                assert name in READERS or of in APART.get(name, ()), f"{name}:{node.lineno}: use documents.parse"


def test_every_document_is_one_of_the_schemas() -> None:
    def below(kind: type[Document]) -> set[type[Document]]:
        return {kind}.union(*(below(k) for k in kind.__subclasses__()))

    ours = {kind for kind in below(Document) if kind.__module__.startswith("redsm5.")} - {Document, SecondForm}
    assert ours == set(reports.SCHEMAS.values())


if __name__ == "__main__":  # the forms of this version, for a number that is new
    FORMS.write_text(
        json.dumps({**json.loads(FORMS.read_text() if FORMS.exists() else "{}"), **forms()}, indent=1) + "\n"
    )
