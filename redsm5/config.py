"""The validated configuration: composed by Hydra from redsm5/conf, checked by the models below, saved with each trial.

Whatever is wrong with it (an unknown key or group, a wrong type, a value out of range, a conditional field missing or
out of place) is one `ConfigError` that names the key, the value, what is allowed and the nearest known name.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from redsm5.errors import ConfigError

CONF_DIR = Path(__file__).parent / "conf"
LAUNCH_DIR = Path(__file__).parent.parent / "accelerate_configs"

# What a trial logs after each epoch and a study may maximize; the losses are logged too, but they fall as models rise.
CRITERIA_METRICS = (
    "accuracy",
    "f1_macro",
    "f1_micro",
    "f1_weighted",
    "precision_macro",
    "recall_macro",
    "macro_pr_auc",
)
EVIDENCE_METRICS = ("exact_match", "f1", "char_f1", "char_precision", "char_recall", "null_span_accuracy")
VALIDATION_METRICS = (*(f"val_{m}" for m in CRITERIA_METRICS), *(f"val_evidence_{m}" for m in EVIDENCE_METRICS))

Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataConfig(_Section):
    """Where the posts come from and how they are split.

    Attributes:
        source: `synthetic` invents `posts` posts from `seed`; `csv` reads the two files of ReDSM5 in `dir`.
        split_seed, validation_fraction, test_fraction: the split by post, stratified over the nine symptoms.
        long_posts: `truncate` cuts what is beyond the encoder's window and reports how much evidence that loses.
    """

    source: Literal["synthetic", "csv"]
    dir: str | None = None
    posts: Annotated[int, Field(ge=60, le=1_000_000)] | None = None
    seed: Seed | None = None
    split_seed: Seed
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    long_posts: Literal["truncate"]

    @model_validator(mode="after")
    def _fields_fit_source(self) -> Self:
        _require("data.dir", self.dir, self.source == "csv", f"data.source={self.source}")
        _require("data.posts", self.posts, self.source == "synthetic", f"data.source={self.source}")
        _require("data.seed", self.seed, self.source == "synthetic", f"data.source={self.source}")
        return self


class ModelConfig(_Section):
    """The encoder and its two heads. `model_id` is a Hub id, a local folder, or `tiny`; `max_length` is in tokens."""

    model_id: Annotated[str, Field(min_length=1)]
    max_length: Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
    input_format: Literal["multi_label"]
    criteria_head_type: Literal["linear"]
    criteria_pooling: Literal["cls", "attention"]
    criteria_dropout: Fraction
    evidence_head_type: Literal["start_end_linear"]
    evidence_dropout: Fraction
    task_coupling: Literal["independent"]


class TaskWeights(_Section):
    """The weights of the two tasks in the summed loss."""

    criteria: Annotated[float, Field(ge=0.5, le=2)]
    evidence: Annotated[float, Field(ge=0.5, le=2)]


class TrainConfig(_Section):
    """Optimization. `batch_size` is posts a device and forward; `patience` counts epochs without a better score."""

    epochs: Annotated[int, Field(ge=1, le=9999)]
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    accumulation_steps: Annotated[int, Field(ge=1, le=1024)]
    optimizer: Literal["adamw"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup_ratio: Fraction
    schedule: Literal["linear"]
    max_grad_norm: Annotated[float, Field(gt=0)]
    loss_function: Literal["bce"]
    task_weights: TaskWeights
    mixed_precision: Literal["no", "fp16", "bf16"]
    seed: Seed
    deterministic: bool
    patience: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = None


def _parse_size(value: object) -> object:
    """Bytes, from a number or from words such as 10GB and 512 MiB."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", value.strip().lower())
    if match is None:
        raise ValueError(f"{value!r} is no size. Give bytes, or words such as 10GB, 500MB, 8GiB.")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


class RetentionConfig(_Section):
    """Which checkpoints of a trial stay; redsm5/storage/retention.py says exactly how.

    Attributes:
        enabled: without it no checkpoint is written: an interrupted trial starts over.
        min_interval_epochs: an epoch's end is saved every so many epochs, and after the last.
        max_total_size: bytes that all checkpoints of a study may take at any moment, or words such as 10GB.
        min_free_disk_percent: below it, and below 100 GB, the disk counts as low.
        keep_training_state: a completed trial keeps its last training state, and so may be given more epochs.
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

    @model_validator(mode="after")
    def _k_within_its_maximum(self) -> Self:
        if self.keep_best_k > self.keep_best_k_max:
            raise ConfigError(
                f"retention.keep_best_k={self.keep_best_k} exceeds retention.keep_best_k_max={self.keep_best_k_max}",
                remedy=f"Set retention.keep_best_k_max={self.keep_best_k} too, or a smaller keep_best_k.",
            )
        return self


class CategoricalParameter(_Section):
    type: Literal["categorical"]
    choices: Annotated[list[str | int | float | bool | None], Field(min_length=1)]


class RangeParameter(_Section):
    """A parameter drawn from [low, high], uniformly or, with `log`, uniformly in its logarithm."""

    type: Literal["int", "float"]
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}. Exchange the two.")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} with log: true. A logarithmic range starts above 0.")
        if self.type == "int" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low={self.low}, high={self.high} with type: int. Use whole numbers.")
        return self

    def ends(self) -> tuple[int, int] | tuple[float, float]:
        return (int(self.low), int(self.high)) if self.type == "int" else (self.low, self.high)


Parameter = Annotated[CategoricalParameter | RangeParameter, Field(discriminator="type")]


class SearchConfig(_Section):
    """The search space: from a key of this configuration to the values that a trial may propose for it."""

    space: dict[str, Parameter]


class StudyConfig(_Section):
    """The study. `trials` counts finished ones, whether completed, pruned or failed; the metric is maximized."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    trials: Annotated[int, Field(ge=1)]
    seed: Seed
    metric: str
    sampler: Literal["tpe", "random"]
    pruner: Literal["none", "median"]
    storage: str | None = None
    tracking_uri: str | None = None

    @model_validator(mode="after")
    def _metric_is_logged(self) -> Self:
        if self.metric in VALIDATION_METRICS:
            return self
        if "loss" in self.metric:
            raise ConfigError(
                f"study.metric={self.metric} is a loss, and the metric is maximized",
                remedy=f"Choose a score: {', '.join(VALIDATION_METRICS)}.",
            )
        raise ConfigError(
            f"study.metric={self.metric} is not logged by a trial{_nearest(self.metric, VALIDATION_METRICS)}",
            remedy=f"Allowed: {', '.join(VALIDATION_METRICS)}.",
        )


class TrialSection(_Section):
    """`id` names the trial that is to be resumed; without it, a new one is made."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$")] | None = None


class Config(_Section):
    """Everything that a trial depends on.

    `launch` names a file of accelerate_configs/; `dry_run` trains a few steps and writes nothing but its log.
    """

    experiments: Annotated[str, Field(min_length=1)]
    launch: str
    dry_run: bool = False
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    retention: RetentionConfig
    search: SearchConfig
    study: StudyConfig
    trial: TrialSection

    @model_validator(mode="after")
    def _launch_exists(self) -> Self:
        known = sorted(p.stem for p in LAUNCH_DIR.glob("*.yaml"))
        if self.launch not in known:
            raise ConfigError(
                f"launch={self.launch} is no file of accelerate_configs/{_nearest(self.launch, known)}",
                remedy=f"Allowed: {', '.join(known)}.",
            )
        return self


# What a second run of a study may change; any other difference would make its trials incomparable.
MAY_CHANGE = (
    "study.trials",
    "retention.max_total_size",
    "study.tracking_uri",
    "launch",
    "study.storage",
    "experiments",
    "trial.id",
)


# ---------------------------------------------------------------------------------------------------------------------
# compose, from the words of a command line


def compose(overrides: Sequence[str]) -> Config:
    """The configuration that these Hydra overrides ask for, checked whole, its search space included."""
    _check_groups(overrides)
    # ++ lets an unknown key through Hydra, so that one place, the validation, refuses it, naming the nearest known key.
    words = [word if word.startswith(("+", "~")) or _is_group(word) else f"++{word}" for word in overrides]
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            raw = OmegaConf.to_container(hydra_compose("config", overrides=words), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            str(error).splitlines()[0], remedy="An override is written key=value, for example train.epochs=10."
        ) from None
    assert isinstance(raw, dict)
    config = validate(raw)
    check_space(config)
    return config


def validate(raw: Mapping[Any, Any]) -> Config:
    """A nested mapping as a `Config`, or a `ConfigError` with a line for each fault."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(e["type"], e["loc"], e.get("input"), e["msg"]) for e in error.errors()]
        raise ConfigError(
            "\n".join(dict.fromkeys(faults)), remedy="The keys and their values are described in redsm5/config.py."
        ) from None


def with_parameters(config: Config, parameters: Mapping[str, Any]) -> Config:
    """The configuration with these values, from dotted keys, in the place of its own."""
    raw = config.model_dump()
    for key, value in parameters.items():
        *sections, name = key.split(".")
        target = raw
        for section in sections:
            if not isinstance(target.get(section), dict):
                raise ConfigError(f"unknown key {key}={value!r}{_nearest(key, known_keys(config))}")
            target = target[section]
        target[name] = value
    return validate(raw)


def known_keys(config: Config) -> list[str]:
    """Every key of the configuration, dotted; a search space counts as one."""
    return list(flatten(config.model_dump()))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two dumped configurations differ, each with both values."""
    a, b = flatten(before), flatten(after)
    return {k: (a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)}


def check_space(config: Config) -> None:
    """Refuse a search space that could propose what the configuration would refuse."""
    for key, parameter in config.search.space.items():
        if key.split(".")[0] not in ("model", "train"):
            searchable = [name for name in known_keys(config) if name.startswith(("model.", "train."))]
            raise ConfigError(
                f"search.space names {key}{_nearest(key, searchable)}",
                remedy="A search varies keys of model and train.",
            )
        for value in parameter.choices if isinstance(parameter, CategoricalParameter) else parameter.ends():
            try:
                with_parameters(config, {key: value})
            except ConfigError as error:
                raise ConfigError(f"search.space: {error.what}", remedy=error.remedy) from None


# ---------------------------------------------------------------------------------------------------------------------
# messages


def _require(key: str, value: Any, needed: bool, because: str) -> None:
    if needed and value is None:
        raise ConfigError(f"{key} is missing: {because} needs it", remedy=f"Add {key}=...")
    if not needed and value is not None:
        raise ConfigError(f"{key}={value} has no meaning with {because}", remedy=f"Leave {key} out.")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; nearest: {close[0]}" if close else ""


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A dumped configuration with dotted keys; a search space counts as one value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "search.space":
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _known_names(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """The dotted names of all sections and keys."""
    names = []
    for name, field in model.model_fields.items():
        names.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _known_names(field.annotation, f"{prefix}{name}.")
    return names


def _fault(kind: str, loc: tuple[int | str, ...], value: Any, message: str) -> str:
    key = ".".join(str(part) for part in loc if part not in ("categorical", "int", "float", "str", "bool", "none"))
    if kind == "extra_forbidden":
        section = key.rpartition(".")[0]
        known = [name for name in _known_names() if name.rpartition(".")[0] == section]
        allowed = (
            f"; {section or 'the top level'} has: {', '.join(n.rpartition('.')[2] for n in known)}" if known else ""
        )
        return f"unknown key {key}={value}{_nearest(key, known) or _nearest(key, _known_names())}{allowed}"
    if kind == "value_error":
        return f"{key}: {message.removeprefix('Value error, ')}"
    if kind == "missing":
        return f"{key} is missing"
    expected = re.sub(r"^Input should be ", "", message).replace("greater than or equal to", "at least")
    expected = expected.replace("less than or equal to", "at most")
    literals = re.findall(r"'([^']*)'", expected) if kind == "literal_error" else []
    return f"{key}={value}: allowed: {expected}{_nearest(str(value), literals)}"


def _is_group(word: str) -> bool:
    name = word.partition("=")[0]
    return (CONF_DIR / name).is_dir()


def _check_groups(overrides: Sequence[str]) -> None:
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise ConfigError(f"{word!r} is no override", remedy="Write key=value, for example train.epochs=10.")
        if not _is_group(word):
            continue
        group, _, choice = word.partition("=")
        known = sorted(p.stem for p in (CONF_DIR / group).glob("*.yaml"))
        if choice not in known:
            raise ConfigError(
                f"{group}={choice} is unknown{_nearest(choice, known)}", remedy=f"Allowed: {', '.join(known)}."
            )
    try:
        OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(
            str(error).splitlines()[0], remedy="Quote values with spaces or commas: 'key=\"a, b\"'."
        ) from None
