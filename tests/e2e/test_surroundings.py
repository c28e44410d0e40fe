"""A study ends with the same results whatever becomes of its terminal, and however it was started."""

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from redsm5.data.synthesize import write_csvs
from tests.e2e.conftest import (
    ROOT,
    SMALL,
    all_metrics,
    environment,
    journal,
    mlflow_rows,
    processes_of,
    records,
    reports,
    run,
    start,
    trial_at,
    wait_for,
    weights,
)


def on_a_terminal(*command: str) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a script as the one program of a terminal of its own; the descriptor is what holds that open."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    return process, ours


def read_until(terminal: int, condition: Any) -> Any:
    """Read what is printed, so that nothing waits for it, until the condition holds."""
    os.set_blocking(terminal, False)

    def look() -> Any:
        with contextlib.suppress(OSError):
            os.read(terminal, 1 << 16)
        return condition()

    return wait_for(look)


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize("script", ["hpo.py", "launch.py"])
def test_a_terminal_that_is_closed_interrupts_and_the_next_start_goes_on(
    script: str, uninterrupted: Path, tmp_path: Path
) -> None:
    experiments = tmp_path / "e"
    words = [word for word in SMALL if script == "hpo.py" or not word.startswith("study.")]
    words.append(f"experiments={experiments}")
    experiments.mkdir()
    experiments.chmod(0o777)
    process, terminal = on_a_terminal(sys.executable, f"scripts/{script}", *words)
    read_until(terminal, lambda: trial_at(experiments, number=0, epoch=1) or done(experiments))
    os.close(terminal)
    assert process.wait(timeout=60) == 75
    (record,) = records(experiments)
    assert (record["state"], record["exit_code"]) == ("interrupted", 75)
    assert not processes_of(record["trial_id"])
    logs = [path.read_text() for path in experiments.glob("*/logs/log.jsonl")]
    assert sum(log.count(f"chmod go-w {experiments}") for log in logs) == 1

    run(script, *words, *([] if script == "hpo.py" else [f"trial.id={record['trial_id']}"]))
    if script == "hpo.py":
        assert all_metrics(experiments) == all_metrics(uninterrupted)
        assert reports(experiments) == reports(uninterrupted)
    else:
        assert records(experiments)[0]["state"] == "completed"


def done(experiments: Path) -> bool:
    return any(record["number"] is None and record["epoch"] >= 1 for record in records(experiments))


def test_a_study_under_nohup_outlives_its_terminal(uninterrupted: Path, tmp_path: Path) -> None:
    """As nohup does it, but with its output on the terminal, which then is gone."""
    experiments = tmp_path / "e"
    ignores = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    process, terminal = on_a_terminal(*ignores, sys.executable, "scripts/hpo.py", *SMALL, f"experiments={experiments}")
    read_until(terminal, lambda: trial_at(experiments, number=0, epoch=1))
    os.close(terminal)
    assert process.wait(timeout=120) == 0
    assert all_metrics(experiments) == all_metrics(uninterrupted)


def test_a_trial_waits_while_its_driver_is_stopped_and_then_ends_as_if_it_had_not(tmp_path: Path) -> None:
    """By Ctrl-Z, and by a SIGSTOP that nobody can catch; its time does not run on meanwhile."""
    words = [*SMALL, "study.trials=1", "study.pruner=median"]
    plain, experiments = tmp_path / "plain", tmp_path / "e"
    run("hpo.py", *words, f"experiments={plain}")
    limit = max(10.0, 3 * records(plain)[0]["active_seconds"])

    driver = start("hpo.py", *words, f"study.trial_timeout={limit}", f"experiments={experiments}")
    for epoch, number in ((1, signal.SIGTSTP), (2, signal.SIGSTOP)):
        trial = wait_for(lambda: trial_at(experiments, number=0, epoch=epoch))  # noqa: B023
        os.killpg(driver.pid, number)
        log = trial / "logs" / "log.jsonl"
        wait_for(lambda: log.read_text().count("the trial waits") == epoch)  # noqa: B023
        before = records(experiments), (trial / "metrics.jsonl").read_bytes()
        time.sleep(limit / 2 + 1)
        assert state_of(driver.pid) == "T"
        assert (records(experiments), (trial / "metrics.jsonl").read_bytes()) == before
        os.killpg(driver.pid, signal.SIGCONT)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 0, output
    (record,) = records(experiments)
    assert record["state"] == "completed"
    assert record["resumes"] == 0
    assert record["active_seconds"] < limit
    assert all_metrics(experiments) == all_metrics(plain)
    assert weights(experiments) == weights(plain)


ODD = "a b'\"#%20=,$?;&(ü😀\n"
HOSTILE = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONWARNINGS": "error",
    "TMPDIR": "/nowhere",
    "HOME": "/nowhere",
}


def test_a_study_started_in_odd_surroundings_has_the_plain_results(uninterrupted: Path, tmp_path: Path) -> None:
    """An odd name, a locale without it, warnings as errors, folders that are nowhere, closed streams, and a umask that
    lets everybody in: the results are the same, nobody else can read them, and MLflow has them.
    """
    experiments = tmp_path / ODD / "e"
    process = subprocess.Popen(
        ["sh", "-c", 'umask 000; exec "$@" <&- >&- 2>&-', "sh", sys.executable, "scripts/hpo.py", *SMALL],
        cwd=ROOT,
        env=environment() | HOSTILE | {"REDSM5_EXPERIMENTS": str(experiments)},
    )
    assert process.wait(timeout=200) == 0
    assert all_metrics(experiments) == all_metrics(uninterrupted)
    assert [p.name for p in (tmp_path / ODD).iterdir()] == ["e"]
    assert [p.name for p in tmp_path.iterdir()] == [ODD]
    shared = [path for path in experiments.rglob("*") if path.stat().st_mode & 0o077]
    assert shared == []
    rows = mlflow_rows(experiments)
    for record in records(experiments):
        arrived = {(metric, step) for metric, step, _, _ in rows[record["trial_id"]]}
        assert arrived == journal(experiments / f"trial_{record['trial_id']}").keys()
    for logged in experiments.glob("trial_*/logs/log.jsonl"):
        assert "Traceback" not in logged.read_text()


def test_data_beyond_ascii_are_read_in_a_locale_without_them(tmp_path: Path) -> None:
    data = tmp_path / "Müller 😀"
    data.mkdir()
    write_csvs(data, 60, 1)
    words = ["data=csv", f'data.dir="{data}"', f"experiments={tmp_path / 'e'}"]
    command = [sys.executable, "scripts/baseline.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment() | HOSTILE, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
