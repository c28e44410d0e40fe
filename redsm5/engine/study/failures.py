"""Failures of trials, and those before the first step, which may not be the trial's fault.

A machine that lacks something fails every trial at its start. Such a failure counts only if trials are known to start
here. Until then the trial is held: it is neither finished nor told to Optuna, and the next run of the same command
starts it again. So a broken machine uses up none of a study's trials, and later proposals do not change.

To find out whether trials start here: if a trial of the study was trained before, a few of its steps are repeated,
without keeping the result, before another trial is proposed. Otherwise the next trials are tried: as long as no score
is known, no proposal depends on one.
"""

from collections import Counter
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.errors import TrainingError
from redsm5.engine.records import TrialRecord
from redsm5.engine.spec import StudySpec, load_config, with_parameters
from redsm5.engine.study.faults import RESUMABLE_KINDS
from redsm5.engine.study.launch import trains
from redsm5.engine.study.registry import Scoreboard
from redsm5.engine.waiting import Stop

IN_A_ROW = 3
STARTS = 3  # a trial that fails this often before its first step, now for this reason and now for that, has failed
BROKEN = "Fix the cause and run the same command again: the trial restarts, and this attempt does not count."

Held = tuple[files.Lock, int, str]  # the claim to a trial, its number and id


def failed_at_start(record: TrialRecord) -> bool:
    """Whether the trial's process says that it failed before its first step (redsm5/engine/study/trial_run.py)."""
    return record.state == "interrupted" and record.error is not None and record.error.kind not in RESUMABLE_KINDS


def reason_of(record: TrialRecord) -> str:
    return f"{record.error.kind}: {record.error.message}" if record.error else "it gave no reason"


class Failures:
    """The failures of one worker's trials, and the trials that it holds."""

    def __init__(self, config: StudySpec, board: Scoreboard, log: FilteringBoundLogger) -> None:
        self._config, self._board, self._log = config, board, log
        self._row: list[str] = []  # the kinds of those that failed since the last success
        self._confirming = False
        self._starts: Counter[str] = Counter()
        self._held: list[Held] = []

    def count(self, record: TrialRecord) -> None:
        """Note how a trial ended.

        Raises:
            TrainingError: it is the third in a row that failed for the same reason.
        """
        if record.duplicate_of:  # nothing was trained: neither another failure nor a success
            return
        if record.confirms and not self._confirming:  # the search's failures are over
            self._confirming, self._row = True, []
        self._row = [*self._row, record.error.kind] if record.state == "failed" and record.error else []
        if _alike(self._row):
            error = TrainingError(
                f"{IN_A_ROW} trials in a row failed for the same reason: {reason_of(record)}",
                remedy="Fix the cause and run the same command again: the study resumes.",
            )
            error.exit_code = record.exit_code or error.exit_code
            raise error

    def own(self, record: TrialRecord, stop: Stop) -> bool:
        """Whether a failure before the first step is the trial's own; else it is to be held.

        Raises:
            TrainingError: trials do not start here.
            Interrupted: a stop was requested meanwhile.
        """
        reason = reason_of(record)
        self._log.warning(f"trial {record.label} failed before its first step", reason=reason)
        if trained := self._trained():
            self._log.info(f"checking whether trial {trained.label}, which was trained before, still starts")
            folder = paths.trial_dir(Path(self._config.experiments), trained.trial_id)
            config = load_config(type(self._config), folder)
            if trains(with_parameters(config, {"launch": self._config.launch}), stop):
                return True
            raise TrainingError(
                f"trial {record.label} failed before its first step, and trial {trained.label}, which was "
                f"trained before, no longer starts: {reason}",
                remedy=BROKEN,
            )
        row = [*self._row, record.error.kind if record.error else ""]
        if _alike(row):
            raise TrainingError(
                f"training failed {IN_A_ROW} times in a row before its first step, for the same reason: {reason}",
                remedy=BROKEN,
            )
        self._starts[record.trial_id] += 1
        if self._starts[record.trial_id] == STARTS:
            return True
        self._row = row
        return False

    def _trained(self) -> TrialRecord | None:
        """A trial of the study that has trained at least an epoch, on whatever machine; completed rather than not."""
        self._board.take_in_the_others()
        trained = [r for r in self._board.trials.values() if r.epoch > 0 and not r.duplicate_of and r.state != "failed"]
        return min(trained, key=lambda r: (r.state != "completed", r.number or 0), default=None)

    def hold(self, claim: files.Lock, number: int, trial_id: str) -> None:
        """Hold a trial back from all workers until it is known whose fault its failure is."""
        self._held.append((claim, number, trial_id))

    def held(self) -> list[Held]:
        """The trials that are held; from here on they are the caller's."""
        held, self._held = self._held, []
        return held

    def let_go(self) -> bool:
        """Release the held trials, so that they are started again; whether there were any."""
        held = self.held()
        for claim, _, _ in held:
            claim.release()
        return bool(held)


def _alike(row: list[str]) -> bool:
    return len(row) >= IN_A_ROW and len(set(row[-IN_A_ROW:])) == 1


def check_result(board: Scoreboard) -> None:
    """Refuse to call a study done that has no result.

    Raises:
        TrainingError: none of its trials completed.
    """
    states = Counter(record.state for record in board.trials.values())
    if states["completed"]:
        return
    reasons = Counter(reason_of(record) for record in board.trials.values() if record.state == "failed")
    ended = ", ".join(f"{states[state]} {state}" for state in ("pruned", "failed") if states[state])
    lines = "".join(f"\n    {count} × {reason.splitlines()[0]}" for reason, count in reasons.most_common())
    name = board.study.name
    raise TrainingError(
        f"study {name} has no result, since no trial completed: {ended or 'there is none'}{lines}",
        remedy="Fix the cause; then raise study.trials, or start another study (study.name=NAME).",
    )
