"""The command as a person or a script calls it."""

import os
import subprocess
import sys

import pytest


def tui(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", "tui", *args], capture_output=True, text=True, env=os.environ | env, timeout=60
    )


def test_once_prints_the_overview(sample):
    done = tui("--experiments", str(sample), "--once")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "night-search   ● running   trial 8 of 20" in done.stdout
    assert "\x1b" not in done.stdout


def test_once_remembers_nothing_and_asks_nothing_of_what_is_remembered(sample, state):
    state.parent.mkdir(parents=True)
    state.write_text("not what it should be")
    assert tui("--experiments", str(sample), "--once").returncode == 0
    assert [path.name for path in state.parent.iterdir()] == ["terminal.json"]
    assert state.read_text() == "not what it should be"


def test_the_folder_comes_from_the_environment_where_none_is_named(sample):
    assert "night-search" in tui("--once", REDSM5_EXPERIMENTS=str(sample)).stdout


def test_an_empty_folder_says_what_to_do(tmp_path):
    done = tui("--experiments", str(tmp_path), "--once")
    assert done.returncode == 0
    assert done.stdout == f"No experiments in {tmp_path} yet: run `just hpo experiments={tmp_path}`\n"


def test_a_missing_folder_is_refused_with_a_remedy(tmp_path):
    done = tui("--experiments", str(tmp_path / "none"), "--once")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no such folder" in done.stderr
    assert "just hpo" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_without_utf8_gets_the_overview_too(sample):
    done = tui("--experiments", str(sample), "--once", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "? running" in done.stdout


@pytest.mark.parametrize("module", ["tui.__main__", "tui.app"])
def test_nothing_heavy_is_imported(module):
    script = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert not imported & {"torch", "optuna", "mlflow", "transformers", "sklearn", "numpy", "hydra"}
    if module == "tui.__main__":
        assert "textual" not in imported


def test_of_redsm5_only_what_reads_its_records_is_imported():
    script = "import sys, tui.app, tui.__main__; print(*(m for m in sys.modules if m.startswith('redsm5')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    engine = [
        "documents",
        "records",
        "jsonio",
        "tables",
        "timeline",
        "waiting",
        "migrations",
        "paths",
        "files",
        "errors",
        "redaction",
        "surroundings",
        "terminal",
        "installed",
        "version",
    ]
    ours = {"redsm5", "redsm5.noise", "redsm5.reports", "redsm5.engine"}
    allowed = ours | {f"redsm5.engine.{name}" for name in engine}
    assert set(done.stdout.split()) <= allowed
