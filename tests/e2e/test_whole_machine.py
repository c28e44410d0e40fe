"""`just hpo workers=2`: one command runs two workers, one of which may die, and one Ctrl-C stops both."""

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

from tests.e2e.conftest import all_metrics, records, run, start, trial_at, wait_for
from tests.e2e.test_campaign import processes_at

WORDS = ["data.posts=90", "model.max_length=64", "train.epochs=3", "study.sampler=random"]


def workers_at(experiments: Path) -> list[int]:
    """The processes of the workers, in the order in which they were started; not the command that supervises them."""
    found = processes_at(experiments)
    return sorted(
        pid for pid, words in found.items() if words[1].endswith(b"/scripts/hpo.py") and b"workers=2" not in words
    )


def test_a_worker_that_is_killed_is_named_and_its_trial_goes_on(tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    words = [*WORDS, f"experiments={experiments}", "study.trials=3"]
    study = start("hpo.py", "workers=2", *words)
    wait_for(lambda: study.poll() is not None or trial_at(experiments, number=1, epoch=1))
    _, second = workers_at(experiments)
    os.kill(second, signal.SIGKILL)
    output, _ = study.communicate(timeout=280)
    assert study.returncode == 0, output
    assert "worker 2 was killed by SIGKILL; the others take over its trial" in output
    assert {line[:3] for line in output.splitlines() if re.match(r"\[\d\] \d\d:", line)} == {"[1]", "[2]"}
    assert [r["state"] for r in records(experiments)] == ["completed"] * 3
    assert max(r["resumes"] for r in records(experiments)) >= 1

    alone = tmp_path / "alone"
    run("hpo.py", *(word.replace(str(experiments), str(alone)) for word in words))
    assert all_metrics(alone) == all_metrics(experiments)


def test_one_ctrl_c_stops_all_and_the_same_command_goes_on(tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    words = ["workers=2", *WORDS, f"experiments={experiments}", "study.trials=2"]
    study = start("hpo.py", *words)
    wait_for(lambda: study.poll() is not None or trial_at(experiments, number=1, epoch=1))
    os.killpg(study.pid, signal.SIGINT)  # as a terminal does
    output, _ = study.communicate(timeout=280)
    assert study.returncode == 75, output
    assert "interrupted" in {r["state"] for r in records(experiments)}
    with suppress(StopIteration):
        assert not next(iter(processes_at(experiments))), "a process was left behind"
    run("hpo.py", *words)
    assert [r["state"] for r in records(experiments)] == ["completed"] * 2


def test_what_is_refused_is_said_once(tmp_path: Path) -> None:
    output = run("hpo.py", "workers=2", "data=csv", f"data.dir={tmp_path}", f"experiments={tmp_path / 'e'}", expect=1)
    assert output.count("error: ") == 1
    assert "Traceback" not in output
