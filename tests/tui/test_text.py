"""Numbers have units, states have symbols, and nothing gets through that a terminal would obey."""

import math
from typing import get_args
from unicodedata import east_asian_width

import pytest
from rich.cells import cell_len

from redsm5.engine.records import StudyRecord, TrialState
from tests.tui.conftest import NOW
from tui.panels import text


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (438_000_000, "438 MB"),
        (1_314_000_000, "1.3 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_sizes(count, shown):
    assert text.size(int(count)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (-5, "0:00"), (252, "4:12"), (3852, "1:04:12"), (183_600, "2 d 3 h")]
)
def test_durations(seconds, shown):
    assert text.duration(seconds) == shown


def test_every_state_of_a_trial_and_of_a_study_has_a_symbol():
    words = {*get_args(TrialState), *get_args(StudyRecord.model_fields["state"].annotation)}
    assert words == set(text.SYMBOLS)


def test_states_that_mean_different_things_have_marks_of_their_own_one_cell_wide():
    apart = ("running", "completed", "pruned", "failed", "interrupted", "paused", "stopped", "queued")
    for marks in (text.SYMBOLS, text.POINTS):
        assert len({marks[name] for name in apart}) == len(apart)
        assert all(cell_len(mark) == 1 and east_asian_width(mark) in "NA" for mark in marks.values())
    assert len({text.STYLES[name] for name in ("running", "pruned", "failed", "interrupted", "paused")}) == 5


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\x1b[2Jb\nc\td\u202e", "a[2Jb c d"),
        ("\x9b31mred\x07\x00", "31mred"),
        ("zero\u200bwidth\ud800", "zerowidth"),
        ("[red]as it stands[/red]", "[red]as it stands[/red]"),
        ("x" * 10_000, "x" * text.LONGEST),
    ],
)
def test_control_characters_do_not_get_through(written, shown):
    assert text.clean(written) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.4873, "0.487"),
        (-0.25, "-0.250"),
        (2.1e-5, "2.10e-05"),
        (1e300, "1.00e+300"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_values(number, shown):
    assert text.value(number) == shown


@pytest.mark.parametrize(
    ("setting", "shown"),
    [(None, "none"), ([], "none"), (2.1e-05, "2.1e-05"), (16, "16"), ("gated", "gated"), (True, "True")],
)
def test_parameters(setting, shown):
    assert text.parameter(setting) == shown


def test_a_parameter_is_called_what_people_call_it_or_by_the_last_part_of_its_key():
    assert text.parameter_name("train.learning_rate") == "lr"
    assert text.parameter_name("train.warmup_ratio") == "warmup_ratio"


@pytest.mark.parametrize(
    ("timestamp", "shown"),
    [
        ("2026-03-14T07:40:58Z", "07:40:58"),
        ("2026-03-13T07:40:58Z", "Mar 13 07:40:58"),
        ("2026-03-14T07:40:58", "07:40:58"),
        ("yesterday", "Jan 01 00:00:00"),
        ("9999-12-31T23:59:59-23:59", "?"),
    ],
)
def test_clock_times(frozen, timestamp, shown):
    assert text.clock(timestamp, NOW) == shown


@pytest.mark.parametrize(
    ("share", "full"), [(0.0, 0), (0.5, 5), (1.0, 10), (7.0, 10), (-1.0, 0), (math.nan, 0), (math.inf, 0)]
)
def test_a_bar_stays_within_its_width(share, full):
    assert text.bar(share, 10).plain == "━" * full + "─" * (10 - full)


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(None, "    "), (math.nan, "    "), (0.0, "    "), (0.53, "██▏ "), (1.0, "████"), (9.0, "████"), (-1.0, "    ")],
)
def test_a_fine_bar_has_eighths(share, drawn):
    assert text.fine_bar(share, 4) == drawn


def test_a_line_of_bars_goes_from_zero_to_the_highest():
    assert text.spark([0.0, 1.0, 2.0, 4.0]) == "▁▃▅█"
    assert text.spark([]) == ""
    assert text.spark([0.0, 0.0]) == "▁▁"


def test_long_decimals_in_a_reason_are_cut():
    assert text.shorter("best 1: 0.16558446484771314; weights suffice") == "best 1: 0.1655; weights suffice"
