"""A chart of any data fits its place, and shows where the points are."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.widgets.plot import DOTS, Chart, Drawing, Line, draw, panned, smoothed, zoomed

FUZZ = settings(deadline=None, max_examples=300, derandomize=True, database=None)
number = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, 1e-320, math.inf, -math.inf, math.nan, 1.0, 1.0 + 1e-15]),
)
place = st.one_of(number, st.integers(-(2**62), 2**62))
points = st.lists(st.tuples(place, number), max_size=30).map(lambda drawn: sorted(drawn, key=lambda point: point[0]))
kinds = st.sampled_from(["line", "steps", "points"])


@FUZZ
@given(
    st.lists(st.tuples(points, kinds), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 90),
    st.integers(0, 30),
    st.one_of(st.none(), place),
    st.one_of(st.none(), st.tuples(place, place)),
)
@example([([(-(2**61), 0.5)], "line")], False, 30, 7, None, None)
@example([([(0, 1.7e308)], "line")], True, 30, 7, None, None)
@example([([(-1e308, 0.5), (1e308, 0.5)], "steps")], False, 30, 7, math.nan, None)
@example([([(0, -1.234e-300)], "points")], False, 12, 3, 0, None)
def test_any_data_at_any_size_gives_so_many_lines_of_so_many_cells(lines, log, width, height, at, x_range):
    made = [Line([x for x, _ in drawn], [y for _, y in drawn], "cyan", kind) for drawn, kind in lines]
    drawing = Drawing(Chart(made, log=log, x_range=x_range), width, height)
    page = drawing.text(at).plain.split("\n")
    found = [x for d, _ in lines for x, y in d if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)]
    there = bool(found)
    window = x_range and all(map(math.isfinite, x_range)) and x_range[0] < x_range[1]
    if found and window and not any(x_range[0] <= x <= x_range[1] for x in found):
        there = page not in (["nothing yet"], [""])  # a line may go through where none of its points is
    if not there or width < 12 or height < 3:
        assert page == ["nothing yet" if width >= 12 and height >= 1 else ""]
    else:
        assert len(page) == height
        assert all(cell_len(line) <= width for line in page)
        assert any(0x2800 < ord(c) <= 0x28FF or c == "•" for line in page for c in line)


def dots(page):
    """The dots of a chart: (column, row) from its upper left corner."""
    found = set()
    for row, line in enumerate(page.split("\n")[:-1]):
        for column, c in enumerate(line.split("│", 1)[1]):
            bits = ord(c) - 0x2800 if ord(c) >= 0x2800 else 0
            found |= {(2 * column + x, 4 * row + y) for y in range(4) for x in range(2) if bits & DOTS[y][x]}
    return found


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right():
    found = dots(draw(Chart([Line([0, 1], [0.0, 1.0])]), 30, 9).plain)
    right = max(x for x, _ in found)
    assert (0, 31) in found
    assert (right, 0) in found
    assert {x for x, _ in found} == set(range(right + 1))
    rows = [min(y for x, y in found if x == column) for column in range(right + 1)]
    assert rows == sorted(rows, reverse=True)


def test_a_staircase_is_level_between_its_steps():
    found = dots(draw(Chart([Line([0, 1, 2], [0.0, 1.0, 1.0], kind="steps")]), 30, 9).plain)
    right = max(x for x, _ in found)
    assert {y for x, y in found if x < right // 2 - 1} == {31}
    assert {y for x, y in found if x > right // 2 + 1} == {0}


def test_the_highest_and_lowest_of_many_points_are_seen():
    values = [0.5] * 10_000
    values[3_333], values[6_666] = 1.0, 0.0
    found = dots(draw(Chart([Line(range(10_000), values)]), 60, 9).plain)
    assert {y for _, y in found} >= {0, 31}


def test_the_axes_are_labelled_with_their_ends():
    page = draw(Chart([Line([10, 20], [0.25, 0.75])], x_label=lambda x: f"step {x:g}"), 40, 9).plain.split("\n")
    assert page[0].startswith("0.750│")
    assert page[4].startswith("0.500│")
    assert page[7].startswith("0.250│")
    assert page[8].split() == ["step", "10", "step", "20"]
    log = draw(Chart([Line([1, 2, 3], [1.0, 0.0, 100.0])], log=True), 40, 9).plain.split("\n")
    assert [log[n].split("│")[0].strip() for n in (0, 4, 7)] == ["100.000", "10.000", "1.000"]


def test_markers_and_the_hairline_stand_where_they_should():
    page = draw(Chart([Line([0, 10], [0.0, 1.0], kind="points", marker="×")]), 31, 8, at=5).plain.split("\n")
    assert page[0].endswith("×")
    assert page[6].split("│", 1)[1].startswith("×")
    assert all("│" in line.split("│", 1)[1][10:14] for line in page[:-1])


@FUZZ
@given(st.lists(number, max_size=50))
def test_smoothing_keeps_the_length_and_stays_among_the_values(values):
    smooth = smoothed(values)
    assert len(smooth) == len(values)
    finite = [v for v in values if math.isfinite(v) and abs(v) < 1e300]
    if len(finite) == len(values) and values:
        slack = 1e-9 * max(map(abs, values)) + 1e-300
        assert all(min(values) - slack <= v <= max(values) + slack for v in smooth)


@pytest.mark.parametrize("value", [3.0, 0.0, -1e-5])
def test_smoothing_what_is_level_changes_nothing(value):
    assert smoothed([value] * 9) == pytest.approx([value] * 9)
