"""`redsm5 COMMAND` runs the script of the command, as `just COMMAND` does, and adds nothing to it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from redsm5 import code_version
from redsm5.cli import COMMANDS, main
from redsm5.engine import installed
from redsm5.engine.installed import APP, SCRIPTS, typed

ROOT = Path(__file__).parents[1]
# The commands that do not go through the entry point: one that must run without it, and those for work on the code.
APART = {"doctor"}


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """The exit code of `redsm5` with these words, in this process."""
    monkeypatch.setattr(sys, "argv", ["redsm5", *words])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_just_runs_the_same_commands() -> None:
    recipes = re.findall(r"@exec \{\{ redsm5 \}\} (\S+) \"\$@\"", (ROOT / "justfile").read_text())
    assert recipes == [name for name in COMMANDS if name not in APART]
    named = re.findall(
        r"^([a-z-]+) \*\w+: setup\n    @exec \{\{ redsm5 \}\} (\S+)", (ROOT / "justfile").read_text(), re.M
    )
    assert [recipe for recipe, _ in named] == [command for _, command in named] == recipes


def test_every_command_has_its_script() -> None:
    assert [script for script, _ in COMMANDS.values() if script != APP and not (SCRIPTS / script).is_file()] == []


@pytest.mark.parametrize("words", [(), ("--help",), ("help",)])
def test_without_a_command_all_are_listed(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, *words) == 0
    assert re.findall(r"^  (\S+)", capsys.readouterr().out, re.MULTILINE) == [*COMMANDS]


def test_the_version_names_the_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"redsm5 {code_version()}\n"


def test_an_unknown_command_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "sumary", "--json") == 1
    assert capsys.readouterr() == (
        "",
        "error: unknown command sumary; nearest: summary\n  `redsm5 --help` lists the commands.\n",
    )


def test_a_script_gets_its_arguments_and_exits_with_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert called(monkeypatch, "studies", "--experiments", str(tmp_path), "--format", "json") == 0
    assert capsys.readouterr().out == "[]\n"
    assert called(monkeypatch, "studies", "--experiments", str(tmp_path / "no such folder")) == 1
    assert called(monkeypatch, "studies", "--no-such-flag") == 2
    assert "usage: just studies" in capsys.readouterr().err
    assert called(monkeypatch, "tui", "--once", "--experiments", str(tmp_path)) == 0


def test_to_find_the_script_imports_nothing_else() -> None:
    """What is imported before the script is what the package imports anyway, and the standard library."""
    code = "import sys; import redsm5; ours = {*sys.modules}; import redsm5.cli"
    code += "; print(*({*sys.modules} - ours - {*sys.stdlib_module_names}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["redsm5.cli"]


def test_from_a_wheel_commands_are_named_as_they_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "just sync, `just sync --tracking-uri URI` and `just hpo`, but just this"
    assert typed(text) == text
    monkeypatch.setattr(installed, "CHECKOUT", None)
    assert typed(text) == "redsm5 sync, `redsm5 sync --tracking-uri URI` and `redsm5 hpo`, but just this"
