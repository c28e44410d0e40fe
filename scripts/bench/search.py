"""What a search trains, and what it finds, with each pruner: `just bench search`, a replay of recorded learning curves.

curves.json has the scores of configurations that were trained to the end: random draws of a space of ReDSM5's keys with
`model=tiny` on synthetic posts (`--record FOLDER` trains them again or resumes that, in about an hour on two cores).
Each way of searching is replayed on them without training, in 200 random orders that all ways share, with two workers
that take the recorded seconds an epoch:

- none: every trial is trained to its end;
- median, hyperband: the pruners of redsm5/engine/study/pruning.py on an Optuna study in memory; a pruned trial stops;
- asha: the rule of redsm5/engine/rungs.py with one bracket; trials pause and go on from their checkpoints;
- asha, a tenth: within a budget for a tenth of the states that asha has paused at its peak, besides the trials at work.
  It evicts in the order of redsm5/engine/storage/budget.py; a trial promoted without its state is trained again;
- asha, reduction_factor=2 or brackets=2: asha with that setting, for scores whose first epochs say little.

A trial's score is that of its best epoch. Regret is the best score of all configurations minus that of the best
completed trial (a score of 0 before one has completed); `none so far` is that of a search without a pruner that is
stopped after as many epochs. Figures are means over the orders, with the range of 90 % of them. `within 0.01` is the
share of orders whose regret gets so small, and `epochs to 0.01` is over these.

There is no TPE: its proposals are not among the recorded configurations, and in so many dimensions the nearest of them
is too far away to have the score that the proposal would have had.
"""

import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import optuna
from curves import CURVES, Curve, read, record, save
from matplotlib.figure import Figure
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from results import Result, arguments_of, digits, finish
from scipy.stats import spearmanr

from redsm5.config import compose
from redsm5.engine.documents import now
from redsm5.engine.errors import exit_with_message
from redsm5.engine.records import RungRow, TrialRecord
from redsm5.engine.rungs import Ladder, Place, Rungs
from redsm5.engine.storage.budget import eviction_order
from redsm5.engine.study.pruning import make_pruner
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show

NEAR = 0.01  # a regret that is small
STOPPING = ("none", "median", "hyperband")


# ---------------------------------------------------------------------------------------------------------------------
# replaying


class Start(NamedTuple):
    """What a free worker takes: a trial that has trained `epochs`, and trains the first `again` of them once more."""

    number: int
    epochs: int = 0
    again: int = 0


class Search(Protocol):
    def start(self, *, alone: bool) -> Start | None:
        """What a free worker takes; None if it waits. `alone`: no other is at work."""

    def goes_on(self, number: int, epoch: int) -> bool:
        """Whether a trial goes on at once after this epoch, which is not its last."""

    def completed(self, number: int) -> None:
        """It has trained its last epoch."""


@dataclass
class Outcome:
    """What a search trained and found.

    Attributes:
        epochs: trained in all, `epochs_again` included.
        best: for each trial that was the best when it completed, the epochs in all until then, and its score.
    """

    epochs: int = 0
    epochs_again: int = 0
    seconds_again: float = 0.0
    completed: int = 0
    winner: Curve | None = None
    best: list[tuple[int, float]] = field(default_factory=list)

    def complete(self, curve: Curve) -> None:
        self.completed += 1
        if self.winner is None or curve.best > self.winner.best:
            self.winner = curve
            self.best.append((self.epochs, curve.best))

    def epochs_to(self, score: float) -> int | None:
        """Epochs in all until a trial with this score had completed; None if none did."""
        return next((epochs for epochs, found in self.best if found >= score), None)

    def score_after(self, epochs: int) -> float:
        """The best score of those that had completed after so many epochs in all."""
        return max((found for at, found in self.best if at <= epochs), default=0.0)


def replay(curves: Sequence[Curve], search: Search, workers: int = 1) -> Outcome:
    """Run a search whose trial `number` has the learning curve of that index."""
    outcome, time = Outcome(), 0.0
    at_work: list[tuple[float, int, int]] = []  # when an epoch ends, of which trial, and which one
    while True:
        while len(at_work) < workers and (taken := search.start(alone=not at_work)):
            seconds = curves[taken.number].seconds
            heappush(at_work, (time + (taken.again + 1) * seconds, taken.number, taken.epochs + 1))
            outcome.epochs += taken.again
            outcome.epochs_again += taken.again
            outcome.seconds_again += taken.again * seconds
        if not at_work:
            return outcome
        time, number, epoch = heappop(at_work)
        outcome.epochs += 1
        if epoch == len(curves[number].scores):
            search.completed(number)
            outcome.complete(curves[number])
        elif search.goes_on(number, epoch):
            heappush(at_work, (time + curves[number].seconds, number, epoch + 1))


class Stopping:
    """Trials in their order, which end when Optuna's pruner says so."""

    def __init__(self, curves: Sequence[Curve], pruner: BasePruner) -> None:
        self._curves = curves
        self._study = optuna.create_study(direction="maximize", pruner=pruner)
        self._trials: list[optuna.Trial] = []

    def start(self, *, alone: bool) -> Start | None:
        if len(self._trials) == len(self._curves):
            return None
        self._trials.append(self._study.ask())
        return Start(self._trials[-1].number)

    def goes_on(self, number: int, epoch: int) -> bool:
        trial = self._trials[number]
        trial.report(self._curves[number].scores[epoch - 1], epoch)
        if trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
            return False
        return True

    def completed(self, number: int) -> None:
        scores = self._curves[number].scores
        self._trials[number].report(scores[-1], len(scores))
        self._study.tell(self._trials[number], max(scores))


class Halving:
    """Trials that pause at rungs; with `most_states`, no more than so many paused ones keep their checkpoints.

    Attributes:
        rows: what the search's rungs.jsonl would hold.
        most_paused: the most that were paused at once.
    """

    def __init__(self, curves: Sequence[Curve], ladder: Ladder, most_states: int | None = None) -> None:
        self._curves, self._ladder, self._most_states = curves, ladder, most_states
        self._rungs = Rungs(ladder)
        self._chances: dict[tuple[Place, tuple[int, int]], float] = {}
        self._states: dict[int, TrialRecord] = {}  # of paused trials that have their checkpoint
        self.rows: list[RungRow] = []
        self.most_paused = 0

    def start(self, *, alone: bool) -> Start | None:
        due, drawn = self._rungs.promotion(), len(self._rungs.drawn)
        if due is None and drawn < len(self._curves):
            self._add("draw", drawn)
            taken = Start(drawn)
        elif due := due or (self._rungs.closing_promotion() if alone else None):
            self._add("promote", due.number, rung=due.place.rung, rank=due.rank, of=due.of, closing=due.closing)
            epochs = self._ladder.epochs_at(due.place.rung)
            taken = Start(due.number, epochs, 0 if self._states.pop(due.number, None) else epochs)
        else:
            return None
        self._evict()
        return taken

    def goes_on(self, number: int, epoch: int) -> bool:
        rung = self._ladder.rung_after(number, epoch)
        if rung is None:
            return True
        curve = self._curves[number]
        self._add("pause", number, rung=rung, epoch=epoch, value=curve.scores[epoch - 1])
        self._states[number] = TrialRecord(
            trial_id=str(number),
            study_id=None,
            number=number,
            state="paused",
            created_at=now(),
            epochs=len(curve.scores),
            bytes=1,  # all states are of one size
            active_seconds=epoch * curve.seconds,  # without what it trained again
        )
        self.most_paused = max(self.most_paused, len(self._rungs.paused))
        return False

    def completed(self, number: int) -> None:
        self._add("end", number, state="completed")

    def _add(self, action: Any, number: int, **facts: Any) -> None:
        bracket = self._ladder.bracket(number)
        self.rows.append(RungRow(timestamp=now(), action=action, number=number, bracket=bracket, **facts))
        self._rungs.add(self.rows[-1])

    def _evict(self) -> None:
        if self._most_states is not None and (surplus := len(self._states) - self._most_states) > 0:
            paused = [*self._states.values()]
            order = eviction_order(paused, maximize=True, reported=lambda _: True, chance=self._chance)
            for trial_id, _, _ in order[:surplus]:
                del self._states[int(trial_id)]

    def _chance(self, number: int) -> float:
        """`Rungs.chance`, once for each rank at a rung."""
        place = self._rungs.paused[number], self._rungs.rank(number)
        if place not in self._chances:
            self._chances[place] = self._rungs.chance(number, len(self._curves))
        return self._chances[place]


def replay_all(curves: Sequence[Curve], pruners: Mapping[str, BasePruner], workers: int) -> dict[str, Outcome]:
    """Every way of searching, on the configurations in this order."""
    found = {name: replay(curves, Stopping(curves, pruner), workers) for name, pruner in pruners.items()}
    ladder = Ladder(len(curves[0].scores))
    free = Halving(curves, ladder)
    found["asha"] = replay(curves, free, workers)
    found["asha, a tenth"] = replay(curves, Halving(curves, ladder, max(free.most_paused // 10, 1)), workers)
    for name, other in {
        "asha, reduction_factor=2": replace(ladder, reduction_factor=2),
        "asha, brackets=2": replace(ladder, brackets=2),
    }.items():
        found[name] = replay(curves, Halving(curves, other), workers)
    return found


def pruner_of(name: str, epochs: int) -> BasePruner:
    return make_pruner(compose([f"study.pruner={name}", f"train.epochs={epochs}"]))


# ---------------------------------------------------------------------------------------------------------------------
# figures


def correlations(curves: Sequence[Curve], epochs: Iterable[int]) -> dict[int, float]:
    """Spearman's rank correlation of the scores after so many epochs with the trials' scores."""
    best = [curve.best for curve in curves]
    return {epoch: float(spearmanr([c.scores[epoch - 1] for c in curves], best).statistic) for epoch in epochs}


def spread(values: Sequence[float], form: Callable[[float], str] = digits) -> str:
    """The mean and the range of 90 %."""
    if not values:
        return "-"
    low, high = np.quantile(values, [0.05, 0.95])
    return f"{form(statistics.fmean(values))} ({form(low)} to {form(high)})"


def row_of(name: str, found: Mapping[str, Sequence[Outcome]], curves: Sequence[Curve]) -> Row:
    outcomes = found[name]
    full, best = sum(len(curve.scores) for curve in curves), max(curve.best for curve in curves)
    reached = [epochs for outcome in outcomes if (epochs := outcome.epochs_to(best - NEAR)) is not None]
    return {
        "": name,
        "epochs": spread([outcome.epochs for outcome in outcomes]),
        "of full training": f"{statistics.fmean(outcome.epochs for outcome in outcomes) / full:.3f}",
        "regret": spread([best - outcome.score_after(outcome.epochs) for outcome in outcomes], "{:.4f}".format),
        "none so far": spread(
            [best - none.score_after(o.epochs) for o, none in zip(outcomes, found["none"], strict=True)],
            "{:.4f}".format,
        ),
        f"within {NEAR}": f"{len(reached) / len(outcomes):.0%}",
        f"epochs to {NEAR}": spread(reached),
        "trained again, epochs": spread([outcome.epochs_again for outcome in outcomes]),
        "trained again, s": spread([outcome.seconds_again for outcome in outcomes]),
    }


def plot(found: dict[str, list[Outcome]], best: float, path: Path) -> None:
    """An SVG: the mean regret over the epochs that were trained, to the mean end of each search."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, outcomes in found.items():
        end = statistics.fmean(outcome.epochs for outcome in outcomes)
        at = np.linspace(0, end, 200)
        regret = [statistics.fmean(best - outcome.score_after(int(epochs)) for outcome in outcomes) for epochs in at]
        axes.plot(at, regret, label=name, linewidth=1.4, linestyle="--" if "tenth" in name else "-")
        axes.plot(at[-1], regret[-1], "o", markersize=4, color=axes.lines[-1].get_color())
    axes.axhline(NEAR, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yscale("symlog", linthresh=NEAR)
    axes.set_ylim(0, best)
    axes.set(xlabel="epochs trained, all trials together", ylabel="regret, mean over the orders")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> int:
    parser = arguments_of("search", __doc__)
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--curves", type=Path, default=CURVES, help="the file of learning curves")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="train the configurations in this folder")
    parser.add_argument("--trials", type=int, default=120, help="to record")
    parser.add_argument("--plot", type=Path, help="an SVG of the regret; default: beside the figures of --json")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if arguments.record:
        save(record(arguments.record, arguments.trials), arguments.curves)
    curves = read(arguments.curves)
    pruners = {name: pruner_of(name, len(curves[0].scores)) for name in STOPPING}
    found: dict[str, list[Outcome]] = {}
    for seed in range(arguments.orders):
        order = random.Random(seed).sample(curves, len(curves))
        for name, outcome in replay_all(order, pruners, arguments.workers).items():
            found.setdefault(name, []).append(outcome)
    best = max(curve.best for curve in curves)
    if kept := arguments.plot or (arguments.json and arguments.json.with_suffix(".svg")):
        plot(found, best, kept)
    rank = correlations(curves, (1, 3))
    same = sum(a.winner is b.winner for a, b in zip(found["asha"], found["asha, a tenth"], strict=True))
    show(f"best {best:.4f}, median {statistics.median(curve.best for curve in curves):.4f}; rank correlation {rank}")
    show(f"with a tenth of the states, the same winner in {same} of {arguments.orders} orders")
    title = (
        f"Searches replayed on {len(curves)} learning curves; the rank correlation of a trial's score with that after "
        f"1 epoch is {rank[1]:.2f}, after 3 {rank[3]:.2f}"
    )
    measured = {
        "rank_correlation": rank,
        "same_winner": same,
        "outcomes": {
            name: {
                "epochs": [o.epochs for o in outcomes],
                "completed": [o.completed for o in outcomes],
                "regret": [round(best - o.score_after(o.epochs), 6) for o in outcomes],
                "epochs_to_near": [o.epochs_to(best - NEAR) for o in outcomes],
                "epochs_again": [o.epochs_again for o in outcomes],
                "seconds_again": [round(o.seconds_again, 1) for o in outcomes],
            }
            for name, outcomes in found.items()
        },
    }
    rows = [row_of(name, found, curves) for name in found]
    return finish(Result(title, rows, measured=measured), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
