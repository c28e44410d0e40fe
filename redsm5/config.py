"""The validated configuration: composed by Hydra from redsm5/conf, checked by redsm5/sections.py, saved per trial.

Every mistake (an unknown key or group, a wrong type, a value out of range, a conditional field missing or out of place)
is a `ConfigError` that names the key, the value, what is allowed and the nearest known name.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Annotated, Any, Self

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, ValidationError, model_validator

from redsm5.engine import files, migrations, paths
from redsm5.engine.documents import unreadable
from redsm5.engine.errors import ConfigError, InputError, nearest
from redsm5.engine.installed import LAUNCH_DIR
from redsm5.engine.jsonio import dumps, loads
from redsm5.engine.overrides import (
    ADDRESSES,
    CONF_DIR,
    as_typed,
    check_words,
    is_group,
    parsed,
    refuse_secrets,
    refuse_stand_ins,
    stand_ins,
    values_of,
)
from redsm5.engine.redaction import redact_address
from redsm5.sections import (
    CONDITIONS,
    DataConfig,
    ModelConfig,
    Parameter,
    RetentionConfig,
    SearchConfig,
    Section,
    StudyConfig,
    TrainConfig,
    TrialSection,
)


@cache
def launch_settings(launch: str) -> Mapping[str, Any]:
    """The settings in a file of accelerate_configs/, read once."""
    settings = OmegaConf.to_container(OmegaConf.load(LAUNCH_DIR / f"{launch}.yaml"))
    if not isinstance(settings, dict):
        raise ConfigError(f"accelerate_configs/{launch}.yaml contains no settings", remedy="cpu.yaml is an example.")
    return {str(key): value for key, value in settings.items()}


class Config(Section):
    """Everything that a trial depends on.

    `launch` names a file in accelerate_configs/; `dry_run` trains a few steps and writes only its log. `symptoms`
    describes each symptom in words, by its name in the data; with binary_pairs the encoder reads the descriptions.
    """

    experiments: Annotated[str, Field(min_length=1)]
    launch: str
    dry_run: bool = False
    data: DataConfig
    symptoms: dict[str, Annotated[str, Field(min_length=1)]]
    model: ModelConfig
    train: TrainConfig
    retention: RetentionConfig
    search: SearchConfig
    study: StudyConfig
    trial: TrialSection

    @property
    def on_cpu(self) -> bool:
        """Whether `launch` trains on the CPU."""
        return bool(launch_settings(self.launch)["use_cpu"])

    @model_validator(mode="after")
    def _launch_exists(self) -> Self:
        known = sorted(p.stem for p in LAUNCH_DIR.glob("*.yaml"))
        if self.launch not in known:
            raise ConfigError(
                f"unknown launch configuration launch={self.launch}{nearest(self.launch, known)}",
                remedy=f"Allowed: {', '.join(known)}.",
            )
        if self.train.mixed_precision == "fp16" and self.on_cpu:
            raise ConfigError(
                f"train.mixed_precision=fp16 with launch={self.launch}: fp16 is not supported on a CPU",
                remedy="Choose launch=gpu, or train.mixed_precision=bf16 or no.",
            )
        return self


# The key that identifies the choice of a config group.
IDENTITIES = {"model": "model.model_id", "data": "data.source"}

# The keys that a second run of a study may change; any other change would make its trials incomparable.
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
# compose from command-line overrides


def compose(overrides: Sequence[str]) -> Config:
    """The configuration for these Hydra overrides, validated, search space included.

    A searched key that gets a value is fixed: it is removed from the search space, unless the space is given as well.
    Text fields take the text as typed (redsm5/engine/overrides.py).

    Raises:
        ConfigError: the configuration is invalid, or would contain a secret.
    """
    refuse_secrets(values_of(overrides))
    words = as_typed(overrides, Config)
    check_words(words)
    # With ++, Hydra accepts an unknown key, so that the validation alone refuses it and names the nearest known key.
    words = [word if word.startswith(("+", "~")) or is_group(word) else f"++{word}" for word in words]
    raw = _composed(words)
    named = {word.lstrip("+").partition("=")[0] for word in overrides}
    space = (raw.get("search") or {}).get("space") or {}
    if not any(name.startswith("search.space") for name in named):
        for key in named & space.keys():
            del space[key]
    _begin_with_what_is_searched(raw, space)
    config = validate(raw)
    check_space(config)
    return config


def _composed(words: Sequence[str]) -> dict[Any, Any]:
    """The resolved tree that Hydra composes from the words; it contains secrets of the environment only as parts of
    addresses.
    """
    try:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            with stand_ins() as names:
                tree = hydra_compose("config", overrides=list(words))
                seen = OmegaConf.to_container(tree, resolve=True)
            raw = OmegaConf.to_container(tree, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            str(error).splitlines()[0], remedy="An override is written key=value, for example train.epochs=10."
        ) from None
    assert isinstance(raw, dict)
    refuse_stand_ins(seen, raw, names)
    return raw


def plain_values(overrides: Sequence[str]) -> dict[str, Any] | None:
    """The values by key, if all words are plain key=value assignments; None if one of them chooses a group, adds,
    deletes, refers to another key, lists choices, or is merged with existing values.
    """
    if not all(re.match(r"[\w.]+=[^$]*$", word) and not is_group(word) for word in overrides):
        return None
    read = parsed(as_typed(overrides, Config))
    values = {str(word.key_or_group): word.value() for word in read}
    merged = any(isinstance(value, dict) or key.startswith("search.") for key, value in values.items())
    return None if merged or any(word.is_sweep_override() for word in read) else values


def _begin_with_what_is_searched(raw: dict[Any, Any], space: Mapping[str, Any]) -> None:
    """Set a missing conditional field to the first value of its search space, if it is searched."""
    flat = flatten(raw)
    for key, (parent, asks) in CONDITIONS.items():
        if asks(flat.get(parent)) and flat.get(key) is None and isinstance(parameter := space.get(key), dict):
            *sections, name = key.split(".")
            target = raw
            for section in sections:
                target = target[section]
            target[name] = parameter["choices"][0] if parameter.get("choices") else parameter.get("low")


def validate(raw: Mapping[Any, Any]) -> Config:
    """The `Config` of a nested mapping; raises a `ConfigError` with a line for each fault."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(e["type"], e["loc"], e.get("input"), e["msg"]) for e in error.errors()]
        raise ConfigError(
            "\n".join(dict.fromkeys(faults)), remedy="redsm5/sections.py describes the keys and their values."
        ) from None


def with_parameters(config: Config, parameters: Mapping[str, Any]) -> Config:
    """The configuration with these values, given by dotted keys.

    A conditional field whose condition no longer holds is reset, unless `values` contains it.
    """
    raw = config.model_dump()
    ended = {
        key: None for key, (parent, asks) in CONDITIONS.items() if parent in parameters and not asks(parameters[parent])
    }
    for key, value in {**ended, **parameters}.items():
        *sections, name = key.split(".")
        target = raw
        for section in sections:
            if not isinstance(target.get(section), dict):
                raise ConfigError(f"unknown key {key}={value!r}{nearest(key, known_keys(config))}")
            target = target[section]
        target[name] = value
    return validate(raw)


def snapshot_of(config: Config) -> dict[str, Any]:
    """The configuration for files, reports and MLflow: without the passwords in addresses."""
    snapshot = {migrations.SCHEMA: migrations.CONFIG_SCHEMA} | config.model_dump(mode="json")
    for section, key in (address.split(".") for address in ADDRESSES):
        if snapshot[section][key] is not None:
            snapshot[section][key] = redact_address(snapshot[section][key])
    return snapshot


SECTIONS = ("data", "model", "train", "retention", "search", "study")


def from_snapshot(snapshot: Mapping[str, Any], experiments: Path | None = None) -> Config:
    """The configuration that this version or an older one saved.

    Args:
        snapshot: the content of the file.
        experiments: the current experiments folder, if it may have been moved.

    Raises:
        NewerSchemaError: a newer version saved it.
        ConfigError: this version refuses one of its values.
    """
    saved = migrations.migrated(migrations.CONFIG, dict(snapshot))
    if experiments is not None:
        saved = paths.moved(saved, experiments)
    return validate({key: value for key, value in saved.items() if key != migrations.SCHEMA})


def load_snapshot(folder: Path) -> dict[str, Any] | None:
    """The configuration in a trial's folder, in this version's format; None if there is no file. Checks only its
    sections, not their values.

    Raises:
        InputError: it is damaged, or a newer version wrote it.
    """
    path = folder / paths.CONFIG
    try:
        document = loads(files.read_bytes(path))
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")
        snapshot = migrations.migrated(migrations.CONFIG, document)
        if not all(isinstance(snapshot.get(section), dict) for section in SECTIONS):
            raise ValueError("it lacks a section")
        return snapshot
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise unreadable(path, error) from None


def load_config(folder: Path) -> Config:
    """The configuration in a trial's folder.

    Raises:
        InputError: it is missing, damaged, or a newer version wrote it.
    """
    snapshot = load_snapshot(folder)
    if snapshot is None:
        raise InputError("the file is missing", where=str(folder / paths.CONFIG), remedy="Restore it from a copy.")
    try:
        return from_snapshot(snapshot, folder.parent)
    except ConfigError as error:
        raise InputError(error.what, where=str(folder / paths.CONFIG), remedy="Restore it from a copy.") from None


def save_config(folder: Path, config: Config) -> None:
    """Write the configuration into a trial's folder."""
    files.write_atomic(folder / paths.CONFIG, dumps(snapshot_of(config), indent=True) + b"\n")


def named_keys(overrides: Sequence[str], saved: Mapping[str, Any], asked: Mapping[str, Any]) -> set[str]:
    """The dotted keys that a command sets explicitly, for a study or trial that was started with a saved configuration.

    A word that chooses a group sets all keys of the group. If it repeats the saved choice of the model or of the posts'
    source, it sets none: the defaults of the other keys may differ in this version, and the user did not ask to change
    them.
    """
    before, after = flatten(saved), flatten(asked)
    named = set[str]()
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        chosen = IDENTITIES.get(key)
        if chosen and is_group(word) and before.get(chosen) == after.get(chosen):
            continue
        named |= {name for name in before | after if name == key or name.startswith(f"{key}.")}
    return named


def known_keys(config: Config) -> list[str]:
    """Every key of the configuration, dotted; a search space is one key."""
    return list(flatten(config.model_dump()))


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two dumped configurations differ, each with both values."""
    a, b = flatten(before), flatten(after)
    return {k: (a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)}


def check_space(config: Config) -> None:
    """Refuse a search space that could propose values that the configuration refuses."""
    space = config.search.space
    searchable = [name for name in known_keys(config) if name.startswith(("model.", "train."))]
    for key in space:
        if key.split(".")[0] not in ("model", "train"):
            raise ConfigError(
                f"search.space names {key}{nearest(key, searchable)}",
                remedy="Only keys of model and train can be searched.",
            )
    _check_conditions(config)
    for key, parameter in space.items():
        for value in parameter.checked():
            try:
                with_parameters(config, completed(config, {key: value}))
            except ConfigError as error:
                raise ConfigError(f"search.space: {error.what}", remedy=error.remedy) from None


def _check_conditions(config: Config) -> None:
    """Refuse a condition on a parameter that is not declared before it, or on a value that is never proposed."""
    space, known = config.search.space, known_keys(config)
    above: list[str] = []
    for key, parameter in space.items():
        for parent, allowed in parameter.when.items():
            if parent not in above and (parent in space or parent not in known):
                near = nearest(parent, [*above, *(name for name in known if name not in space)])
                raise ConfigError(
                    f"search.space: {key} depends on {parent}, which must be declared before it{near}",
                    remedy=f"Declare {parent} before it, or use another key of the configuration.",
                )
            never = [value for value in allowed if parent in space and not space[parent].holds_value(value)]
            if never:
                raise ConfigError(
                    f"search.space: {key} is conditional on {parent}={never[0]}, which the search never proposes",
                    remedy=f"Use values that {parent} has in the search space.",
                )
        above.append(key)


def holds(parameter: Parameter, values: Mapping[str, Any], config: Config) -> bool:
    """Whether a parameter's conditions hold, given the values of the parameters before it and the configuration."""
    for parent, allowed in parameter.when.items():
        value = values.get(parent)
        if parent not in values and parent not in config.search.space:
            value = as_choice(reduce(getattr, parent.split("."), config))
        if value not in allowed:
            return False
    return True


def as_choice(value: Any) -> Any:
    """A value as the search space writes it: a list of methods is joined into one word."""
    return "+".join(value) if isinstance(value, list) else value


def completed(config: Config, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A point of the search space with these values, such that their conditions hold. Other parameters have their first
    value, or None if they are not sampled there.
    """
    space = config.search.space
    values = dict(fixed)
    wanted = list(fixed)
    while wanted:
        for parent, allowed in space[wanted.pop()].when.items():
            if parent in space and parent not in values:
                values[parent] = allowed[0]
                wanted.append(parent)
    for key, parameter in space.items():
        if holds(parameter, values, config):
            values.setdefault(key, next(iter(parameter.checked())))
        else:
            values[key] = None
    return values


# ---------------------------------------------------------------------------------------------------------------------
# messages


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A dumped configuration with dotted keys; a search space is one value, and the schema number is left out."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "search.space":
            flat |= flatten(value, f"{name}.")
        elif name != migrations.SCHEMA:
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
    key = ".".join(
        str(part) for part in loc if part not in ("categorical", "int", "float", "str", "bool", "none", "[key]")
    )
    if kind == "extra_forbidden":
        section = key.rpartition(".")[0]
        known = [name for name in _known_names() if name.rpartition(".")[0] == section]
        allowed = (
            f"; {section or 'the top level'} has: {', '.join(n.rpartition('.')[2] for n in known)}" if known else ""
        )
        return f"unknown key {key}={value}{nearest(key, known) or nearest(key, _known_names())}{allowed}"
    if kind == "value_error":
        return f"{key}: {message.removeprefix('Value error, ')}"
    if kind == "missing":
        return f"{key} is missing"
    expected = re.sub(r"^Input should be ", "", message).replace("greater than or equal to", "at least")
    expected = expected.replace("less than or equal to", "at most")
    literals = re.findall(r"'([^']*)'", expected) if kind == "literal_error" else []
    shown = "null" if value is None else value
    word = f"; as a word: '{key}=\"{shown}\"'" if kind == "string_type" and not isinstance(value, dict | list) else ""
    return f"{key}={shown}: allowed: {expected}{nearest(str(value), literals)}{word}"
