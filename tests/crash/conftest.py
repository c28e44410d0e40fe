"""Processes that run a small study and can be stopped at any of their system calls."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.crash.study import outcome

ROOT = Path(__file__).parents[2]


class Server:
    """Forks processes that run or continue a study; one at a time."""

    def __init__(self, scratch: Path, study: str) -> None:
        # Coverage would double what the processes take; what they run is covered by other tests.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")} | {"OMP_NUM_THREADS": "1"}
        environment["CRASH_STUDY"] = study
        self.scratch = scratch
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server", str(scratch)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        while self._answer() != "ready":  # what the first study logs
            continue

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the server of the small studies has died"
        return line.strip()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def fork(self, experiments: Path) -> dict[str, int]:
        """A process for the study in this folder, which waits; the ids of its threads."""
        self._say(str(experiments))
        threads: dict[str, int] = json.loads(self._answer())["threads"]
        return threads

    def go(self) -> int:
        """Let it run to its end; its exit code, or minus the signal that ended it."""
        self._say("go")
        return int(self._answer())

    def finish(self, experiments: Path) -> int:
        """Run or continue the study in this folder; the exit code."""
        self.fork(experiments)
        return self.go()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def serving(study: str) -> Iterator[Server]:
    """In memory where the system has room there: not the disk is tested, but what was asked of it."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as scratch:
        server = Server(Path(scratch), study)
        yield server
        server.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving("redsm5") as server:
        yield server


@pytest.fixture(scope="session")
def expected(server: Server) -> Mapping[str, Any]:
    """What a study leaves that nothing interrupts."""
    folder = server.scratch / "uninterrupted"
    assert server.finish(folder) == 0
    return outcome(folder)
