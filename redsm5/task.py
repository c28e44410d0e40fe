"""ReDSM5 as a task of the engine: what its data are, and what this machine lacks for its search space."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redsm5 import hub
from redsm5.config import Config, compose
from redsm5.data import FEW_POSITIVES, Splits, few_positives, load_learnable, resources
from redsm5.engine import compose as composing
from redsm5.engine import paths
from redsm5.engine.errors import ConfigError, InputError
from redsm5.engine.installed import command, quoted, setting
from redsm5.engine.records import StudyRecord
from redsm5.engine.script import ScriptTask
from redsm5.engine.sections import CategoricalParameter
from redsm5.engine.spec import as_choice, flatten, load_snapshot
from redsm5.engine.study.registry import study_by_name
from redsm5.engine.task import CheckedData, Task
from redsm5.noise import beside_baseline, remarks, scores_of, with_test
from redsm5.reports import SummaryBest

METHODS = "train.augmentation.methods"
TRANSLATION_MODELS = "train.augmentation.translation_models"


SCRIPT, SPACE = "study.script", "study.space"
WHICH = ("experiments", "study.name", "trial.id", SCRIPT, SPACE)


class ReDSM5:
    """What the engine asks of a task (redsm5/engine/task.py)."""

    spec = Config

    def check_data(self, config: Config) -> CheckedData:
        hub.check_access(config.data, model_ids(config), config.model.revision)
        splits = load_learnable(config.data)
        return CheckedData(splits.counts, splits.fingerprint, _remarks(splits, config))

    def check_access(self, config: Config) -> None:
        hub.check_access(config.data, model_ids(config), config.model.revision, tries=1)

    def check_machine(self, config: Config) -> None:
        resources.check_available(config.train.augmentation)

    def missing(self, config: Config) -> Mapping[str, str]:
        parameter = config.search.space.get(METHODS)
        if not isinstance(parameter, CategoricalParameter):
            return {}
        methods = dict.fromkeys(method for choice in parameter.choices for method in _methods(choice))
        return resources.missing_data(list(methods), config.train.augmentation.translation_models)

    def without(self, config: Config, names: Sequence[str]) -> Config:
        parameter = config.search.space.get(METHODS)
        if not names or not isinstance(parameter, CategoricalParameter):
            return config
        choices = [choice for choice in parameter.choices if not set(_methods(choice)) & set(names)]
        if not choices:
            raise ConfigError(
                f"search.space.{METHODS} has no choice left: this machine lacks the data for {', '.join(names)}",
                remedy=" ".join(dict.fromkeys(self.missing(config).values())),
            )
        space = {**config.search.space, METHODS: parameter.model_copy(update={"choices": choices})}
        return config.model_copy(update={"search": config.search.model_copy(update={"space": space})})

    def check_study(self, config: Config, enqueued: Sequence[Mapping[str, Any]]) -> None:
        own = config.train.augmentation
        missing = {**self.missing(config), **resources.missing_data(own.methods, own.translation_models)}
        for preset in enqueued:
            models = preset.get(TRANSLATION_MODELS, own.translation_models)
            missing |= resources.missing_data(_methods(preset.get(METHODS)), models)
        if missing:
            raise ConfigError(
                f"the study tries {METHODS} whose data is not on this machine: {', '.join(missing)}",
                remedy=" ".join(dict.fromkeys(missing.values())),
            )

    def repeated(self, config: Config, seed: int) -> dict[str, Any]:
        return {"data.validation_seed": seed}

    def write_page(self, folder: Path) -> None:
        from redsm5.evaluation.page import write_page  # the plots take a second to import

        write_page(folder)

    def verdict(self, config: Config, study: StudyRecord) -> list[str]:
        if study.best is None:
            return []
        folder = paths.trial_dir(Path(config.experiments), study.best.trial_id)
        best = SummaryBest(
            **study.best.model_dump(include={"trial_id", "number", "value"}), test_metrics=None, report=None
        )
        try:
            scores = scores_of(folder)
        except (InputError, OSError):
            return []
        baseline = beside_baseline(Path(config.experiments), study, scores)
        said = remarks(study.metric, with_test(best, scores, maximize=study.maximize), baseline)
        if baseline is None:
            said.append(f"no baseline of these posts is here to compare with: `{baseline_command(config)}` trains it")
        return said


def baseline_command(config: Config) -> str:
    """The command that trains the baseline on the posts and splits of this configuration, as it is typed here."""
    places = [setting(f"data.{key}", value) for key in ("dir", "path") if (value := getattr(config.data, key))]
    usual = compose([f"data={config.data.source}", *places])
    names = ("study.metric", "study.direction")
    own, plain = (
        {
            key: value
            for key, value in flatten(each.model_dump(mode="json")).items()
            if key in names or key[:5] == "data."
        }
        for each in (config, usual)
    )
    words = [f"data={config.data.source}", *places]
    changed = {key: value for key, value in own.items() if value != plain.get(key)}
    words += [setting(key, value) if isinstance(value, str) else f"{key}={value}" for key, value in changed.items()]
    return command("baseline", *words, experiments=config.experiments)


def task_of(overrides: Sequence[str]) -> tuple[Task[Any], list[str]]:
    """The task that a command is about: a script, if it names `study.script`, or if its study or trial does; or ReDSM5.

    Returns:
        The task, and the command's words, to which those of a script's study are added that it has left out.

    Raises:
        InputError: the record of the study or trial is damaged.
    """
    words = {name: word for word in overrides if (name := word.lstrip("+").partition("=")[0]) in WHICH}
    if SCRIPT in words:
        return ScriptTask(), list(overrides)
    values = composing.plain_values(Config, list(words.values())) or {}
    experiments = Path(str(values.get("experiments") or os.environ.get("REDSM5_EXPERIMENTS") or "experiments"))
    saved: Mapping[str, Any] | None = None
    study = values.get("study.name")
    if trial_id := values.get("trial.id"):
        saved = load_snapshot(paths.trial_dir(experiments, str(trial_id)))
    elif study and (record := study_by_name(experiments, str(study))):
        saved = record.config
    if not (saved and saved["study"].get("script")):
        return ReDSM5(), list(overrides)
    own = {key: saved["study"].get(key.partition(".")[2]) for key in (SCRIPT, SPACE) if key not in words}
    if not Path(own.get(SPACE) or "").is_file():  # what the study or trial has saved suffices
        own.pop(SPACE, None)
    return ScriptTask(), [*(f"{key}={quoted(value)}" for key, value in own.items() if value), *overrides]


def model_ids(config: Config) -> list[str]:
    """The models that the trials of this configuration may use."""
    searched = config.search.space.get("model.model_id")
    return [str(c) for c in searched.choices] if isinstance(searched, CategoricalParameter) else [config.model.model_id]


def _methods(choice: Any) -> list[str]:
    """The methods that a value of train.augmentation.methods names."""
    return [method for method in str(as_choice(choice) or "").split("+") if method]


def _remarks(splits: Splits, config: Config) -> list[tuple[str, dict[str, Any]]]:
    remarks: list[tuple[str, dict[str, Any]]] = []
    if few := few_positives(splits, folds=config.folds > 1):
        remarks.append((FEW_POSITIVES, few))
    if not config.data.group_duplicates and (copies := splits.counts["duplicate_posts"]):
        told = "duplicates of a post may be in different splits, since data.group_duplicates is false"
        remarks.append((told, {"duplicate_posts": copies}))
    elif config.data.test_split == "authors" and (copies := splits.counts["duplicate_posts"]):
        told = "duplicates of a test post may be training posts, since data.test_split is authors"
        remarks.append((told, {"duplicate_posts": copies}))
    return remarks
