"""Starts a trial's process: `accelerate launch SCRIPT`, in its own session, killed when its parent dies."""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Self

from structlog.typing import FilteringBoundLogger

from redsm5.engine import environment, files, paths
from redsm5.engine.errors import ConfigError, Interrupted
from redsm5.engine.installed import LAUNCH_DIR, SCRIPTS, quoted
from redsm5.engine.records import TrialRecord
from redsm5.engine.searchspace import with_first_values
from redsm5.engine.spec import StudySpec, launch_settings, with_parameters
from redsm5.engine.study.signals import DRIVER, StopRequest, die_with_parent, running_time
from redsm5.engine.study.trial import create_trial, read_record
from redsm5.engine.task import Task
from redsm5.engine.waiting import Stop, wait_until

POLL_S = 0.1
STOP_WITHIN_S = 24 * 3600  # a launcher of several processes that is asked to stop gives them as long as they need
TRY_S = 600.0  # a few steps and the imports take seconds, with a large model a minute or two
KILL_AFTER_S = 30.0  # what was asked to stop because its time was over, and does not, has so long
# What is imported starts none, and leaves CUDA alone: from such a process, others may be forked.
NO_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


class Launched:
    """A running trial, as seen by the process that launched it."""

    def __init__(self, folder: Path, group: int, ended: Callable[[float], bool]) -> None:
        """Args:
        group: the number of its group of processes.
        ended: waits for its end, for so many seconds at the most; whether it has come.
        """
        self._folder, self._group, self._wait, self._over = folder, group, ended, False

    @classmethod
    def of(cls, folder: Path, process: subprocess.Popen[bytes]) -> Self:
        """The trial of a process with a session of its own."""

        def ended(seconds: float) -> bool:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            return process.returncode is not None

        return cls(folder, process.pid, ended)

    def attend(
        self,
        stop: Stop,
        meanwhile: Callable[[], object] = lambda: None,
        seconds: float = math.inf,
    ) -> bool:
        """Stay with it until it has ended and no process of it holds its lock: pass on a request to stop, once, and do
        `meanwhile` again and again.

        What runs for longer than `seconds` is asked to stop, and killed where it does not; whether that was so. Time in
        which we are stopped does not count, since the trial waits meanwhile.
        """
        deadline = running_time() + seconds
        asked_at, late = math.inf, False
        while not self._ended(POLL_S):
            now = running_time()
            if asked_at == math.inf and ((wanted := stop.requested) or now > deadline):
                late = not wanted
                self.signal(signal.SIGTERM)
                asked_at = now
            if late and now > asked_at + KILL_AFTER_S:
                self.signal(signal.SIGKILL)
            meanwhile()
        self.wait()
        return late

    def _ended(self, seconds: float) -> bool:
        self._over = self._over or self._wait(seconds)
        return self._over

    def wait(self) -> None:
        """Wait until it has ended and no process of it holds its lock."""
        while not self._ended(POLL_S):
            pass
        wait_unlocked(self._folder)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the trial."""
        with suppress(ProcessLookupError):
            os.killpg(self._group, number)


def launch_trial(config: StudySpec, trial_id: str, *, output: Path | None = None) -> Launched:
    """Start the training of a trial whose folder exists, in one or several processes; their output goes to `output`, or
    to this process's own.

    Raises:
        ConfigError: `launch` asks for several machines, or REDSM5_PROCESSES is not a valid number of processes.
    """
    folder = paths.trial_dir(Path(config.experiments), trial_id)
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    with os.fdopen(open_output(output), "ab") if output else nullcontext() as sink:
        if sink:
            streams |= {"stdout": sink, "stderr": sink}
        process = accelerate_launch(config, config.entry_point, *trial_arguments(config, trial_id), **streams)
    return Launched.of(folder, process)


def open_output(output: Path) -> int:
    """The descriptor of the file that takes what a trial prints, made where it is missing; never through a link."""
    files.make_dir(output.parent)
    return files.open_own(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def trial_arguments(config: StudySpec, trial_id: str) -> list[str]:
    """What the training script is given: which trial, and what may differ from start to start."""
    arguments = [f"trial.id={trial_id}", f"experiments={quoted(config.experiments)}", f"launch={config.launch}"]
    # A trial that was started under another budget resumes under the current one.
    budget = ("max_total_size", "min_free_disk_percent")
    return [*arguments, *(f"retention.{key}={getattr(config.retention, key)}" for key in budget)]


def accelerate_launch(config: StudySpec, script: Path, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    """Start a script with the launch configuration `launch`, in a session of its own that ends with this process.

    Raises:
        ConfigError: `launch` asks for several machines, or REDSM5_PROCESSES is not a valid number of processes.
    """
    processes = processes_of(config)
    # -P: a torch.py in the folder that one is in is not taken for the library.
    accelerate = ["-P", "-m", "accelerate.commands.launch"] if processes == 1 else [str(SCRIPTS / "processes.py")]
    command = [sys.executable, *accelerate, "--quiet"]
    command += ["--config_file", str(LAUNCH_DIR / f"{config.launch}.yaml"), "--num_processes", str(processes)]
    return subprocess.Popen(
        [*command, str(script), *arguments],
        env=child_environment(os.environ, config, processes) | streams.pop("environment", {}),
        start_new_session=True,
        preexec_fn=die_with_parent,
        **streams,
    )


def child_environment(environ: Mapping[str, str], config: StudySpec, processes: int) -> dict[str, str]:
    """The environment of the processes of a trial, so many on this machine; nothing in it could change a result."""
    return environment.inherited(environ) | launch_environment(config, processes, environ)


def launch_environment(config: StudySpec, processes: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables of a trial's processes, of which so many run on this machine; the user's settings of
    threads and logs stay.
    """
    needed = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", DRIVER: str(os.getpid())}
    needed |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    needed |= {"PET_SHUTDOWN_TIMEOUT": str(STOP_WITHIN_S)} | NO_THREADS
    unless_set = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # else each process says at its start that all is used
    if config.on_cpu:
        threads = 1 if config.one_thread else max(len(os.sched_getaffinity(0)) // processes, 1)
        unless_set["OMP_NUM_THREADS"] = str(threads)  # the tiny model: 2.5 s an epoch on two that sleep, 1.5 s on one
        # Threads that wait for each other spin a little before they sleep. Measured on 2 cores, 4 layers, 128 wide: if
        # they slept at once, 0.8 to 0.9 times as many posts a second, and if they spun ten times as long, 0.95 to 1.15;
        # but with another process on each core 1.1 and 0.65.
        if "OMP_WAIT_POLICY" not in environ:
            unless_set["GOMP_SPINCOUNT"] = "10000"
    return needed | {name: environ.get(name, value) for name, value in unless_set.items()}


def note_ignored(log: FilteringBoundLogger) -> None:
    """Say which variables of the environment reach no trial; their names, for a value may be a secret."""
    if names := environment.removed(os.environ):
        log.info("ignoring environment variables that could change the training", names=" ".join(names))


def processes_of(config: StudySpec) -> int:
    """How many processes train a trial: as the file of `launch` says or, where that says several, REDSM5_PROCESSES.

    Raises:
        ConfigError: they are on several machines, or it is no number from 2 on.
    """
    settings = launch_settings(config.launch)
    if settings["num_machines"] > 1:
        raise ConfigError(
            f"launch={config.launch} trains on several machines, but this command starts processes on one machine only",
            remedy="Submit containers/slurm/multi.sbatch, which starts them on each machine, or use launch=multi_gpu.",
        )
    told = os.environ.get("REDSM5_PROCESSES")
    if settings["num_processes"] == 1 or told is None:
        return int(settings["num_processes"])
    if not told.isdecimal() or int(told) < 2:
        raise ConfigError(
            f"REDSM5_PROCESSES={told} is not a valid number of processes",
            remedy=f"Set it to 2 or more, or use launch={'cpu' if config.on_cpu else 'gpu'}.",
        )
    return int(told)


def wait_unlocked(folder: Path, stop: Stop | None = None, seconds: float = math.inf) -> bool:
    """Wait until no process holds the trial's lock; False where one still does after so many seconds.

    Raises:
        Interrupted: a stop was requested meanwhile.
    """

    def is_free() -> bool:
        with files.try_lock(folder / paths.LOCK) as free:
            return free

    free = wait_until(is_free, stop, seconds)
    if not free and stop and stop.requested:
        raise Interrupted(f"stopped while waiting for another process to release {folder.name}")
    return free


def dry_run(task: Task[Any], config: StudySpec) -> int:
    """Train a few steps as configured, in a temporary folder of which only the log is kept; the exit code.

    Raises:
        InputError: the data are not sound.
    """
    task.check_data(config)
    log_dir = Path(config.experiments) / paths.LOGS
    stop = StopRequest()
    with tempfile.TemporaryDirectory(prefix="redsm5-") as scratch:
        after = _train_briefly(config, scratch, stop)
        files.make_dir(log_dir)
        for path in (paths.trial_dir(Path(scratch), after.trial_id) / paths.LOGS).glob("*"):
            shutil.copy(path, log_dir / f"dry-run-{after.trial_id[:8]}-{path.name}")
    if stop.requested:
        return Interrupted.exit_code
    return 2 if after.exit_code is None else after.exit_code


def trains(config: StudySpec, stop: Stop) -> bool:
    """Whether a few steps of this training work here and now; the result is not kept.

    Raises:
        Interrupted: a stop was requested meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="redsm5-") as scratch:
        after = _train_briefly(config, scratch, stop, output=Path(scratch) / paths.OUTPUT, seconds=TRY_S)
    if stop.requested:
        raise Interrupted("stopped while checking whether training starts")
    return after.state == "completed"


def _train_briefly(
    config: StudySpec, folder: str, stop: Stop, *, output: Path | None = None, seconds: float = math.inf
) -> TrialRecord:
    """Train a few steps as configured, in this folder; the record of the trial that did it."""
    changes = {"experiments": folder, "train.epochs": 1, "retention.enabled": False, "dry_run": True}
    short = with_parameters(with_first_values(config) if config.entry_module is None else config, changes)
    record = create_trial(short)
    launch_trial(short, record.trial_id, output=output).attend(stop, seconds=seconds)
    return read_record(paths.trial_dir(Path(folder), record.trial_id)) or record
