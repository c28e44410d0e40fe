"""Asynchronous successive halving: the rule alone, on simulated scores."""

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redsm5.engine.documents import now
from redsm5.engine.records import RungRow
from redsm5.engine.rungs import Ladder, Rungs, confirm

Score = Callable[[int, int], float]


def row(action: str, number: int, ladder: Ladder, **facts: object) -> RungRow:
    return RungRow.model_validate(
        {"timestamp": now(), "action": action, "number": number, "bracket": ladder.bracket(number), **facts}
    )


def simulate(ladder: Ladder, trials: int, score: Score, workers: int = 1, seed: int = 0) -> Iterator[RungRow]:
    """The rows of a search whose trial `number` scores `score(number, epoch)`; workers take random turns."""
    rungs, order = Rungs(ladder), random.Random(seed)
    at: dict[int, int] = {}  # the epoch of each trial at work

    def tell(action: str, number: int, **facts: object) -> RungRow:
        told = row(action, number, ladder, **facts)
        rungs.add(told)
        return told

    while True:
        if len(at) < workers:
            if due := rungs.promotion() or (
                rungs.closing_promotion() if len(rungs.drawn) == trials and not at else None
            ):
                facts = {"rank": due.rank, "of": due.of, "closing": due.closing}
                yield tell("promote", due.number, rung=due.place.rung, **facts)
                at[due.number] = ladder.epochs_at(due.place.rung)
                continue
            if len(rungs.drawn) < trials:
                number = len(rungs.drawn)
                yield tell("draw", number)
                at[number] = 0
                continue
            if not at:
                break
        number = order.choice(sorted(at))
        epoch = at.pop(number) + 1
        while epoch < ladder.epochs and ladder.rung_after(number, epoch) is None:
            epoch += 1
        if epoch < ladder.epochs:
            rung = ladder.rung_after(number, epoch)
            yield tell("pause", number, rung=rung, epoch=epoch, value=score(number, epoch))
        else:
            yield tell("end", number, state="completed")
    for number in sorted(rungs.paused):
        rank, of = rungs.rank(number)
        yield tell("end", number, state="pruned", rung=rungs.paused[number].rung, rank=rank, of=of)


def epochs_of(rows: list[RungRow], ladder: Ladder) -> int:
    """Epochs that were trained: each trial up to the last place that it came to."""
    last: dict[int, int] = {}
    for told in rows:
        if told.action == "pause" and told.epoch:
            last[told.number] = told.epoch
        if told.state == "completed":
            last[told.number] = ladder.epochs
    return sum(last.values())


def by_number(number: int, epoch: int) -> float:
    """A score that is the same after each epoch: no two trials have the same."""
    return random.Random(number).random()


def test_three_hundred_trials_of_nine_epochs_take_a_quarter_of_the_epochs() -> None:
    ladder = Ladder(9)
    rows = list(simulate(ladder, 300, by_number))
    completed = [told.number for told in rows if told.state == "completed"]
    assert ladder.rungs == [1, 3]
    assert epochs_of(rows, ladder) <= 300 + 100 * 2 * 1.25 + 33 * 6 * 1.5  # a rung takes some that fall behind later
    assert max(range(300), key=lambda number: by_number(number, 0)) in completed
    assert 33 <= len(completed) <= 50


@given(
    trials=st.integers(1, 60),
    workers=st.integers(1, 5),
    factor=st.integers(2, 4),
    brackets=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_every_decision_is_confirmed_and_nothing_stays_paused(
    trials: int, workers: int, factor: int, brackets: int, seed: int
) -> None:
    ladder = Ladder(20, factor, 2, brackets, seed)
    rows = list(simulate(ladder, trials, lambda number, epoch: random.Random(f"{number} {epoch}").random(), workers))
    assert [fault for _, fault in confirm(ladder, rows) if fault] == []
    rungs = Rungs(ladder, rows)
    assert not rungs.paused
    assert not rungs.at_work
    assert len(rungs.drawn) == trials
    assert {told.number for told in rows if told.action == "end"} == rungs.drawn
    with_trials = {ladder.bracket(number) for number in range(trials)}
    assert {told.bracket for told in rows if told.state == "completed"} == with_trials  # each has a result


def test_a_decision_that_does_not_follow_is_found() -> None:
    ladder = Ladder(9)
    rows = list(simulate(ladder, 30, by_number, workers=3))
    for index, told in enumerate(rows):
        if told.action == "pause" and told.rung == 0:
            other = rows.copy()
            other[index] = told.model_copy(update={"epoch": 2})
            assert any(fault for _, fault in confirm(ladder, other))
        if told.action == "promote":
            other = rows.copy()
            other[index] = told.model_copy(update={"rank": (told.rank or 0) + 1})
            assert any(fault for _, fault in confirm(ladder, other))
            del other[index]  # a draw comes next, or a pause of a trial that is paused
            assert any(fault for _, fault in confirm(ladder, other))


def test_a_score_that_is_not_finite_is_never_promoted() -> None:
    ladder = Ladder(9)
    rows = list(simulate(ladder, 9, lambda number, epoch: float("nan") if number else 0.1))
    assert {told.number for told in rows if told.action == "promote"} == {0}
    all_nan = list(simulate(ladder, 3, lambda number, epoch: float("nan")))
    assert [told.action for told in all_nan].count("promote") == 0


def test_of_equal_scores_the_earlier_trial_goes_on() -> None:
    rows = list(simulate(Ladder(3), 6, lambda number, epoch: 0.5))
    assert [told.number for told in rows if told.action == "promote"] == [0, 1]


def test_a_lower_score_is_better_where_it_is_minimized() -> None:
    best = {
        maximize: next(
            told.number for told in simulate(Ladder(3, maximize=maximize), 3, by_number) if told.action == "promote"
        )
        for maximize in (True, False)
    }
    assert best[True] == max(range(3), key=lambda number: by_number(number, 0))
    assert best[False] == min(range(3), key=lambda number: by_number(number, 0))


def test_brackets_start_at_their_own_rung() -> None:
    ladder = Ladder(27, brackets=2)
    for number in range(50):
        first = 3 ** ladder.bracket(number)
        pauses = [epoch for epoch in range(1, 27) if ladder.rung_after(number, epoch) is not None]
        assert pauses == [epochs for epochs in (1, 3, 9) if epochs >= first]


@pytest.mark.parametrize("wanted", [30, 300])
def test_the_chance_of_promotion_is_what_happens(wanted: int) -> None:
    """Of paused trials with a chance of about p, a share of about p goes on: over 60 searches, in five bands."""
    ladder = Ladder(9)
    told: list[tuple[float, bool]] = []
    for seed in range(60 if wanted == 30 else 12):
        rows = list(simulate(ladder, wanted, lambda number, epoch, s=seed: random.Random(f"{s} {number}").random()))
        promoted = [
            (index, r.number, r.rung) for index, r in enumerate(rows) if r.action == "promote" and not r.closing
        ]
        at = random.Random(seed).randrange(wanted // 4, len(rows) // 2)
        rungs = Rungs(ladder, rows[: at + 1])
        for number, place in rungs.paused.items():
            later = any(index > at and (n, rung) == (number, place.rung) for index, n, rung in promoted)
            told.append((rungs.chance(number, wanted), later))
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        band = [later for chance, later in told if low <= chance <= low + 0.2]
        if len(band) >= 30:
            expected = sum(chance for chance, _ in told if low <= chance <= low + 0.2) / len(band)
            assert sum(band) / len(band) == pytest.approx(expected, abs=0.15)
