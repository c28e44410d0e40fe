"""How a trial's process is started: `accelerate launch scripts/train.py`, in its own session, dying with its parent."""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf

from redsm5 import files, paths
from redsm5.config import LAUNCH_DIR, Config, with_parameters
from redsm5.errors import ConfigError, Interrupted
from redsm5.study.signals import Stop, StopRequest, die_with_parent
from redsm5.study.trial import create_trial, read_record

POLL_S = 0.1
KILL_AFTER_S = 30.0  # what was asked to stop because its time was over, and does not, has so long
TRAIN_SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "train.py"


class Launched:
    """A trial's process, seen from the one that launched it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self._folder, self._process = folder, process

    def poll(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait until it has ended and no process of the trial holds its lock."""
        self._process.wait()
        wait_unlocked(self._folder)

    def attend(
        self,
        stop: Stop,
        meanwhile: Callable[[], object] = lambda: None,
        seconds: float = math.inf,
    ) -> bool:
        """Stay with it until it has ended: pass on a request to stop, once, and do `meanwhile` again and again.

        What runs for longer than `seconds` is asked to stop, and killed where it does not; whether that was so.
        """
        deadline = time.monotonic() + seconds
        asked_at, late = math.inf, False
        while not self.poll():
            if asked_at == math.inf and ((wanted := stop.requested) or time.monotonic() > deadline):
                late = not wanted
                self.signal(signal.SIGTERM)
                asked_at = time.monotonic()
            if late and time.monotonic() > asked_at + KILL_AFTER_S:
                self.signal(signal.SIGKILL)
            meanwhile()
            time.sleep(POLL_S)
        self.wait()
        return late

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the trial."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return


def launch_trial(config: Config, trial_id: str, *, output: Path | None) -> Launched:
    """Start the process that trains a trial whose folder exists; its output goes to `output`, or where ours goes.

    Raises:
        ConfigError: `launch` asks for several processes a trial.
    """
    if OmegaConf.load(LAUNCH_DIR / f"{config.launch}.yaml").num_processes > 1:
        raise ConfigError(
            f"launch={config.launch} starts several processes for one trial, which training cannot do yet",
            remedy="Use launch=cpu or launch=gpu; several workers may share a study.",
        )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    command += ["--config_file", str(LAUNCH_DIR / f"{config.launch}.yaml"), str(TRAIN_SCRIPT)]
    command += [f"trial.id={trial_id}", f"experiments={quoted(config.experiments)}", f"launch={config.launch}"]
    # A trial that was begun under another budget goes on under today's.
    for key in ("max_total_size", "min_free_disk_percent"):
        command.append(f"retention.{key}={getattr(config.retention, key)}")
    environment = {**os.environ, "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "REDSM5_LAUNCHED": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if config.launch == "cpu":
        environment.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
        # Threads that spin while they wait make a busy machine crawl: measured with another process on each of 2 cores,
        # an epoch of the tiny model takes 7 s with this and 40 s without.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    folder = paths.trial_dir(Path(config.experiments), trial_id)
    sink = None
    if output is not None:
        files.make_dir(output.parent)
        sink = output.open("ab")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=sink and subprocess.STDOUT,
        env=environment,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    if sink:
        sink.close()
    return Launched(folder, process)


def wait_unlocked(folder: Path, stop: Stop | None = None, seconds: float = math.inf) -> bool:
    """Wait until no process holds the trial's lock; False where one still does after so many seconds.

    Raises:
        Interrupted: a stop was requested meanwhile.
    """
    deadline = time.monotonic() + seconds
    while True:
        with files.try_lock(folder / paths.LOCK) as free:
            if free:
                return True
        if stop and stop.requested:
            raise Interrupted(f"stopped while another process is at {folder.name}")
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def dry_run(config: Config) -> int:
    """Train a few steps as configured, in a temporary folder of which only the log is kept; the exit code."""
    log_dir = Path(config.experiments) / paths.LOGS
    stop = StopRequest()
    with tempfile.TemporaryDirectory(prefix="redsm5-") as scratch:
        short = with_parameters(config, {"experiments": scratch, "train.epochs": 1, "retention.enabled": False})
        record = create_trial(short)
        launch_trial(short, record.trial_id, output=None).attend(stop)
        folder = paths.trial_dir(Path(scratch), record.trial_id)
        files.make_dir(log_dir)
        for path in (folder / paths.LOGS).glob("*"):
            shutil.copy(path, log_dir / f"dry-run-{record.trial_id[:8]}-{path.name}")
        after = read_record(folder)
    assert after is not None
    if stop.requested:
        return Interrupted.exit_code
    return 2 if after.exit_code is None else after.exit_code


def quoted(value: str) -> str:
    """A value as Hydra's override grammar takes it, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
