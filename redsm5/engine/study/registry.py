"""Studies on disk: find or create one by name, and keep study.json and index.json up to date."""

import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from redsm5.engine import files, owned, paths
from redsm5.engine.compose import compose
from redsm5.engine.documents import load, now, parse
from redsm5.engine.errors import ConfigError, InputError
from redsm5.engine.overrides import ADDRESSES
from redsm5.engine.records import FINISHED, StudyBest, StudyIndex, StudyRecord, StudyState, TrialCounts, TrialRecord
from redsm5.engine.redaction import REDACTED
from redsm5.engine.spec import (
    MAY_CHANGE,
    StudySpec,
    completed_snapshot,
    differences,
    flatten,
    from_snapshot,
    named_keys,
    snapshot_of,
    with_parameters,
)
from redsm5.engine.study import space
from redsm5.engine.study.trial import read_record
from redsm5.engine.task import Task
from redsm5.engine.timeline import TimeLeft, time_left

C = TypeVar("C", bound=StudySpec)
SETTLED = FINISHED | {"paused"}  # of a trial that nobody works on now


class Unreadable(NamedTuple):
    """A study whose record cannot be read: its folder, its name if known, and the reason."""

    folder: Path
    name: str | None
    error: InputError


def read_studies(experiments: Path) -> tuple[list[StudyRecord], list[Unreadable]]:
    """All studies that can be read, in the order of their folders, and those that cannot."""
    records, unreadable = [], []
    for folder in paths.study_dirs(experiments):
        try:
            if record := load(folder / paths.STUDY, StudyRecord):
                records.append(record)
        except InputError as error:
            unreadable.append(Unreadable(folder, _name_of(folder), error))
    return records, unreadable


def _name_of(study: Path) -> str | None:
    """The name of a study whose record is damaged, from the rest of it or from a trial's configuration."""
    document = files.read_json(study / paths.STUDY) or {}
    if isinstance(name := document.get("name"), str):
        return name
    rows = (files.read_json(study / paths.INDEX) or {}).get("trials") or []
    ids = [row.get("trial_id") for row in rows if isinstance(row, dict)]
    folders = (paths.trial_dir(study.parent, trial_id) for trial_id in ids if isinstance(trial_id, str))
    configs = (files.read_json(folder / paths.CONFIG) for folder in folders if paths.is_ours(folder.name))
    names = (config["study"].get("name") for config in configs if config and isinstance(config.get("study"), dict))
    return next((name for name in names if isinstance(name, str)), None)


def study_by_name(experiments: Path, name: str) -> StudyRecord | None:
    """The study of this name, or None. Other studies that cannot be read are skipped.

    Raises:
        InputError: it is there, and its record cannot be read.
    """
    records, unreadable = read_studies(experiments)
    for damaged in unreadable:
        if damaged.name == name:
            raise damaged.error
    return next((record for record in records if record.name == name), None)


def list_studies(experiments: Path) -> list[tuple[StudyRecord, int, int]]:
    """All studies that can be read, oldest first, with the bytes that their trials' checkpoints take on disk now, and
    those that logs take, the study's own and its trials'.

    Takes no lock.
    """
    sizes, logs = Counter[str | None](), Counter[str | None]()
    for folder in paths.trial_dirs(experiments):
        if document := files.read_json(folder / paths.TRIAL):  # the study of a damaged one is unknown
            study_id = document.get("study_id")
            sizes[study_id] += files.tree_bytes(folder / paths.CHECKPOINTS)
            logs[study_id] += files.tree_bytes(folder / paths.LOGS)
    records, _ = read_studies(experiments)
    for study_id in (record.study_id for record in records):
        sizes[study_id] += files.tree_bytes(paths.study_dir(experiments, study_id) / paths.BASE)
        logs[study_id] += files.tree_bytes(paths.study_dir(experiments, study_id) / paths.LOGS)
    by_age = sorted(records, key=lambda record: record.created_at)
    return [(record, sizes[record.study_id], logs[record.study_id]) for record in by_age]


def study_config(kind: type[C], overrides: Sequence[str]) -> tuple[C, dict[str, Any]]:
    """The configuration of a command for an existing study: the study's own, with the changes that MAY_CHANGE allows.
    Keys that the command does not name come from the study.

    Returns:
        The configuration, and the values that the study keeps though the command alone would mean others.

    Raises:
        ConfigError: the command names a key whose value is another than the study's, and which may not change.
    """
    asked = compose(kind, overrides)
    experiments = Path(asked.experiments)
    found = study_by_name(experiments, asked.study.name)
    if found is None:
        return asked, {}
    script = found.config["study"].get("script")
    if (script is None) != (asked.study.script is None):  # another task's configuration cannot even be read
        raise _other_configuration(found.name, {"study.script": (script, asked.study.script)})
    begun = from_snapshot(kind, found.config, experiments)
    saved = begun.model_dump(mode="json")
    wanted = snapshot_of(asked)
    named = named_keys(kind, overrides, saved, wanted)
    differ = differences(saved, wanted)
    searched = {key: ("searched", flatten(wanted)[key]) for key in found.config["search"]["space"] if key in named}
    valued = {key: both for key, both in differ.items() if key not in searched or both[0] is not None}
    passing = (*MAY_CHANGE, "dry_run")  # a dry run of a study that has begun leaves it as it is
    refused = {key: both for key, both in (searched | valued).items() if key in named and key not in passing}
    if refused:
        raise _other_configuration(found.name, refused)
    # Of an address, what was typed counts, with its password, which the study does not keep.
    changes = {key: flatten(asked.model_dump(mode="json"))[key] for key in named & set(MAY_CHANGE)}
    config = with_parameters(begun, {**changes, "experiments": asked.experiments, "dry_run": asked.dry_run})
    for key in ADDRESSES:
        if key not in named and REDACTED in str(flatten(saved)[key]):
            raise ConfigError(
                f"the password of {key} is not saved with study {found.name}", remedy=f"Pass {key}=... again."
            )
    kept = {key: before for key, (before, _) in differ.items() if key not in named and key not in MAY_CHANGE}
    return config, kept


def _other_configuration(name: str, changed: Mapping[str, tuple[Any, Any]]) -> ConfigError:
    lines = "\n".join(f"    {key}: {before} before, {after} now" for key, (before, after) in changed.items())
    return ConfigError(
        f"study {name} was started with another configuration:\n{lines}",
        remedy="Leave these out to keep the study's values, or use another study.name. A later run may change "
        f"{', '.join(MAY_CHANGE[:4])}.",
    )


def new_study(config: C, task: Task[C]) -> StudyRecord:
    """The record of a study that is to be made; nothing is written. What it is to try is settled here, once for all.

    Raises:
        ConfigError: a set of study.enqueue, the grid, or what this machine lacks is refused.
    """
    if config.study.pruner == "asha":
        space.ladder_of(config)
    task.check_machine(config)
    left_out = list(task.missing(config))
    usable = task.without(config, left_out)
    enqueued = space.read_enqueued(usable, task)
    return StudyRecord(
        study_id=str(uuid.uuid4()),
        name=config.study.name,
        state="running",
        created_at=now(),
        metric=config.study.metric,
        trials=TrialCounts(wanted=space.wanted(usable, enqueued)),
        enqueued=enqueued,
        left_out=left_out,
        config=snapshot_of(config),
    )


def open_study(config: C, task: Task[C]) -> StudyRecord:
    """The study that the configuration names, made if there is none. The caller holds the experiments folder's lock.

    Raises:
        ConfigError: it was made with another configuration, apart from what a second run may change; it uses data that
            this machine lacks; or, where it is made, as `new_study` says.
    """
    experiments = Path(config.experiments)
    _remove_litter(experiments)
    snapshot = snapshot_of(config)
    found = study_by_name(experiments, config.study.name)
    if found is None:
        found = new_study(config, task)
        files.make_dir(paths.study_dir(experiments, found.study_id) / paths.CONTROL)
    saved = paths.moved(completed_snapshot(type(config), found.config), experiments)
    changed = {k: v for k, v in differences(saved, snapshot).items() if k not in MAY_CHANGE}
    if changed:  # another worker made it at the same moment
        raise _other_configuration(config.study.name, changed)
    usable = task.without(config, found.left_out)
    task.check_study(usable, found.enqueued)
    trials = found.trials.model_copy(update={"wanted": space.wanted(usable, found.enqueued)})
    return found.model_copy(update={"config": snapshot, "trials": trials, "state": "running"})


def with_data(study: StudyRecord, fingerprint: str | None) -> StudyRecord:
    """The study's record with the fingerprint of its data, if the task has one.

    Raises:
        ConfigError: it was begun with others, so that its trials could not be compared.
    """
    if fingerprint and study.data_fingerprint not in (None, fingerprint):
        raise ConfigError(
            f"study {study.name} was started with other data or splits: their fingerprint was "
            f"{study.data_fingerprint[:12]}… and is now {fingerprint[:12]}…",
            remedy="Restore the original files (data.revision=<commit> pins those of the Hub), or use "
            "another study.name.",
        )
    return study.model_copy(update={"data_fingerprint": fingerprint or study.data_fingerprint})


def _remove_litter(experiments: Path) -> None:
    """Remove folders of studies that were killed while they were made, before they had a record or a trial."""
    for folder in paths.study_dirs(experiments):
        if owned.was_never_begun(folder):
            shutil.rmtree(folder)


class Scoreboard:
    """study.json and index.json, from what the trials' own records say.

    Args:
        experiments: the folder.
        study: the study's record; its counts and best are kept here.
    """

    def __init__(self, experiments: Path, study: StudyRecord) -> None:
        self.study = study
        self._experiments, self.folder = experiments, paths.study_dir(experiments, study.study_id)
        self._index = self.folder / paths.INDEX
        self._rows: dict[str, tuple[TrialRecord, bytes]] = {}  # as they stand in the index
        self._seen: tuple[int, int] | None = None  # the index that was read or written last
        self.trials: dict[str, TrialRecord] = {}
        self.unreadable: dict[str, InputError] = {}  # by trial: its record is there, and cannot be read
        self.take_in_the_others()

    def refresh(self, trial_ids: list[str]) -> None:
        """Update from these trials' records."""
        for trial_id in trial_ids:
            try:
                record = read_record(paths.trial_dir(self._experiments, trial_id))
            except InputError as error:  # it keeps its last known state; whoever runs it reports the error
                self.unreadable[trial_id] = error
                continue
            self.unreadable.pop(trial_id, None)
            if record:
                self.trials[trial_id] = record

    def write(self, **changes: Any) -> None:
        """Replace both files. The caller holds the study's lock."""
        self.take_in_the_others()
        records = sorted(self.trials.values(), key=lambda r: (r.number or 0, r.repeat or 0))
        searched = [r for r in records if r.confirms is None]
        completed = [r for r in searched if r.state == "completed" and r.best]
        sign = 1 if self.study.maximize else -1
        best = max(completed, key=lambda r: sign * r.best.value if r.best else 0.0, default=None)
        counts = TrialCounts(
            wanted=self.study.trials.wanted,
            finished=sum(r.state in FINISHED for r in searched),
            running=sum(r.state in ("preparing", "running", "finishing") for r in searched),
            paused=sum(r.state == "paused" for r in searched),
        )
        best_row = None
        if best and best.best and best.number is not None:
            best_row = StudyBest(trial_id=best.trial_id, number=best.number, value=best.best.value)
        self.study = self.study.model_copy(update={"trials": counts, "best": best_row, **changes})
        files.write_atomic(self._index, self._index_of(records))
        self._seen = self._version()
        files.write_atomic(self.folder / paths.STUDY, self.study.to_json())

    def _index_of(self, records: Iterable[TrialRecord]) -> bytes:
        """A `StudyIndex`, a trial a line; of thousands of trials only those are made into text that have changed."""
        rows = []
        for record in records:
            known = self._rows.get(record.trial_id)
            if known is None or known[0] is not record:
                row = record.model_copy(update={"receipt": None})  # only its trial.json has it
                known = self._rows[record.trial_id] = (record, row.to_line().rstrip())
            rows.append(known[1])
        head = StudyIndex(study_id=self.study.study_id, updated_at=now(), trials=[]).to_line().rstrip()
        return head.removesuffix(b"]}") + b"\n" + b",\n".join(rows) + b"\n]}\n"

    def _version(self) -> tuple[int, int] | None:
        """What tells one index from another: each is a file of its own, renamed to its place."""
        try:
            status = self._index.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def note(self, state: StudyState) -> None:
        """Write down that the study is in this state."""
        with files.Lock(self.folder / paths.LOCK):
            self.write(state=state)

    def take_in_the_others(self) -> None:
        """Update from the index, which other workers also write: more trials, and the state of their running ones.

        A paused trial is read again only when the index says that it no longer is: there may be thousands.
        """
        going_on = [trial_id for trial_id, record in self.trials.items() if record.state not in SETTLED]
        if (version := self._version()) != self._seen:
            index = files.read_json(self._index) or {"trials": []}
            for row in index["trials"]:
                known = self.trials.get(row["trial_id"])
                if known is None:
                    with suppress(ValueError):  # of another version: its own record is what counts
                        record = self.trials[row["trial_id"]] = parse(row, TrialRecord)
                        if record.state not in FINISHED:
                            going_on.append(record.trial_id)
                elif known.state == "paused" and row.get("state") != "paused":
                    going_on.append(row["trial_id"])
            self._seen = version
        self.refresh(going_on)

    def time_left(self) -> TimeLeft | None:
        """The time that the study still takes; None before the first epoch has ended."""
        return time_left(self.study, self.trials.values())

    def bytes(self) -> int:
        """Bytes of all checkpoints, with the pretrained weights that they refer to."""
        return sum(r.bytes for r in self.trials.values()) + files.tree_bytes(self.folder / paths.BASE)
