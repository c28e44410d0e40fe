"""The axes of charts: round numbers, within what the metric can be, and a mark for each state."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redsm5.engine import paths
from tui.panels.chart import Chart, Line, draw
from tui.panels.objective import NUMBER, chart, legend
from tui.panels.ticks import bounds, labelled, limits, log_ticks, ticks, unit
from tui.read.reader import Reader

FUZZ = settings(deadline=None, max_examples=300, derandomize=True, database=None)


def labels(made, height=13):
    lines = draw(made, 60, height).plain.split("\n")[:-1]
    return [said for line in lines if (said := line.split("│")[0].strip())]


@pytest.mark.parametrize(
    ("metric", "values", "within"),
    [
        ("val_f1_macro", [0.3], (0.0, 1.0)),
        ("test_pr_auc", [], (0.0, 1.0)),
        ("val_accuracy", [0.1, 1.0], (0.0, 1.0)),
        ("accuracy", [87.0], None),  # a script's own, in percent
        ("system_cpu_percent", [101.4], (0.0, 100.0)),
        ("system_cpu_percent", [780.0], None),  # of several cores
        ("val_loss", [0.3], None),
        ("f1_loss", [0.3], None),
        ("acceleration", [0.3], None),
    ],
)
def test_what_is_bounded_is_known_by_its_name_and_its_values(metric, values, within):
    assert bounds(metric, values) == within


@pytest.mark.parametrize("value", [0.0, 0.43, 1.0])
def test_a_single_score_is_shown_between_0_and_1(value):
    made = Chart([Line([3], [value], kind="points")], within=bounds("val_f1_macro", [value]))
    said = labels(made)
    assert (said[0], said[-1]) == ("1.0", "0.0")


def test_a_single_number_of_any_other_kind_is_shown_above_zero():
    assert labels(Chart([Line([3], [0.0], kind="points")]))[-1] == "0.0"
    assert limits(4.0, 4.0, 12)[:2] == (0.0, 8.0)
    assert limits(-4.0, -4.0, 12)[:2] == (-8.0, 0.0)


def test_a_percentage_ends_at_100_where_it_was_measured_as_a_little_more():
    values = [12.0, 101.4, 99.0]
    assert labels(Chart([Line([1, 2, 3], values)], within=bounds("system_cpu_percent", values)))[0] == "100"


def test_a_study_with_one_trial_has_an_axis_of_its_metric(folder):
    folder.study(states=("running",))
    trials = Reader(folder.root).read().trials
    said = labels(chart(trials, NUMBER, "val_f1_macro"))
    assert (said[0], said[-1]) == ("1.0", "0.0")


def test_each_state_has_its_mark_in_the_chart_of_the_trials(folder):
    """A trial's score may stand where another one is, so each has a place of its own here."""
    states = ("completed", "pruned", "interrupted", "running", "paused")
    folder.study(states=states)
    folder.rewrite(
        paths.trial_dir(folder.root, folder.of(1)) / paths.TRIAL, state="failed", best={"epoch": 1, "value": 0.1}
    )
    for path in folder.root.glob("study_*/index.json"):
        path.unlink()
    trials = Reader(folder.root).read().trials
    assert legend(trials) == "○ running  • completed  ✗ failed  ⊘ interrupted  ⏸ paused"
    for axis in (NUMBER, "train.learning_rate"):
        page = draw(chart(trials, axis, "val_f1_macro"), 60, 12).plain
        assert all(mark in page for mark in "○•✗⊘⏸")


@FUZZ
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 60))
def test_limits_and_ticks_are_round_contain_the_values_and_are_told_apart(low, span, rows):
    bottom, top, step = limits(low, low + span, rows)
    slack = 1e-6 * max(abs(bottom), abs(top), top - bottom)
    assert bottom - slack <= low
    assert low + span <= top + slack
    found = ticks(bottom, top, step)
    assert found[0] == pytest.approx(bottom, abs=slack)
    assert found[-1] == pytest.approx(top, abs=slack)
    assert len(found) <= 9
    if 1e-3 <= top - bottom < 1e5 and max(abs(bottom), abs(top)) < 1e5 and (top - bottom) > 0.01:
        assert len(set(labelled(found))) == len(found)


@FUZZ
@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 60))
def test_of_shares_no_limit_is_beyond_0_and_1(a, b, rows):
    bottom, top, _ = limits(min(a, b), max(a, b), rows, (0.0, 1.0))
    assert -1e-9 <= bottom < top <= 1 + 1e-9


@FUZZ
@given(st.floats(-20, 20), st.floats(0.001, 40), st.integers(2, 60))
def test_logarithmic_ticks_lie_within_the_axis(low, span, rows):
    found = log_ticks(low, low + span, rows)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 <= y <= low + span + 1e-6 for y in found)


def test_bytes_have_units_on_their_axis():
    made = Chart([Line([1, 2], [1.2e9, 3.8e9])], y_label=unit("system_gpu_memory_bytes"))
    assert labels(made)[0] == "4.0 GB"
    assert unit("system_disk_read_bytes_per_second")(2e6) == "2 MB/s"
    assert unit("val_loss") is None
