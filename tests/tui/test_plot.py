"""A chart of any data fits its place, and shows where the points are."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.panels.chart import DOTS, Chart, Drawing, Line, draw, panned, smoothed, zoomed

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
    assert page[0].startswith("0.8│")
    assert page[7].startswith("0.2│")
    assert page[8].split() == ["step", "10", "step", "20"]
    log = draw(Chart([Line([1, 2, 3], [1.0, 0.0, 100.0])], log=True), 40, 9).plain.split("\n")
    assert [log[n].split("│")[0].strip() for n in (0, 3, 7)] == ["100.000", "10.000", "1.000"]


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


# ---------------------------------------------------------------------------------------------------------------------
# a part of the x axis


def labels(page):
    lines = page.split("\n")
    return [line.split("│")[0].strip() for line in (lines[0], lines[-2])]


def test_the_y_axis_fits_what_is_in_sight_and_the_line_goes_on_to_the_edges():
    line = Line([0, 10, 20, 30], [0.0, 1.0, 3.0, 100.0])
    page = draw(Chart([line], x_range=(5, 15)), 40, 9).plain
    assert labels(page) == ["2", "0"]
    columns = {x for x, _ in dots(page)}
    assert columns == set(range(max(columns) + 1))
    assert max(columns) >= 2 * (40 - 6) - 1


def test_on_a_logarithmic_axis_the_edge_lies_where_the_straight_stroke_is():
    page = draw(Chart([Line([0, 10], [1.0, 100.0])], log=True, x_range=(5, 10)), 40, 9).plain
    assert labels(page) == ["100.000", "10.000"]


def test_a_line_is_seen_where_none_of_its_points_is_a_staircase_where_it_stood_and_markers_are_not():
    page = draw(Chart([Line([0, 10], [0.0, 1.0])], x_range=(4, 6)), 40, 9).plain
    assert labels(page) == ["0.6", "0.4"]
    level = dots(draw(Chart([Line([0, 10], [0.0, 1.0], kind="steps")], x_range=(4, 6)), 40, 9).plain)
    assert len({y for _, y in level}) == 1
    assert len(level) == 2 * (40 - 4)
    assert draw(Chart([Line([0, 10], [0.0, 1.0], kind="points")], x_range=(4, 6)), 40, 9).plain == "nothing yet"
    beyond = Chart([Line([0, 10], [0.0, 1.0])], x_range=(20, 30), empty="nothing in this range")
    assert draw(beyond, 40, 9).plain == "nothing in this range"


def test_a_thinned_line_looks_as_if_all_its_points_were_drawn(monkeypatch):
    chart = Chart([Line(range(10_000), [math.sin(n / 300) + (n % 7) / 50 for n in range(10_000)])])
    thin = dots(draw(chart, 60, 9).plain)
    monkeypatch.setattr("tui.panels.chart._thinned", lambda line, *place: line)
    whole = dots(draw(chart, 60, 9).plain)
    assert len(whole) > 400
    assert len(thin ^ whole) < 5


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("xs", "ys"),
    [
        ([], []),
        ([3], [0.5]),
        ([3, 3, 3], [0.1, 0.2, 0.3]),
        ([1, 2, 3], [math.nan] * 3),
        ([1, 2, 3], [0.1, math.inf, 0.3]),
    ],
)
def test_a_window_on_little_data_is_drawn_or_said_to_be_empty(xs, ys, log):
    for window in (None, (2.5, 3.5), (3, 3), (-5, 1), (7, 9), (math.nan, 2), (3, 1)):
        for kind in ("line", "steps", "points"):
            drawing = Drawing(Chart([Line(xs, ys, "cyan", kind)], log=log, x_range=window), 40, 9)
            page = drawing.text(3).plain
            assert page == "nothing yet" or len(page.split("\n")) == 9
            assert (drawing.x(20) is None) == (page == "nothing yet")


def test_the_place_under_a_column_is_where_a_hairline_stands_there():
    drawing = Drawing(Chart([Line([100, 300], [0.0, 1.0], "cyan", "points")]), 60, 9)
    for column in range(6, 60):
        assert drawing.text(drawing.x(column)).plain.split("\n")[2][column] == "│"
    assert (drawing.x(0), drawing.x(99)) == (100, 300)


def test_the_hairline_is_labelled_where_there_is_room():
    chart = Chart([Line([0, 10], [0.0, 1.0])], x_label=lambda x: f"step {x:g}")
    assert draw(chart, 60, 9, 5).plain.split("\n")[-1].split() == ["step", "0", "step", "5", "step", "10"]
    assert draw(chart, 60, 9, 11).plain == draw(chart, 60, 9).plain
    assert draw(chart, 24, 9, 5).plain.split("\n")[-1].split() == ["step", "0", "step", "10"]


span = st.tuples(st.floats(-1e6, 1e6), st.floats(0.001, 1e6)).map(lambda s: (s[0], s[0] + s[1]))


@FUZZ
@given(span, st.floats(0, 1), st.floats(0.1, 0.99))
def test_zooming_in_and_out_keeps_the_place_and_stays_within_the_whole(whole, share, factor):
    around = whole[0] + share * (whole[1] - whole[0])
    near = zoomed(whole, whole, around, factor)
    slack = 1e-9 * max(map(abs, whole)) + 1e-9
    assert whole[0] - slack <= near[0] <= around + slack
    assert around - slack <= near[1] <= whole[1] + slack
    assert near[1] - near[0] == pytest.approx(factor * (whole[1] - whole[0]), abs=slack)
    assert (around - near[0]) / (near[1] - near[0]) == pytest.approx(share, abs=slack / (near[1] - near[0]) + 1e-6)
    assert zoomed(near, whole, around, 1.01 / factor) is None


@FUZZ
@given(span, st.floats(0, 1), st.floats(0.1, 0.9), st.floats(0, 1))
def test_panning_brings_the_place_into_sight_and_keeps_the_width(whole, share, factor, there):
    window = zoomed(whole, whole, whole[0] + share * (whole[1] - whole[0]), factor)
    at = whole[0] + there * (whole[1] - whole[0])
    left, right = panned(window, whole, at)
    slack = 1e-9 * max(map(abs, whole)) + 1e-9
    assert left - slack <= at <= right + slack
    assert right - left == pytest.approx(window[1] - window[0], abs=slack)
    assert whole[0] - slack <= left
    assert right <= whole[1] + slack
