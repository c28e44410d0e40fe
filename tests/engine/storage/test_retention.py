"""The promises of redsm5/engine/storage/retention.py, over random histories and over whole simulated trials."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from redsm5.engine.storage.retention import Checkpoint, Policy, best, plan

# Few distinct values, so that ties are common; with what a metric may also be.
SCORES = st.one_of(
    st.none(),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, -0.5, math.nan, math.inf, -math.inf]),
    st.floats(allow_nan=True, allow_infinity=True),
)
POLICIES = st.builds(Policy, keep_last_n=st.integers(0, 4), keep_best_k=st.integers(1, 4), keep_all=st.just(False))
EPOCH_STEPS = 10


@st.composite
def histories(draw: st.DrawFn) -> list[Checkpoint]:
    """What may lie in a checkpoints folder: epochs, some stripped, some in mid-epoch, in any order."""
    epochs = draw(st.lists(st.integers(1, 30), unique=True, max_size=8))
    found = [Checkpoint(f"epoch-{e:04d}", e * EPOCH_STEPS, draw(SCORES), draw(st.booleans())) for e in epochs]
    middles = draw(st.lists(st.integers(0, 30), unique=True, max_size=3))
    found += [Checkpoint(f"step-{e * EPOCH_STEPS + 3:08d}", e * EPOCH_STEPS + 3, None, True) for e in middles]
    return draw(st.permutations(found))


def apply(checkpoints: list[Checkpoint], policy: Policy, *, finished: bool = False) -> list[Checkpoint]:
    """What is left when the plan has been carried out."""
    steps = plan(checkpoints, policy, finished=finished)
    assert sorted(s.checkpoint.name for s in steps) == sorted(c.name for c in checkpoints), "each has its step"
    assert all(s.reason for s in steps)
    stripped = [replace(s.checkpoint, resumable=False) for s in steps if s.action == "strip"]
    return [s.checkpoint for s in steps if s.action == "keep"] + stripped


def top(checkpoints: list[Checkpoint], k: int) -> set[str]:
    """The names of all tied with the k highest finite scores, from the definition."""
    finite = [(c.score, c.name) for c in checkpoints if c.score is not None and math.isfinite(c.score)]
    return {name for score, name in finite if sum(other > score for other, _ in finite) < k}


def resume_point(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    return max((c for c in checkpoints if c.resumable), key=lambda c: c.step, default=None)


@given(histories(), POLICIES)
def test_of_an_unfinished_trial_the_newest_resumable_checkpoint_is_kept_as_it_is(
    history: list[Checkpoint], policy: Policy
) -> None:
    newest = resume_point(history)
    assert newest is None or newest in apply(history, policy)


@given(histories(), POLICIES, st.booleans())
def test_every_checkpoint_tied_with_the_best_keep_best_k_scores_keeps_its_weights(
    history: list[Checkpoint], policy: Policy, finished: bool
) -> None:
    assert top(history, policy.keep_best_k) <= {c.name for c in apply(history, policy, finished=finished)}


@given(histories(), POLICIES, st.booleans())
def test_what_stays_after_a_plan_stays_after_the_next_one(
    history: list[Checkpoint], policy: Policy, finished: bool
) -> None:
    once = apply(history, policy, finished=finished)
    twice = apply(once, policy, finished=finished)
    assert sorted(once, key=lambda c: c.name) == sorted(twice, key=lambda c: c.name)
    assert {s.action for s in plan(once, policy, finished=finished)} <= {"keep"}


@given(histories(), st.integers(1, 5))
def test_of_a_metric_that_is_minimized_the_best_are_those_of_the_negated_one(history: list[Checkpoint], k: int) -> None:
    negated = [replace(c, score=None if c.score is None else -c.score) for c in history]
    lowest = [c.name for c in best(history, k, maximize=False)]
    assert lowest == [c.name for c in best(negated, k, maximize=True)]


@given(histories(), st.integers(1, 5))
def test_a_score_that_is_none_or_not_finite_is_never_best(history: list[Checkpoint], k: int) -> None:
    chosen = best(history, k, maximize=True)
    assert all(c.score is not None and math.isfinite(c.score) for c in chosen)
    assert {c.name for c in chosen} == top(history, k)
    assert chosen == sorted(chosen, key=lambda c: (-(c.score or 0.0), c.step)), "best and oldest first"


@given(histories(), POLICIES)
def test_nothing_stays_that_the_policy_does_not_ask_for(history: list[Checkpoint], policy: Policy) -> None:
    left = apply(history, policy)
    assert sum(c.resumable for c in left) <= max(policy.keep_last_n, 1)
    assert {c.name for c in left if not c.resumable} <= top(history, policy.keep_best_k)


@given(histories(), POLICIES)
def test_the_last_are_the_newest_and_a_mid_epoch_checkpoint_only_while_it_is_the_newest(
    history: list[Checkpoint], policy: Policy
) -> None:
    newest = resume_point(history)
    kept = {c for c in apply(history, policy) if c.resumable}
    assert all(not c.mid_epoch for c in kept - {newest})
    epochs = sorted((c for c in history if c.resumable and not c.mid_epoch and c != newest), key=lambda c: -c.step)
    assert kept - {newest} == set(epochs[: max(policy.keep_last_n - 1, 0)])


@given(histories(), POLICIES)
def test_a_finished_trial_keeps_weights_of_its_best_alone_or_of_its_newest(
    history: list[Checkpoint], policy: Policy
) -> None:
    left = apply(history, policy, finished=True)
    assert not any(c.resumable for c in left)
    newest = max(history, key=lambda c: (c.step, not c.mid_epoch), default=None)
    expected = top(history, policy.keep_best_k) or ({newest.name} if newest else set())
    assert {c.name for c in left} == expected


@given(histories(), POLICIES, st.booleans())
def test_keep_all_keeps_all_as_it_is(history: list[Checkpoint], policy: Policy, finished: bool) -> None:
    left = apply(history, replace(policy, keep_all=True), finished=finished)
    assert sorted(c.name for c in left) == sorted(c.name for c in history)
    assert set(left) == set(history)


@given(histories(), POLICIES, st.booleans())
def test_the_plan_does_not_depend_on_the_order_of_the_folder(
    history: list[Checkpoint], policy: Policy, finished: bool
) -> None:
    assert plan(history, policy, finished=finished) == plan(history[::-1], policy, finished=finished)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.booleans(), SCORES), min_size=1, max_size=15), POLICIES, st.data())
def test_a_whole_trial_never_loses_its_resume_point_or_a_co_best_and_ends_within_its_policy(
    saves: list[tuple[bool, float | None]], policy: Policy, data: st.DataObject
) -> None:
    """Save one after the other, at times in mid-epoch; the process may die between any two steps of a plan."""
    on_disk: dict[str, Checkpoint] = {}
    committed: list[Checkpoint] = []
    for epoch, (mid_epoch_first, score) in enumerate(saves, start=1):
        step = epoch * EPOCH_STEPS
        arriving = [Checkpoint(f"epoch-{epoch:04d}", step, score, True)]
        if mid_epoch_first:
            arriving.insert(0, Checkpoint(f"step-{step - 5:08d}", step - 5, None, True))
        for checkpoint in arriving:
            committed.append(checkpoint)
            on_disk[checkpoint.name] = checkpoint
            steps = plan(list(on_disk.values()), policy)
            dies_after = data.draw(st.integers(0, len(steps)), label="steps done before the process dies")
            for done in [*steps[:dies_after], *plan_after(on_disk, steps[:dies_after], policy)]:
                carry_out(on_disk, done.action, done.checkpoint)
                assert resume_point(list(on_disk.values())) == checkpoint
                assert top(committed, policy.keep_best_k) <= set(on_disk)
    left = list(on_disk.values())
    assert sum(c.resumable for c in left) <= max(policy.keep_last_n, 1)
    assert {c.name for c in left if not c.resumable} <= top(committed, policy.keep_best_k)
    left = apply(left, policy, finished=True)
    assert {c.name for c in left} == (top(committed, policy.keep_best_k) or {committed[-1].name})
    assert not any(c.resumable for c in left)


def carry_out(on_disk: dict[str, Checkpoint], action: str, checkpoint: Checkpoint) -> None:
    if action == "delete":
        del on_disk[checkpoint.name]
    elif action == "strip":
        on_disk[checkpoint.name] = replace(checkpoint, resumable=False)


def plan_after(on_disk: dict[str, Checkpoint], done: list, policy: Policy) -> list:
    """The plan of the process that comes after the one that died when these steps were done."""
    copy = dict(on_disk)
    for step in done:
        carry_out(copy, step.action, step.checkpoint)
    return plan(list(copy.values()), policy)


def test_the_reasons_say_what_a_person_would_ask() -> None:
    history = [
        Checkpoint("epoch-0001", 10, 0.9, True),
        Checkpoint("epoch-0002", 20, 0.5, True),
        Checkpoint("step-00000025", 25, None, True),
        Checkpoint("epoch-0003", 30, 0.6, True),
    ]
    said = {s.checkpoint.name: (s.action, s.reason) for s in plan(history, Policy())}
    assert said == {
        "epoch-0001": ("strip", "best 1: 0.9; weights suffice"),
        "epoch-0002": ("delete", "neither last nor best"),
        "step-00000025": ("delete", "superseded"),
        "epoch-0003": ("keep", "last 1"),
    }
    assert plan(history, Policy(keep_last_n=0))[-1].reason == "resume point"
