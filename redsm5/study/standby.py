"""What stands ready to train, as the driver sees it: scripts/standby.py under `accelerate launch`, all imported.

One process is started once, and forks itself for each trial: one that dies, even for want of memory, takes nobody with
it. Where several processes train a trial, those of the next one are started while it is at work. What cannot stand
ready is no reason to stop: trials are then started one by one, as `just train` starts its one.
"""

import json
import os
import select
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from structlog.typing import FilteringBoundLogger

from redsm5 import files, paths
from redsm5.config import Config
from redsm5.errors import Interrupted
from redsm5.study import launch
from redsm5.study.launch import POLL_S, Launched
from redsm5.study.signals import Stop

SCRIPT = launch.SCRIPTS / "standby.py"
CLOSE_S = 5.0  # what stands ready is killed where it has not ended so long after it was told to
LAST_WORDS = 1000  # characters of what it printed before it ended


class Standby:
    """What stands ready for the next trial of one worker; left as a context, it ends.

    Attributes:
        config: the study's. process: what was launched and stands ready.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._several = launch.processes_of(config) > 1
        self._scratch = tempfile.TemporaryDirectory(prefix="redsm5-standby-")
        self._start()

    def _start(self) -> None:
        self._fit: bool | None = None  # not known before it says so
        self._heard = b""
        descriptor, name = tempfile.mkstemp(dir=self._scratch.name)
        os.close(descriptor)
        self._request, self._printed = Path(name), Path(f"{name}-printed")
        with self._printed.open("wb") as printed:
            self.process = launch.accelerate_launch(
                self.config,
                SCRIPT,
                environment={"REDSM5_REQUEST": name},
                stdin=subprocess.PIPE,
                stdout=printed if self._several else subprocess.PIPE,
                stderr=printed,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def launch(self, trial_id: str, stop: Stop, log: FilteringBoundLogger) -> Launched:
        """Have a trial trained whose folder exists; its output goes to a file in there.

        Raises:
            Interrupted: a stop was requested before anything stood ready.
        """
        folder = paths.trial_dir(Path(self.config.experiments), trial_id)
        output = (folder / paths.LOGS / "output.log").absolute()
        files.make_dir(output.parent)
        if self.process.poll() is not None and self._fit is not False:
            log.warning("what stood ready for the next trial has ended", output=self._last_words())
            self._close_pipes()
            self._start()
        arguments = launch.trial_arguments(self.config, trial_id)
        request = json.dumps({"arguments": arguments, "output": str(output)}).encode() + b"\n"
        if self._several:
            self._request.write_bytes(request)
            launched = Launched.of(folder, self.process)
            self._say(b"")
            self._start()
            return launched
        if not self._ready(stop, log):
            return launch.launch_trial(self.config, trial_id, output=output)
        self._say(request)
        while (word := self._hear(POLL_S)) is None:
            pass
        return Launched(folder, word.get("begun", self.process.pid), self._ended)

    def close(self) -> None:
        """End what stands ready."""
        if self._fit:
            self._say(b"")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(CLOSE_S)
        if self.process.poll() is None:  # what still imports does not listen, and has nothing to lose
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._close_pipes()
        self._scratch.cleanup()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _say(self, line: bytes) -> None:
        """A request; or an empty one, after which there is none."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, as will be heard
            self.process.stdin.write(line)
            self.process.stdin.flush()
            if not line:
                self.process.stdin.close()

    def _ready(self, stop: Stop, log: FilteringBoundLogger) -> bool:
        """Wait until it stands ready; whether trials may be forked from it."""
        while self._fit is None:
            if stop.requested:
                raise Interrupted("stopped before the trial was started")
            if (word := self._hear(POLL_S)) is not None:
                why_not = word.get("unfit", self._last_words())
                self._fit = not why_not
                if why_not:
                    log.warning("nothing can stand ready: each trial is started by itself", reason=why_not)
        return self._fit

    def _ended(self, seconds: float) -> bool:
        word = self._hear(seconds)
        return word is not None and "begun" not in word

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """What it says next, waited for so long at the most; None where it says nothing, {} where it has ended."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        while b"\n" not in self._heard:
            if not select.select([pipe], [], [], seconds)[0]:
                return None
            if not (read := os.read(pipe, 4096)):
                return {}
            self._heard += read
        line, _, self._heard = self._heard.partition(b"\n")
        word: dict[str, Any] = json.loads(line)
        return word

    def _last_words(self) -> str:
        """The last line that it printed: of a traceback, the error."""
        lines = self._printed.read_text(errors="replace")[-LAST_WORDS:].strip().splitlines()
        return lines[-1] if lines else "it ended without a word"
