"""The printed completion works in the shells themselves: by their own functions, and by a key in a terminal."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from redsm5.cli import COMMANDS
from redsm5.engine import files, paths
from redsm5.engine.records import StudyRecord, TrialCounts
from tests.engine.storage.saver import record_of
from tests.scripts.conftest import ROOT, Run

STUDY, TRIAL = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e", "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
WAIT_S = 20.0


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    """A folder with a study and a trial."""
    folder = tmp_path / "e"
    for inner in (paths.study_dir(folder, STUDY), paths.trial_dir(folder, TRIAL)):
        files.make_dir(inner)
    study = StudyRecord(
        study_id=STUDY,
        name="night",
        state="completed",
        created_at="2026-01-31T12:00:00.000Z",
        metric="val_f1_macro",
        trials=TrialCounts(wanted=1),
        config={"study": {"name": "another"}},
    )
    (paths.study_dir(folder, STUDY) / paths.STUDY).write_bytes(study.to_json())
    (paths.trial_dir(folder, TRIAL) / paths.TRIAL).write_bytes(record_of(TRIAL, STUDY).to_json())
    return folder


@pytest.fixture
def completion(script: Run, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The script for the shell that the test is for."""
    shell = request.node.callspec.params["shell"]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = script("completion.py", shell)
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / f"completion.{shell}"
    path.write_text(done.stdout)
    return path


# What is typed, and the words that are offered; {e}: the folder.
OFFERED = {
    "commands": ("redsm5 hp", ["hpo"]),
    "commands of just": ("just ev", ["evaluate"]),
    "keys": ("redsm5 hpo train.epo", ["train.epochs="]),
    "the workers": ("just hpo workers_", ["workers_per_gpu="]),
    "choices of a group": ("redsm5 train model=b", ["model=bert_base"]),
    "values of a key": ("just hpo train.loss_function=f", ["train.loss_function=focal"]),
    "yes or no": ("redsm5 hpo train.compile=", ["train.compile=false", "train.compile=true"]),
    "flags": ("redsm5 checkpoints --f", ["--format"]),
    "flags of the app": ("redsm5 tui --re", ["--read-only"]),
    "studies": ("redsm5 summary --experiments {e} ", ["night"]),
    "trials": ("redsm5 rebuild --experiments {e} 0", [TRIAL]),
    "names of trials": ("redsm5 compare --experiments {e} b", ["best", "best:night"]),
    "a study to resume": ("redsm5 hpo experiments={e} study.name=", ["study.name=night"]),
    "a trial to resume": ("redsm5 train experiments={e} trial.id=", [f"trial.id={TRIAL}"]),
    "shells": ("redsm5 completion f", ["fish"]),
    "nothing": ("redsm5 hpo nonesuch", []),
}


@pytest.mark.parametrize("case", OFFERED)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_offered(completion: Path, experiments: Path, shell: str, case: str) -> None:
    line, offered = OFFERED[case]
    line = line.format(e=experiments)
    asks = '. "$1"; COMP_LINE=$2 COMP_POINT=${#2}; _redsm5_complete; printf "%s\\n" "${COMPREPLY[@]}"'
    command = [shell, *(["-f"] if shell == "zsh" else []), "-c", asks, shell, str(completion), line]
    if shell == "fish":
        command = ["fish", "--no-config", "-c", f"source {completion}; complete -C '{line}'"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    found = sorted(word.partition("\t")[0] for word in done.stdout.splitlines() if word)
    begun = line.rpartition(" ")[2]
    if shell == "bash" and ("=" in begun or ":" in begun):  # it begins a word after each of these
        offered = [word.rpartition("=")[2] for word in offered]
    assert (found, done.stderr) == (sorted(offered), "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_all_commands_are_offered_and_of_just_only_in_the_checkout(
    completion: Path, shell: str, tmp_path: Path
) -> None:
    def offered(line: str, where: Path) -> set[str]:
        asks = '. "$1"; COMP_LINE=$2 COMP_POINT=${#2}; _redsm5_complete; printf "%s\\n" "${COMPREPLY[@]}"'
        command = [shell, *(["-f"] if shell == "zsh" else []), "-c", asks, shell, str(completion), line]
        if shell == "fish":
            command = ["fish", "--no-config", "-c", f"source {completion}; complete -C '{line}'"]
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=60, check=True)
        return {word.partition("\t")[0] for word in done.stdout.splitlines()}

    assert offered("redsm5 ", tmp_path) >= {*COMMANDS}
    assert offered("just ", ROOT / "docs") >= {*COMMANDS}
    (tmp_path / "justfile").write_text("a:\n")
    assert not offered("just ", tmp_path) & {"checkpoints", "sample-model"}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key_completes_in_a_terminal(completion: Path, shell: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        words = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
        os.execvpe(words[0], words, {**os.environ, "TERM": "dumb", "PS1": "> ", "HISTFILE": "/dev/null"})
    try:
        os.write(terminal, f". {completion}; echo ready''-now\n".encode())
        read_until(terminal, "ready-now")
        os.write(terminal, b"echo $(( 40 + 2 )) ; redsm5 hpo train.epo\t")
        assert "train.epochs=" in read_until(terminal, "train.epochs=")
        os.write(terminal, b"\x15just checkp\t")
        assert "checkpoints" in read_until(terminal, "checkpoints")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def read_until(terminal: int, wanted: str) -> str:
    """What the terminal shows, until it shows this, or for a while."""
    shown, deadline = "", time.monotonic() + WAIT_S
    while wanted not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
