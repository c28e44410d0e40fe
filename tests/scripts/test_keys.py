"""`just keys` lists every key; every command has a help; listings have --format, and none shows --json."""

import csv
import io
import json
import subprocess
import sys

import pytest

from redsm5.cli import COMMANDS
from redsm5.config import Config, compose
from redsm5.engine.errors import ConfigError
from redsm5.engine.installed import APP
from redsm5.engine.spec import flatten, known_keys
from redsm5.engine.tables import FORMATS, SHORT_NAMES, nearest_key
from tests.scripts.conftest import ROOT, Run

LISTINGS = ("studies", "checkpoints", "cleanup", "compare", "replay", "protocol", "summary", "doctor", "keys")
PASSED_ON = ("mlflow",)  # its flags are another program's


def test_every_key_is_listed_with_type_values_default_search_and_description(script: Run) -> None:
    rows = json.loads(script("keys.py", "--format", "json").stdout)
    config = compose([])
    listed = {row["key"]: row for row in rows}
    symptoms = {key for key in known_keys(config) if key.startswith("symptoms.")}  # one mapping
    assert {*listed} == {*known_keys(config)} - symptoms | {"symptoms"}
    assert {key for key, row in listed.items() if row["searched"]} == {*config.search.space}
    for key, row in listed.items():
        assert row["type"]
        assert row["allowed"]
        assert row["description"] or key in ("search.space", "symptoms", "study.direction"), key
    rate = listed["train.learning_rate"]
    assert (rate["type"], rate["allowed"]) == ("number", "number, above 0, at most 1")
    assert float(rate["default"]) == config.train.learning_rate
    assert "log" in rate["searched"]
    assert listed["model.criteria_head_type"]["allowed"].split(", ")[0] == "linear"


def test_a_default_is_that_of_the_choices_that_are_named(script: Run) -> None:
    words = ["model=bert_base", "search=default"]
    (row,) = json.loads(script("keys.py", "learning_rate", *words, "--format", "json").stdout)[:1]
    config = compose(words)
    assert float(row["default"]) == config.train.learning_rate
    assert bool(row["searched"]) == ("train.learning_rate" in config.search.space)


def test_a_word_chooses_and_short_names_are_known(script: Run) -> None:
    said = script("keys.py", "lr").stdout
    assert said.startswith("train.learning_rate=")
    assert "the heads' rate" in said
    row, *_ = csv.DictReader(io.StringIO(script("keys.py", "patience", "--format", "csv").stdout))
    assert row["key"] == "train.patience"
    nothing = script("keys.py", "learning_rte")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "nearest: train.learning_rate" in nothing.stderr


@pytest.mark.parametrize("short", SHORT_NAMES.values())
def test_a_short_name_that_the_app_shows_is_known_as_a_key(short: str) -> None:
    (name,) = (name for name, shown in SHORT_NAMES.items() if shown == short)
    meant = next(key for key in flatten(compose([]).model_dump()) if key.endswith(f".{name}"))
    assert nearest_key(short, known_keys(compose([]))) == f"; nearest: {meant}"
    if short not in ("model",):  # which is a section, and a group
        with pytest.raises(ConfigError, match=f"unknown key {short}=.*nearest: {meant}"):
            compose([f"{short}=1"])


def test_the_last_part_of_a_key_is_known_and_a_wrong_one_is_corrected() -> None:
    keys = known_keys(compose([]))
    assert nearest_key("learning_rate", keys) == "; nearest: train.learning_rate"
    assert nearest_key("epoch", keys) == "; nearest: train.epochs"
    assert nearest_key("zzzz", keys) == ""
    assert Config.model_fields


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_a_help(name: str, flag: str) -> None:
    code = "from redsm5.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, name, flag], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"just {name}" in done.stdout
    assert "--json" not in done.stdout
    if name in LISTINGS:
        assert f"{{{','.join(FORMATS)}}}" in done.stdout


def test_no_script_shows_json_as_a_flag_of_its_own() -> None:
    for name, (script, _) in COMMANDS.items():
        if script != APP and name not in PASSED_ON:
            assert '"--json"' not in (ROOT / "scripts" / script).read_text(), name


@pytest.mark.parametrize("flags", [["--format", "json"], ["--json"]])
def test_the_older_flag_still_prints_json(
    script: Run, flags: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = script("doctor.py", *flags, "--experiments", tmp_path_factory.mktemp("e"), HF_HUB_OFFLINE="1")
    assert {check["name"] for check in json.loads(done.stdout)["checks"]} >= {"python", "packages"}


def test_checks_and_reclaimable_files_are_csv_too(script: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("e")
    done = script("doctor.py", "--format", "csv", "--experiments", folder, HF_HUB_OFFLINE="1")
    assert {row["name"] for row in csv.DictReader(io.StringIO(done.stdout))} >= {"python", "space"}
    done = script("cleanup.py", "--format", "csv", "--experiments", folder)
    assert (done.returncode, done.stdout) == (0, "kind,order,study,bytes,path,reason,deleted\n")
