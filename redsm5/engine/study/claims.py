"""Which worker has which trial: one worker at a time asks for a trial, and each trial has one worker, on any machine.

Both are file locks in the study's folder; no process is asked whether another one is alive.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.errors import Interrupted
from redsm5.engine.spec import StudySpec
from redsm5.engine.study import search, space
from redsm5.engine.study.halving import as_pruned
from redsm5.engine.study.launch import wait_unlocked
from redsm5.engine.study.optuna_private import reopen
from redsm5.engine.study.registry import Scoreboard
from redsm5.engine.study.trial import create_trial, read_record
from redsm5.engine.waiting import Stop, wait_until

ORPHAN_S = 60.0  # in which a process whose driver has ended saves and stops


def claim(study: Path, number: int) -> files.Lock:
    """The lock of the worker that works on a trial; the trial's own lock is its training process's."""
    return files.Lock(study / paths.CLAIMS / f"{number}.lock")


@contextmanager
def asking(study: Path, stop: Stop) -> Iterator[None]:
    """The lock for counting and asking for trials; its holder may have to wait for the database.

    Raises:
        Interrupted: a stop was requested, before or meanwhile.
    """
    lock = files.Lock(study / paths.CLAIMS / "asking.lock")
    if not wait_until(lambda: lock.acquire(timeout_s=1.0), stop, every=0.0):  # it looks often itself
        raise Interrupted("stopped while waiting for another worker that asks for a trial")
    try:
        yield
    finally:
        lock.release()


def ensure_created(
    frozen: optuna.trial.FrozenTrial,
    study: optuna.Study,
    config: StudySpec,
    presets: Sequence[space.Preset],
    board: Scoreboard,
) -> str:
    """Draw the trial's parameters, tie it to a uuid and make its folder, as far as that has not been done."""
    trial = reopen(study, frozen)
    trial_id = trial.user_attrs.get(search.TRIAL_ID)
    if trial_id is None:
        search.draw(study, trial, config, presets, seen=as_pruned if config.study.pruner == "asha" else None)
        trial_id = str(uuid.uuid4())
        trial.set_user_attr(search.TRIAL_ID, trial_id)
    if read_record(paths.trial_dir(Path(config.experiments), trial_id)) is None:
        seed = search.seed_for(config.study.seed, frozen.number, "training")
        drawn = reopen(study, frozen).params
        preset = presets[frozen.number] if frozen.number < len(presets) else {}
        parameters = space.draw_in_order(config, preset, lambda key, _: drawn[key])
        create_trial(
            space.configured(config, {"train.seed": seed, **parameters}),
            trial_id=trial_id,
            study_id=board.study.study_id,
            number=frozen.number,
            parameters=parameters,
        )
    return str(trial_id)


class Orphans:
    """The processes of trials whose workers have exited; they save a checkpoint and stop by themselves.

    One that does not, perhaps on another machine that hangs, keeps its trial, and no worker waits for it.
    """

    def __init__(self, experiments: Path, stop: Stop, log: FilteringBoundLogger) -> None:
        self._experiments, self._stop, self._log = experiments, stop, log
        self._kept: set[str] = set()

    def ends(self, trial_id: str) -> bool:
        """Whether no process trains this trial any more, for which it gets a minute.

        Raises:
            Interrupted: a stop was requested meanwhile.
        """
        ended = wait_unlocked(paths.trial_dir(self._experiments, trial_id), self._stop, ORPHAN_S)
        if not ended:
            self._kept.add(trial_id)
            self._log.warning(
                "the process of a trial is still running although its worker has exited: the trial is left to it",
                trial_id=trial_id,
            )
        return ended

    def holds(self, frozen: optuna.trial.FrozenTrial) -> bool:
        """Whether this trial is still with a process that was not to be waited for."""
        return self.keeps(frozen.user_attrs.get(search.TRIAL_ID))

    def keeps(self, trial_id: str | None) -> bool:
        """The same, by the trial's id."""
        if trial_id not in self._kept:
            return False
        with files.try_lock(paths.trial_dir(self._experiments, str(trial_id)) / paths.LOCK) as free:
            return not free
