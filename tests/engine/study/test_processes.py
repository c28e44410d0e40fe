"""A trial of several processes: the first one alone writes, and has the true reason when another one ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import Config, compose
from redsm5.engine import paths
from redsm5.engine.errors import ConfigError, HubUnavailableError, Interrupted, NotFiniteError
from redsm5.engine.files import tree_bytes
from redsm5.engine.installed import LAUNCH_DIR, SCRIPTS
from redsm5.engine.records import TrialRecord
from redsm5.engine.study.faults import fault_of
from redsm5.engine.study.launch import processes_of
from redsm5.engine.study.trial import create_trial, open_store, read_record
from redsm5.engine.study.trial_run import TrialRun
from redsm5.engine.tracking.journal import Journal

LOST = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer")


class Two:
    """The processes of a trial, as the first one has them, and what the second left."""

    world_size = 2

    def __init__(self, fault: dict[str, Any] | None = None) -> None:
        self.fault = fault

    def report_fault(self, fault: dict[str, Any]) -> None:
        self.fault = fault

    def reported_fault(self) -> dict[str, Any] | None:
        return self.fault


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = compose([f"experiments={tmp_path / 'e'}", "data.posts=60", "launch=multi_cpu"])
    section = made.trial.model_copy(update={"id": create_trial(made).trial_id})
    return made.model_copy(update={"trial": section})


@pytest.fixture
def follower(config: Config, monkeypatch: pytest.MonkeyPatch) -> TrialRun:
    """The trial as its second process sees it, while the first has the lock."""
    TrialRun.open(config)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    return TrialRun.open(config)


def record_of(run: TrialRun) -> TrialRecord:
    record = read_record(run.folder)
    assert record is not None
    return record


def test_who_follows_writes_nothing(follower: TrialRun, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in follower.folder.rglob("*")}, tree_bytes(follower.folder)
    follower.update(state="running", step=3)
    follower.log.error("a line", exc_info=True)
    store = open_store(follower.folder, follower.config, log=follower.log.info, writes=False)
    assert follower.reserve_storage(store, full=10, weights=3) is None
    journal = Journal(follower.folder, follower.record.trial_id, log=follower.log.error, writes=False)
    journal.add("train_loss", 0.5, step=1, epoch=0)
    journal.commit()
    assert not follower.decision(1).prune
    with pytest.raises(SystemExit), follower.outcome():
        follower.end("completed", 0)
    after = {path: path.stat().st_mtime_ns for path in follower.folder.rglob("*")}, tree_bytes(follower.folder)
    assert after == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("error", "code"), [(Interrupted("stopped"), 0), (LOST, 0), (NotFiniteError("nan"), 2)])
def test_who_follows_tells_its_own_faults_alone(follower: TrialRun, error: Exception, code: int) -> None:
    follower.peers = peers = Two()
    with pytest.raises(SystemExit) as exited, follower.outcome():
        raise error
    assert exited.value.code == code
    assert (peers.fault is not None) == isinstance(error, NotFiniteError)


def test_a_process_that_ended_without_a_word_leaves_the_trial_as_a_kill_does(config: Config) -> None:
    """Also where the launcher, which ends the others then, has sent SIGTERM: nobody asked for an interruption."""
    run = TrialRun.open(config)
    run.peers = Two()
    run.update(state="running", step=7)
    before = record_of(run)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exited, run.outcome():
        raise LOST
    assert exited.value.code == 2
    assert record_of(run) == before


def test_what_another_process_met_ends_the_trial_as_if_the_first_had(config: Config) -> None:
    run = TrialRun.open(config)
    run.peers = Two(fault_of(HubUnavailableError("the Hub does not answer"), 1))
    with pytest.raises(SystemExit) as exited, run.outcome():
        raise LOST
    record = record_of(run)
    assert record.error is not None
    assert (exited.value.code, record.state, record.error.kind) == (1, "interrupted", "hub_unavailable")


def test_an_error_of_the_first_process_s_own_is_its_outcome(config: Config) -> None:
    run = TrialRun.open(config)
    run.peers = Two({"kind": "not_finite"})
    with pytest.raises(SystemExit), run.outcome():
        raise RuntimeError("shapes do not fit")
    error = record_of(run).error
    assert error is not None
    assert (error.kind, error.message) == ("RuntimeError", "shapes do not fit")


@pytest.mark.parametrize(
    ("who", "fault", "state", "kind", "message"),
    [
        (1, "not_finite", "failed", "not_finite", "process 1: the loss is nan at step 3"),
        (0, "memory", "failed", "out_of_memory", "no room"),
        (1, "killed", "running", None, None),
    ],
)
def test_the_outcome_is_the_error_of_the_process_that_met_it(
    config: Config, who: int, fault: str, state: str, kind: str | None, message: str | None
) -> None:
    """With real processes, one of which waits for the other when that ends; whatever a scheduler's step says of its own
    ranks, and a person's environment of accelerate's and torchrun's settings.
    """
    command = [sys.executable, SCRIPTS / "processes.py", "--quiet", "--config_file", LAUNCH_DIR / "multi_cpu.yaml"]
    command += [Path(__file__).parent / "faulty.py", str(who), fault, f"trial.id={config.trial.id}"]
    foreign = {"PMI_RANK": "1", "PMI_SIZE": "4", "WORLD_SIZE": "3", "MASTER_ADDR": "192.0.2.1", "PET_NNODES": "2"}
    foreign |= {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_TORCH_DEVICE": "meta"}
    environment = {**os.environ, **foreign, "PYTHONPATH": str(SCRIPTS.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"experiments={config.experiments}"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    record = read_record(paths.trial_dir(Path(config.experiments), config.trial.id or ""))
    assert record is not None
    assert record.state == state
    assert (record.error and record.error.kind, record.error and record.error.message) == (kind, message)


def test_the_number_of_processes(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    one = config.model_copy(update={"launch": "cpu"})
    assert (processes_of(one), processes_of(config)) == (1, 2)
    monkeypatch.setenv("REDSM5_PROCESSES", "3")
    assert (processes_of(one), processes_of(config)) == (1, 3)
    for wrong in ("1", "many"):
        monkeypatch.setenv("REDSM5_PROCESSES", wrong)
        with pytest.raises(ConfigError, match=f"REDSM5_PROCESSES={wrong} is not a valid number of processes"):
            processes_of(config)


def test_several_machines_are_started_elsewhere(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"launch=multi_node trains on several machines(.|\n)*multi\.sbatch"):
        processes_of(config.model_copy(update={"launch": "multi_node"}))
