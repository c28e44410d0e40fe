"""Trials forked from a process that stands ready are those that a fresh process trains, and take nobody with them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog

from redsm5.config import Config, compose
from redsm5.engine.compose import compose as compose_for
from redsm5.engine.errors import ConfigError, Interrupted
from redsm5.engine.files import make_dir
from redsm5.engine.script import ScriptSpec
from redsm5.engine.study import standby as module
from redsm5.engine.study.launch import launch_trial
from redsm5.engine.study.standby import Standby
from redsm5.engine.study.trial import create_trial
from tests.e2e.conftest import all_metrics, processes_of, records, wait_for, weights

SMALL = ["data.posts=60", "model.max_length=48", "train.epochs=1", "train.augmentation.methods=[swap]"]
OTHERS = [
    ["model.criteria_head_type=gated", "model.criteria_hidden_dim=16", "train.seed=1"],
    ["model.evidence_head_type=bio_crf", "train.loss_function=focal", "train.focal_gamma=2"],
    ["train.optimizer=adam", "train.batch_size=3", "train.deterministic=false", "train.augmentation.methods=[]"],
]
LONG = [*SMALL, "train.epochs=500", "train.checkpoint_every_steps=2"]


class Never:
    requested = False


class Now:
    requested = True


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[Standby]:
    with Standby(configured(tmp_path / "e")) as standby:
        yield standby


def configured(experiments: Path, *words: str) -> Config:
    make_dir(experiments)
    return compose([*(words or SMALL), f"experiments={experiments}"])


def begun(standby: Standby, *words: str) -> tuple[str, "module.Launched"]:
    """A new trial and its process."""
    config = configured(Path(standby.config.experiments), *words)
    trial_id = create_trial(config).trial_id
    return trial_id, standby.launch(trial_id, Never(), structlog.get_logger())


def trains_the_next(standby: Standby) -> bool:
    trial_id, launched = begun(standby)
    launched.attend(Never())
    return states(standby)[trial_id] == "completed"


def states(standby: Standby) -> dict[str, str]:
    return {record["trial_id"]: record["state"] for record in records(Path(standby.config.experiments))}


def test_a_trial_is_the_same_alone_and_as_the_twentieth(ready: Standby, tmp_path: Path) -> None:
    alone, twentieth = tmp_path / "alone", tmp_path / "twentieth"
    config = configured(alone)
    launch_trial(config, create_trial(config).trial_id).attend(Never())
    for number in range(19):
        trial_id, launched = begun(ready, *SMALL, *OTHERS[number % len(OTHERS)])
        launched.attend(Never())
        assert states(ready)[trial_id] == "completed"
    server = ready.process.pid
    ready.config = configured(twentieth)
    begun(ready)[1].attend(Never())

    assert ready.process.pid == server
    assert all_metrics(twentieth) == all_metrics(alone) != []
    assert weights(twentieth) == weights(alone)


def test_a_killed_trial_takes_nobody_with_it(ready: Standby) -> None:
    for number in (signal.SIGKILL, signal.SIGSEGV):
        trial_id, launched = begun(ready, *LONG)
        wait_for(lambda: states(ready)[trial_id] == "running")  # noqa: B023
        (pid,) = processes_of(trial_id)
        assert (Path(f"/proc/{pid}/oom_score_adj")).read_text() == "1000\n", "where memory runs out, it goes first"
        os.kill(pid, number)
        assert not launched.attend(Never())
        assert states(ready)[trial_id] == "running", "it could not say a word"
        assert trains_the_next(ready)


def test_a_trial_whose_launcher_is_killed_saves_and_stops_and_the_next_is_trained(ready: Standby) -> None:
    trial_id, launched = begun(ready, *LONG)
    wait_for(lambda: states(ready)[trial_id] == "running")
    os.kill(psutil.Process(processes_of(trial_id)[0]).ppid(), signal.SIGKILL)
    launched.attend(Never())
    assert states(ready)[trial_id] == "interrupted"
    assert trains_the_next(ready)


def test_a_trial_is_asked_to_stop_as_one_of_its_own_process(ready: Standby) -> None:
    trial_id, launched = begun(ready, *LONG)
    wait_for(lambda: states(ready)[trial_id] == "running")
    assert not launched.attend(Now())
    (record,) = records(Path(ready.config.experiments))
    assert (record["state"], record["exit_code"]) == ("interrupted", 75)


def test_nothing_is_started_for_one_who_wants_to_stop(ready: Standby) -> None:
    config = configured(Path(ready.config.experiments))
    trial_id = create_trial(config).trial_id
    with pytest.raises(Interrupted):
        ready.launch(trial_id, Now(), structlog.get_logger())
    assert states(ready)[trial_id] == "queued"


@pytest.mark.parametrize("word", ["", '{"unfit": ""}\\n'])
def test_what_hangs_is_waited_for_no_longer_than_it_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    """Before it says that it stands ready, or after; what it prints is nothing that it says."""
    script = tmp_path / "hangs.py"
    script.write_text(f"import os, time; print('a line', flush=True); os.write(0, b'{word}'); time.sleep(60)")
    monkeypatch.setattr(module, "SCRIPT", script)
    alone: list[str] = []
    monkeypatch.setattr(module.launch, "launch_trial", lambda config, trial_id, output: alone.append(trial_id))
    with Standby(configured(tmp_path / "e"), ready_s=8.0) as standby:
        first, _ = begun(standby)
        assert standby.process.poll() is not None, "it was ended"
        second, _ = begun(standby)
    assert alone == [first, second]
    said = capsys.readouterr().out
    assert said.count("the standby process has not answered for 8 s; launching trials one by one") == 1
    assert "a line" in said


def test_what_cannot_fork_starts_each_trial_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library that starts a thread as it is imported, or one that cannot be imported at all."""
    for name, content in {
        "threads": "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "broken": "raise SystemExit('no such luck')",
    }.items():
        script = tmp_path / f"{name}.py"
        script.write_text(f"{content}\nimport runpy; runpy.run_path({str(module.SCRIPT)!r}, run_name='__main__')")
        monkeypatch.setattr(module, "SCRIPT", script)
        with Standby(configured(tmp_path / name)) as standby:
            trial_id, launched = begun(standby)
            launched.attend(Never())
        assert states(standby)[trial_id] == "completed"
        assert {"threads": "2 threads are running", "broken": "no such luck"}[name] in capsys.readouterr().out
        monkeypatch.undo()


def test_what_stands_ready_is_killed_for_want_of_memory_and_the_next_trial_is_trained(ready: Standby) -> None:
    """Before a trial, all of it; between two, the process that would fork the next."""
    wait_for(lambda: ready.process.poll() is None)
    os.killpg(ready.process.pid, signal.SIGKILL)
    ready.process.wait()
    assert trains_the_next(ready)
    (server,) = psutil.Process(ready.process.pid).children()
    server.kill()
    ready.process.wait(timeout=30)  # a trial that is asked for before that ends unbegun, and the driver starts it again
    assert trains_the_next(ready)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("import os\n\nraise RuntimeError('not so')\n", r"line 3: RuntimeError: not so"),
        ("import sys\nsys.exit(3)\n", r"line 2: SystemExit: 3"),
        ("def train(session):\n    pass\n", r"has no function main\(session\)"),
    ],
)
def test_a_script_that_cannot_be_imported_is_refused_with_its_error(script: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(script)
    config = compose_for(ScriptSpec, [f"study.script={tmp_path}/broken.py", f"experiments={tmp_path}/e"])
    make_dir(tmp_path / "e")
    trial_id = create_trial(config).trial_id
    with Standby(config) as standby, pytest.raises(ConfigError, match=rf"broken\.py cannot be imported: .*{why}"):
        standby.launch(trial_id, Never(), structlog.get_logger())
