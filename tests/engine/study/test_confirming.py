"""Whose configuration is confirmed, which repeat is next, who is dropped and who wins: by the records alone."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redsm5.engine.records import Best, ErrorRecord, TrialRecord
from redsm5.engine.study.confirming import FIRST_DROP, Race, chosen, confirmed, estimate, is_behind, race, repeat_id

TIME = "2026-01-31T12:00:00.000Z"
STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
SAME = 60.0  # seconds that a repeat trains


def trial(number: int, score: float | None, state: str = "completed", **changes: object) -> TrialRecord:
    best = None if score is None else Best(epoch=1, value=score)
    fields = {"trial_id": f"t{number}", "study_id": STUDY, "number": number, "state": state, "created_at": TIME}
    return TrialRecord.model_validate({**fields, "epochs": 3, "best": best, **changes})


def repeat(number: int, of: int, score: float | None, state: str = "completed", seconds: float = SAME) -> TrialRecord:
    return trial(of, score, state, trial_id=f"t{of}-{number}", confirms=f"t{of}", repeat=number, active_seconds=seconds)


def whole(scores: Mapping[int, Sequence[float]], seconds: Mapping[int, float] | None = None) -> list[TrialRecord]:
    """The trials of these configurations, ranked by number, and their repeats with these scores."""
    seconds = seconds or {}
    return [
        *(trial(number, 0.9 - number / 100) for number in scores),
        *(
            repeat(n, number, score, seconds=seconds.get(number, SAME))
            for number, row in scores.items()
            for n, score in enumerate(row, 1)
        ),
    ]


def standing(trials: Sequence[TrialRecord], *, top: int = 5, repeats: int = 5, maximize: bool = True) -> Race:
    return race(trials, top=top, repeats=repeats, maximize=maximize)


def open_of(race: Race) -> list[tuple[int | None, int]]:
    return [(trial.number, repeat) for trial, repeat in race.open]


def test_the_best_completed_trials_are_confirmed_and_no_other() -> None:
    trials = [
        trial(0, 0.5),
        trial(1, 0.7),
        trial(2, 0.7, duplicate_of="t1"),
        trial(3, 0.9, "pruned"),
        trial(4, 0.95, "running"),
        trial(5, None, "failed", error=ErrorRecord(kind="killed", message="")),
        trial(6, math.inf),
        trial(7, 0.7),
        repeat(1, of=0, score=0.99),
    ]
    for order in (trials, trials[::-1]):
        assert [t.number for t in chosen(order, top=2, maximize=True)] == [1, 7]
        assert [t.number for t in chosen(order, top=9, maximize=True)] == [1, 7, 0]
        assert [t.number for t in chosen(order, top=2, maximize=False)] == [0, 1]


def test_a_round_is_whole_before_the_next_begins() -> None:
    trials = [trial(0, 0.7), trial(1, 0.8)]
    assert open_of(standing(trials)) == [(1, 1), (0, 1)], "in the order of the search's ranking"
    trials += [repeat(1, of=0, score=0.5), repeat(1, of=1, score=None, state="running")]
    assert open_of(standing(trials)) == [(1, 1)]
    trials[-1] = repeat(1, of=1, score=0.6)
    assert open_of(standing(trials)) == [(1, 2), (0, 2)]
    trials += [repeat(2, of=1, score=0.6), repeat(2, of=0, score=None, state="interrupted")]
    found = standing(trials)
    assert (open_of(found), found.rounds, [racer.scores for racer in found.racers]) == ([(0, 2)], 1, [(0.6,), (0.5,)])


def test_without_a_completed_trial_there_is_no_race() -> None:
    for trials in ([], [trial(0, None, "failed")]):
        found = standing(trials)
        assert (found.over, found.winner, confirmed(found)) == (True, None, None)


BEHIND = {0: [0.70, 0.72, 0.71], 1: [0.60, 0.61, 0.61], 2: [0.71, 0.69, 0.72]}


def test_what_is_behind_is_dropped_once_the_round_is_whole() -> None:
    assert FIRST_DROP == 3
    trials = whole(BEHIND)
    found = standing(trials)
    assert [racer.left for racer in found.racers] == [None, 3, None]
    assert open_of(found) == [(0, 4), (2, 4)]
    before = standing([t for t in trials if (t.confirms, t.repeat) != ("t2", 3)])
    assert [racer.left for racer in before.racers] == [None, None, None]
    turned = [t.model_copy(update={"best": t.best and Best(epoch=1, value=1 - t.best.value)}) for t in trials]
    assert [racer.left for racer in standing(turned, maximize=False).racers] == [None, 3, None]


def test_nothing_is_dropped_after_the_last_round_which_would_save_nothing() -> None:
    found = standing(whole(BEHIND), repeats=3)
    assert found.over
    assert [racer.left for racer in found.racers] == [None, None, None]
    assert found.winner
    assert found.winner.trial.number == 0


@pytest.mark.parametrize(("score", "state"), [(None, "failed"), (0.9, "pruned"), (math.nan, "completed")])
def test_a_configuration_whose_repeat_has_no_score_is_out(score: float | None, state: str) -> None:
    trials = [*whole({0: [0.7], 1: [0.6, 0.6]}), repeat(2, of=0, score=score, state=state)]
    found = standing(trials, repeats=2)
    assert [(racer.left, racer.failed) for racer in found.racers] == [(2, True), (None, False)]
    assert found.winner
    assert found.winner.trial.number == 1
    said = confirmed(found)
    assert said
    assert (said.raw_best.number, said.raw_best.repeats, said.raw_best.mean, said.raw_best.sd) == (0, 1, 0.7, None)
    assert said.shrinkage == pytest.approx(0.2)


def test_where_every_repeat_fails_nobody_wins() -> None:
    found = standing([trial(0, 0.7), trial(1, 0.6), *(repeat(1, of=n, score=None, state="failed") for n in (0, 1))])
    assert (found.over, found.winner, confirmed(found)) == (True, None, None)


NEAR = {0: [0.70, 0.74, 0.66], 1: [0.69, 0.73, 0.66], 2: [0.50, 0.54, 0.46]}


def test_the_winner_is_the_cheapest_within_one_standard_error_of_the_best_mean() -> None:
    for seconds, number in (
        ({0: 100.0, 1: 50.0, 2: 1.0}, 1),  # 2 is cheaper still, and too far from the best
        ({0: 100.0, 1: 95.0}, 0),  # as good as equal
        ({0: 50.0, 1: 100.0}, 0),
    ):
        found = standing(whole(NEAR, seconds), repeats=3)
        assert found.winner
        assert found.winner.trial.number == number, seconds
    # an interrupted repeat took longer than it should have
    trials = whole(NEAR, {0: 100.0, 1: 50.0})
    delayed = [t.model_copy(update={"active_seconds": 500.0, "resumes": 1}) if t.repeat == 1 else t for t in trials]
    delayed = [t.model_copy(update={"active_seconds": 500.0, "resumes": 1}) if t.repeat == 2 else t for t in delayed]
    found = standing(delayed, repeats=3)
    assert found.winner
    assert (found.winner.trial.number, found.winner.cost) == (1, 50.0)
    equal = standing(whole({0: [0.7, 0.6], 1: [0.6, 0.7]}), repeats=2)
    assert equal.winner
    assert equal.winner.trial.number == 0


def test_the_record_has_mean_deviation_and_student_s_interval() -> None:
    said = confirmed(standing(whole({3: [0.62, 0.60, 0.64]}), repeats=3))
    assert said
    # t(0.975, 2) = 4.302653, by the tables
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert (said.number, said.repeats) == (3, 3)
    assert [said.mean, said.sd, said.low, said.high] == pytest.approx([0.62, 0.02, 0.62 - half, 0.62 + half])
    assert said.raw_best.model_dump(exclude={"value"}) == said.model_dump(exclude={"raw_best", "shrinkage"})
    assert said.shrinkage == pytest.approx(0.87 - 0.62)
    lower = confirmed(standing(whole({3: [0.92, 0.90, 0.94]}), repeats=3, maximize=False))
    assert lower
    assert lower.shrinkage == pytest.approx(0.92 - 0.87), "a loss that the search saw too low"


def test_the_test_is_the_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    draw = random.Random(0)
    for _ in range(300):
        n, gap = draw.randint(2, 8), draw.choice([0.0, 0.02, 0.1])
        one, other = ([draw.gauss(mean, 0.05) for _ in range(n)] for mean in (gap, 0.0))
        expected = ttest_rel(one, other).pvalue < 0.05 and fmean(one) > fmean(other)
        assert is_behind(other, one, 1) == expected
        assert is_behind([-v for v in other], [-v for v in one], -1) == expected
    assert not is_behind([0.5, 0.5], [0.5, 0.5], 1)
    assert is_behind([0.5, 0.5], [0.6, 0.6], 1)
    assert not is_behind([0.5], [0.6], 1)


def test_a_repeat_has_always_the_same_id_and_no_two_have_one() -> None:
    ids = {repeat_id(STUDY, f"t{number}", n) for number in range(20) for n in range(1, 6)}
    assert len(ids) == 100
    assert repeat_id(STUDY, "t3", 2) in ids


Score = Callable[[int, int], float | None]


def run_race(count: int, repeats: int, score: Score, pick: Callable[[int], int] = lambda _: 0) -> list[TrialRecord]:
    """The records of a race that is run to its end by workers that take the open repeats in any order."""
    trials = [trial(number, 0.9 - number / 100) for number in range(count)]
    while (found := standing(trials, top=count, repeats=repeats)).open:
        of, n = found.open[pick(len(found.open))]
        assert of.number is not None
        value = score(of.number, n)
        trials.append(repeat(n, of.number, value, "failed" if value is None else "completed"))
    return trials


scores = st.one_of(st.none(), st.sampled_from([0.5, 0.6]), st.floats(0, 1))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.integers(2, 6), st.lists(scores, min_size=30, max_size=30), st.randoms())
def test_the_race_is_the_same_in_whatever_order_and_by_however_many_it_is_run(
    count: int, repeats: int, values: list[float | None], chance: random.Random
) -> None:
    def score(number: int, n: int) -> float | None:
        return values[(number * 6 + n) % len(values)]

    trials = run_race(count, repeats, score)
    other = run_race(count, repeats, score, lambda n: chance.randrange(n))
    assert {t.trial_id for t in trials} == {t.trial_id for t in other}
    shuffled = chance.sample(other, len(other))
    assert confirmed(standing(shuffled, top=count, repeats=repeats)) == confirmed(
        standing(trials, top=count, repeats=repeats)
    )
    found = standing(trials, top=count, repeats=repeats)
    assert found.over
    for racer in found.racers:
        made = [t for t in trials if t.confirms == racer.trial.trial_id]
        assert sorted(t.repeat or 0 for t in made) == list(range(1, (racer.left or repeats) + 1)), "no repeat in vain"
        assert len(racer.scores) == len(made) - racer.failed
    if found.winner:
        best = max(fmean(racer.scores) for racer in found.racers if racer.left is None)
        assert fmean(found.winner.scores) <= best
        assert len(found.winner.scores) == repeats


def raced(means: Sequence[float], chance: random.Random, *, split: float = 0.02, own: float = 0.02) -> Race:
    """A race of configurations with these true means; a round's split moves all scores, a repeat's seed its own."""
    splits = [chance.gauss(0, split) for _ in range(5)]
    trials = run_race(len(means), 5, lambda number, n: means[number] + splits[n - 1] + chance.gauss(0, own))
    return standing(trials, top=len(means))


def test_the_race_rarely_drops_the_truly_best() -> None:
    """2,000 races of five configurations with a standard deviation of 0.02 over seeds."""
    chance = random.Random(1)
    dropped, spared, races = 0, 0, 2000
    for _ in range(races):
        means = [0.60, *(0.60 - chance.uniform(0, 0.06) for _ in range(4))]
        order = chance.sample(range(5), 5)
        found = raced([means[i] for i in order], chance)
        dropped += found.racers[order.index(0)].left is not None
        spared += sum(5 - racer.left for racer in found.racers if racer.left is not None)
    assert dropped / races < 0.03
    assert spared / races > 1, "and it saves repeats: of 25, one and more"


def test_the_mean_of_the_repeats_is_not_too_good_as_the_search_s_best_is() -> None:
    """Of 50 equally good configurations the search's best seems far better; its repeats do not."""
    chance = random.Random(2)
    seen, repeated = [], []
    for _ in range(300):
        search = [trial(number, chance.gauss(0.6, 0.02)) for number in range(50)]
        (best,) = chosen(search, top=1, maximize=True)
        assert best.best
        assert best.number is not None
        seen.append(best.best.value)
        again = [repeat(n, best.number, chance.gauss(0.6, 0.02)) for n in range(1, 6)]
        said = confirmed(standing([*search, *again], top=1))
        assert said
        assert said.shrinkage is not None
        assert said.shrinkage == pytest.approx(best.best.value - said.mean)
        repeated.append(said)
    assert fmean(seen) > 0.64
    assert fmean(said.mean for said in repeated) == pytest.approx(0.6, abs=0.002)
    held = fmean(said.low <= 0.6 <= said.high for said in repeated)
    assert 0.92 < held < 0.98, "the interval of five repeats holds the truth as often as it says"


def test_one_score_has_a_mean_and_no_interval() -> None:
    assert estimate([0.5]) == (0.5, None, None, None)
