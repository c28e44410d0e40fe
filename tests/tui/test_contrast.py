"""On the light theme everything that is read has a contrast of at least 4.5:1 (WCAG 2.2, success criterion 1.4.3)."""

import pytest
from textual.color import Color
from textual.screen import ModalScreen

from tests.tui.pilots import pressed, settled
from tests.tui.searched import searched, summarized
from tui import app as app_module
from tui.app import TerminalApp
from tui.widgets.colours import LIGHT
from tui.write import control

LEAST = 4.5
FRAMES = " █▏▎▍▌▋▊▉▁▂▃▄▅▆▇▔╭╮╰╯─│▕▐┃"  # no text
KEYS = [*"12345789", "question_mark"]


@pytest.fixture(autouse=True)
def _still(monkeypatch):
    monkeypatch.setattr(app_module, "POLL_S", 600)
    monkeypatch.setattr(control, "cleanup", lambda experiments, *flags: {"items": [], "totals": {}, "skipped": []})


def contrast(one, other):
    """The ratio of WCAG, from 1 to 21."""

    def luminance(colour):
        parts = [part / 255 for part in colour]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def poor(app):
    """Each text on the screen that can hardly be read, with its contrast."""
    found = {}
    strips = app.screen._compositor.render_strips()
    if isinstance(app.screen, ModalScreen):  # what is behind a dialog is not to be read
        region = app.screen.query_one(".panel").region
        strips = [strip.crop(region.x, region.right) for strip in strips[region.y : region.bottom]]
    for strip in strips:
        for line_filter in app.get_line_filters():
            strip = strip.apply_filter(line_filter, Color.parse("#d8d8d8"))
        for words, style, _ in strip:
            if words.strip(FRAMES) and style and style.color and style.bgcolor and not style.color.is_default:
                ratio = contrast(*(c.get_truecolor(app.ansi_theme) for c in (style.color, style.bgcolor)))
                if ratio < LEAST:
                    found[words.strip()] = round(ratio, 2)
    return found


def test_the_ratio_is_that_of_the_standard():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)
    assert contrast((78, 191, 113), (216, 216, 216)) == pytest.approx(1.63, abs=0.01)


def test_every_colour_of_the_light_palette_can_be_read_on_the_darkest_panel():
    for colour in [*range(1, 8), *range(9, 15)]:
        assert contrast(LIGHT.ansi_colors[colour], (208, 208, 208)) >= LEAST, colour


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_everything_can_be_read_on_the_light_theme(folder, size):
    folder.whole("earlier", created=900)
    summarized(folder, searched(folder))
    app = TerminalApp(folder.root)
    app.animation_level = "none"
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pressed(pilot, "t")
        assert app.theme == "textual-light"
        for key in KEYS:
            await pressed(pilot, key)
            assert poor(app) == {}, key
        await pressed(pilot, "escape", "s", "2", "home", "m", "down", "m", "6")
        assert poor(app) == {}
        await pressed(pilot, "p")
        assert poor(app) == {}
