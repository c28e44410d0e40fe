"""A terminal that goes away asks what runs in its foreground to stop: it saves, and exits with 75; nohup and setsid say
otherwise. The recipe is that of the justfile, under the real `just`, which passes no SIGHUP on.
"""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import ROOT, SMALL, environment, records, wait_for

pytestmark = pytest.mark.skipif(shutil.which("just") is None, reason="just is not installed")
LONG = [*SMALL, "study.trials=50"]
ENDS_S = 30.0  # with the checkpoint of the trial, and MLflow's rows
STAYS_S = 4.0


@pytest.fixture
def justfile(tmp_path: Path) -> Path:
    """The recipe `hpo`, but for the setup before it; the exit code goes into a file, since its reader is gone."""
    recipes = (ROOT / "justfile").read_text()
    assert '@exec {{ redsm5 }} hpo "$@"' in recipes
    command = f'{sys.executable} -c "from redsm5.cli import main; main()"'
    path = tmp_path / "justfile"
    path.write_text(
        "set positional-arguments\n"
        f"hpo *overrides:\n    @cd {ROOT} && {command} hpo \"$@\"; echo $? >{tmp_path / 'code'}\n"
        f'kept how *overrides:\n    @cd {ROOT} && shift && {{{{ how }}}} {command} hpo "$@" >/dev/null 2>&1\n'
    )
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[None]:
    """Whatever a test leaves running in its folder is ended."""
    yield
    for process in processes(tmp_path):
        process.send_signal(signal.SIGKILL)


def processes(folder: Path) -> list[psutil.Process]:
    """The Python processes of a study in this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if "python" in words[0] and f"experiments={folder}" in " ".join(words):
            found.append(process)
    return found


def in_a_terminal(words: list[str]) -> int:
    """Run a command as the leader of a terminal of its own, as a window of tmux does; the terminal's other end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(words[0], words, environment())
    return terminal


def begun(experiments: Path) -> bool:
    return any(record["epoch"] >= 1 for record in records(experiments))


def check_stopped_and_saved(tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    assert wait_for(lambda: (tmp_path / "code").exists() and (tmp_path / "code").read_text(), ENDS_S) == "75\n"
    (study,) = experiments.glob("study_*/study.json")
    assert json.loads(study.read_bytes())["state"] == "paused"
    assert not processes(tmp_path)
    assert {record["state"] for record in records(experiments)} <= {"interrupted", "completed", "queued"}
    for record in records(experiments):
        if record["state"] == "interrupted" and record["epoch"]:
            assert list(experiments.glob(f"trial_{record['trial_id']}/checkpoints/*-*")), "there is a resume point"


@pytest.mark.usefixtures("ours")
def test_a_study_whose_terminal_goes_away_stops_and_is_saved(justfile: Path, tmp_path: Path) -> None:
    terminal = in_a_terminal(["just", "-f", str(justfile), "hpo", f"experiments={tmp_path / 'e'}", *LONG])
    wait_for(lambda: begun(tmp_path / "e"))
    os.close(terminal)
    check_stopped_and_saved(tmp_path)


@pytest.mark.usefixtures("ours")
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize("order", ["kill-server", "kill-session"])
def test_a_study_in_a_window_of_tmux_stops_with_it(justfile: Path, tmp_path: Path, order: str) -> None:
    tmux = ["tmux", "-S", str(tmp_path / "socket"), "-f", "/dev/null"]
    study = ["just", "-f", str(justfile), "hpo", f"experiments={tmp_path / 'e'}", *LONG]
    subprocess.run([*tmux, "new-session", "-d", *study], env=environment(), check=True)
    wait_for(lambda: begun(tmp_path / "e"))
    subprocess.run([*tmux, order], check=True)
    check_stopped_and_saved(tmp_path)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("how", ["nohup", "setsid -w"])
def test_with_nohup_or_setsid_it_goes_on(justfile: Path, tmp_path: Path, how: str) -> None:
    terminal = in_a_terminal(["just", "-f", str(justfile), "kept", how, f"experiments={tmp_path / 'e'}", *LONG])
    wait_for(lambda: begun(tmp_path / "e"))
    os.close(terminal)
    before = sum(record["epoch"] for record in records(tmp_path / "e"))
    time.sleep(STAYS_S)
    assert processes(tmp_path)
    wait_for(lambda: sum(record["epoch"] for record in records(tmp_path / "e")) > before)


@pytest.mark.usefixtures("ours")
def test_what_has_no_terminal_or_is_in_its_background_is_told_nothing(tmp_path: Path) -> None:
    """`disown` after Ctrl-Z and `bg`: the shell does not tell it, and nor does the hangup."""
    code = tmp_path / "code"
    waits = (
        f"{sys.executable} -c 'from redsm5.engine.surroundings import prepare; import time; prepare(); time.sleep(3)'"
    )
    script = f"set -m; cd {ROOT}; {{ {waits}; echo $? >{code}; }} & disown; sleep 1.5; exec sleep 60"
    terminal = in_a_terminal(["bash", "--norc", "-c", script])
    time.sleep(1.2)
    os.close(terminal)
    assert wait_for(lambda: code.exists() and code.read_text(), 20) == "0\n"
