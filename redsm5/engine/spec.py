"""`StudySpec`, all that the engine knows of a task: launch, training loop, retention, search space, study, entry point.

A task's configuration is a class of its own that adds keys (redsm5/config.py, redsm5/engine/script.py). To the engine,
these are opaque parameters: it saves them, compares them, and sets them to what a trial has drawn. Every mistake in a
configuration is a `ConfigError` that names the key, the value, what is allowed and the nearest known name.
"""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from omegaconf import OmegaConf
from pydantic import BaseModel, Field, ValidationError, model_validator

from redsm5.engine import files, migrations, paths
from redsm5.engine.documents import unreadable
from redsm5.engine.errors import ConfigError, InputError, nearest
from redsm5.engine.installed import LAUNCH_DIR, command
from redsm5.engine.jsonio import dumps, loads
from redsm5.engine.overrides import ADDRESSES, is_group
from redsm5.engine.redaction import redact_address
from redsm5.engine.sections import RetentionConfig, SearchConfig, Section, StudyConfig, TrainingLoop, TrialSection
from redsm5.engine.tables import nearest_key

ENGINE_CONF = Path(__file__).parent / "conf"

Condition = tuple[str, Callable[[Any], bool]]


@cache
def launch_settings(launch: str) -> Mapping[str, Any]:
    """The settings in a file of accelerate_configs/, read once."""
    settings = OmegaConf.to_container(OmegaConf.load(LAUNCH_DIR / f"{launch}.yaml"))
    if not isinstance(settings, dict):
        raise ConfigError(f"accelerate_configs/{launch}.yaml contains no settings", remedy="cpu.yaml is an example.")
    return {str(key): value for key, value in settings.items()}


class StudySpec(Section):
    """What a study and its trials depend on.

    Attributes:
        experiments: the folder of all files.
        launch: names a file in accelerate_configs/.
        dry_run: trains a few steps and writes only a log.
    """

    experiments: Annotated[str, Field(min_length=1)]
    launch: str
    dry_run: bool = False
    train: TrainingLoop
    retention: RetentionConfig
    search: SearchConfig
    study: StudyConfig
    trial: TrialSection

    CONF: ClassVar[tuple[Path, ...]] = (ENGINE_CONF,)  # folders of config.yaml and of the groups
    # For each conditional field: the field on which it depends, and whether a value of that field requires it.
    CONDITIONS: ClassVar[Mapping[str, Condition]] = {}
    IDENTITIES: ClassVar[Mapping[str, str]] = {}  # the key that identifies the choice of a config group
    LEGACY: ClassVar[Mapping[str, Any]] = {}  # keys that older versions did not have, and their value then
    SECTIONS: ClassVar[tuple[str, ...]] = ("train", "retention", "search", "study")
    # Sections whose keys cannot be searched, since they say how and where a study runs, not what is trained.
    NOT_SEARCHED: ClassVar[tuple[str, ...]] = (
        *("experiments", "launch", "dry_run", "retention", "search", "study", "trial"),
    )

    @property
    def on_cpu(self) -> bool:
        """Whether `launch` trains on the CPU."""
        return bool(launch_settings(self.launch)["use_cpu"])

    @property
    def entry_point(self) -> Path:
        """The training script that `accelerate launch` starts."""
        raise NotImplementedError

    @property
    def entry_module(self) -> str | None:
        """The entry point's module, which a process imports ahead of the trial; None: it is only a file."""
        return None

    @property
    def one_thread(self) -> bool:
        """Whether a model is so small that several threads only slow it down."""
        return False

    @property
    def dry_run_batches(self) -> int | None:
        """The batches of a dry run; None where the training script has few by itself."""
        return None

    @property
    def report_file(self) -> str | None:
        """The file that a completed trial's training writes, and without which its weights are never evicted."""
        return None

    @property
    def folds(self) -> int:
        """How many models a trial trains, one after the other, for one score."""
        return 1

    @property
    def epochs(self) -> int:
        """The epochs of a trial, those of all its folds."""
        return self.train.epochs * self.folds

    @property
    def maximize(self) -> bool:
        return self.study.direction == "maximize"

    @model_validator(mode="after")
    def _launch_exists(self) -> Self:
        known = sorted(p.stem for p in LAUNCH_DIR.glob("*.yaml"))
        if self.launch not in known:
            raise ConfigError(
                f"unknown launch configuration launch={self.launch}{nearest(self.launch, known)}",
                remedy=f"Allowed: {', '.join(known)}.",
            )
        return self

    @classmethod
    def can_be_searched(cls, key: str) -> bool:
        """Whether a search space, or a parameter set to try first, may have this key."""
        return key.split(".")[0] not in cls.NOT_SEARCHED

    @classmethod
    def prepare(cls, raw: dict[Any, Any], named: Set[str], declared: Set[str]) -> None:
        """Complete a composed tree before it is validated.

        Args:
            raw: the tree. named: the keys of the command line. declared: those of the search space's file.

        Raises:
            ConfigError: a key is refused.
        """


C = TypeVar("C", bound=StudySpec)

# The keys that a second run of a study may change; any other change would make its trials incomparable.
MAY_CHANGE = (
    "study.trials",
    "retention.max_total_size",
    "study.tracking_uri",
    "launch",
    "study.storage",
    "study.confirm.top",
    "study.confirm.repeats",
    "experiments",
    "trial.id",
)


def validate(kind: type[C], raw: Mapping[Any, Any]) -> C:
    """The configuration of a nested mapping; raises a `ConfigError` with a line for each fault."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(kind, e["type"], e["loc"], e.get("input"), e["msg"]) for e in error.errors()]
        raise ConfigError(
            "\n".join(dict.fromkeys(faults)), remedy=f"`{command('keys')}` lists the keys and their values."
        ) from None


def with_parameters(config: C, parameters: Mapping[str, Any]) -> C:
    """The configuration with these values, given by dotted keys.

    A conditional field whose condition no longer holds is reset, unless `parameters` contains it.
    """
    raw = config.model_dump()
    ended = {
        key: None
        for key, (parent, asks) in config.CONDITIONS.items()
        if parent in parameters and not asks(parameters[parent])
    }
    for key, value in {**ended, **parameters}.items():
        *sections, name = key.split(".")
        target = raw
        for section in sections:
            if not isinstance(target.get(section), dict):
                raise ConfigError(f"unknown key {key}={value!r}{nearest_key(key, known_keys(config))}")
            target = target[section]
        target[name] = value
    return validate(type(config), raw)


# ---------------------------------------------------------------------------------------------------------------------
# on disk


def snapshot_of(config: StudySpec) -> dict[str, Any]:
    """The configuration for files, reports and MLflow: without the passwords in addresses."""
    snapshot = {migrations.SCHEMA: migrations.CONFIG_SCHEMA} | config.model_dump(mode="json")
    for section, key in (address.split(".") for address in ADDRESSES):
        if snapshot[section][key] is not None:
            snapshot[section][key] = redact_address(snapshot[section][key])
    return snapshot


def completed_snapshot(kind: type[StudySpec], snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot of this version or an older one, in this version's format."""
    return migrations.with_values(migrations.migrated(migrations.CONFIG, dict(snapshot)), kind.LEGACY)


def from_snapshot(kind: type[C], snapshot: Mapping[str, Any], experiments: Path | None = None) -> C:
    """The configuration that this version or an older one saved.

    Args:
        kind: the task's configuration.
        snapshot: the content of the file.
        experiments: the current experiments folder, if it may have been moved.

    Raises:
        NewerSchemaError: a newer version saved it.
        ConfigError: this version refuses one of its values.
    """
    saved = completed_snapshot(kind, snapshot)
    if experiments is not None:
        saved = paths.moved(saved, experiments)
    return validate(kind, {key: value for key, value in saved.items() if key != migrations.SCHEMA})


def load_snapshot(folder: Path, kind: type[StudySpec] = StudySpec) -> dict[str, Any] | None:
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
        snapshot = completed_snapshot(kind, document)
        if not all(isinstance(snapshot.get(section), dict) for section in kind.SECTIONS):
            raise ValueError("it lacks a section")
        return snapshot
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise unreadable(path, error) from None


def load_config(kind: type[C], folder: Path) -> C:
    """The configuration in a trial's folder.

    Raises:
        InputError: it is missing, damaged, or a newer version wrote it.
    """
    snapshot = load_snapshot(folder, kind)
    if snapshot is None:
        raise InputError("the file is missing", where=str(folder / paths.CONFIG), remedy="Restore it from a copy.")
    try:
        return from_snapshot(kind, snapshot, folder.parent)
    except ConfigError as error:
        raise InputError(error.what, where=str(folder / paths.CONFIG), remedy="Restore it from a copy.") from None


def save_config(folder: Path, config: StudySpec) -> None:
    """Write the configuration into a trial's folder."""
    files.write_atomic(folder / paths.CONFIG, dumps(snapshot_of(config), indent=True) + b"\n")


# ---------------------------------------------------------------------------------------------------------------------
# keys


def named_keys(
    kind: type[StudySpec], overrides: Sequence[str], saved: Mapping[str, Any], asked: Mapping[str, Any]
) -> set[str]:
    """The dotted keys that a command sets explicitly, for a study or trial that was started with a saved configuration.

    A word that chooses a group sets all keys of the group. If it repeats the saved choice (of the model, for example),
    it sets none: the defaults of the other keys may differ in this version, and the user did not ask to change them.
    """
    before, after = flatten(saved), flatten(asked)
    named = set[str]()
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~")
        chosen = kind.IDENTITIES.get(key)
        if chosen and is_group(kind.CONF, word) and before.get(chosen) == after.get(chosen):
            continue
        named |= {name for name in before | after if name == key or name.startswith(f"{key}.")}
    return named


def known_keys(config: StudySpec) -> list[str]:
    """Every key of the configuration, dotted; a search space is one key."""
    return list(flatten(config.model_dump()))


def searchable_keys(config: StudySpec) -> list[str]:
    """Every key that a search space may have."""
    return [name for name in known_keys(config) if config.can_be_searched(name)]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two dumped configurations differ, each with both values."""
    a, b = flatten(before), flatten(after)
    return {k: (a.get(k), b.get(k)) for k in sorted(a | b) if a.get(k) != b.get(k)}


def put(tree: dict[Any, Any], key: str, value: Any) -> None:
    """Set a dotted key of a nested tree.

    Raises:
        ConfigError: a part of it is a value already, or it is a section.
    """
    *sections, name = key.split(".")
    target = tree
    for n, section in enumerate(sections, 1):
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            raise _two_things(".".join(sections[:n]), key)
        target = inner
    if isinstance(present := target.get(name), dict) and not isinstance(value, dict):
        raise _two_things(key, f"{key}.{next(iter(present), '…')}")
    target[name] = value


def _two_things(value: str, section: str) -> ConfigError:
    return ConfigError(
        f"{value} cannot be a value and the beginning of {section}", remedy=f"Rename one of them, such as {value}_kind."
    )


def as_choice(value: Any) -> Any:
    """A value as the search space writes it: a list of methods is joined into one word."""
    return "+".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value


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


# ---------------------------------------------------------------------------------------------------------------------
# messages


def _known_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    """The dotted names of all sections and keys."""
    names = []
    for name, field in model.model_fields.items():
        names.append(f"{prefix}{name}")
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _known_names(field.annotation, f"{prefix}{name}.")
    return names


def _fault(kind: type[StudySpec], error: str, loc: tuple[int | str, ...], value: Any, message: str) -> str:
    key = ".".join(
        str(part) for part in loc if part not in ("categorical", "int", "float", "str", "bool", "none", "[key]")
    )
    if error == "extra_forbidden":
        section, every = key.rpartition(".")[0], _known_names(kind)
        known = [name for name in every if name.rpartition(".")[0] == section]
        allowed = (
            f"; {section or 'the top level'} has: {', '.join(n.rpartition('.')[2] for n in known)}" if known else ""
        )
        return f"unknown key {key}={value}{nearest(key, known) or nearest_key(key, every)}{allowed}"
    if error == "value_error":
        return f"{key}: {message.removeprefix('Value error, ')}"
    if error == "missing":
        return f"{key} is missing"
    expected = re.sub(r"^(Input|Value|String|List|Dictionary|Set|Tuple) should (be|have) ", "", message)
    expected = expected.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    expected = re.sub(r" after validation, not \d+$", "", expected)
    literals = re.findall(r"'([^']*)'", expected) if error == "literal_error" else []
    shown = "null" if value is None else value
    is_word = error == "string_type" and not isinstance(value, dict | list) and all(isinstance(n, str) for n in loc)
    word = f"; as a word: '{key}=\"{shown}\"'" if is_word else ""
    return f"{key}={shown}: allowed: {expected}{nearest(str(value), literals)}{word}"
