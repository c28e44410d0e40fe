"""The grid of charts: what the mouse does, what stays when the folder changes, what is drawn and when."""

import json

import pytest
from textual import events

from redsm5.engine import paths
from tests.tui.pilots import beneath, charts, chosen, pressed, settled, shown
from tui import app as app_module
from tui.app import TerminalApp
from tui.panels.curves import Curve, beside, elapsed, ends, nearest, ordered, place, spread
from tui.read.detail import Series
from tui.widgets import plot
from tui.widgets.grid import BY_WHEEL, ChartGrid

TRIAL = ("2", "home", "3")
COMPARE = ("2", "home", "m", "down", "m", "6")


@pytest.fixture(autouse=True)
def _on_demand(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)


def column(chart, at):
    """The column of the content under which this place on the x axis lies."""
    return min(range(chart.size.width), key=lambda c: abs(chart.x(c) - at))


def of(app, slot=0):
    return app.screen.query_one(f"#plot-{slot}", plot.Plot)


async def click(pilot, at, slot=0, **how):
    # the frame is a cell wide
    await pilot.click(f"#plot-{slot}", offset=(column(of(pilot.app, slot), at) + 1, 2), **how)
    await settled(pilot)


async def wheel(pilot, at, slot=0, up=True):
    chart = of(pilot.app, slot)
    x, y = chart.content_region.x + column(chart, at), chart.content_region.y + 1
    kind = "MouseScrollUp" if up else "MouseScrollDown"
    event = getattr(events, kind)(None, x, y, 0, 0, 0, False, False, False)
    pilot.app.screen._forward_event(event)
    await settled(pilot)


@pytest.mark.asyncio
async def test_a_click_chooses_a_chart_and_on_the_enlarged_one_looks_at_the_nearest_point(frozen):
    frozen.whole()
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, *TRIAL)
        await click(pilot, 100, slot=1)
        assert (chosen(app), len(charts(app))) == (["val_loss"], 9)
        await pilot.click("#plot-0", offset=(12, 2), times=2)
        await settled(pilot)
        assert charts(app) == ["val_f1_macro"]
        await click(pilot, 158)
        assert beneath(app).endswith("at step 150, epoch 5")
        await click(pilot, 172)
        assert beneath(app).endswith("at step 180, epoch 6")
        await pilot.click("#plot-0", offset=(20, 2), times=2)
        await settled(pilot)
        assert len(charts(app)) == 9


@pytest.mark.asyncio
async def test_a_click_in_the_comparison_looks_at_that_place_in_every_chart(frozen):
    frozen.whole()
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, *COMPARE)
        await click(pilot, 5.2, slot=1)
        assert chosen(app) == ["val_loss"]
        assert shown(app).count("epoch 5 ") == 6
        assert beneath(app) == "● 0.262 ■ 0.326"


@pytest.mark.asyncio
@pytest.mark.parametrize("keys", [TRIAL, COMPARE])
async def test_the_wheel_zooms_around_the_pointer_and_back(frozen, keys):
    frozen.whole()
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, *keys)
        whole = shown(app)
        chart = of(app)
        left, right = chart.x(0), chart.x(999)
        at = chart.x(column(chart, left + 0.25 * (right - left)))
        await wheel(pilot, at)
        zoomed = chart.x(0), chart.x(999)
        assert zoomed[1] - zoomed[0] == pytest.approx((right - left) / BY_WHEEL)
        assert chart.x(column(chart, at)) == pytest.approx(at, abs=(right - left) / chart.size.width)
        assert all(" to " in title for title in charts(app))
        await wheel(pilot, at, up=False)
        assert (chart.x(0), chart.x(999)) == (left, right)
        assert shown(app) == whole


@pytest.mark.asyncio
async def test_what_is_zoomed_stays_when_the_folder_changes_and_is_whole_for_another_trial(frozen):
    frozen.whole()
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, "2", "end", "3", "enter", "plus")
        title = charts(app)
        assert title == ["val_f1_macro (step 97.5 to 232.5)"]
        path = paths.trial_dir(frozen.root, frozen.of(7)) / paths.METRICS
        row = json.loads(path.read_text().splitlines()[-1]) | {"metric": "val_f1_macro", "value": 0.9876, "step": 150}
        path.write_text(path.read_text() + json.dumps(row) + "\n")
        await settled(pilot)
        assert charts(app) == title
        assert beneath(app) == "0.988"
        await pressed(pilot, "left_square_bracket")
        assert charts(app) == ["val_f1_macro"]


@pytest.mark.asyncio
async def test_the_window_follows_the_point_that_is_looked_at(frozen):
    frozen.whole()
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, *TRIAL, "enter", "left", "plus")
        assert charts(app) == ["val_f1_macro (step 165 to 300)"]
        await pressed(pilot, *["left"] * 4)
        assert charts(app) == ["val_f1_macro (step 165 to 300)"]
        await pressed(pilot, "left")
        assert beneath(app).endswith("at step 150, epoch 5")
        assert charts(app) == ["val_f1_macro (step 136.5 to 271.5)"]
        await pressed(pilot, *["minus"] * 2)
        assert charts(app) == ["val_f1_macro"]


@pytest.mark.asyncio
async def test_nothing_is_drawn_anew_where_nothing_changed_and_a_hairline_lays_nothing_out(frozen, monkeypatch):
    frozen.whole()
    app = TerminalApp(frozen.root)
    async with app.run_test(size=(160, 48)) as pilot:
        await settled(pilot)
        await pressed(pilot, *COMPARE)
        drawn, laid, written = [], [], []
        text = Drawing.text
        monkeypatch.setattr(Drawing, "text", lambda *given: written.append(1) or text(*given))
        monkeypatch.setattr(plot, "Drawing", lambda *given: drawn.append(1) or Drawing(*given))
        monkeypatch.setattr(app.screen, "_refresh_layout", lambda *given: laid.append(1))
        await settled(pilot)
        assert (drawn, laid, written) == ([], [], [])
        await pressed(pilot, "right")
        assert shown(app).count("epoch 1 ") >= 6
        assert (drawn, laid) == ([], [])
        await pressed(pilot, "w")
        assert len(drawn) == 6, "those in sight"
        assert laid == []


Drawing = plot.Drawing


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [0, 3])
async def test_no_key_fails_where_there_is_nothing_to_zoom(folder, number):
    folder.study(states=("queued", "running", "completed", "failed"))
    app = TerminalApp(folder.root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        app.select(folder.of(number))
        for screen in ("3", "6"):
            await pressed(pilot, screen)
            await pressed(
                pilot, "plus", "minus", "right", "left", "enter", "plus", "left", "z", "a", "down", "n", "enter"
            )
        await pilot.click("#plot-0")
        await wheel_anywhere(pilot)
        assert app.is_running


async def wheel_anywhere(pilot):
    assert of(pilot.app).x(20) is None
    pilot.app.screen.query_one(ChartGrid).zoom(0.5, 3.0)
    await settled(pilot)


# ---------------------------------------------------------------------------------------------------------------------
# places


def grid(*rows, by_epoch=False):
    """One with these curves of one metric, which is not on a screen."""
    made = ChartGrid(axis="epoch" if by_epoch else "step", everywhere=True)
    curves = [Curve(Series(list(xs), list(xs), [0.5] * len(xs)), "cyan") for xs in rows]
    made.show("it", ["loss"], lambda name: curves)
    return made


@pytest.mark.parametrize("xs", [(), (5,), (5, 5, 5), (5, 6)])
def test_what_has_no_more_than_two_points_is_not_zoomed(xs):
    charted = grid(xs)
    charted.zoom(0.5)
    assert charted._window is None


def test_zooming_in_ends_at_two_points():
    charted = grid(range(1000))
    for _ in range(50):
        charted.zoom(0.5, 300.2)
    left, right = charted._window
    assert 1 <= sum(left <= x <= right for x in range(1000)) <= 2
    for _ in range(10):
        charted.zoom(2.0)
    assert charted._window is None


def test_the_points_of_all_trials_are_gone_through_one_by_one():
    charted = grid((1, 4, 9), (2, 4, 12))
    seen = []
    for _ in range(6):
        charted.inspect(1)
        seen.append(charted._at)
    assert seen == [1, 2, 4, 9, 12, 12]
    for _ in range(6):
        charted.inspect(-1)
    assert charted._at == 1


def test_places():
    assert ends([(), (3, 7), (1, 5)]) == (1, 7)
    assert ends([(), ()]) is None
    assert nearest([(1, 5), (), (4,)], 4.4) == 4
    assert nearest([(1, 5)], 99) == 5
    assert beside([(1, 5)], 5, 1) == 5
    assert [place(x) for x in (3.0, 12345.0, 12345.6, 0.123456)] == ["3", "12345", "12346", "0.1235"]


def test_steps_of_an_epoch_stand_side_by_side():
    assert spread([0, 0, 1, 1, 1, 1, 3]) == [0, 0.5, 1, 1.25, 1.5, 1.75, 3]
    assert spread([1, 2, 3]) == [1, 2, 3]
    assert spread([]) == []
    assert len(spread([5, 1, 1, 0, 7, 5])) == 6


def test_the_order_of_the_metrics():
    names = ["system_cpu", "train_lr", "val_loss", "a", "val_f1", "train_loss"]
    assert ordered(names, "val_f1") == ["val_f1", "val_loss", "train_loss", "a", "train_lr", "system_cpu"]
    assert ordered(["b", "a"], "val_f1") == ["a", "b"]


def test_the_time_of_a_point_counts_from_the_trials_start_and_never_goes_back():
    """The pause between the second and the third point counts; a clock that was set back stops."""
    times = [f"2026-03-14T07:{minute:02d}:00.000Z" for minute in (1, 2, 30, 29, 31)]
    assert elapsed(times, "2026-03-14T07:00:00.000Z") == [60, 120, 1800, 1800, 1860]
    assert elapsed(times[:2], "") == [0, 60]
    assert [place(x, "time") for x in (4.21, 252, 3852)] == ["4.2 s", "4:12", "1:04:12"]
