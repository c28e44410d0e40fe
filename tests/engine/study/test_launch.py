"""A trial's process is told how many threads it has, and is ended when its time is over, whether it listens or not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5.config import compose
from redsm5.engine import environment
from redsm5.engine.study import launch
from redsm5.engine.study.launch import Launched, child_environment, launch_environment
from redsm5.engine.study.signals import StopRequest

LISTENS = "import signal, sys; signal.signal(15, lambda *_: sys.exit(75)); print('ready', flush=True); signal.pause()"
HANGS = (
    "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); [signal.pause() for _ in range(9)]"
)
LINGERS = (
    "import signal, sys, time; signal.signal(15, lambda *_: (time.sleep(0.5), sys.exit(75)));"
    "print('ready', flush=True); signal.pause()"
)
ENDS = "print('ready', flush=True)"


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield StopRequest()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def attended(script: str, folder: Path, stop: StopRequest, seconds: float) -> tuple[bool, int]:
    """Attend such a process; whether its time was over, and how it ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    late = Launched.of(folder, process).attend(stop, seconds=seconds)
    process.stdout.close()
    return late, process.returncode


def test_a_process_whose_time_is_over_is_asked_to_stop(tmp_path: Path, stop: StopRequest) -> None:
    assert attended(LISTENS, tmp_path, stop, seconds=0.01) == (True, 75)


def test_one_that_hangs_is_killed(tmp_path: Path, stop: StopRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "KILL_AFTER_S", 0.3)
    assert attended(HANGS, tmp_path, stop, seconds=0.01) == (True, -signal.SIGKILL)


def test_one_that_ends_in_time_is_left_alone(tmp_path: Path, stop: StopRequest) -> None:
    assert attended(ENDS, tmp_path, stop, seconds=60) == (False, 0)


def test_one_that_was_to_stop_for_another_reason_was_not_late_and_may_take_its_time(
    tmp_path: Path, stop: StopRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "KILL_AFTER_S", 0.0)
    signal.raise_signal(signal.SIGTERM)
    assert attended(LINGERS, tmp_path, stop, seconds=0) == (False, 75)


@pytest.mark.parametrize(("model", "threads"), [("tiny", 1), ("bert_base", len(os.sched_getaffinity(0)))])
def test_the_tiny_model_trains_on_one_thread_and_another_on_all_unless_a_person_says_so(
    monkeypatch: pytest.MonkeyPatch, model: str, threads: int
) -> None:
    config = compose([f"model={model}"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launch_environment(config, 1)["OMP_NUM_THREADS"] == str(threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launch_environment(config, 1)["OMP_NUM_THREADS"] == "7"
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert "GOMP_SPINCOUNT" in launch_environment(config, 1)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # which libgomp would take for less than the other
    assert "GOMP_SPINCOUNT" not in launch_environment(config, 1)


def test_what_is_set_is_set_whatever_a_person_has_set_and_the_rest_is_inherited_or_removed() -> None:
    config = compose([])
    theirs = {"PATH": "/bin", "HF_TOKEN": "x", "http_proxy": "p", "CUDA_VISIBLE_DEVICES": "1", "NCCL_DEBUG": "INFO"}
    theirs |= {"OMP_NUM_THREADS": "3", "TORCH_HOME": "/cache", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    foreign = ["WORLD_SIZE", "RANK", "MASTER_PORT", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "PET_NNODES"]
    foreign += ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_NEW_SETTING", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"]
    foreign += ["NVIDIA_TF32_OVERRIDE", "FSDP_VERSION", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "PYTHONOPTIMIZE"]
    named = theirs | dict.fromkeys(foreign, "1") | dict.fromkeys(environment.SET, "theirs")
    child = child_environment(named, config, 1)
    assert child == theirs | launch_environment(config, 1, theirs)
    assert child.keys() >= environment.SET
    assert "theirs" not in child.values()
    assert environment.removed(named) == sorted(foreign)
