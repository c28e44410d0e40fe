"""What is typed for a text field is its text; numbers stay numbers; no secret of the environment is composed."""

import json
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import BaseModel

from redsm5.config import Config, compose
from redsm5.engine.compose import plain_values
from redsm5.engine.errors import ConfigError
from redsm5.engine.installed import quoted
from redsm5.engine.overrides import as_typed, is_text, parsed, values_of
from redsm5.engine.spec import flatten, snapshot_of
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.space import read_enqueued
from redsm5.engine.study.trial import create_trial
from redsm5.task import ReDSM5

ROOT = Path(__file__).parents[2]
LOOK_LIKE_OTHERS = (
    *(
        "20261130",
        "12345678",
        "007",
        "0",
        "1_000",
        "1.10",
        "1e5",
        "1E-7",
        ".5",
        "5.",
        "0x10",
        "0b1",
        "0o7",
        "inf",
        "NaN",
    ),
    *("true", "True", "false", "on", "off", "yes", "no", "1:30", "2026-11-30", "12e3-4", "9" * 40, "5e", "int(5)"),
)
PATHS = ("2024", "/a (old)/[b]", "/x,y", "André", "~/posts", "/a=b", "{a:1}", "C:\\data\\1", "#1", "it's", "a: b", "?*")


def value_of(config: Config, key: str) -> Any:
    return flatten(config.model_dump())[key]


# ---------------------------------------------------------------------------------------------------------------------
# text


@pytest.mark.parametrize("text", LOOK_LIKE_OTHERS)
@pytest.mark.parametrize("key", ["data.revision", "data.dir"])
def test_text_is_taken_verbatim_by_composing_and_beside_it(key: str, text: str) -> None:
    if key == "data.dir":
        words = ["data=csv", f"{key}={text}"]
    else:
        words = ["data=hub", f"{key}={text.replace(':', '-').replace('(', '').replace(')', '')}"]
    assert value_of(compose(words), key) == words[1].partition("=")[2]
    assert plain_values(Config, words[1:]) == {key: words[1].partition("=")[2]}


@pytest.mark.parametrize("text", ["20261130", "007", "1_000", "1.10", "true", "1e5", "0x10", "inf", "on"])
@pytest.mark.parametrize("prefix", ["", "++"])
def test_a_study_s_name_may_look_like_anything(text: str, prefix: str) -> None:
    assert compose([f"{prefix}study.name={text}"]).study.name == text


@pytest.mark.parametrize("text", PATHS)
def test_a_path_may_hold_what_the_grammar_has_no_rule_for(text: str) -> None:
    for key, more in (("data.dir", ["data=csv"]), ("experiments", [])):
        assert value_of(compose([*more, f"{key}={text}"]), key) == text


def test_every_key_that_takes_text_alone_takes_a_number_s_text() -> None:
    """No list of names: the fields' own annotations say which are text."""
    keys = list(_leaves(Config))
    text = [key for key, annotation in keys if is_text(Config, key)]
    assert {
        "study.name",
        "data.dir",
        "data.revision",
        "model.revision",
        "model.model_id",
        "experiments",
        "trial.id",
    } < {*text}
    assert {"study.tracking_uri", "study.storage", "study.enqueue", "launch", "data.repo_id"} < {*text}
    words = as_typed(Config.CONF, [f"{key}=1e3" for key in text], Config)
    assert {word.value() for word in parsed(words)} == {"1e3"}
    for key, annotation in keys:
        if key not in text:
            kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
            assert str not in kinds, key
            assert as_typed(Config.CONF, [f"{key}=1e3"], Config) == [f"{key}=1e3"]


def _leaves(model: type[BaseModel], prefix: str = "") -> Any:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


def test_what_describes_a_symptom_is_text_too() -> None:
    assert compose(["symptoms.FATIGUE=2026"]).symptoms["FATIGUE"] == "2026"


LISTS = {
    "a list": ("[2026,5e12345]", ["2026", "5e12345"]),
    "a list with spaces": ("[ 007 , true ]", ["007", "true"]),
    "quoted items": ("['1e5',\"a, b\"]", ["1e5", "a, b"]),
    "paths": ("[/a (old)/x,it's]", ["/a (old)/x", "it's"]),
}


@pytest.mark.parametrize("case", LISTS)
def test_the_texts_of_a_list_are_what_was_typed(case: str) -> None:
    typed, meant = LISTS[case]
    key = "train.augmentation.translation_models"
    words = ["train.augmentation.methods=[back_translation]", "train.augmentation.probability=0.1", f"{key}={typed}"]
    assert value_of(compose(words), key) == meant
    assert plain_values(Config, words[2:]) == {key: meant}


def test_the_texts_of_a_mapping_are_what_was_typed() -> None:
    words = ["data=dataset", "data.path=2026", "data.columns={text:2026,post_id: 1e5 ,status:'a, b'}"]
    assert compose(words).data.columns == {"text": "2026", "post_id": "1e5", "status": "a, b"}
    assert compose([*words[:2], "data.columns={}"]).data.columns == {}
    assert compose([*words[:2], "data.columns.text=007"]).data.columns == {"text": "007"}


def test_the_choices_of_a_text_field_are_text_on_the_command_line_and_in_a_file(tmp_path: Path) -> None:
    space = "{model.revision:{type:categorical,choices:[2026,5e12345,main]},train.epochs:{type:int,low:1,high:2}}"
    found = compose([f"search.space={space}"]).search.space
    assert found["model.revision"].checked() == ["2026", "5e12345", "main"]
    assert found["train.epochs"].checked() == (1, 2, 2)
    file = tmp_path / "space.yaml"
    file.write_text("model.revision: {type: categorical, choices: [2026, 5e12345, 1_0]}\nstudy.name: 1e5\n")
    config = compose([f"study.space={file}"])
    assert config.search.space["model.revision"].checked() == ["2026", "5e12345", "1_0"]
    assert config.study.name == "1e5"


def test_the_lists_of_a_set_have_text_as_typed(tmp_path: Path) -> None:
    sets = tmp_path / "sets.yaml"
    sets.write_text(
        "- {train.augmentation.methods: [swap], train.augmentation.probability: 0.1,"
        " train.augmentation.translation_models: [2026, 5e12345]}\n"
    )
    space = "search.space={train.epochs:{type:int,low:1,high:2}}"
    (read,) = read_enqueued(compose([f"study.enqueue={sets}", space]), ReDSM5())
    assert read["train.augmentation.translation_models"] == ["2026", "5e12345"]


def test_null_is_no_value_where_that_may_be_and_refused_where_not() -> None:
    assert compose(["model.revision=null"]).model.revision is None
    assert plain_values(Config, ["model.revision=null", "study.tracking_uri=NULL"]) == dict.fromkeys(
        ["model.revision", "study.tracking_uri"]
    )
    for key in ("study.name", "model.model_id", "experiments"):
        with pytest.raises(ConfigError, match=f"{key}=null: allowed: a valid string; as a word: '{key}=\"null\"'"):
            compose([f"{key}=null"])
        assert value_of(compose([f'{key}="null"']), key) == "null"


@pytest.mark.parametrize("text", ["007", "a, b", "true", "null", "1e5", "it is"])
def test_quoted_values_are_what_stands_between_the_quotes(text: str) -> None:
    for word in (f"data.dir='{text}'", f'data.dir="{text}"'):
        assert compose(["data=csv", word]).data.dir == text


def test_numbers_typed_where_numbers_are_meant_keep_their_types() -> None:
    words = ["train.epochs=7", "train.learning_rate=1e-3", "train.patience=null", "retention.keep_last_n=1_0"]
    config = compose([*words, "retention.max_total_size=500MB", "train.compile=true"])
    values = (config.train.epochs, config.train.learning_rate, config.train.compile)
    assert [type(value) for value in values] == [int, float, bool]
    assert (config.train.patience, config.retention.keep_last_n) == (None, 10)
    assert config.retention.max_total_size == 500_000_000


def test_a_value_from_the_environment_is_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHT", "20261130")
    assert compose(["study.name=${oc.env:NIGHT}"]).study.name == "20261130"
    assert compose(["data=csv", "data.dir=/x (y)/${oc.env:NIGHT}"]).data.dir == "/x (y)/20261130"


@given(st.text())
@example("a\\b\\\\'c\\")
@example("${x} \\${y} $z ${oc.env:HOME}")
def test_what_is_quoted_for_a_process_is_read_as_it_was(text: str) -> None:
    if "\x00" in text or any(0xD800 <= ord(c) < 0xE000 for c in text):
        text = text.encode("utf-8", "replace").decode().replace("\x00", "")
    (word,) = parsed([f"experiments={quoted(text)}"])
    tree = OmegaConf.create({"experiments": word.value()})
    assert OmegaConf.to_container(tree, resolve=True) == {"experiments": text}


@pytest.mark.parametrize("name", ["2026", "a\\b", "a${b}", "it's (1)", "true", "1e3", "André"])
def test_a_trial_is_found_again_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    config = compose([f"experiments={quoted(str(tmp_path / name))}", "study.name=007", "model.revision=1234567"])
    record = create_trial(config)
    word = f"experiments={quoted(str(tmp_path / name))}"
    plain = [f"trial.id={record.trial_id}", word]
    for words in (plain, [*plain, "data.seed=${data.split_seed}"]):
        again = trial_config(Config, words)
        assert (again.experiments, again.study.name) == (str(tmp_path / name), "007")
        assert again.model.revision == "1234567"


RESUMED = ("model.revision=1234567", "study.name=1_0", "study.name='1_0'", "model.revision=null")


@pytest.mark.parametrize("given", RESUMED)
def test_a_resumed_trial_means_the_same_whichever_way_it_is_read(tmp_path: Path, given: str) -> None:
    words = [f"experiments={tmp_path / 'e'}", given]
    record = create_trial(compose(words))
    plain = trial_config(Config, [f"trial.id={record.trial_id}", *words])
    composed = trial_config(Config, [f"trial.id={record.trial_id}", *words, "model=tiny"])  # a group: not plain
    assert plain == composed
    with pytest.raises(ConfigError, match="cannot be resumed"):
        trial_config(Config, [f"trial.id={record.trial_id}", *words[:1], f"{given.partition('=')[0]}=7654321"])


def test_the_sets_of_a_file_have_text_as_typed(tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text(
        "- {model.revision: 1_000, train.batch_size: 8}\n- model.revision: 0017\n- model.revision: null\n"
        "- {model.revision: 'x', train.learning_rate: 1e-5}\n- {model.revision: 1.10}\n"
    )
    sets = read_enqueued(compose([f"study.enqueue={tmp_path / 'sets.yaml'}"]), ReDSM5())
    assert [each["model.revision"] for each in sets] == ["1_000", "0017", None, "x", "1.10"]
    assert (sets[0]["train.batch_size"], sets[3]["train.learning_rate"]) == (8, 1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# secrets

TOKEN, PASSWORD, SHORT = "hf_abcdefgh12345678", 'pa "ss<w>ö%20rd 1@x', "q9z"
LONG = "correct-horse-battery-staple"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HF_TOKEN": TOKEN,
        "PGPASSWORD": PASSWORD,
        "MY_API_KEY": SHORT,
        "WHICH": "HF_TOKEN",
        "LONG_TOKEN": LONG,
    }.items():
        monkeypatch.setenv(name, value)


REFUSED = {
    "by its name": (["study.name=n-${oc.env:HF_TOKEN}"], "study.name", "HF_TOKEN"),
    "a name that looks like one": (["model.revision=${oc.env:MY_API_KEY}"], "model.revision", "MY_API_KEY"),
    "with a default": (["model.revision=${oc.env:MY_API_KEY,main}"], "model.revision", "MY_API_KEY"),
    "decoded": (["model.revision=${oc.decode:${oc.env:HF_TOKEN}}"], "model.revision", "HF_TOKEN"),
    "its name from another": (["study.name=${oc.env:${oc.env:WHICH}}"], "study.name", "HF_TOKEN"),
    "by way of another key": (["model.revision=${study.name}", "study.name=${oc.env:HF_TOKEN}"], "", "HF_TOKEN"),
    "by way of an address": (
        ["study.storage=postgresql://u:${oc.env:PGPASSWORD}@h/d", "experiments=/e/${study.storage}"],
        "experiments",
        "PGPASSWORD",
    ),
    "in the search space": (
        ["search.space={model.revision:{type:categorical,choices:[a,'${oc.env:HF_TOKEN}']}}"],
        "search.space.model.revision.choices",
        "HF_TOKEN",
    ),
    "in a symptom's words": (["symptoms.FATIGUE=x ${oc.env:HF_TOKEN}"], "symptoms.FATIGUE", "HF_TOKEN"),
    "in the place of a user": (["study.storage=postgresql://${oc.env:PGPASSWORD}@h/d"], "study.storage", "PGPASSWORD"),
    "in a path": (["study.tracking_uri=https://h/${oc.env:HF_TOKEN}"], "study.tracking_uri", "HF_TOKEN"),
    "half of it after an ampersand": (
        ["study.tracking_uri=https://h?password=${oc.env:PGPASSWORD}"],
        "study.tracking_uri",
        "PGPASSWORD",
    ),
    "as the shell wrote it": ([f"study.name=n-{TOKEN}"], "study.name", "HF_TOKEN"),
    "as the shell wrote it, quoted": ([f"data.dir='/x/{TOKEN}'"], "data.dir", "HF_TOKEN"),
    "as the shell wrote it into an address": (
        [f"study.tracking_uri=https://h/{LONG}"],
        "study.tracking_uri",
        "LONG_TOKEN",
    ),
}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("case", REFUSED)
def test_a_secret_of_the_environment_is_refused_and_not_told(case: str) -> None:
    words, key, name = REFUSED[case]
    with pytest.raises(ConfigError, match=f"{key}.* contains the value of {name}") as caught:
        compose(words)
    for secret in (TOKEN, PASSWORD, SHORT, "value-of-"):
        assert secret not in str(caught.value)
    assert "Remove" in str(caught.value)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "word", ["+model@x=${oc.env:HF_TOKEN}", "model=${oc.env:HF_TOKEN}", "study.name=${${oc.env:HF_TOKEN}}"]
)
def test_nor_is_one_told_where_hydra_itself_refuses(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert TOKEN not in str(caught.value)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("word", "saved"),
    [
        ("study.storage=postgresql://u:${oc.env:PGPASSWORD}@h/d", "postgresql://u:[redacted]@h/d"),
        ("study.storage=postgresql://u:${oc.env:MY_API_KEY}@h/d", "postgresql://u:[redacted]@h/d"),
        ("study.tracking_uri='https://u:${oc.env:HF_TOKEN}@h:5000'", "https://u:[redacted]@h:5000"),
        ("study.tracking_uri=https://${oc.env:HF_TOKEN}@h:5000", "https://[redacted]@h:5000"),
        (f"study.storage=postgresql://u:{TOKEN}@h/d", "postgresql://u:[redacted]@h/d"),
    ],
)
def test_as_an_address_s_password_it_is_used_and_not_saved(word: str, saved: str) -> None:
    config = compose([word])
    key = word.partition("=")[0]
    assert value_of(config, key).replace(PASSWORD, "*").replace(TOKEN, "*").replace(SHORT, "*") != saved
    assert "[redacted]" not in value_of(config, key)
    assert flatten(snapshot_of(config))[key] == saved


@pytest.mark.usefixtures("environment")
def test_other_variables_and_the_words_of_others_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/where/we/are")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "postgres")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "")
    config = compose(["experiments=${oc.env:PWD}/e", "study.storage=postgresql://me@h/postgresql", "study.name=q9z"])
    assert (config.experiments, config.study.name) == ("/where/we/are/e", "q9z")
    assert compose(["model.revision=${oc.env:NOT_THERE_TOKEN,main}"]).model.revision == "main"
    assert compose(["study.name=${oc.env:MLFLOW_TRACKING_TOKEN,x}x"]).study.name == "x"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("value", "words"), [("${oc.env:HF_TOKEN}", "references are not resolved"), (TOKEN, "HF_TOKEN")]
)
def test_no_set_of_a_file_holds_one(tmp_path: Path, value: str, words: str) -> None:
    (tmp_path / "sets.yaml").write_text(f"- model.revision: '{value}'\n")
    with pytest.raises(ConfigError, match=words) as caught:
        read_enqueued(compose([f"study.enqueue={tmp_path / 'sets.yaml'}"]), ReDSM5())
    assert TOKEN not in str(caught.value)


@pytest.mark.usefixtures("environment")
def test_a_resumed_trial_does_not_tell_the_password_of_its_storage(tmp_path: Path) -> None:
    words = [f"experiments={tmp_path / 'e'}", "study.storage=postgresql://u:${oc.env:PGPASSWORD}@h/d"]
    record = create_trial(compose(words))
    trial_config(Config, [f"trial.id={record.trial_id}", *words])
    with pytest.raises(ConfigError, match="cannot be resumed") as caught:
        trial_config(Config, [f"trial.id={record.trial_id}", words[0], words[1].replace("@h/d", "@other/d")])
    assert PASSWORD not in str(caught.value)
    assert not [path for path in (tmp_path / "e").rglob("*") if path.is_file() and 'pa \\"ss' in path.read_text()]


def test_the_command_refuses_it_with_exit_code_1_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/hpo.py"), f"experiments={tmp_path / 'e'}"]
    env = {"PATH": "/usr/bin:/bin", "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [*command, "study.name=n-${oc.env:HF_TOKEN}"], capture_output=True, text=True, env=env, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: study.name contains the value of HF_TOKEN, a secret")
    assert TOKEN not in done.stderr
    assert not (tmp_path / "e").exists()


def test_what_a_trial_s_process_is_started_with_tells_nothing_of_the_configuration() -> None:
    from redsm5.engine.study.launch import trial_arguments

    config = compose(["study.name=night", "study.storage=postgresql://u:geheim@h/d", "data.seed=7"])
    arguments = trial_arguments(config, "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e")
    assert set(values_of(arguments)) == {
        *("trial.id", "experiments", "launch", "retention.max_total_size", "retention.min_free_disk_percent")
    }
    assert "geheim" not in json.dumps(arguments)
