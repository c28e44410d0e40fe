"""How tests wait for the app and read what stands on its screen."""

import pytest


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
