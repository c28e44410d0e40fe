"""`just bench search`: replays of learning curves made by hand, whose results are worked out by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.pruners import MedianPruner, NopPruner

from redsm5.engine.rungs import Ladder, confirm

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
sys.path.append(str(BENCH))

from curves import CURVES, Curve, read, save  # noqa: E402
from search import Halving, Outcome, Stopping, correlations, replay  # noqa: E402


def curve(*scores: float, seconds: float = 2.0) -> Curve:
    return Curve({}, seconds, list(scores))


WORST, BEST, MIDDLE = curve(0.1, 0.2, 0.3), curve(0.5, 0.9, 0.6), curve(0.3, 0.4, 0.5)


def asha(*curves: Curve, most_states: int | None = None) -> Outcome:
    return replay(curves, Halving(curves, Ladder(3), most_states))


def test_asha_trains_one_epoch_of_each_and_the_best_third_to_the_end() -> None:
    found = asha(WORST, BEST, MIDDLE)
    assert found.epochs == 3 + 2
    assert found.best == [(5, 0.9)]
    assert found.winner is BEST
    assert (found.completed, found.epochs_again, found.seconds_again) == (1, 0, 0)


@pytest.mark.parametrize(
    ("order", "most_states", "again"),
    [
        ((BEST, WORST, MIDDLE), 0, 1),  # evicted as the next one starts, and trained again for its promotion
        ((WORST, MIDDLE, BEST), 0, 0),  # promoted as it pauses, with its state
        ((BEST, WORST, MIDDLE), 1, 0),  # the worse one is evicted
        ((WORST, MIDDLE, BEST), 1, 0),
    ],
)
def test_who_is_promoted_without_its_state_is_trained_again(
    order: tuple[Curve, ...], most_states: int, again: int
) -> None:
    found = asha(*order, most_states=most_states)
    assert found.epochs == 3 + 2 + again
    assert (found.epochs_again, found.seconds_again) == (again, 2.0 * again)
    assert found.winner is BEST


@pytest.mark.parametrize("most_states", [None, 0])
def test_every_decision_of_a_replayed_search_is_confirmed(most_states: int | None) -> None:
    curves, ladder = read(CURVES)[:40], Ladder(9)
    search = Halving(curves, ladder, most_states)
    found = replay(curves, search, workers=3)
    assert [fault for _, fault in confirm(ladder, search.rows) if fault] == []
    ended = [row.number for row in search.rows if row.state == "completed"]
    assert found.completed == len(ended) >= 40 // 9
    assert (found.epochs_again > 0) == (most_states is not None)


def test_a_pruned_trial_stops_and_the_others_are_trained_to_the_end() -> None:
    curves = [*[curve(0.5, 0.6)] * 5, curve(0.1, 0.9), curve(0.7, 0.8)]
    pruned = replay(curves, Stopping(curves, MedianPruner()))
    assert pruned.epochs == 5 * 2 + 1 + 2
    assert pruned.best == [(2, 0.6), (13, 0.8)]
    full = replay(curves, Stopping(curves, NopPruner()))
    assert full.epochs == 14
    assert full.best == [(2, 0.6), (12, 0.9)]
    assert full.epochs_to(0.6) == 2
    assert full.epochs_to(0.95) is None
    assert [full.score_after(epochs) for epochs in (1, 2, 12)] == [0.0, 0.6, 0.9]


def test_workers_take_the_recorded_seconds() -> None:
    curves = [curve(0.1, 0.9, seconds=10), curve(0.5, 0.5, seconds=1), curve(0.6, 0.6, seconds=1)]
    found = replay(curves, Stopping(curves, NopPruner()), workers=2)
    assert found.best == [(2, 0.5), (4, 0.6), (6, 0.9)]


def test_rank_correlations_are_with_the_best_epoch() -> None:
    assert correlations([WORST, BEST, MIDDLE], (1, 2, 3)) == pytest.approx({1: 1, 2: 1, 3: 1})
    assert correlations([curve(0.3, 0.4), curve(0.2, 0.5)], (1, 2)) == pytest.approx({1: -1, 2: 1})


def test_the_recorded_curves_are_of_one_length_and_kept_small() -> None:
    curves = read(CURVES)
    assert {len(recorded.scores) for recorded in curves} == {9}
    assert len({json.dumps(recorded.parameters) for recorded in curves}) == len(curves)
    assert CURVES.stat().st_size < 200_000


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "search.py"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_bench_prints_each_search_and_draws_the_regret(tmp_path: Path) -> None:
    save([WORST, BEST, MIDDLE], tmp_path / "curves.json")
    printed = run("--curves", "curves.json", "--orders", "2", "--json", "search.json", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    kept = json.loads((tmp_path / "search.json").read_text())
    variants = ["a tenth", "reduction_factor=2", "brackets=2"]
    assert [row[""] for row in kept["rows"]] == [
        "none",
        "median",
        "hyperband",
        "asha",
        *map("asha, {}".format, variants),
    ]
    assert all(row[""] in printed.stdout for row in kept["rows"])
    assert kept["measured"]["outcomes"]["none"]["epochs"] == [9, 9]
    assert kept["measured"]["outcomes"]["asha"]["epochs"] == [5, 5]
    assert "<svg" in (tmp_path / "search.svg").read_text()


def test_without_curves_one_message_says_how_to_record_them(tmp_path: Path) -> None:
    printed = run("--curves", "missing.json", cwd=tmp_path)
    assert printed.returncode == 1
    assert "missing.json" in printed.stderr
    assert "--record" in printed.stderr
    assert "Traceback" not in printed.stderr
