"""Decides which checkpoints of a trial are kept: a pure function from the checkpoints to actions with reasons.

Promises, each with a property test of the same name:
- of an unfinished trial the newest resumable checkpoint is kept as it is;
- every checkpoint tied with the best `keep_best_k` scores keeps its weights, as long as there is space;
- what stays after a plan stays after the next one;
- a score that is None or not finite is never best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint as the plan sees it.

    Attributes:
        name: its folder, epoch-0003 or step-00001234.
        step: optimizer steps done.
        score: the study's metric; None in mid-epoch or where it is undefined.
        resumable: it has its training state, not only weights.
    """

    name: str
    step: int
    score: float | None
    resumable: bool

    @property
    def mid_epoch(self) -> bool:
        return self.name.startswith("step-")

    @property
    def finite_score(self) -> float | None:
        return self.score if self.score is not None and math.isfinite(self.score) else None


@dataclass(frozen=True)
class Policy:
    """What of a trial is kept; the names are those of the configuration.

    Attributes:
        enabled: without it nothing is ever written.
        keep_training_state: a finished trial keeps its newest resumable checkpoint, to be given more epochs.
        maximize: whether a higher score is better.
        drop_ties: there is no room for ties beyond `keep_best_k`: the oldest go first.
    """

    keep_last_n: int = 1
    keep_best_k: int = 1
    keep_all: bool = False
    enabled: bool = True
    keep_training_state: bool = False
    maximize: bool = True
    drop_ties: bool = False


@dataclass(frozen=True)
class Step:
    action: Literal["keep", "strip", "delete"]
    checkpoint: Checkpoint
    reason: str


def best(checkpoints: Sequence[Checkpoint], keep_best_k: int, *, maximize: bool) -> list[Checkpoint]:
    """The checkpoints with the `keep_best_k` best scores and all tied with the last, best and oldest first."""
    sign = 1 if maximize else -1
    scored = [(sign * c.finite_score, c) for c in checkpoints if c.finite_score is not None]
    scored.sort(key=lambda pair: (-pair[0], pair[1].step))
    cut = scored[:keep_best_k][-1][0] if scored else math.inf
    return [c for score, c in scored if score >= cut]


def _surplus(tied: Sequence[Checkpoint], keep_best_k: int) -> Sequence[Checkpoint]:
    """Of `best`'s answer, those beyond `keep_best_k`: the oldest of the ones that share the last place."""
    beyond = len(tied) - keep_best_k
    if beyond <= 0:
        return []
    first = next(i for i, c in enumerate(tied) if c.finite_score == tied[-1].finite_score)
    return tied[first : first + beyond]


def plan(checkpoints: Sequence[Checkpoint], policy: Policy, *, finished: bool = False) -> list[Step]:
    """One step for each committed checkpoint, oldest first.

    Of an unfinished trial the newest resumable one always stays, and with it the last `keep_last_n` in all; a
    mid-epoch checkpoint counts only while it is the newest. A `finished` trial needs no resume, unless its training
    state is to be kept: only the weights of its best stay, or of its newest where no score is finite.
    """
    by_age = sorted(checkpoints, key=lambda c: (c.step, not c.mid_epoch))
    if policy.keep_all:
        return [Step("keep", c, "everything is kept: retention.keep_all") for c in by_age]
    resumable = [c for c in by_age if c.resumable]
    newest, older = resumable[-1:], [c for c in resumable[:-1] if not c.mid_epoch]
    last = set(newest + older[max(len(older) - max(policy.keep_last_n - 1, 0), 0) :])
    if finished:
        last = set(newest if policy.keep_training_state else [])
    tied = best(by_age, policy.keep_best_k, maximize=policy.maximize) or (by_age[-1:] if finished else [])
    # Those tied for the last place stand at the end, oldest first: the newest of them stay.
    dropped = set(_surplus(tied, policy.keep_best_k)) if policy.drop_ties else set()
    kept_best = set(tied) - dropped

    def step(c: Checkpoint) -> Step:
        if c in last:
            if finished:
                return Step("keep", c, "retention.keep_training_state")
            return Step("keep", c, f"last {policy.keep_last_n}" if policy.keep_last_n else "resume point")
        if c in kept_best:
            reason = f"best {policy.keep_best_k}: {c.score}"
            return Step("strip" if c.resumable else "keep", c, f"{reason}; weights suffice" if c.resumable else reason)
        if c in dropped:
            return Step("delete", c, f"tied with the best {policy.keep_best_k}, but there is no space for all of them")
        if finished:
            return Step("delete", c, "the trial is finished, and this is not its best checkpoint")
        return Step("delete", c, "superseded" if c.mid_epoch else "neither last nor best")

    return [step(c) for c in by_age]
