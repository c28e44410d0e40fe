"""Figures hold every point that can be drawn, in roles instead of colours, and leave nothing behind."""

import math
import re

import matplotlib
import pytest

from redsm5.evaluation import plots


def test_thinning_takes_means_of_neighbours_and_loses_no_stretch() -> None:
    points = [(float(x), x / 2) for x in range(10)]
    assert plots.thinned(points, 4) == ([(1.0, 0.5), (4.0, 2.0), (7.0, 3.5), (9.0, 4.5)], 3)
    assert plots.thinned(points, 10) == (points, 1)
    assert plots.thinned([], 4) == ([], 1)


def test_only_what_can_be_drawn_is_drawn() -> None:
    assert plots.finite([(0, 1), (1, math.nan), (math.inf, 1), (2, 1e200), (3, -2)]) == [(0, 1), (3, -2)]


@pytest.mark.parametrize("name", ["cost in $", "$x^2$", "$\\frac{$", "a_b^c", "<&>\"'", "名前"])
def test_a_name_is_drawn_as_it_stands(name: str) -> None:
    svg = plots.objective_curve(name, [(1, 0.5), (2, 0.6)], [2])
    text = "".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text


def test_colours_are_roles_and_ids_are_the_figures_own() -> None:
    svg = plots.history("val_f1_macro", [(0, 0.5), (2, 0.7)], [(1, 0.4)], [3], [(4, 0.5)])
    assert {"var(--accent)", "var(--second)", "var(--bad)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
    assert all(name.startswith("history-") for name in re.findall(r'id="([^"]*)"', svg))
    assert svg.startswith("<svg ")
    assert "<?xml" not in svg


def test_drawing_changes_no_setting_of_the_process() -> None:
    before = dict(matplotlib.rcParams)
    first = plots.storage("hours", [(0, 1e6), (1, 0.0)], [(0, 1e6), (1, 3e6)], 10**10)
    assert dict(matplotlib.rcParams) == before
    assert plots.storage("hours", [(0, 1e6), (1, 0.0)], [(0, 1e6), (1, 3e6)], 10**10) == first


def test_failed_pruned_repeated_and_completed_trials_are_told_apart() -> None:
    svg = plots.history("v", [(0, 0.5), (2, 0.7)], [(1, 0.4)], [3], [(4, 0.5)])
    for label in ("completed", "best so far", "repeat", "pruned, its best epoch", "failed"):
        assert f">{label}</text>" in svg
    assert ">failed</text>" not in plots.history("v", [(0, 0.5)], [], [], [])


def test_a_study_whose_trials_all_failed_has_a_history_too() -> None:
    assert ">failed</text>" in plots.history("v", [], [], [0, 1], [])
