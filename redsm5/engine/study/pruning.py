"""Optuna's pruners by their configured names, and the reason for pruning in words."""

import math
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner

from redsm5.engine import paths
from redsm5.engine.documents import load_lines
from redsm5.engine.records import Decision, MetricRow
from redsm5.engine.rungs import bracket_of, bracket_shares
from redsm5.engine.spec import StudySpec
from redsm5.engine.study.optuna_private import reopen
from redsm5.engine.study.outcomes import append_decision
from redsm5.engine.study.space import ladder_of, most_epochs
from redsm5.engine.study.trial import read_record

PERCENTILE = 25.0  # of the completed trials, the best so many percent are what a trial must keep up with
REDUCTION_FACTOR = 3


class Hyperband(BasePruner):
    """Hyperband with asynchronous halving (Li et al. 2018, algorithm 1; Li et al. 2020), by Optuna's rules.

    Each trial belongs to a bracket. Bracket b compares its trials after 3^b, 3^(b+1), ... epochs and keeps the best
    third of those that got so far; the first trials of a bracket continue if none before was better.

    Optuna's own pruner cannot be used by a driver that may be killed: it stores which rungs a trial has passed, and a
    driver killed between that and the decision would decide differently the next time; and it assigns brackets by the
    study's name, which differs for each study. This one depends on the seed and the scores only.

    Args:
        epochs: the most that a trial trains.
        seed: the study's.
        maximize: whether a higher score is better.
    """

    def __init__(self, *, epochs: int, seed: int, maximize: bool) -> None:
        self._seed, self._sign = seed, 1 if maximize else -1
        self.brackets = 1
        while REDUCTION_FACTOR**self.brackets <= epochs:
            self.brackets += 1
        self._shares = bracket_shares(self.brackets, REDUCTION_FACTOR)

    def bracket(self, number: int) -> int:
        """The bracket of trial `number`; each gets trials in the proportion that the algorithm gives it."""
        return bracket_of(number, self._seed, self._shares)

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        bracket, epoch = self.bracket(trial.number), trial.last_step
        if epoch is None or epoch not in [REDUCTION_FACTOR**rung for rung in range(bracket, self.brackets)]:
            return False
        scores = sorted(
            self._sign * t.intermediate_values[epoch]
            for t in study.get_trials(deepcopy=False)
            if epoch in t.intermediate_values and self.bracket(t.number) == bracket
        )
        going_on = max(len(scores) // REDUCTION_FACTOR, 1)
        return self._sign * trial.intermediate_values[epoch] < scores[-going_on]


def make_pruner(config: StudySpec) -> BasePruner:
    """The pruner that the study names; of Optuna's, with its defaults (it compares once 5 trials are completed)."""
    match config.study.pruner:
        case "median":
            return MedianPruner()
        case "percentile":
            return PercentilePruner(PERCENTILE)
        case "hyperband":
            return Hyperband(epochs=most_epochs(config), seed=config.study.seed, maximize=config.maximize)
    return NopPruner()


def reason(config: StudySpec, epoch: int, value: float) -> str:
    """Why the pruner ends a trial with this score after this epoch."""
    rule = {
        "median": f"is {'below' if config.maximize else 'above'} the median of earlier trials",
        "percentile": f"is not among the best {PERCENTILE:.0f}% of earlier trials",
        "hyperband": f"is not among the best third of its bracket after epoch {epoch}",
    }
    return f"{config.study.metric} {value:.4f} {rule[config.study.pruner]}"


def decide(study: optuna.Study, config: StudySpec, number: int, folder: Path) -> None:
    """Report each new epoch's score to Optuna and record whether its pruner ends or pauses the trial.

    After the last epoch it never does: that would save nothing, and the trial would have no report.
    """
    frozen = study.get_trials(deepcopy=False)[number]
    decided = {decision.epoch for decision in load_lines(folder / paths.DECISIONS, Decision)}
    for row in load_lines(folder / paths.METRICS, MetricRow):
        value, epoch = row.value, row.epoch
        if row.metric != config.study.metric or epoch in decided:
            continue
        trial = reopen(study, frozen)
        if math.isfinite(value) and epoch not in frozen.intermediate_values:
            trial.report(value, epoch)
        record = read_record(folder)
        goes_on = record is not None and epoch < record.epochs
        pauses = config.study.pruner == "asha" and goes_on
        rung = ladder_of(config).rung_after(number, epoch) if pauses else None
        prune = goes_on and trial.should_prune()
        why = reason(config, epoch, value) if prune else None
        append_decision(folder, Decision(epoch=epoch, prune=prune, reason=why, rung=rung))
        decided.add(epoch)
