"""Which configuration a trial resumes with: the one saved with it, apart from the few keys that may change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from redsm5.engine import files, paths
from redsm5.engine.compose import compose, plain_values
from redsm5.engine.errors import ConfigError, LockedError
from redsm5.engine.records import FINISHED
from redsm5.engine.spec import (
    StudySpec,
    differences,
    from_snapshot,
    load_snapshot,
    named_keys,
    save_config,
    snapshot_of,
    with_parameters,
)
from redsm5.engine.study.trial import read_record, write_record

C = TypeVar("C", bound=StudySpec)

# What may change when a trial is resumed; everything else is fixed at its start. Its epochs may be raised.
MAY_CHANGE_ON_RESUME = (
    "experiments",
    "trial.id",
    "launch",
    "study.tracking_uri",
    "retention.max_total_size",
    "retention.min_free_disk_percent",
)


def trial_config(kind: type[C], overrides: Sequence[str]) -> C:
    """The configuration saved with the trial `trial.id`, with the changes that are allowed on a resume.

    Raises:
        ConfigError: there is no such trial, or an override would change what the trial was started with.
    """
    values = plain_values(kind, overrides)
    if values and {"trial.id", "experiments"} <= values.keys():
        asked, (trial_id, experiments) = None, (values["trial.id"], values["experiments"])
    else:
        asked = compose(kind, overrides)
        trial_id, experiments = asked.trial.id, asked.experiments
    folder = paths.trial_dir(Path(str(experiments)), trial_id)
    saved = load_snapshot(folder, kind)
    saved = saved and paths.moved(saved, Path(str(experiments)))
    if saved is None or not (folder / paths.TRIAL).exists():
        raise ConfigError(
            f"trial.id={trial_id}: no such trial in {experiments}",
            remedy="The trials are the folders trial_<uuid> there; leave trial.id out to start a new one.",
        )
    if asked is None:  # to compose what these words are plain without takes 0.1 s
        asked = with_parameters(from_snapshot(kind, saved), values or {})
    named = named_keys(kind, overrides, saved, asked.model_dump(mode="json"))

    def changes(now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {key: both for key, both in differences(saved, now).items() if key in named}

    changed = changes(asked.model_dump(mode="json"))
    before, after = changed.get("train.epochs", (0, 0))
    extended = after > before and asked.folds == 1
    refused = [
        f"{key}: {a} when the trial started, {b} now"
        for key, (a, b) in changes(snapshot_of(asked)).items()  # of an address, the password is no change
        if key not in MAY_CHANGE_ON_RESUME and not (key == "train.epochs" and extended)
    ]
    if refused:
        only = "Only train.epochs may be raised." if asked.folds == 1 else "With folds, train.epochs stays too."
        raise ConfigError(
            f"trial {trial_id} cannot be resumed with another configuration: {'; '.join(refused)}",
            remedy=f"Leave these out, or start a new trial without trial.id. {only}",
        )
    return with_parameters(from_snapshot(kind, saved), {key: after for key, (_, after) in changed.items()})


def allow_more_epochs(folder: Path, config: StudySpec) -> None:
    """Extend a trial to more epochs than it was started with; do nothing if it is not extended.

    Raises:
        ConfigError: it is finished and its training state was not kept.
        LockedError: it is being trained.
    """
    record = read_record(folder)
    assert record is not None
    if config.epochs <= record.epochs:
        return
    if record.state == "completed" and record.epoch < record.epochs:
        raise ConfigError(
            f"trial {record.trial_id} ended after {record.epoch} of {record.epochs} epochs: it stopped early "
            "(train.patience) and would not train any further",
            remedy="Start a new trial with a higher train.patience.",
        )
    if record.state in FINISHED:
        if not list(folder.glob(f"{paths.CHECKPOINTS}/*/{paths.STATE_JSON}")):
            raise ConfigError(
                f"trial {record.trial_id} is {record.state} after {record.epoch} epochs and cannot be extended: "
                "its training state was not kept",
                remedy="Start a new trial with a higher train.epochs. To be able to extend "
                "later trials, set retention.keep_training_state=true.",
            )
        record = record.model_copy(update={"state": "interrupted", "finished_at": None, "exit_code": 75})
    with files.try_lock(folder / paths.LOCK) as held:
        if not held:
            raise LockedError(f"trial {record.trial_id} is being trained", remedy="Stop it first, or wait for its end.")
        save_config(folder, config)
        write_record(folder, record.model_copy(update={"epochs": config.epochs}))
