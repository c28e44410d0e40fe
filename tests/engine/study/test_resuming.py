"""A trial resumes with the configuration that was saved with it; what a command may change is little."""

import json
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import Config, compose
from redsm5.engine import paths
from redsm5.engine.errors import (
    ConfigError,
)
from redsm5.engine.installed import quoted
from redsm5.engine.records import TrialRecord
from redsm5.engine.study import resuming
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.trial import create_trial


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return compose([f"experiments={tmp_path / 'e'}", "data.posts=60"])


def folder_of(config: Config, record: TrialRecord) -> Path:
    return paths.trial_dir(Path(config.experiments), record.trial_id)


def test_a_saved_trial_comes_back_with_its_own_configuration(config: Config) -> None:
    record = create_trial(config)
    loaded = trial_config(Config, [f"trial.id={record.trial_id}", f"experiments={config.experiments}"])
    assert loaded.data.posts == 60
    assert loaded.trial.id == record.trial_id


def test_a_trial_is_not_resumed_with_another_configuration(config: Config) -> None:
    record = create_trial(config)
    with pytest.raises(ConfigError, match=r"train\.learning_rate: 0\.004 when the trial started, 0\.1 now"):
        trial_config(
            Config, [f"trial.id={record.trial_id}", f"experiments={config.experiments}", "train.learning_rate=0.1"]
        )


def test_a_trial_that_an_older_version_began_goes_on_with_its_own_splits(config: Config) -> None:
    record = create_trial(config)
    path = folder_of(config, record) / paths.CONFIG
    saved = json.loads(path.read_bytes())
    del saved["data"]["group_duplicates"]  # as it was written before there was the key
    path.write_text(json.dumps(saved))
    words = [f"trial.id={record.trial_id}", f"experiments={config.experiments}"]
    for more in ([], ["train.epochs=9"], ["data=synthetic", "data.posts=60"], ["data.group_duplicates=false"]):
        assert trial_config(Config, [*words, *more]).data.group_duplicates is False
    with pytest.raises(ConfigError, match=r"data\.group_duplicates: False when the trial started, True now"):
        trial_config(Config, [*words, "data.group_duplicates=true"])


@pytest.mark.parametrize(
    "words",
    [
        ["retention.max_total_size=5000000", "retention.min_free_disk_percent=2"],
        ["train.epochs=9", "launch=gpu"],
        ["train.epochs=2"],
        ["train.epochs=0"],
        ["train.epoch=9"],
        ["train.adversarial_epsilon=1e-3", "study.tracking_uri=null", "model.activation='relu'"],
        ["launch=nowhere"],
        ["train.epochs"],
        ["study.tracking_uri=a b, c"],
        ["model=bert_base"],
        ["model=nothing"],
    ],
)
def test_words_mean_the_same_to_a_trial_whether_they_are_composed_or_not(
    config: Config, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = create_trial(config)

    def said() -> Any:
        try:
            return trial_config(
                Config, [f"trial.id={record.trial_id}", f"experiments={quoted(config.experiments)}", *words]
            )
        except ConfigError as error:
            return error.message()

    plain = said()
    monkeypatch.setattr(resuming, "plain_values", lambda kind, words: None)
    assert plain == said()


def test_a_trial_that_is_not_there_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="no such trial"):
        trial_config(Config, ["trial.id=00000000-0000-4000-8000-000000000000", f"experiments={config.experiments}"])
