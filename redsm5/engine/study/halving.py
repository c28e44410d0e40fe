"""The rungs of a study with `study.pruner=asha`, as one of its workers reads and writes them (redsm5/engine/rungs.py).

rungs.jsonl has every decision in the order in which it was made. Its rows are written under the lock that is held while
a trial is asked for, from what Optuna and the trials' own records say; so a row that a killed worker did not come to
write is written by the next one, and with one worker the rows are those of an uninterrupted search.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from redsm5.engine import files, paths
from redsm5.engine.documents import load_lines, now, parse, unreadable
from redsm5.engine.records import Decision, RungRow, TrialRecord
from redsm5.engine.rungs import Promotion, Rungs
from redsm5.engine.spec import StudySpec
from redsm5.engine.study import search
from redsm5.engine.study.optuna_private import reopen
from redsm5.engine.study.outcomes import append_decision
from redsm5.engine.study.space import ladder_of
from redsm5.engine.study.trial import read_record

STATE = "state"  # the user attribute that tells Optuna's users that a running trial is paused
ENDED: Mapping[TrialState, Any] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Halving:
    """What of a study's trials is paused, and what is to go on. The caller holds the lock for asking."""

    def __init__(self, config: StudySpec, study: optuna.Study, folder: Path) -> None:
        self._ladder, self._optuna = ladder_of(config), study
        self.rungs = Rungs(self._ladder)
        self._experiments, self._path = Path(config.experiments), folder / paths.RUNGS
        self._read_bytes = 0

    def take_in(self, open_trials: Sequence[FrozenTrial]) -> set[int]:
        """Write the rows of what has happened since the last time; the numbers of the trials that are paused.

        Args:
            open_trials: those that Optuna has not been told the result of.
        """
        self._read()
        still_open = {trial.number: trial for trial in open_trials}
        for number in sorted(still_open.keys() - self.rungs.drawn):
            self.draw(number)
        ended = sorted((self.rungs.at_work | self.rungs.paused.keys()) - still_open.keys())
        trials = self._optuna.get_trials(deepcopy=False) if ended else []
        for number in ended:
            self._write("end", number, state=ENDED[trials[number].state])
        for number in sorted(self.rungs.at_work):
            self._note_pause(still_open[number])
        return set(self.rungs.paused)

    def _note_pause(self, trial: FrozenTrial) -> None:
        trial_id = trial.user_attrs.get(search.TRIAL_ID)
        record = read_record(paths.trial_dir(self._experiments, trial_id)) if trial_id else None
        if record is None or record.state != "paused" or record.rung is None:
            return
        if record.rung <= self.rungs.came_from.get(trial.number, -1):  # promoted, and not yet started
            return
        reopen(self._optuna, trial).set_user_attr(STATE, "paused")
        value = trial.intermediate_values.get(record.epoch)
        self._write("pause", trial.number, rung=record.rung, epoch=record.epoch, value=value)

    def draw(self, number: int) -> None:
        """A new trial was asked for."""
        self._write("draw", number)

    def promote(self, promotion: Promotion) -> None:
        """A paused trial is to go on: whoever claims it goes on with it."""
        trial = self._optuna.get_trials(deepcopy=False)[promotion.number]
        place = promotion.place
        facts = {"rung": place.rung, "rank": promotion.rank, "of": promotion.of, "closing": promotion.closing}
        self._write("promote", promotion.number, **facts)
        reopen(self._optuna, trial).set_user_attr(STATE, "running")

    def let_go_on(self, folder: Path, record: TrialRecord) -> None:
        """Have a trial hear, when it is started, that it was promoted from its last rung."""
        assert record.rung is not None
        epoch = self._ladder.epochs_at(record.rung)
        decisions = [d for d in load_lines(folder / paths.DECISIONS, Decision) if d.epoch == epoch]
        if not decisions or decisions[-1].rung is not None:
            append_decision(folder, Decision(epoch=epoch, prune=False, reason=f"promoted from rung {record.rung}"))

    def why_left(self, number: int, metric: str) -> str:
        """The reason, in words, for pruning a trial that was never promoted."""
        rank, of = self.rungs.rank(number)
        place = self.rungs.paused[number]
        epochs = self._ladder.epochs_at(place.rung)
        return f"{metric} is rank {rank} of {of} after epoch {epochs}: not promoted"

    def end(self, number: int) -> None:
        """A trial that was never promoted is pruned, as Optuna has been told, since the search is over."""
        rank, of = self.rungs.rank(number)
        self._write("end", number, rung=self.rungs.paused[number].rung, rank=rank, of=of, state="pruned")

    def _read(self) -> None:
        """Take in the rows that other workers have written."""
        files.cut_torn_tail(self._path)
        if not self._path.exists():
            return
        with files.open_regular(self._path) as file:
            file.seek(self._read_bytes)
            for line in files.whole_lines(file):
                try:
                    self.rungs.add(parse(line, RungRow))
                except ValueError as error:
                    raise unreadable(self._path, error) from None
            self._read_bytes = file.tell()

    def _write(self, action: Any, number: int, **facts: Any) -> None:
        row = RungRow(timestamp=now(), action=action, number=number, bracket=self._ladder.bracket(number), **facts)
        line = row.to_line()
        files.append_durable(self._path, line)
        self._read_bytes += len(line)
        self.rungs.add(row)


def as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """A trial as a sampler is to see it: one that is paused, or goes on from a rung, as pruned with its scores."""
    if trial.state != TrialState.RUNNING or not trial.intermediate_values:
        return trial
    seen = copy(trial)
    seen.state, seen.datetime_complete = TrialState.PRUNED, trial.datetime_start
    return seen
