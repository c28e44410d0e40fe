"""The driver's part in the confirmation of a search: the next repeat to train, and what came of the race.

What is trained, dropped and named is decided in redsm5/engine/study/confirming.py, by the trials' records. A repeat is
a trial like others, but Optuna does not know of it, so that no proposal depends on it: its id follows from those of the
study and of the trial that it repeats, and its worker holds a lock as for other trials.
"""

from pathlib import Path
from typing import Any

import optuna
from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.errors import InputError, Interrupted
from redsm5.engine.records import FINISHED, Confirmed, TrialRecord
from redsm5.engine.spec import StudySpec
from redsm5.engine.study import claims, confirming, search, space
from redsm5.engine.study.control import Control
from redsm5.engine.study.registry import Scoreboard
from redsm5.engine.study.trial import create_trial, read_record
from redsm5.engine.task import Task
from redsm5.engine.waiting import Stop, wait_until


class Confirmation:
    """The confirmation of one study, as one of its workers sees it.

    Args:
        task, config, board, study, control: the driver's.
        orphans: the processes of trials whose workers have exited.
        stop: what asks to stop now.
    """

    def __init__(
        self,
        task: Task[Any],
        config: StudySpec,
        board: Scoreboard,
        study: optuna.Study,
        control: Control,
        orphans: claims.Orphans,
        stop: Stop,
        log: FilteringBoundLogger,
    ) -> None:
        self._task, self._config, self._board, self._study = task, config, board, study
        self._control, self._orphans, self._stop, self._log = control, orphans, stop, log
        self._experiments, self._ask = Path(config.experiments), config.study.confirm
        self._begun, self._waited = False, False
        self._left = set[str]()  # the configurations of which it was said that they left the race

    def known(self) -> list[str]:
        """The trial_ids of the repeats that the study's index has."""
        return [trial_id for trial_id, record in self._board.trials.items() if record.confirms]

    def next_trial(self) -> tuple[files.Lock, int, str] | None:
        """A repeat to train, and the claim to it, once the search has ended; None when the race is over.

        Workers look one at a time, under the lock under which they ask for trials.

        Raises:
            Interrupted: no other trial is to be started.
            InputError: only repeats are left whose records cannot be read.
        """
        while self._ask.top:
            self._raise_if_stopped()
            with claims.asking(self._board.folder, self._stop):
                race = self._race()
                self._tell(race)
                if race.over:
                    return None
                if paths.STOP in self._control.look():
                    raise Interrupted("no further trial is started")
                found, ended = self._claimed(race)
            if found:
                return found
            if not ended:
                self._wait()
        return None

    def _claimed(self, race: confirming.Race) -> tuple[tuple[files.Lock, int, str] | None, bool]:
        """The first repeat of the current round that no other worker has; or whether one has ended meanwhile."""
        unreadable = None
        others = False
        for trial, repeat in race.open:
            assert trial.number is not None
            claim = files.Lock(self._board.folder / paths.CLAIMS / f"{trial.number}.{repeat}.lock")
            if self._orphans.keeps(self._id(trial, repeat)) or not claim.acquire():
                others = True
                continue
            try:
                record = self._made(trial, repeat)
            except InputError as error:  # it is not failed: it waits until its record has been restored
                unreadable = error
                claim.release()
                continue
            if record.state in FINISHED:  # since we looked
                claim.release()
                return None, True
            return (claim, trial.number, record.trial_id), False
        if unreadable and not others:
            raise unreadable
        return None, False

    def _made(self, trial: TrialRecord, repeat: int) -> TrialRecord:
        """The record of a repeat, whose folder is made where it is missing."""
        trial_id, seed = self._id(trial, repeat), self._config.study.seed
        if record := read_record(paths.trial_dir(self._experiments, trial_id)):
            return record
        assert trial.number is not None
        changes = {
            "train.seed": search.seed_for(seed, trial.number, f"confirm {repeat}"),
            "study.pruner": "none",
            # The same for all configurations of the round, so that their scores are paired.
            **self._task.repeated(self._config, search.seed_for(seed, repeat, "confirm splits")),
        }
        return create_trial(
            space.configured(self._config, {**changes, **trial.parameters}),
            trial_id=trial_id,
            study_id=self._board.study.study_id,
            number=trial.number,
            parameters=trial.parameters,
            confirms=trial.trial_id,
            repeat=repeat,
        )

    def _id(self, trial: TrialRecord, repeat: int) -> str:
        return confirming.repeat_id(self._board.study.study_id, trial.trial_id, repeat)

    def _race(self) -> confirming.Race:
        """How the race stands by what is on disk."""
        board, maximize = self._board, self._config.maximize
        searched = [t.user_attrs.get(search.TRIAL_ID) for t in self._study.get_trials(deepcopy=False)]
        known = board.trials
        board.refresh([i for i in searched if i and not (i in known and known[i].state in FINISHED)])
        chosen = confirming.chosen(known.values(), top=self._ask.top, maximize=maximize)
        board.refresh([self._id(trial, n) for trial in chosen for n in range(1, self._ask.repeats + 1)])
        return confirming.race(known.values(), top=self._ask.top, repeats=self._ask.repeats, maximize=maximize)

    def _tell(self, race: confirming.Race) -> None:
        """Log that the race begins, and which configurations have left it; nothing where it was over before."""
        if not self._begun:
            if race.over:
                return
            self._begun = True
            numbers = ", ".join(str(racer.trial.number) for racer in race.racers)
            count = len(race.racers)
            self._log.info(
                f"confirming the best {count} configuration{'s' * (count > 1)} with {race.repeats} "
                f"repeat{'s' * (race.repeats > 1)} each",
                trials=numbers,
                rounds_done=race.rounds,
            )
        for racer in race.racers:
            if racer.left is not None and racer.trial.trial_id not in self._left:
                self._left.add(racer.trial.trial_id)
                why = "its repeat has no score" if racer.failed else "its scores are behind the best ones"
                self._log.info(f"trial {racer.trial.number} is dropped after round {racer.left}", reason=why)

    def _wait(self) -> None:
        if not self._waited:
            self._log.info("other workers are running the last repeats of this round: waiting for its end")
        self._waited = True
        wait_until(lambda: self._stop.requested, timeout=1.0, every=0.5)

    def _raise_if_stopped(self) -> None:
        if self._stop.requested:
            raise Interrupted("the study can be resumed: run the same command again")

    def place(self, record: TrialRecord) -> str:
        """Where a repeat stands in the race, for the log."""
        return f"round {record.repeat} of {self._ask.repeats}"

    def result(self) -> Confirmed | None:
        """The winner, once the race is over; None where none was asked for, or nobody won."""
        return confirming.confirmed(self._race()) if self._ask.top else None


def said_of(confirmed: Confirmed | None) -> dict[str, str]:
    """The winner, and what of the search's best was luck, as facts for the log."""
    if confirmed is None:
        return {}
    raw, shrinkage = confirmed.raw_best, confirmed.shrinkage
    mean = f"{confirmed.mean:.4f} ± {confirmed.sd:.4f} [{confirmed.low:.4f}, {confirmed.high:.4f}]"
    facts = {"confirmed": f"trial {confirmed.number} with {mean} over {confirmed.repeats} repeats"}
    if shrinkage is not None and raw.mean is not None:
        both = f"{raw.value:.4f} in the search, {raw.mean:.4f} when repeated"
        facts["shrinkage"] = f"{shrinkage:.4f} of trial {raw.number}: {both}"
    return facts
