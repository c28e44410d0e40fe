"""The search space besides the sampler: enqueued parameter sets, grid points, what is fixed for a trial, rungs.

All of it is a function of the configuration and of study.json, so that every worker and every later run agree. A preset
is the set of values fixed for one trial, by key, of the search space or other keys.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from redsm5.engine.errors import ConfigError
from redsm5.engine.overrides import refuse_secrets, text_as_typed
from redsm5.engine.rungs import Ladder, ladder
from redsm5.engine.searchspace import holds, read_yaml
from redsm5.engine.sections import CategoricalParameter, Parameter
from redsm5.engine.spec import StudySpec, as_choice, flatten, searchable_keys, with_parameters
from redsm5.engine.tables import nearest_key
from redsm5.engine.task import Task

MAX_GRID = 10_000  # points; as many trials as an experiments folder is made for

Preset = Mapping[str, Any]
C = TypeVar("C", bound=StudySpec)


def draw_in_order(config: StudySpec, preset: Preset, draw: Callable[[str, Parameter], Any]) -> dict[str, Any]:
    """The parameters of a trial: `draw`n in the order of the space, but for those whose condition does not hold beside
    the others; what the preset has beside the space comes with them.
    """
    space = config.search.space
    values = {key: value for key, value in preset.items() if key not in space or not space[key].holds_value(value)}
    for key, parameter in space.items():
        if key not in values and holds(parameter, values, config):
            values[key] = draw(key, parameter)
    return values


def fixed(config: StudySpec, preset: Preset) -> dict[str, Any]:
    """What is not left to the sampler beside this preset: its values, and for all else the configuration's own, where
    the space holds them.
    """
    own = {key: as_choice(value) for key, value in flatten(config.model_dump()).items()}
    wanted = {key: preset.get(key, own.get(key)) for key in config.search.space}
    return {key: value for key, value in wanted.items() if config.search.space[key].holds_value(value)}


def configured(config: C, parameters: Mapping[str, Any]) -> C:
    """The configuration with a trial's parameters; of the space, what was not drawn is null."""
    return with_parameters(config, {**dict.fromkeys(config.search.space), **parameters})


def presets(config: StudySpec, enqueued: Sequence[Preset]) -> list[Preset]:
    """The fixed values of the first trials, in their order; with a grid, of all possible trials.

    Raises:
        ConfigError: the grid is not finite, or too large.
    """
    first: list[Preset] = [{}] if config.study.enqueue_defaults else []
    first += enqueued
    if config.study.sampler != "grid":
        return first
    tried = [point for preset in first if (point := _whole_point(config, preset)) is not None]
    return [*first, *(point for point in grid(config) if point not in tried)]


def wanted(config: StudySpec, enqueued: Sequence[Preset]) -> int:
    """The number of trials to finish: study.trials, or the number of grid points if that is lower."""
    if config.study.sampler != "grid":
        return config.study.trials
    return min(config.study.trials, len(presets(config, enqueued)))


def _whole_point(config: StudySpec, preset: Preset) -> dict[str, Any] | None:
    """The preset's parameters, where none is left to the sampler."""
    values = fixed(config, preset)
    parameters = draw_in_order(config, preset, lambda key, _: values.get(key, ...))
    return None if ... in parameters.values() else parameters


# ---------------------------------------------------------------------------------------------------------------------
# the grid


def grid(config: StudySpec) -> list[Preset]:
    """All points of the space, those alone that its conditions allow, in an order that depends on the study's seed.

    Raises:
        ConfigError: a range has no finite number of values, or there are more than MAX_GRID points.
    """
    points: list[dict[str, Any]] = [{}]
    for key, parameter in config.search.space.items():
        values = _grid_values(config, key, parameter)
        points = [
            {**point, **drawn}
            for point in points
            for drawn in ([{key: value} for value in values] if holds(parameter, point, config) else [{}])
        ]
        if len(points) > MAX_GRID:
            raise ConfigError(
                f"study.sampler=grid: search.space has more than {MAX_GRID:,} points",
                remedy="Give fewer choices or points, or choose study.sampler=random with as many study.trials.",
            )
    random.Random(config.study.seed).shuffle(points)
    return list(points)


def _grid_values(config: StudySpec, key: str, parameter: Parameter) -> list[Any]:
    if isinstance(parameter, CategoricalParameter):
        return list(dict.fromkeys(parameter.choices))
    if parameter.points is None and parameter.type == "float":
        points = (
            f"points: 5 in {config.study.space}" if config.study.space else f"'search.space={{{key}:{{points:5}}}}'"
        )
        raise ConfigError(
            f"study.sampler=grid: search.space.{key} is a range of floats, which a grid cannot enumerate",
            remedy=f"Set how many values to try: {points}.",
        )
    if parameter.points is None:
        return list(range(int(parameter.low), int(parameter.high) + 1))
    spaced = np.geomspace if parameter.log else np.linspace
    values: list[float] = spaced(parameter.low, parameter.high, parameter.points).tolist()
    return sorted(set(map(round, values))) if parameter.type == "int" else list(dict.fromkeys(values))


# ---------------------------------------------------------------------------------------------------------------------
# the sets of study.enqueue


def read_enqueued(config: C, task: Task[C]) -> list[dict[str, Any]]:
    """The sets of `study.enqueue`, each of which gives a valid configuration.

    Raises:
        ConfigError: the file cannot be read, or a set is refused; it names the file, the set and the key.
    """
    if config.study.enqueue is None:
        return []
    path = Path(config.study.enqueue)
    example = "a list of parameter sets, such as `- {train.learning_rate: 1e-5, train.batch_size: 8}`"
    document, typed = read_yaml("study.enqueue", path, example)
    if not isinstance(document, list):
        raise ConfigError(
            f"study.enqueue={path} is not a list of parameter sets",
            remedy="Start each parameter set with a dash: `- train.batch_size: 8`.",
        )
    return [
        _checked_set(config, task, _with_text(config, values, words), f"study.enqueue={path}, set {n}")
        for n, (values, words) in enumerate(zip(document, typed, strict=True), 1)
    ]


def _with_text(config: StudySpec, values: Any, words: Any) -> Any:
    """A parameter set in which each text field has the text as typed, even if it looks like a number."""
    if not (isinstance(values, dict) and isinstance(words, dict)):
        return values
    kind = type(config)
    return {key: text_as_typed(kind, str(key), value, words.get(str(key), value)) for key, value in values.items()}


def _checked_set(config: C, task: Task[C], values: Any, where: str) -> dict[str, Any]:
    searchable = searchable_keys(config)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{values!r} is not a parameter set", where=where, remedy="Write `- key: value` for each of its keys."
        )
    for key, value in values.items():
        if key not in searchable:
            raise ConfigError(
                f"unknown key {key}={value}{nearest_key(str(key), searchable)}",
                where=where,
                remedy="A parameter set has dotted keys that can be searched, for example train.epochs.",
            )
        if "${" in str(value):
            raise ConfigError(
                f"{key}={value}: a parameter set holds plain values; references are not resolved", where=where
            )
    refuse_secrets({str(key): str(value) for key, value in values.items()})
    space = config.search.space
    checked = {str(key): as_choice(value) if key in space else value for key, value in values.items()}
    certain = fixed(config, checked)
    parameters = draw_in_order(
        config, checked, lambda key, parameter: certain.get(key, next(iter(parameter.checked())))
    )
    for key in checked:
        drawn = [parent for parent in _parents(config, key) if parent not in {**certain, **checked}]
        if drawn or key not in parameters:
            names = ", ".join(drawn or space[key].when)
            raise ConfigError(
                f"{key}={checked[key]} applies only with certain values of {names}",
                where=where,
                remedy=f"Give {names} too, or leave {key} out.",
            )
    try:
        config = configured(config, parameters)
        task.check_machine(config)
    except ConfigError as error:
        raise ConfigError(error.what, where=where, remedy=error.remedy or "Fix or remove the parameter set.") from None
    return checked


def _parents(config: StudySpec, key: str) -> list[str]:
    space = config.search.space
    return [parent for parent in space[key].when if parent in space] if key in space else []


def most_epochs(config: StudySpec) -> int:
    """The most epochs that a trial of the study can train, over all its folds."""
    parameter = config.search.space.get("train.epochs")
    if parameter is None:
        return config.epochs
    if isinstance(parameter, CategoricalParameter):
        return config.folds * max(int(choice) for choice in parameter.choices if choice)
    return config.folds * int(parameter.high)


def ladder_of(config: StudySpec) -> Ladder:
    """Where the study's trials pause.

    Raises:
        ConfigError: nowhere: the first rung is not before the last epoch; there are more brackets than rungs; or rungs
            are folds, of which trials have none, or not as long ones.
    """
    study, epochs = config.study, most_epochs(config)
    in_folds = study.rungs == "folds"
    if in_folds and config.folds == 1:
        raise ConfigError(
            "study.rungs=folds, but trials have no folds",
            remedy="Set data.folds, or leave study.rungs out.",
        )
    if in_folds and "train.epochs" in config.search.space:
        raise ConfigError(
            "study.rungs=folds, but train.epochs is searched, so that folds are not of one length",
            remedy="Take train.epochs out of the search space, or leave study.rungs out.",
        )
    found = ladder(study.model_dump(), epochs, config.train.epochs)
    more = "data.folds" if in_folds else "train.epochs"
    if not found.rungs:
        count = config.folds if in_folds else epochs
        raise ConfigError(
            f"study.min_epochs={study.min_epochs} with {more}={count}: no trial could be paused before its end",
            remedy=f"Lower study.min_epochs or raise {more}.",
        )
    if study.brackets > (count := len(found.rungs)):
        raise ConfigError(
            f"study.brackets={study.brackets}, but there {'are' if count > 1 else 'is'} only {count} "
            f"rung{'s' * (count > 1)}, after {', '.join(map(str, found.rungs))} of {epochs} epochs",
            remedy=f"Lower study.brackets or study.reduction_factor, or raise {more}.",
        )
    return found
