"""Each screen as it is drawn, at the smallest size that all of it fits and on a large one.

After a change that is meant: `pytest tests/tui/test_snapshots.py --snapshot-update`, and look at each picture.
"""

import pytest

from tests.tui.pilots import settled
from tests.tui.searched import searched, summarized
from tui import app as app_module
from tui.app import TerminalApp
from tui.write import control

SIZES = [(80, 24), (160, 48)]
KEYS = {
    "overview": (),
    "trials": ("2", "m", "up", "m"),
    "trial": ("2", "home", "3"),
    "report": ("2", "up", "4"),
    "storage": ("5",),
    "compare": ("2", "home", "m", "down", "m", "end", "up", "m", "6"),
    "parameters": ("7",),
    "machine": ("8",),
    "help": ("question_mark",),
    "confirm": ("p",),
    "failed": ("2", "home", "down", "down", "down", "enter"),
    "enlarged": ("2", "home", "enter", "enter", "w", "left", "left"),
}


@pytest.fixture(autouse=True)
def _still(monkeypatch):
    """Nothing is read but on demand, and then to the end."""
    monkeypatch.setattr(app_module, "POLL_S", 600)
    monkeypatch.setattr(app_module, "BACKGROUND_S", 60)
    monkeypatch.setattr(app_module, "FOREGROUND_S", 60)


def leftovers(folder):
    """What `just cleanup` says of such a folder."""

    def item(number, kind, rest, size, reason, order=None):
        path = f"/data/experiments/trial_{folder.of(number)}/checkpoints{rest}"
        return {"kind": kind, "order": order, "bytes": size, "path": path, "reason": reason, "deleted": False}

    return {
        "items": [
            item(3, "litter", "/.tmp-epoch-0001", 214_000_000, "half written"),
            item(0, "evictable", "", 438_000_000, "worst completed: 0.300; its report stays", 1),
            item(1, "evictable", "", 438_000_000, "0.374; its report stays", 2),
            item(4, "evictable", "", 438_000_000, "0.421; its report stays", 3),
        ],
        "skipped": [],
        "totals": {},
    }


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in KEYS for size in SIZES if size == SIZES[0] or name not in ("failed", "enlarged")],
    ids=lambda part: part if isinstance(part, str) else f"{part[0]}x{part[1]}",
)
def test_what_is_drawn(snap_compare, frozen, monkeypatch, name, size):
    if name == "parameters":
        summarized(frozen, searched(frozen))
    else:
        frozen.whole()
    monkeypatch.setattr(control, "cleanup", lambda experiments, *flags: leftovers(frozen))
    app = TerminalApp(frozen.root)
    app.animation_level = "none"

    async def go(pilot):
        await settled(pilot)
        for key in KEYS[name]:
            await pilot.press(key)
            if key.isdigit() or key == "enter":
                await settled(pilot)  # the next keys are about what is on that screen
        await settled(pilot)

    assert snap_compare(app, terminal_size=size, run_before=go)
