"""The driver's side of the standby process: scripts/standby.py under `accelerate launch`, with everything imported.

One standby process forks a child for each trial, so that a crash of the child, even out of memory, affects nothing
else. With several processes per trial, those of the next trial are started while the current one runs. If there can be
no standby process, or it hangs, trials are launched one by one, as `just train` does.

The driver and the standby process talk over a socket, which is the latter's standard input, since `accelerate launch`
passes on no other descriptor. Everything that it prints goes to a file.
"""

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from structlog.typing import FilteringBoundLogger

from redsm5.engine import paths
from redsm5.engine.errors import ConfigError, Interrupted
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.jsonio import dumps, loads
from redsm5.engine.redaction import redact
from redsm5.engine.spec import StudySpec
from redsm5.engine.study import launch
from redsm5.engine.study.launch import POLL_S, Launched
from redsm5.engine.waiting import Stop

SCRIPT = SCRIPTS / "standby.py"
CLOSE_S = 5.0  # the standby process is killed if it has not exited so long after the request
READY_S = 300.0  # the imports take 10 s, and from a cold network disk a minute or two
LAST_WORDS = 1000  # characters of what it printed before it ended


class Standby:
    """The standby process of one worker, for its next trial; a context manager that ends it on exit.

    Attributes:
        config: the study's. process: what was launched and stands ready.

    Args:
        ready_s: what has not answered for so many seconds hangs, and is waited for no longer.
    """

    def __init__(self, config: StudySpec, ready_s: float = READY_S) -> None:
        self.config, self._ready_s = config, ready_s
        self._several = launch.processes_of(config) > 1
        self._scratch = tempfile.TemporaryDirectory(prefix="redsm5-standby-")
        self._start()

    def _start(self) -> None:
        self._fit: bool | None = None  # not known before it says so
        self._heard = b""
        self._since = time.monotonic()
        descriptor, name = tempfile.mkstemp(dir=self._scratch.name)
        os.close(descriptor)
        self._request, self._printed = Path(name), Path(f"{name}-printed")
        self._channel, theirs = socket.socketpair()
        with theirs, self._printed.open("wb") as printed:
            self.process = launch.accelerate_launch(
                self.config,
                SCRIPT,
                self.config.entry_module or str(self.config.entry_point),
                environment={"REDSM5_REQUEST": name},
                stdin=theirs,
                stdout=printed,
                stderr=printed,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def launch(self, trial_id: str, stop: Stop, log: FilteringBoundLogger) -> Launched:
        """Train a trial whose folder exists; its output goes to a file in that folder.

        Raises:
            Interrupted: a stop was requested before anything stood ready.
            ConfigError: the training script cannot be imported.
        """
        folder = paths.trial_dir(Path(self.config.experiments), trial_id)
        output = (folder / paths.LOGS / paths.OUTPUT).absolute()
        os.close(launch.open_output(output))
        if self.process.poll() is not None and self._fit is not False:
            log.warning("the standby process exited; restarting it", output=self._last_words())
            self._channel.close()
            self._start()
        arguments = launch.trial_arguments(self.config, trial_id)
        words = {"script": str(self.config.entry_point), "arguments": arguments, "output": str(output)}
        request = dumps(words) + b"\n"
        if self._several:
            self._request.write_bytes(request)
            launched = Launched.of(folder, self.process)
            self._channel.close()
            self._start()
            return launched
        if self._ready(stop, log):
            self._since = time.monotonic()
            self._say(request)
            if (word := self._answer(None)) is not None:
                return Launched(folder, word.get("begun", self.process.pid), self._ended)
            self._give_up(log)
            launch.wait_unlocked(folder)  # a trial that began all the same dies with its parent
        return launch.launch_trial(self.config, trial_id, output=output)

    def close(self) -> None:
        """End the standby process."""
        if self._fit:
            self._say(b"")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(CLOSE_S)
        if self.process.poll() is None:  # what still imports does not listen, and has nothing to lose
            self._kill()
        self._channel.close()
        self._scratch.cleanup()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _say(self, line: bytes) -> None:
        """A request; or an empty one, after which there is none."""
        with suppress(ConnectionError):  # it has ended, as will be heard
            if line:
                self._channel.sendall(line)
            else:
                self._channel.shutdown(socket.SHUT_WR)

    def _ready(self, stop: Stop, log: FilteringBoundLogger) -> bool:
        """Wait until the standby process is ready; whether trials may be forked from it.

        Raises:
            ConfigError: the training script cannot be imported, and so no trial could start.
        """
        if self._fit is None:
            if (word := self._answer(stop)) is None:
                self._give_up(log)
                return False
            if "broken" in word and self.config.entry_module is None:
                raise ConfigError(
                    f"{self.config.entry_point} cannot be imported: {redact(word['broken'])}",
                    remedy="Correct the script and run the same command again.",
                )
            why_not = word.get("unfit", self._last_words())
            self._fit = not why_not
            if why_not:
                log.warning("cannot pre-fork; launching trials one by one", reason=why_not)
        return bool(self._fit)

    def _answer(self, stop: Stop | None) -> dict[str, Any] | None:
        """Its next message; None if it does not answer in time.

        Raises:
            Interrupted: a stop was requested meanwhile.
        """
        while (word := self._hear(POLL_S)) is None and time.monotonic() < self._since + self._ready_s:
            if stop and stop.requested:
                raise Interrupted("stopped before the trial was started")
        return word

    def _give_up(self, log: FilteringBoundLogger) -> None:
        """End what hangs; from now on trials are started one by one."""
        self._fit = False
        log.warning(
            f"the standby process has not answered for {self._ready_s:g} s; launching trials one by one",
            output=self._last_words(),
        )
        self._kill()

    def _ended(self, seconds: float) -> bool:
        word = self._hear(seconds)
        return word is not None and "begun" not in word

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """Its next message within a time limit; None if there is none, {} if it has exited."""
        while b"\n" not in self._heard:
            if not select.select([self._channel], [], [], seconds)[0]:
                return None
            try:
                read = self._channel.recv(4096)
            except ConnectionError:
                read = b""
            if not read:
                return {}
            self._heard += read
        line, _, self._heard = self._heard.partition(b"\n")
        word: dict[str, Any] = loads(line)
        return word

    def _last_words(self) -> str:
        """The last line that it printed: of a traceback, the error."""
        lines = self._printed.read_text(errors="replace")[-LAST_WORDS:].strip().splitlines()
        return lines[-1] if lines else "it exited without a message"
