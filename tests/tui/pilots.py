"""How tests wait for the app and read what stands on its screen."""

import pytest

from tui.screens.confirm import ConfirmScreen
from tui.widgets.plot import Plot
from tui.widgets.table import Table


async def until(pilot, condition, what="it"):
    """Wait for what the next readings of the folder bring."""
    for _ in range(200):
        await pilot.pause(0.01)
        if condition():
            return
    pytest.fail(f"{what} never came:\n{shown(pilot.app) if pilot.app.is_running else ''}")


async def settled(pilot):
    """Wait until what is asked for now has been read, shown, and laid out."""
    for _ in range(2):  # the reading under way may still be of what was asked for before
        before = pilot.app.view
        pilot.app.hurry()
        await until(pilot, lambda before=before: pilot.app.view is not before and pilot.app.view is not None)
    await pilot.pause()


async def pressed(pilot, *keys):
    await pilot.press(*keys)
    await settled(pilot)


def shown(app):
    """Everything that stands on the screen, line by line."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def words(app):
    """The same in one line, without what frames it: a sentence may be broken where a panel ends."""
    return " ".join(word for word in shown(app).split() if word not in "│▎▊")


def notices(app):
    return " ".join(str(notice.message) for notice in app._notifications)


# ---------------------------------------------------------------------------------------------------------------------
# what can be seen


def charts(app):
    """The titles of the charts in sight."""
    return [str(plot.border_title) for plot in app.screen.query(Plot) if plot.display]


def chosen(app):
    return [str(plot.border_title) for plot in app.screen.query(".chosen") if plot.display]


def beneath(app):
    """What stands in the lower frame of the first chart."""
    return str(app.screen.query(Plot).first().border_subtitle)


def at(app):
    """The number of the trial that is looked at."""
    return app.view.snapshot.trials.by_id[app.selected].number


def marked(app):
    return [app.view.snapshot.trials.by_id[i].number for i in app.view.marked]


def rows(app):
    """The numbers of the trials in the table, as they are ordered."""
    return [app.view.snapshot.trials.by_id[i].number for i in app.screen.query_one(Table).keys]


def cursor(app):
    return app.screen.query_one(Table).cursor


def asked(app):
    return words(app) if isinstance(app.screen, ConfirmScreen) else ""


def log_title(app):
    return str(app.screen.query_one("#log").border_subtitle)
