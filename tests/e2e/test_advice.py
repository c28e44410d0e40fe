"""Every command that a message or the terminal app tells a person to run works when it is pasted.

The commands are found in the sources: what is passed to `command`, and literals that begin with `just` or follow a
backtick. Each is filled in, with a folder whose name has a space, and run by a shell.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5.cli import COMMANDS
from redsm5.engine.installed import command, typed
from redsm5.engine.records import StudyRecord, TrialCounts
from tests.e2e.conftest import ROOT, environment, records, wait_for

SOURCES = [path for folder in ("redsm5", "tui", "scripts") for path in (ROOT / folder).rglob("*.py")]
NAME = "20261130"  # of the study: a number to all who do not know that it is text
OWN = ["data.posts=90", "model.max_length=64", "train.epochs=2", "study.trials=2", "study.seed=7", "train.seed=8"]
# What stands for an expression or placeholder in the sources. A new one is added here.
FILLED = {
    "record.trial_id": "{trial}",
    "trial.trial_id": "{trial}",
    "trial_id": "{trial}",
    "predictions.trial_id": "{trial}",
    "detail.record.trial_id[:8]": "{prefix}",
    "folder.name.removeprefix('trial_')": "{trial}",
    "trial_folder.name.removeprefix('trial_')": "{trial}",
    "f'trial.id={identity.trial_id}'": "trial.id={trial}",
    "f'trial.id={trial_id}'": "trial.id={trial}",
    "f'trial.id={detail.record.trial_id}'": "trial.id={trial}",
    "name": NAME,
    "study.name": NAME,
    "setting('study.name', self.name)": f"study.name={NAME}",
    "str(arguments.to)": "{model}",
    "*EXAMPLE": "",  # with a pretrained encoder: tests/e2e/test_minilm.py trains it
    "*lacking": "",
    "*other": "",
    "*words": "data=synthetic",  # tests/test_noise.py reads the same posts by it
    "*sys.argv[1:]": "",  # what was typed itself
    "URI": "sqlite:///{experiments}/mlflow.db",
    "ID": "{trial}",
    "WORD": "rate",
    "FILE": "{posts}",
    "DIR": "{experiments}",
}
NEEDS = {  # of those whose own words are what was typed
    "predict": ["--model", "{model}", "--posts", "{posts}", "--to", "{new}.csv"],
}
ENDS = {"tui": ["--once"]}  # what goes on until a key is pressed
MAY_FAIL = {"doctor"}  # if this machine lacks something; it says so


def told() -> Iterator[tuple[str, ...]]:
    """The words of each command in the sources, the expressions among them as they are written."""
    for path in SOURCES:
        if "bench" in path.parts or path.name in ("installed.py", "reference.py"):  # the latter writes a page
            continue
        tree = ast.parse(path.read_bytes())
        silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        silent |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "prog"}
        for node in ast.walk(tree):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name | ast.Attribute):
                name = called.id if isinstance(called, ast.Name) else called.attr
                if name == "command" and isinstance(node, ast.Call) and node.args:
                    yield tuple(
                        str(word.value) if isinstance(word, ast.Constant) else ast.unparse(word) for word in node.args
                    )
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
                for found in re.findall(r"(?:^|`)(?:just|redsm5) (-?-?[a-z][a-z-]*(?: [^`]*)?)(?:`|$)", node.value):
                    yield tuple(found.split())


def unfilled(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word not in FILLED and not re.fullmatch(r"-{0,2}[a-z][a-z-]*|-", word)]


NOUNS = {("export",)}  # "a folder that `just export` wrote"
RUN = sorted(words for words in {*told()} - NOUNS if words[0] in COMMANDS)


def test_the_sources_tell_many_commands_and_each_can_be_filled_in() -> None:
    assert len(RUN) >= 15, RUN
    assert {name for name, *_ in RUN} >= {"hpo", "train", "evaluate", "rebuild", "sync", "summary", "cleanup", "tui"}
    assert {words: unfilled(words) for words in RUN if unfilled(words)} == {}


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a shell in which `just` is the checkout's, without the setup before each command."""
    bin_folder = tmp_path_factory.mktemp("bin")
    just = bin_folder / "just"
    just.write_text(f'#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -c "from redsm5.cli import main; main()" "$@"\n')
    just.chmod(0o755)
    return {**environment(), "PATH": f"{bin_folder}:{os.environ['PATH']}"}


def paste(text: str, shell: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", text], env=shell, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, shell: dict[str, str]) -> tuple[Path, str]:
    """The folder of a study of many own keys that was stopped, and is done: what the app told to paste resumed it."""
    experiments = tmp_path_factory.mktemp("x") / "my experiments (old)"
    words = [f"experiments={experiments}", f"study.name={NAME}", *OWN]
    study = subprocess.Popen(["just", "hpo", *words], env=shell, stderr=subprocess.DEVNULL)
    wait_for(lambda: [r for r in records(experiments) if r["number"] == 0 and r["epoch"] == 1])
    study.terminate()
    assert study.wait(timeout=60) == 75
    shown = paste(command("tui", "--once", experiments=experiments), shell)
    (advice,) = re.findall(r"To resume it:\n +(just hpo .*)", shown.stdout)
    return experiments, advice


def test_the_app_s_advice_resumes_a_study_of_other_keys_than_the_defaults(
    resumed: tuple[Path, str], shell: dict[str, str]
) -> None:
    experiments, advice = resumed
    done = paste(advice, shell)
    assert done.returncode == 0, done.stderr
    assert f"study {NAME} is complete: 2 trials" in done.stderr
    assert [record["state"] for record in records(experiments)] == ["completed", "completed"]
    (summary,) = re.findall(r'summary="([^"]*)"|summary=(\S+)', done.stderr)
    assert paste(max(summary).replace('\\"', '"'), shell).returncode == 0


def at_last(words: tuple[str, ...]) -> tuple[bool, bool]:
    """What deletes comes after what needs it, and what puts it back at the end."""
    return "--execute" in words, words[0] == "rebuild"


@pytest.mark.parametrize("words", sorted(RUN, key=at_last), ids=" ".join)
def test_a_command_that_is_told_runs_when_it_is_pasted(
    words: tuple[str, ...], resumed: tuple[Path, str], shell: dict[str, str], tmp_path: Path
) -> None:
    experiments, _ = resumed
    trial_id = records(experiments)[0]["trial_id"]
    (tmp_path / "posts.csv").write_text("post_id,text\n1,I have not slept for days.\n")
    name, *rest = words
    rest = [FILLED.get(word, word) for word in rest if FILLED.get(word, word)] + ENDS.get(name, [])
    if "*sys.argv[1:]" in words:
        rest = NEEDS.get(name, [])
    if words[1:2] == ("*EXAMPLE",) or name == "hpo":
        rest = [*rest, "dry_run=true"]
    if name == "export":
        rest = ["{trial}", "--to", "{new}"]
    values = {
        "trial": trial_id,
        "prefix": trial_id[:8],
        "experiments": str(experiments),
        "posts": str(tmp_path / "posts.csv"),
        "new": str(tmp_path / "new"),
        "model": str(tmp_path / "model"),
    }
    rest = [re.sub(r"\{(\w+)\}", lambda found: values[found[1]], word) for word in rest]
    if str(tmp_path / "model") in rest:
        made = paste(command("export", trial_id, "--to", str(tmp_path / "model"), experiments=experiments), shell)
        assert made.returncode == 0, made.stderr
    where = None if name in ("sample-model", "keys", "completion") or "--experiments" in rest else experiments
    done = paste(command(name, *rest, experiments=where), shell)
    assert done.returncode in ({0, 1} if name in MAY_FAIL else {0}), f"{done.args}\n{done.stderr}"
    assert "usage:" not in done.stderr


def test_a_command_is_quoted_for_the_shell_and_for_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDSM5_EXPERIMENTS", raising=False)
    assert command("hpo", experiments="experiments") == typed("just hpo")
    assert command("sync", experiments=Path("/a b")) == typed("just sync --experiments '/a b'")
    assert command("hpo", experiments="/it's") == typed("""just hpo 'experiments=/it'"'"'s'""")
    assert command("hpo", experiments="/a ${b}") == typed(r"""just hpo 'experiments='"'"'/a \${b}'"'"''""")
    monkeypatch.setenv("REDSM5_EXPERIMENTS", "/x")
    assert command("sync", experiments="/x") == typed("just sync")
    assert command("sync", experiments="experiments") == typed("just sync --experiments experiments")


def test_of_an_address_with_a_password_the_advice_names_the_key() -> None:
    record = StudyRecord(
        study_id="11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e",
        name="night",
        state="paused",
        created_at="2026-01-31T12:00:00.000Z",
        metric="val_f1_macro",
        trials=TrialCounts(wanted=2),
        config={"study": {"name": "night", "storage": "postgresql://u:[redacted]@h/d", "tracking_uri": None}},
    )
    assert record.resumed_by(Path("/e")).endswith("hpo study.name=night study.storage=ADDRESS experiments=/e")
