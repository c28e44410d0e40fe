"""The engine's sections of the configuration: study, retention, search space, training loop, trial.

A task adds sections of its own (redsm5/engine/spec.py). Errors are formatted in redsm5/engine/spec.py.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from redsm5.engine.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class Form:
    """The form of a text: a pattern for the machine, and words for a person, in messages and in the reference."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": self.pattern, "description": self.words}

    def _checked(self, value: str) -> str:
        if re.fullmatch(self.pattern, value) is None:
            raise PydanticCustomError("form", "{words}", {"words": self.words})
        return value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TrainingLoop(Section):
    """What the engine knows of a trial's training.

    Attributes:
        epochs: of a trial that is neither pruned nor stopped early.
        seed: of every random generator.
        patience: end the training after so many epochs without a better score.
        checkpoint_every_steps: also save a checkpoint every so many optimizer steps; null: at the end of an epoch only.
    """

    epochs: Annotated[int, Field(ge=1, le=9999)]
    seed: Seed
    patience: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None


def _parse_size(value: object) -> object:
    """Bytes, from a number or from words such as 10GB and 512 MiB."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", value.strip().lower())
    if match is None:
        raise ValueError(f"{value!r} is not a size. Give bytes, or a size such as 10GB, 500MB, 8GiB.")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


class RetentionConfig(Section):
    """Which checkpoints of a trial are kept; redsm5/engine/storage/retention.py has the exact rules.

    Attributes:
        enabled: if false, no checkpoint is written, and an interrupted trial starts over.
        keep_last_n: the newest checkpoints of an unfinished trial; with 0, its resume point alone.
        keep_best_k: the best, and all tied with the last of them.
        keep_best_k_max: the highest value that keep_best_k may have.
        keep_all: keep every checkpoint with its training state.
        compact: weights and training states that only wait to be read again, of completed and paused trials, are stored
            losslessly as the difference to the pretrained weights, and compressed.
        min_interval_epochs: a checkpoint is saved every so many epochs, and after the last.
        max_total_size: bytes that all checkpoints of a study may take at any moment, or words such as 10GB.
        min_free_disk_percent: below this and below 100 GB, the disk counts as low.
        keep_training_state: a completed trial keeps its last training state, so that it can be trained for more epochs.
    """

    enabled: bool = True
    keep_last_n: Annotated[int, Field(ge=0)]
    keep_best_k: Annotated[int, Field(ge=1)]
    keep_best_k_max: Annotated[int, Field(ge=1)]
    max_total_size: Annotated[int, Field(ge=1), BeforeValidator(_parse_size)]
    min_interval_epochs: Annotated[int, Field(ge=1)]
    min_free_disk_percent: Annotated[float, Field(ge=0, le=100)]
    keep_training_state: bool = False
    keep_all: bool = False
    compact: bool = True

    @model_validator(mode="after")
    def _k_within_its_maximum(self) -> Self:
        if self.keep_best_k > self.keep_best_k_max:
            raise ConfigError(
                f"retention.keep_best_k={self.keep_best_k} exceeds retention.keep_best_k_max={self.keep_best_k_max}",
                remedy=f"Set retention.keep_best_k_max={self.keep_best_k} too, or a smaller keep_best_k.",
            )
        return self


def _as_lists(value: object) -> object:
    """A condition's value as the list of values under which it holds."""
    return {k: v if isinstance(v, list) else [v] for k, v in value.items()} if isinstance(value, Mapping) else value


Choice = str | int | float | bool | None
When = Annotated[dict[str, list[Choice]], BeforeValidator(_as_lists)]
"""The conditions of a parameter: it is drawn only if each of these parameters, declared before it, has one of these
values.
"""


class CategoricalParameter(Section):
    """A parameter drawn from a list.

    Attributes:
        choices: the values.
        when: for each parameter, declared before it, the values with which this one is drawn; else it is null.
    """

    type: Literal["categorical"]
    choices: Annotated[list[Choice], Field(min_length=1)]
    when: When = {}

    def checked(self) -> Iterable[Choice]:
        """The values to validate: all of them."""
        return self.choices

    def holds_value(self, value: object) -> bool:
        """Whether a search may propose this value."""
        return value in self.choices


class RangeParameter(Section):
    """A parameter drawn from a range.

    Attributes:
        low, high: the ends of the range, which belong to it.
        log: draw log-uniformly, not uniformly.
        points: the number of values that a grid tries, ends included; null: every value of an int.
        when: for each parameter, declared before it, the values with which this one is drawn; else it is null.
    """

    type: Literal["int", "float"]
    low: float
    high: float
    log: bool = False
    points: Annotated[int, Field(ge=2, le=1000)] | None = None
    when: When = {}

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}. Swap them.")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} with log: true. A logarithmic range must start above 0.")
        if self.type == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low={self.low}, high={self.high} with type: int. Use whole numbers.")
        return self

    def checked(self) -> Iterable[Choice]:
        """The values to validate; if these are allowed, all are: both ends and, of whole numbers, the second, since a
        key may accept only multiples.
        """
        if self.type == "float":
            return self.low, self.high
        low, high = int(self.low), int(self.high)
        return low, min(low + 1, high), high

    def holds_value(self, value: object) -> bool:
        """Whether a search may propose this value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (self.type == "float" or float(value).is_integer())


Parameter = Annotated[CategoricalParameter | RangeParameter, Field(discriminator="type")]


class SearchConfig(Section):
    """The search space: maps a key of this configuration to the values that the search may propose for it.

    Attributes:
        space: parameters are drawn in this order. One whose condition does not hold is null in a trial's configuration.
    """

    space: dict[str, Parameter]


class ConfirmConfig(Section):
    """The confirmation of a search: its best configurations are trained again (docs/search.md, "Is the winner luck?").

    Attributes:
        top: so many of the best, when the search ends; 0: none.
        repeats: how often each, with new seeds and other splits; one that falls behind is dropped earlier.
    """

    top: Annotated[int, Field(ge=0, le=100)] = 0
    repeats: Annotated[int, Field(ge=2, le=100)] = 5  # an interval needs two


STUDY_NAME = Form(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    "up to 100 of the characters A-Z, a-z, 0-9, dot, underscore and hyphen, beginning with a letter or digit",
)
TRIAL_ID = Form(
    r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}",
    "a trial's whole id, such as 0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e: 32 of the characters 0-9 and a-f, with hyphens",
)


class StudyConfig(Section):
    """The study.

    Attributes:
        name: identifies it within the experiments folder.
        seed: of the proposals, and with a trial's number of its own.
        trials: the number of trials to finish, whether completed, pruned or failed; with a grid, at most its points.
        script: a training script of one's own (docs/own-task.md); null: redsm5/train.py.
        space: a YAML file with the search space, in place of `search`; a plain value in it fixes its key.
        metric: the metric to optimize, by its name in the journal. direction: whether it is maximized or minimized.
        sampler: `tpe` models where good values are likely; `gp` fits a Gaussian process, which takes longer for each
            proposal and suits a few dozen trials; `cmaes` evolves the ranges that every trial draws from, and draws the
            rest at random; `qmc` spreads trials evenly, by a scrambled Sobol sequence; `random`; `grid` tries all
            points of the space, in an order that depends on the seed.
        multivariate: `tpe` models parameters together, not one by one.
        pruner: ends a trial after an epoch. `median` and `percentile` (it must reach the best quarter) compare it with
            the completed trials, once there are five; `hyperband` with the trials of its bracket; `asha` pauses every
            trial at rungs, and the best go on from their checkpoints.
        reduction_factor: of asha: of the trials at a rung, the best 1/reduction_factor go on, to reduction_factor times
            as many epochs.
        min_epochs: of asha: the epochs, or folds, to the first rung.
        rungs: of asha: whether rungs are counted in epochs, or in folds (data.folds).
        brackets: of asha: bracket b starts at rung b, and gets trials in the proportion of hyperband.
        trial_timeout: seconds that a trial may take, over all its starts; a longer trial fails.
        enqueue: a YAML file, a list of parameter sets (dotted keys) that are tried first; keys that
            a set does not name have the configuration's values.
        enqueue_defaults: trial 0 has the configuration's own values. A value that the search space does not contain is
            drawn instead.
        storage: an Optuna URL; null: a journal in the experiments folder.
        tracking_uri: MLflow's address; null: a database in the experiments folder.
    """

    name: Annotated[str, STUDY_NAME]
    trials: Annotated[int, Field(ge=1)]
    seed: Seed
    script: str | None = None
    space: str | None = None
    metric: Annotated[str, Field(min_length=1)]
    direction: Literal["maximize", "minimize"]
    sampler: Literal["tpe", "gp", "cmaes", "qmc", "random", "grid"]
    multivariate: bool = False
    pruner: Literal["none", "median", "percentile", "hyperband", "asha"]
    reduction_factor: Annotated[int, Field(ge=2)]
    min_epochs: Annotated[int, Field(ge=1)]
    brackets: Annotated[int, Field(ge=1)]
    rungs: Literal["epochs", "folds"] = "epochs"
    trial_timeout: Annotated[float, Field(gt=0)] | None = None
    enqueue: str | None = None
    enqueue_defaults: bool
    storage: str | None = None
    tracking_uri: str | None = None
    confirm: ConfirmConfig = ConfirmConfig()

    @model_validator(mode="after")
    def _multivariate_is_of_tpe(self) -> Self:
        if self.multivariate and self.sampler != "tpe":
            raise ConfigError(
                f"study.multivariate=true applies only with study.sampler=tpe, not {self.sampler}",
                remedy="Leave study.multivariate out, or choose study.sampler=tpe.",
            )
        return self


class TrialSection(Section):
    """A single trial.

    Attributes:
        id: the trial to resume; null: a new one.
    """

    id: Annotated[str, TRIAL_ID] | None = None


# ---------------------------------------------------------------------------------------------------------------------
# what the classes say of their keys, for the reference and for `just keys`


def said_of(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What a class's docstring says of the class, and its `Attributes:` block of each field, inherited ones included.

    An entry names one field or several (`a, b: …`); a line may hold a second entry after the end of a sentence.
    """
    about, fields = "", dict[str, str]()
    names = rf"(?:{'|'.join(model.model_fields)})"
    for cls in (c for c in model.__mro__ if issubclass(c, BaseModel) and c is not BaseModel):
        text, _, block = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
        about = about or " ".join(text.split())
        for entry in re.split(r"\n {4}(?! )", "\n" + block.split("\n\n")[0]):
            parts = re.split(rf"(?:^|(?<=\. ))({names}(?:, {names})*): ", " ".join(entry.split()))
            for together, meaning in zip(parts[1::2], parts[2::2], strict=True):
                for name in together.split(", "):
                    fields.setdefault(name, " ".join(meaning.split()))
    return about, fields


def allowed(schema: Any) -> str:
    """The values that a field's JSON Schema allows, in words."""
    if not isinstance(schema, dict) or not schema:
        return "any value"
    if "anyOf" in schema:
        *others, last = map(allowed, schema["anyOf"])
        return f"{', '.join(others)}, or {last}"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "null":
            return "`null`"
        case "boolean":
            return "`true`, `false`"
        case "string":
            words, empty = schema.get("description"), not schema.get("minLength")
            return f"text: {words}" if words else "text" if empty else "text, not empty"
        case "array":
            length = {schema.get("minItems"), schema.get("maxItems")}
            count = f" of {length.pop()}" if len(length) == 1 and length != {None} else ""
            return f"list{count}: {allowed(schema['items'])}"
        case "object" if "additionalProperties" in schema:
            names, value = schema.get("propertyNames"), schema["additionalProperties"]
            below = isinstance(value, dict) and ("oneOf" in value or "$ref" in value)
            values = "what is below" if below else allowed(value)
            return f"mapping from {allowed(names) if names else 'text'} to {values}"
        case "integer" | "number" as kind:
            return ", ".join(filter(None, [{"integer": "whole number", "number": "number"}[kind], bounds(schema)]))
    raise ValueError(f"no words for {schema}")


def bounds(schema: Mapping[str, Any]) -> str:
    """The limits of a number, in words."""
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {schema[name]:.10g}" for name, word in words.items() if name in schema]
    if "minimum" in schema and "maximum" in schema:
        limits = [f"{schema['minimum']:.10g} to {schema['maximum']:.10g}"]
    if "multipleOf" in schema:
        limits.append(f"a multiple of {schema['multipleOf']}")
    return ", ".join(limits)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The classes that an annotation contains, in its order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def as_typed(value: Any) -> str:
    """A value as it is typed after `key=`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def proposed(parameter: Mapping[str, Any] | None) -> str:
    """The values of one parameter of a search space, and the condition under which it is drawn."""
    if parameter is None:
        return "–"
    if "choices" in parameter:
        values = ", ".join(f"`{as_typed(value) or '(none)'}`" for value in parameter["choices"])
    else:
        scale = ", log" if parameter.get("log") else ""
        values = f"{parameter['low']:.10g} to {parameter['high']:.10g}{scale}"
        if points := parameter.get("points"):
            values += f" (grid: {points})"
    for key, when in (parameter.get("when") or {}).items():
        conditions = when if isinstance(when, list) else [when]
        values += f"; if `{key}` is {' or '.join(f'`{as_typed(value)}`' for value in conditions)}"
    return values
