"""Several workers of one study on this machine, started and watched by one command: `just hpo workers=4`.

Each worker is a driver in a process of its own, as if it had been started in another terminal, with its share of the
cores and, where trials run on GPUs, with a GPU. They share the study through its folder, so that one which dies leaves
its trial to the others. One Ctrl-C stops all, as it stops one.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.errors import ConfigError, InputError, Interrupted
from redsm5.engine.records import StudyIndex, StudyRecord
from redsm5.engine.spec import StudySpec
from redsm5.engine.study.launch import processes_of
from redsm5.engine.study.registry import Scoreboard, study_by_name
from redsm5.engine.study.sharing import SHARED
from redsm5.engine.study.signals import StopRequest, die_with_parent
from redsm5.engine.tables import left_text
from redsm5.engine.terminal import show
from redsm5.engine.waiting import wait_until

WORKERS, PER_GPU = "workers", "workers_per_gpu"
CORES_PER_WORKER, BYTES_PER_WORKER = 2, 4 * 10**9  # of `workers=auto` on CPUs
POLL_S = 0.2
LOOK_S = 1.0  # between two looks at the study for the progress bar

Share = Mapping[str, str]
"""The environment variables that give a worker its part of the machine."""


def asked_for(overrides: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What a command says of its workers, and its other words."""
    named = {word.partition("=")[0]: word.partition("=")[2] for word in overrides}
    asked = {key: named[key] for key in (WORKERS, PER_GPU) if key in named}
    return asked, [word for word in overrides if word.partition("=")[0] not in asked]


def shares(asked: Mapping[str, str], config: StudySpec, environ: Mapping[str, str] = os.environ) -> list[Share]:
    """The shares of the workers, one each; none where the command asks for one worker, which is this process.

    Raises:
        ConfigError: so many workers do not fit, or a value is no number.
    """
    per_gpu = _number(PER_GPU, asked.get(PER_GPU, "1"))
    count = None if asked.get(WORKERS) == "auto" else _number(WORKERS, asked.get(WORKERS, "1"))
    if count == 1:
        return []
    if processes_of(config) > 1:
        raise ConfigError(
            f"{WORKERS}={asked[WORKERS]} with launch={config.launch}: each trial already runs in several processes",
            remedy="Leave workers out, or use a launch configuration with one process.",
        )
    cores = len(os.sched_getaffinity(0))
    if config.on_cpu:
        physical = min(psutil.cpu_count(logical=False) or cores, cores)
        fit = max(min(physical // CORES_PER_WORKER, psutil.virtual_memory().total // BYTES_PER_WORKER), 1)
        dealt: list[dict[str, str]] = [{} for _ in range(count or fit)]
    else:
        gpus = visible_gpus(environ)
        places = [gpu for _ in range(per_gpu) for gpu in gpus]
        if (count or 1) > len(places):
            raise ConfigError(
                f"{WORKERS}={asked[WORKERS]}, but there are {len(gpus)} GPUs with {PER_GPU}={per_gpu} each",
                remedy=f"Use at most {WORKERS}={len(places)}, or raise {PER_GPU}." if gpus else "Use launch=cpu.",
            )
        taken = places[: count or len(places)]
        dealt = [{"CUDA_VISIBLE_DEVICES": gpu} | ({SHARED: gpu} if taken.count(gpu) > 1 else {}) for gpu in taken]
    if len(dealt) == 1:
        return []
    threads = environ.get("OMP_NUM_THREADS") or str(max(cores // len(dealt), 1))
    return [share | {"OMP_NUM_THREADS": threads} for share in dealt]


def _number(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        auto = " or auto" if key == WORKERS else ""
        raise ConfigError(f"{key}={value}: allowed: a number of at least 1{auto}")
    return int(value)


def visible_gpus(environ: Mapping[str, str]) -> list[str]:
    """The GPUs, or parts of GPUs, that this process may use: those of CUDA_VISIBLE_DEVICES, which Slurm sets, or all.

    Raises:
        ConfigError: CUDA_VISIBLE_DEVICES names one that is not there.
    """
    there = _gpus()
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return there
    named = [name.strip() for name in given.split(",") if name.strip()]
    missing = [name for name in named if name.isdecimal() and int(name) >= len(there)]
    if missing:
        raise ConfigError(
            f"CUDA_VISIBLE_DEVICES={given} names GPU {missing[0]}, but there are {len(there)} GPUs",
            remedy="Name GPUs that `nvidia-smi -L` lists, or unset it.",
        )
    return named


def _gpus() -> list[str]:
    """All GPUs by their index; of a GPU with MIG devices, these by their UUID. None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found: list[str] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        parts: list[str] = []
        with suppress(pynvml.NVMLError):
            for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(device)):
                with suppress(pynvml.NVMLError):
                    part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, number)
                    parts.append(pynvml.nvmlDeviceGetUUID(part))
        found += parts or [str(index)]
    return found


class Worker:
    """A worker's process; its lines are shown with its number."""

    def __init__(self, number: int, command: Sequence[str], share: Share) -> None:
        self.number, self.said = number, False
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **share},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches it once, from the command that supervises it
            preexec_fn=die_with_parent,
        )
        assert self.process.stdout
        self._reader = threading.Thread(target=self._show, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _show(self, lines: IO[bytes]) -> None:
        for line in lines:
            show(f"[{self.number}] {line.decode(errors='replace').rstrip()}", error=True)

    def ask_to_stop(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGINT)

    def ended(self) -> bool:
        """Whether it has; an end that it does not explain itself is named, once."""
        code = self.process.poll()
        if code is None:
            return False
        if not self.said:
            self._reader.join()
            if code < 0:
                name = signal.Signals(-code).name
                show(f"worker {self.number} was killed by {name}; the others take over its trial", error=True)
        self.said = True
        return True


def supervise(config: StudySpec, command: Sequence[str], dealt: Sequence[Share]) -> int:
    """Run so many workers until the study is complete or stopped; the exit code.

    Args:
        config: the study's.
        command: starts a worker.
        dealt: the workers' shares.
    """
    stop = StopRequest()
    experiments, name = Path(config.experiments), config.study.name
    workers = [Worker(1, command, dealt[0])]
    # The first one makes the study. If it is refused, one message says so.
    wait_until(lambda: workers[0].ended() or _begun(experiments, name), stop, every=POLL_S)
    if not workers[0].ended():
        workers += [Worker(number, command, share) for number, share in enumerate(dealt[1:], 2)]
    with Bar(experiments, name) if sys.stderr.isatty() else nullcontext() as bar:
        asked = False
        while sum(worker.ended() for worker in workers) < len(workers):
            if stop.requested and not asked:
                asked = True
                for worker in workers:
                    worker.ask_to_stop()
            if bar:
                bar.look()
            time.sleep(POLL_S)
    record = study_by_name(experiments, name)
    codes = [worker.process.returncode for worker in workers]
    if record and record.state == "completed" and 0 in codes:
        return 0
    if stop.requested:
        return Interrupted.exit_code
    return max((code for code in codes if code > 0), default=Interrupted.exit_code if any(codes) else 0)


def _begun(experiments: Path, name: str) -> bool:
    with suppress(InputError):
        record = study_by_name(experiments, name)
        return record is not None and record.state == "running"
    return False


class Bar:
    """A progress bar over the study's trials, with the best so far, epochs a minute and the time left."""

    def __init__(self, experiments: Path, name: str) -> None:
        self._experiments, self._name = experiments, name
        self._began, self._looked = time.monotonic(), 0.0
        self._epochs: int | None = None
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("trials · {task.description}"))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=None)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def look(self) -> None:
        """Show how the study stands, once a second."""
        if time.monotonic() < self._looked + LOOK_S:
            return
        self._looked = time.monotonic()
        with suppress(InputError):
            if record := study_by_name(self._experiments, self._name):
                self._show(record)

    def _show(self, record: StudyRecord) -> None:
        index = load(paths.study_dir(self._experiments, record.study_id) / paths.INDEX, StudyIndex)
        epochs = sum(trial.epoch for trial in index.trials) if index else 0
        if self._epochs is None:
            self._epochs = epochs
        pace = (epochs - self._epochs) / max(time.monotonic() - self._began, 1.0) * 60
        left = Scoreboard(self._experiments, record).time_left()
        said: list[Any] = [
            f"best {record.best.value:.4f} (trial {record.best.number})" if record.best else "no best yet",
            f"{pace:.1f} epochs a minute",
            left_text(left),
        ]
        self._progress.update(
            self._task, completed=record.trials.finished, total=record.trials.wanted, description=" · ".join(said)
        )
