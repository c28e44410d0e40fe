"""The folder works under both of its names: tui in a checkout, redsm5.tui where redsm5 is installed."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What is run in the copy: the checkout, which an editable installation names, cannot be imported.
ALONE = """
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path[:] = [".", *(path for path in sys.path if not (Path(path) / "tui").exists())]
assert find_spec("tui") is None
"""
ONCE = "import runpy; runpy.run_module('redsm5.tui', run_name='__main__', alter_sys=True)"
APP = """
import asyncio
from redsm5.tui.app import TerminalApp

async def switch():
    app = TerminalApp(Path(sys.argv[1]))
    async with app.run_test(size=(120, 36)) as pilot:
        for key in "23456781":
            await pilot.press(key)
        await pilot.pause()
        strips = app.screen._compositor.render_strips()
        print("\\n".join("".join(segment.text for segment in strip) for strip in strips))

asyncio.run(switch())
print(*(name for name in sys.modules if name.split(".")[0] == "tui"))
"""


def trees():
    return {path: ast.parse(path.read_text()) for path in (ROOT / "tui").rglob("*.py")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with redsm5, and the app in it, as in a wheel."""
    place = tmp_path_factory.mktemp("installed")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "redsm5", place / "redsm5", ignore=ignore)
    shutil.copytree(ROOT / "tui", place / "redsm5" / "tui", ignore=ignore)
    return place


def run(place, code, *args):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE + code, *args]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_no_import_names_the_folder():
    for path, tree in trees().items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if name.split(".")[0] == "tui"], f"{path}:{node.lineno}"


def test_no_import_is_hidden_from_the_import_contracts():
    """The contracts leave out imports for the type checker, which could hide a circle."""
    for path, tree in trees().items():
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "TYPE_CHECKING"], path


def test_once_prints_the_same_where_the_app_is_installed(installed, folder):
    folder.study(states=("completed", "pruned"), state="completed", wanted=2)
    args = ("--once", "--experiments", str(folder.root))
    here = subprocess.run([sys.executable, "-m", "tui", *args], capture_output=True, text=True, check=True, timeout=60)
    there = run(installed, ONCE, *args)
    assert (there.returncode, there.stderr) == (0, "")
    assert "The study is done" in there.stdout
    assert [line for line in there.stdout.split("\n") if not line.startswith("storage")] == [
        line for line in here.stdout.split("\n") if not line.startswith("storage")  # the disk's free bytes change
    ]


def test_every_screen_opens_where_the_app_is_installed(installed, sample):
    done = run(installed, APP, str(sample))
    assert (done.returncode, done.stderr) == (0, "")
    assert "night-search" in done.stdout
    assert "╭─" in done.stdout  # of the stylesheet
    assert done.stdout.split("\n")[-2] == ""  # no module was imported by its name in a checkout
