"""Which checkpoints of a trial stay: a pure function from what there is to what is to be done, with reasons.

Promises, each with a property test of the same name:
- of an unfinished trial the newest resumable checkpoint is kept as it is;
- every checkpoint tied with the best `keep_best_k` scores keeps its weights;
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
    keep_last_n: int = 1
    keep_best_k: int = 1
    keep_all: bool = False


@dataclass(frozen=True)
class Step:
    action: Literal["keep", "strip", "delete"]
    checkpoint: Checkpoint
    reason: str


def best(checkpoints: Sequence[Checkpoint], keep_best_k: int) -> list[Checkpoint]:
    """The checkpoints with the `keep_best_k` highest scores and all tied with the last, best and oldest first."""
    scored = [(c.finite_score, c) for c in checkpoints if c.finite_score is not None]
    scored.sort(key=lambda pair: (-pair[0], pair[1].step))
    cut = scored[:keep_best_k][-1][0] if scored else math.inf
    return [c for score, c in scored if score >= cut]


def plan(checkpoints: Sequence[Checkpoint], policy: Policy, *, finished: bool = False) -> list[Step]:
    """One step for each committed checkpoint, oldest first.

    Of an unfinished trial the newest resumable one always stays, and with it the last `keep_last_n` in all; a
    mid-epoch checkpoint counts only while it is the newest. A `finished` trial needs no resume: only the weights of
    its best stay, or of its newest where no score is finite.
    """
    by_age = sorted(checkpoints, key=lambda c: (c.step, not c.mid_epoch))
    if policy.keep_all:
        return [Step("keep", c, "everything is kept: retention.keep_all") for c in by_age]
    resumable = [] if finished else [c for c in by_age if c.resumable]
    newest, older = resumable[-1:], [c for c in resumable[:-1] if not c.mid_epoch]
    last = set(newest + older[max(len(older) - max(policy.keep_last_n - 1, 0), 0) :])
    kept_best = set(best(by_age, policy.keep_best_k) or (by_age[-1:] if finished else []))

    def step(c: Checkpoint) -> Step:
        if c in last:
            return Step("keep", c, f"last {policy.keep_last_n}" if policy.keep_last_n else "resume point")
        if c in kept_best:
            reason = f"best {policy.keep_best_k}: {c.score}"
            return Step("strip" if c.resumable else "keep", c, f"{reason}; weights suffice" if c.resumable else reason)
        if finished:
            return Step("delete", c, "the trial is finished, and it is not the best")
        return Step("delete", c, "superseded" if c.mid_epoch else "neither last nor best")

    return [step(c) for c in by_age]
