"""The studies and trials that a person names: what the commands call ID and STUDY.

STUDY is a study's name, its uuid or a prefix that no other study's uuid has. ID is a trial's uuid or such a prefix; or
`STUDY#3`, the trial of that number; or `best` and `winner`, of the newest study, or `best:STUDY` and `winner:STUDY`.
The winner is the trial whose configuration study.confirm named, and the best where no confirmation was asked for.
"""

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import ConfigError, InputError
from redsm5.engine.installed import command
from redsm5.engine.records import StudyRecord, TrialRecord
from redsm5.engine.study.trial import read_record

HELP = "its uuid, the first digits of it, STUDY#NUMBER, best, winner, best:STUDY or winner:STUDY"
PREFIX = re.compile(r"[0-9a-f][0-9a-f-]{0,34}")
SHOWN = 5  # the most of several that are named


def find_study(experiments: Path, wanted: str | None) -> StudyRecord:
    """The study that a person names; without a name, the newest.

    Raises:
        InputError: there is no such study, or several, or its record is damaged.
    """
    _check_folder(experiments)
    damaged: list[InputError] = []
    records: list[StudyRecord] = []
    for folder in paths.study_dirs(experiments):
        try:
            record = load(folder / paths.STUDY, StudyRecord)
        except InputError as error:
            if wanted and folder.name == f"study_{wanted}":
                raise
            damaged.append(error)
        else:
            records += [record] if record else []
    found = [record for record in records if wanted in (None, record.name, record.study_id)]
    if found:
        return max(found, key=lambda record: record.created_at)
    if wanted and PREFIX.fullmatch(wanted):
        found = [record for record in records if record.study_id.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise _several(f"the ids of {len(found)} studies", wanted, (record.study_id for record in found))
    if damaged:
        raise damaged[0]
    if not records:
        raise InputError(
            f"there are no studies in {experiments} yet",
            remedy=f"Run `{command('hpo', experiments=experiments)}` first.",
        )
    names = ", ".join(sorted(record.name for record in records))
    raise InputError(f"there is no study {wanted} in {experiments}", remedy=f"The studies there: {names}.")


def trial_folder(experiments: Path, wanted: str) -> Path:
    """The folder of the trial that a person names.

    Raises:
        ConfigError: there is no such trial, or several.
        InputError: the record of the study that is named is damaged, or there is no such study.
    """
    _check_folder(experiments)
    folder = paths.trial_dir(experiments, _trial_id(experiments, wanted))
    if not (paths.is_ours(folder.name) and folder.is_dir()):
        raise ConfigError(f"there is no trial {wanted} in {experiments}", remedy=f"A trial's ID is {HELP}.")
    return folder


def find_trial(experiments: Path, wanted: str) -> tuple[Path, TrialRecord]:
    """The folder and the record of the trial that a person names.

    Raises:
        ConfigError: as `trial_folder` says; or it was not trained, since it repeats another one.
        InputError: as `trial_folder` says; or the trial's record is missing or damaged.
    """
    folder = trial_folder(experiments, wanted)
    record = read_record(folder)
    if record is None:
        raise InputError("there is no trial.json", where=str(folder), remedy="The trial was never begun.")
    if record.duplicate_of:
        raise ConfigError(
            f"trial {record.trial_id} was not trained: it is a duplicate of {record.duplicate_of}",
            remedy="Use that trial.",
        )
    return folder, record


def _trial_id(experiments: Path, wanted: str) -> str:
    """The uuid of the trial; a text that is no ID is returned as it is."""
    word, colon, name = wanted.partition(":")
    if word in ("best", "winner"):
        return _chosen(find_study(experiments, name if colon else None), word)
    study_name, hash_sign, number = wanted.rpartition("#")
    if hash_sign and number.isdecimal():
        study = find_study(experiments, study_name or None)
        return _of_number(experiments, study, int(number))
    if not PREFIX.fullmatch(wanted):
        return wanted
    ids = [folder.name.removeprefix("trial_") for folder in paths.trial_dirs(experiments)]
    found = [trial_id for trial_id in ids if trial_id.startswith(wanted)]
    if len(found) > 1:
        raise _several(f"the ids of {len(found)} trials", wanted, found)
    return found[0] if found else wanted


def _chosen(study: StudyRecord, word: str) -> str:
    """The best trial of a study's search, or the winner of its confirmation."""
    if word == "winner" and study.confirmed:
        return study.confirmed.trial_id
    section = study.config.get("study")
    confirm = section.get("confirm") if isinstance(section, dict) else None
    if word == "winner" and isinstance(confirm, dict) and confirm.get("top"):
        raise ConfigError(
            f"study {study.name} has no confirmed winner: its confirmation is not over, or chose none",
            remedy=f"best:{study.name} is the best trial of its search.",
        )
    if study.best is None:
        raise ConfigError(f"study {study.name} has no completed trial yet", remedy="Wait for one.")
    return study.best.trial_id


def _of_number(experiments: Path, study: StudyRecord, number: int) -> str:
    """The trial of this number, of the search and no repeat of it: by the index, which may lack the newest."""
    index = files.read_json(paths.study_dir(experiments, study.study_id) / paths.INDEX) or {}
    records = (files.read_json(folder / paths.TRIAL) or {} for folder in paths.trial_dirs(experiments))
    for row in chain(index.get("trials") or [], records):
        if not isinstance(row, dict) or row.get("confirms") or not isinstance(trial_id := row.get("trial_id"), str):
            continue
        if (row.get("study_id"), row.get("number")) == (study.study_id, number):
            return trial_id
    raise ConfigError(f"study {study.name} has no trial {number}", remedy="Its trials are numbered from 0.")


def _several(what: str, prefix: str, found: Iterable[str]) -> ConfigError:
    ids = sorted(found)
    shown = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
    return ConfigError(f"{what} begin with {prefix}: {shown}", remedy="Give more digits.")


def _check_folder(experiments: Path) -> None:
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
