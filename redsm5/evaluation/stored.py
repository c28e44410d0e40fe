"""A completed trial's model as its folder holds it: the checkpoint that its report is about, with its thresholds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from redsm5.config import Config
from redsm5.data import load_splits
from redsm5.data.posts import SYMPTOMS
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine import files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError, NoCheckpointError
from redsm5.engine.installed import command, typed
from redsm5.engine.records import TrialRecord
from redsm5.engine.spec import load_config, load_snapshot
from redsm5.engine.storage.checkpoint import load_weights
from redsm5.engine.storage.store import DamagedCheckpoint, load_verified, read_verified
from redsm5.engine.study.ids import find_trial
from redsm5.engine.study.trial import read_record
from redsm5.evaluation.report import IN_MEMORY
from redsm5.model import MultiTaskModel, identity_of
from redsm5.reports import EvaluationReport, Thresholds


@dataclass(frozen=True)
class Stored:
    """A trained model, on the CPU when read.

    Attributes:
        weights: the SHA-256 of the weights' file.
    """

    config: Config
    tokenizer: PreTrainedTokenizerFast
    model: MultiTaskModel
    thresholds: Thresholds
    weights: str


def folders_of(experiments: Path, name: str) -> tuple[list[Path], list[Path]]:
    """The folders of the models that a person names: an exported folder, a trial's, or its ID. The confirmed winner of
    a search is its repeats, where any have kept their weights.

    Returns:
        The folders, and those of repeats that are left out, since their weights were deleted.

    Raises:
        ConfigError: there is no such trial.
    """
    if Path(name).is_dir():
        return [Path(name)], []
    folder, record = find_trial(experiments, name)
    if name.partition(":")[0] != "winner":
        return [folder], []
    repeats = repeats_of(experiments, record)
    kept = [repeat for repeat in repeats if has_weights(repeat)]
    return (kept, [repeat for repeat in repeats if repeat not in kept]) if kept else ([folder], repeats)


def repeats_of(experiments: Path, record: TrialRecord) -> list[Path]:
    """The folders of the completed repeats that confirm a trial, in their order."""
    found = [(read_record(folder), folder) for folder in paths.trial_dirs(experiments)]
    repeats = [
        (repeat.repeat or 0, folder)
        for repeat, folder in found
        if repeat and repeat.confirms == record.trial_id and repeat.state == "completed"
    ]
    return [folder for _, folder in sorted(repeats)]


def has_weights(folder: Path) -> bool:
    """Whether the checkpoint that a trial's report is about is there."""
    report = load(folder / paths.REPORT, EvaluationReport)
    name = report.evaluated_checkpoints[0].checkpoint_id.rpartition("/")[2] if report else ""
    return bool(name) and (folder / paths.CHECKPOINTS / name).is_dir()


def report_of(folder: Path) -> EvaluationReport:
    """The report of a completed trial of ReDSM5.

    Raises:
        InputError: it has none, or one without thresholds.
    """
    snapshot = load_snapshot(folder)
    if snapshot is None:
        raise InputError(
            "there is no trained model",
            where=str(folder),
            remedy=typed("Name a trial's folder, or one that `just export` wrote."),
        )
    if snapshot["study"].get("script"):
        raise InputError(
            "the trial was trained by a script of its own, which alone can load its model",
            where=str(folder),
            remedy="Load its weights in that script.",
        )
    report = load(folder / paths.REPORT, EvaluationReport)
    if report is None or report.decision_thresholds is None:
        again = command("evaluate", folder.name.removeprefix("trial_"), experiments=folder.parent)
        raise InputError(
            "the trial has no report with thresholds, so it is not completed, or an older version evaluated it",
            where=str(folder),
            remedy=f"Name a completed trial; `{again}` writes the report of one again.",
        )
    return report


def read(folder: Path) -> Stored:
    """The model of a trial's report. Its weights are verified.

    Raises:
        InputError: the folder has no trained model.
        IncompatibleCheckpointError: the data of a `tiny` one, or its pretrained encoder, have changed.
        NoCheckpointError: the checkpoint was not kept, or is damaged.
        LockedError: the trial is being trained, and is after a minute.
    """
    return read_with_files(folder)[0]


def read_with_files(folder: Path) -> tuple[Stored, Mapping[str, bytearray]]:
    """The same, and the verified files of its checkpoint, with the weights as `paths.WEIGHTS`."""
    report = report_of(folder)
    config = load_config(Config, folder)
    trial_id, name = report.evaluated_checkpoints[0].checkpoint_id.split("/")
    if name == IN_MEMORY:
        raise NoCheckpointError(
            f"trial {trial_id} was trained with retention.enabled=false: its weights were not kept",
            remedy="Train it again with retention.enabled=true.",
        )
    contents = _checkpoint(folder, trial_id, name)
    train, fingerprint = [], report.data_fingerprint
    if config.model.model_id == "tiny":  # its tokenizer depends on the training posts
        splits = load_splits(config.data)
        train, fingerprint = splits.train, splits.fingerprint
    tokenizer = tokenizer_of(config, train)
    model = MultiTaskModel(config.model, vocab_size=len(tokenizer))
    checkpoint = folder / paths.CHECKPOINTS / name
    manifest, files_of = load_verified(contents, checkpoint)
    identity_of(config, model, fingerprint).check(manifest, str(checkpoint))
    load_weights(model, files_of)
    digest = hashlib.sha256(files_of[paths.WEIGHTS]).hexdigest()
    return Stored(config, tokenizer, model, thresholds_of(report), digest), files_of


def _checkpoint(folder: Path, trial_id: str, name: str) -> dict[str, bytearray]:
    checkpoint = folder / paths.CHECKPOINTS / name
    with files.Lock(folder / paths.LOCK, shared=True):  # nothing is evicted meanwhile
        if not checkpoint.is_dir():
            again = command("rebuild", trial_id, experiments=folder.parent)
            raise NoCheckpointError(
                f"the weights of trial {trial_id} were deleted ({name})",
                remedy=f"`{again}` trains it again and puts them back; or name another trial.",
            )
        try:
            return read_verified(checkpoint)
        except DamagedCheckpoint as error:
            raise NoCheckpointError(
                f"the checkpoint is damaged: {error}",
                where=str(checkpoint),
                remedy=f"`{command('evaluate', trial_id, experiments=folder.parent)}` evaluates the next best one, and "
                "reports on that.",
            ) from None


def thresholds_of(report: EvaluationReport) -> Thresholds:
    """The thresholds of a report that has them."""
    limits = report.decision_thresholds or {}
    return Thresholds(
        criteria={name: limits[name] for name in SYMPTOMS},
        evidence_null_threshold=limits["evidence_null_threshold"],
        min_span_score=limits["min_span_score"],
    )
