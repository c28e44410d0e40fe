"""Optuna's storage and samplers, seeded so that an interruption does not change the proposals.

The proposals of trial n depend on the study's seed, on n and on the earlier trials; each trial gets a fresh sampler,
which may sample it in a copy of the study. Preset values (redsm5/engine/study/space.py) are not sampled, but told to
Optuna like the others.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, GPSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from redsm5.engine import files, paths
from redsm5.engine.errors import ConfigError
from redsm5.engine.records import StudyRecord, TrialRecord
from redsm5.engine.searchspace import always_drawn
from redsm5.engine.sections import CategoricalParameter, Parameter, RangeParameter
from redsm5.engine.spec import StudySpec
from redsm5.engine.study.database import open_database
from redsm5.engine.study.optuna_private import (
    NumberedQMCSampler,
    ReplayedCmaEsSampler,
    copy_system_attrs,
    reopen,
)
from redsm5.engine.study.space import Preset, draw_in_order, fixed

TRIAL_ID = "trial_id"  # the user attribute that ties an Optuna trial to its folder: set once all parameters are drawn


class _RepairingLock:
    """Optuna's journal lock as an flock, which a killed process cannot leave behind; it cuts a torn last line first."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._lock = journal, files.Lock(journal.with_name(f"{journal.name}.lock"))

    def acquire(self) -> bool:
        if self._lock.acquire(timeout_s=60.0):
            files.cut_torn_tail(self._journal)
            return True
        return False

    def release(self) -> None:
        self._lock.release()


def open_storage(config: StudySpec) -> BaseStorage:
    """Optuna's storage: a journal file in the experiments folder, or the database that `study.storage` names.

    Raises:
        ConfigError: the database cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of samplers and their options
    if config.study.storage is None:
        path = Path(config.experiments) / paths.OPTUNA_JOURNAL
        lock = _RepairingLock(path)
        lock.acquire()
        lock.release()
        return JournalStorage(JournalFileBackend(str(path), lock_obj=cast(Any, lock)))
    return open_database(config.study.storage)


def open_optuna(storage: BaseStorage, record: StudyRecord, pruner: BasePruner, *, begun: bool) -> optuna.Study:
    """The study in Optuna's storage, created if necessary. The caller holds the study's lock.

    Raises:
        ConfigError: it has trials on disk and none there: that is not the storage that it was begun with.
    """
    name = f"{record.name}-{record.study_id[:8]}"
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize" if record.maximize else "minimize",
        sampler=RandomSampler(),  # asking for a trial samples nothing; `draw` does
        pruner=pruner,
        load_if_exists=True,
    )
    if begun and not study.get_trials(deepcopy=False):
        raise ConfigError(
            f"study {record.name} has trials, but this storage has none of them",
            where="study.storage",
            remedy="Use the storage that the study was started with, in all its workers; null is optuna.journal in the "
            "experiments folder.",
        )
    return study


def seed_for(study_seed: int, number: int, purpose: str) -> int:
    """A seed for one purpose of one trial: the first 31 bits of SHA-256 over the three."""
    digest = hashlib.sha256(f"{study_seed}:{number}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def make_sampler(config: StudySpec, number: int, values: Mapping[str, Any] | None = None) -> BaseSampler:
    """The sampler of trial `number`, for which these values are set."""
    seed = seed_for(config.study.seed, number, "sampler")
    sampler: BaseSampler = RandomSampler(seed=seed)
    match config.study.sampler:
        case "tpe":
            joint = config.study.multivariate
            sampler = TPESampler(seed=seed, multivariate=joint, group=joint)
        case "gp":
            sampler = GPSampler(seed=seed, independent_sampler=sampler)
        case "qmc":  # one sequence for all trials
            sequence = seed_for(config.study.seed, 0, "sequence")
            sampler = NumberedQMCSampler(seed=sequence, scramble=True, independent_sampler=sampler)
        case "cmaes" if values is None:  # it learns nothing from a trial with preset values
            ranges = {key: _distribution(parameter) for key, parameter in always_drawn(config).items()}
            few = config.study.pruner not in ("none", "median", "percentile")  # others let few trials complete
            sampler = ReplayedCmaEsSampler(ranges, seed=seed, independent_sampler=sampler, consider_pruned_trials=few)
    return PartialFixedSampler(dict(values), sampler) if values else sampler


def draw(
    study: optuna.Study,
    trial: optuna.Trial,
    config: StudySpec,
    presets: Sequence[Preset] = (),
    seen: Callable[[FrozenTrial], FrozenTrial] | None = None,
) -> dict[str, Any]:
    """The parameters of a trial, in the order of the search space, sampled unless its preset sets them.

    What an interruption, a state of the sampler's or `seen` could change is sampled in a copy of the study with the
    earlier trials alone, from the start of the trial's random stream, and set in the study then. Else the study itself
    will do: a copy of 1,000 trials takes 0.3 s.

    Args:
        seen: what the sampler sees of an earlier trial, which it must not modify; by default the trial as it is.
    """
    first = trial.number < len(presets)
    preset = presets[trial.number] if first else {}
    if seen is None and not trial.params and config.study.sampler != "cmaes":
        study.sampler = make_sampler(config, trial.number, fixed(config, preset) if first else None)
        return _suggest(reopen(study, trial), config, preset)
    earlier = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
    sampler = make_sampler(config, trial.number, fixed(config, preset) if first else None)
    copy = optuna.create_study(direction=config.study.direction, sampler=sampler)
    copy.add_trials(map(seen, earlier) if seen else earlier)
    sampled = copy.ask()
    values = _suggest(sampled, config, preset)
    copy_system_attrs(sampled, study, trial)
    study.sampler = PartialFixedSampler(values, RandomSampler(seed=0))
    return _suggest(reopen(study, trial), config, preset)


def _distribution(parameter: RangeParameter) -> IntDistribution | FloatDistribution:
    if parameter.type == "int":
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _suggest(trial: optuna.Trial, config: StudySpec, preset: Preset) -> dict[str, Any]:
    def suggest(name: str, parameter: Parameter) -> Any:
        if isinstance(parameter, CategoricalParameter):
            return trial.suggest_categorical(name, parameter.choices)
        if parameter.type == "int":
            return trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log)
        return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)

    return draw_in_order(config, preset, suggest)


def unfinished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Optuna's running trials: being trained, interrupted, or half asked for."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def tell(study: optuna.Study, number: int, record: TrialRecord, *, repeats: int | None) -> None:
    """Tell Optuna a trial's result; for a duplicate of a pruned trial, that trial's last score."""
    if repeats is not None and record.state == "pruned":
        trials = study.get_trials(deepcopy=False)
        scores = trials[repeats].intermediate_values
        if scores and not trials[number].intermediate_values:
            reopen(study, trials[number]).report(scores[max(scores)], max(scores))
    if record.state == "completed" and record.best and math.isfinite(record.best.value):
        study.tell(number, record.best.value)
    else:
        study.tell(number, state=TrialState.PRUNED if record.state == "pruned" else TrialState.FAIL)
