"""A task that is a training script of one's own: `study.script`, with its search space in `study.space`.

Whatever is not the engine's is a parameter of the script. The space's file declares each: searched, or with a fixed
value, which the command line may change (`batch_size=64`).
"""

import math
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, model_validator

from redsm5.engine.errors import ConfigError, nearest
from redsm5.engine.records import StudyRecord
from redsm5.engine.spec import StudySpec, flatten, put
from redsm5.engine.task import CheckedData

DRY_RUN_BATCHES = 5
USUAL_NAMES = ("train", "main", "run", "script")  # of scripts that say less than the name of their folder


class ScriptSpec(StudySpec):
    """The engine's keys, and the script's own parameters, of any name that is not one of the engine's."""

    model_config = ConfigDict(extra="allow")

    @property
    def parameters(self) -> dict[str, Any]:
        """The script's own, by dotted key."""
        return flatten(self.model_extra or {})

    @property
    def entry_point(self) -> Path:
        return Path(str(self.study.script)).absolute()

    @property
    def dry_run_batches(self) -> int:
        return DRY_RUN_BATCHES

    @model_validator(mode="after")
    def _script_is_named(self) -> "ScriptSpec":
        if not self.study.script:
            raise ConfigError("study.script is missing", remedy="Name a training script: study.script=train.py.")
        return self

    @model_validator(mode="after")
    def _values_can_be_saved(self) -> "ScriptSpec":
        space = [(key, parameter.model_dump()) for key, parameter in self.search.space.items()]
        for key, value in [*self.parameters.items(), *space]:
            if not _is_finite(value):
                raise ConfigError(
                    f"{key}={value} has no finite number of 64 bits, which is all that a saved configuration can hold",
                    remedy="Give a word, or null, which the script turns into that number.",
                )
        return self

    @classmethod
    def prepare(cls, raw: dict[Any, Any], named: Set[str], declared: Set[str]) -> None:
        for key in sorted(named):
            if key.split(".")[0] not in cls.model_fields and key not in declared:
                raise ConfigError(
                    f"unknown key {key}{nearest(key, [*declared, *cls.model_fields])}",
                    remedy="Declare a parameter of the script in the file of study.space: searched, or with its value.",
                )
        study = raw["study"]
        if "study.name" not in {*named, *declared} and study.get("script"):
            path = Path(str(study["script"])).absolute()
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.parent.name if path.stem in USUAL_NAMES else path.stem)
            study["name"] = name.strip("-._") or "script"
        present = flatten(raw)
        for key in raw["search"]["space"]:
            if key not in present:
                put(raw, key, None)  # null until a trial has drawn it


def _is_finite(value: Any) -> bool:
    """Whether all numbers in it, at any depth, come back from JSON as they were."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, float) or math.isfinite(value)


def check_values(config: StudySpec) -> None:
    """For a trial that no search draws values for: a script's parameters must all have one.

    Raises:
        ConfigError: names those that have none.
    """
    if not isinstance(config, ScriptSpec):
        return
    own, space = config.parameters, config.search.space
    missing = [key for key in space if key in own and own[key] is None and not space[key].when]
    if missing:
        raise ConfigError(
            f"the search would draw {', '.join(missing)}, but a single trial needs a value for each",
            remedy=f"Add {' '.join(f'{key}=...' for key in missing)}.",
        )


class ScriptTask:
    """A script's data and its needs are its own affair: the engine checks only that the script is there."""

    spec = ScriptSpec

    def check_data(self, config: ScriptSpec) -> CheckedData:
        self.check_access(config)
        return CheckedData({}, None, ())

    def check_access(self, config: ScriptSpec) -> None:
        if not config.entry_point.is_file():
            raise ConfigError(
                f"study.script={config.study.script}: there is no such file",
                remedy="Run the command in the folder that the path starts from, or name the script's new place in a "
                "new study.",
            )

    def check_machine(self, config: ScriptSpec) -> None:
        pass

    def missing(self, config: ScriptSpec) -> Mapping[str, str]:
        return {}

    def without(self, config: ScriptSpec, names: Sequence[str]) -> ScriptSpec:
        return config

    def check_study(self, config: ScriptSpec, enqueued: Sequence[Mapping[str, Any]]) -> None:
        pass

    def repeated(self, config: ScriptSpec, seed: int) -> dict[str, Any]:
        return {}

    def write_page(self, folder: Path) -> None:
        pass

    def verdict(self, config: ScriptSpec, study: StudyRecord) -> list[str]:
        return []
