"""The table draws any line at any place within its width, and the cursor stays on its row."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.app import App

from tests.tui.hostile import NASTY
from tui.panels.cells import Column, segments
from tui.widgets.table import Table

text = st.one_of(
    st.sampled_from(["", "a", "\u5bbd" * 9, "e\u0301" * 20, "\U0001f600", "x" * 500]), st.text(max_size=30)
)


class Showing(App):
    def __init__(self, fixed=0):
        super().__init__()
        self.fixed, self.heard = fixed, []

    def compose(self):
        yield Table(id="table", fixed=self.fixed)

    def on_table_moved(self):
        self.heard.append("moved")

    def on_table_chosen(self):
        self.heard.append("chosen")

    def on_table_headed(self, event):
        self.heard.append(event.key)

    @property
    def table(self):
        return self.query_one(Table)


def rows(count):
    return [f"row {n}" for n in range(count)]


COLUMNS = (Column("key", "Key", 10, right=False), Column("n", "Number", 6), Column("long", "Long", 40))


def cells(key):
    return key, key.split()[1], Text("x" * 60, "red")


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(text, st.integers(0, 40), st.booleans(), st.booleans())
def test_any_cell_takes_its_width_and_a_blank_on_each_side(content, width, right, styled):
    column = Column("k", "k", width, right)
    (segment,) = segments(Text(content, "red") if styled else content, column, Style())
    assert cell_len(segment.text) == max(width, min(cell_len(content), 1)) + 2


@pytest.mark.asyncio
async def test_any_line_at_any_size_and_scroll_takes_the_width_of_the_table():
    app = Showing(fixed=1)
    async with app.run_test(size=(40, 12)) as pilot:

        @settings(
            deadline=None, max_examples=150, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(
            st.lists(st.builds(Column, text, text, st.integers(0, 60), st.booleans()), max_size=6),
            st.lists(text, max_size=6),
            st.integers(0, 30),
            st.integers(0, 80),
            st.integers(0, 40),
            st.integers(0, 7),
        )
        def check(columns, line, count, x, y, fixed):
            table = app.table
            table._fixed = fixed
            table.fill(columns, rows(count), lambda key: line)
            table.set_scroll(x, y)
            for place in (0, 1, 5, 11, 100):
                assert table.render_line(place).cell_length == table.size.width

        check()
        await pilot.pause()


@pytest.mark.asyncio
async def test_keys_move_the_cursor_and_it_stays_in_sight():
    app = Showing()
    async with app.run_test(size=(40, 12)) as pilot:
        table = app.table
        table.fill(COLUMNS, rows(100), cells)
        table.focus()
        for keys, where in (
            (["down", "j"], 2),
            (["up"], 1),
            (["end"], 99),
            (["down"], 99),
            (["pageup"], 89),
            (["home"], 0),
            (["k"], 0),
            (["G", "g", "pagedown"], 10),
        ):
            await pilot.press(*keys)
            await pilot.pause()
            assert table.cursor == where
            assert table.scroll_offset.y <= where < table.scroll_offset.y + table.size.height - 1
            assert table.cursor_key == f"row {where}"


@pytest.mark.asyncio
async def test_the_cursor_stays_on_its_row_whatever_comes_and_goes():
    app = Showing()
    async with app.run_test(size=(40, 12)) as pilot:
        table = app.table
        table.fill(COLUMNS, rows(50), cells)
        table.put_cursor("row 30")
        await pilot.pause()
        line = 30 - table.scroll_offset.y
        table.fill(COLUMNS, [f"new {n}" for n in range(7)] + rows(50), cells)
        await pilot.pause()
        assert table.cursor_key == "row 30"
        assert table.cursor - table.scroll_offset.y == line
        table.fill(COLUMNS, rows(20), cells)
        await pilot.pause()
        assert table.cursor_key == "row 19"
        table.fill(COLUMNS, [], cells)
        assert table.cursor_key is None
        await pilot.press("down", "enter")
        table.fill(COLUMNS, rows(3), cells)
        assert table.cursor_key == "row 0"
        table.put_cursor("none such")
        assert table.cursor_key == "row 0"


@pytest.mark.asyncio
async def test_only_rows_in_sight_are_asked_for():
    asked = set()
    app = Showing()
    async with app.run_test(size=(40, 12)) as pilot:
        app.table.fill(COLUMNS, rows(100_000), lambda key: asked.add(key) or cells(key))
        await pilot.pause()
        app.table.focus()
        await pilot.press("end")
        await pilot.pause()
    assert len(asked) < 50


@pytest.mark.asyncio
async def test_enter_opens_and_a_click_moves_opens_or_sorts():
    app = Showing(fixed=1)
    async with app.run_test(size=(40, 12)) as pilot:
        app.table.fill(COLUMNS, rows(5), cells)
        app.table.focus()
        await pilot.pause()
        await pilot.press("enter")
        await pilot.click(Table, offset=(2, 3))
        await pilot.click(Table, offset=(2, 3))
        await pilot.click(Table, offset=(13, 0))
        await pilot.press("right")
        await pilot.pause()
        await pilot.click(Table, offset=(13, 0))  # the second column has gone to the left, the first one stays
        await pilot.click(Table, offset=(2, 0))
        await pilot.pause()
        assert app.heard == ["chosen", "moved", "chosen", "n", "long", "key"]
        assert app.table.cursor == 2


@pytest.mark.asyncio
async def test_what_is_too_long_ends_in_an_ellipsis_and_a_fixed_column_stays():
    app = Showing(fixed=1)
    async with app.run_test(size=(40, 12)) as pilot:
        app.table.fill(COLUMNS, ["row 1", *(f"long name {n}" for n in range(3))], lambda key: (key, "1", "x" * 60))
        await pilot.pause()
        assert app.table.render_line(2).text.startswith(" long name… ")
        app.table.scroll_to(x=1000, animate=False)
        await pilot.pause()
        line = app.table.render_line(1).text
        assert line.startswith(" row 1      ")
        assert line.endswith("x… ")


def test_no_word_is_taken_for_markup():
    for word in NASTY:
        (segment,) = segments(word, Column("k", "k", 10_000, right=False), Style())
        assert "".join(word.split())[:100] in "".join(segment.text.split()) or not word.isprintable()
