"""JSON through one module: what the standard library reads is what we wrote, and what it wrote is read as it was."""

import ast
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redsm5.engine.jsonio import dumps, finite, loads

ROOT = Path(__file__).parents[2]
# Who writes JSON with the standard library, and why its bytes must not change.
APART = {
    "redsm5/engine/jsonio.py": "what orjson cannot express",
    "redsm5/engine/storage/models.py": "whole numbers of any size, and infinite ones, in a model's state",
    "redsm5/engine/terminal.py": "the escape of one character",
    "redsm5/data/augment.py": "seeds a generator",
    "redsm5/data/cache.py": "is hashed",
    "redsm5/data/split.py": "is hashed",
    "redsm5/evaluation/thresholds.py": "is hashed",
    "scripts/baseline.py": "is hashed",
}

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_is_written_reads_the_same_here_and_with_the_standard_library(value: Any, indent: bool) -> None:
    text = dumps(value, indent=indent)
    assert repr(loads(text)) == repr(json.loads(text)) == repr(value)
    assert indent or b"\n" not in text


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_what_older_versions_wrote_reads_as_it_did(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert repr(loads(text)) == repr(json.loads(text))


@pytest.mark.parametrize("value", ["\ud800", {"\udcff": ["x\udcff"]}, 2**64, -(2**200), [2**127 + 1]])
def test_what_orjson_cannot_express_is_written_all_the_same(value: Any) -> None:
    assert json.loads(dumps(value)) == value
    assert dumps({"of": value}, indent=True).count(b"\n") > 1


def test_a_document_is_written_so_that_every_reader_reads_it() -> None:
    for value, text in (("a\udcff", "a\\udcff"), ({"\ud800": [("\udfff",)]}, {"\\ud800": [["\\udfff"]]})):
        assert loads(dumps(value, strict=True), strict=True) == text
    for escaped in (b'"\\ud800"', b"NaN", b'{"a":' * 2000):
        with pytest.raises(ValueError):  # noqa: PT011
            loads(escaped, strict=True)


def test_what_is_not_finite_is_a_string_however_deep() -> None:
    value = {"a": [math.nan, {"b": (math.inf, -math.inf)}], "c": 1.5}
    assert json.loads(dumps(value)) == finite(value) == {"a": ["NaN", {"b": ["Infinity", "-Infinity"]}], "c": 1.5}


@pytest.mark.parametrize("text", [b"", b"{", b"[1,]", b"\xff", b"nul", b"[" * 100_000, b'{"a":' * 50_000, b"1 2"])
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        loads(text)
    with pytest.raises(ValueError):  # noqa: PT011
        loads(bytearray(text))


def test_what_is_neither_json_nor_like_it_is_refused() -> None:
    for value in (object(), {"a": {1, 2}}, b"bytes"):
        with pytest.raises(TypeError):
            dumps(value)


def test_one_module_decides_how_json_is_read_and_written() -> None:
    found = set()
    for path in sorted([*ROOT.glob("redsm5/**/*.py"), *ROOT.glob("tui/**/*.py"), *ROOT.glob("scripts/*.py")]):
        names = {
            alias.name if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        name = str(path.relative_to(ROOT))
        assert "orjson" not in names or name == "redsm5/engine/jsonio.py"
        found |= {name} if "json" in names else set()
    assert found == APART.keys()
