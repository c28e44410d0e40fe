"""Control of a study's drivers through files in its folder `control/`; only their names count.

- `stop`: no further trial is started after the current one.
- `stop-now`: like SIGTERM to the driver; the current trial saves a checkpoint at its next step.
- `pause`: while the file exists, no trial trains; afterwards the same one resumes.
- `prune-<uuid>`: this trial is pruned at its next step, and the next one starts.

Every worker of a study obeys the first three, so these files stay until all have: `pause` until the user removes it,
the others until the last worker has exited, or a first worker starts again. A `prune` file is removed once it has been
obeyed, or came too late.
"""

import os
import re
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.errors import Interrupted, LockedError
from redsm5.engine.installed import command
from redsm5.engine.records import FINISHED
from redsm5.engine.study.registry import Scoreboard
from redsm5.engine.waiting import Stop, wait_until

POLL_S = 0.5
BY_HAND = "requested by the user"  # why a trial was pruned
PRUNE = re.compile(rf"{paths.PRUNE}([0-9a-f-]{{36}})")


class Control:
    """A study's orders, as one of its workers sees them.

    Args:
        study: the study's folder.
        signals: what asks for a stop without a file.
    """

    def __init__(self, study: Path, signals: Stop, log: FilteringBoundLogger) -> None:
        self.folder, self.signals = study / paths.CONTROL, signals
        self._experiments, self._study_id = study.parent, study.name.removeprefix("study_")
        self._workers = files.Lock(study / paths.CLAIMS / paths.WORKERS_LOCK, shared=True)
        self._ignored: set[str] = set()
        self._log = log

    def enter(self) -> None:
        """Register as a worker of the study; the first worker removes older control files.

        The caller holds the study's lock, so that no two workers enter or leave at once.

        Raises:
            LockedError: the file system has no locks, and another worker is at the study.
        """
        with files.try_lock(self._workers.path) as alone:
            for name in (paths.STOP, paths.STOP_NOW) if alone else ():
                if self.remove(name):
                    self._log.info(
                        f"control/{name} is older than this start of the study: it is removed and not obeyed"
                    )
        # It is held exclusively only under the study's lock, or by a mark, which cannot be shared.
        if not self._workers.acquire(timeout_s=2.0):
            test = command("doctor", experiments="DIR")
            raise LockedError(
                "another worker is running this study, and a file system without locks allows only one",
                where=str(self.folder.parent),
                remedy=f"Wait for it to end; if its machine crashed, remove {self._workers.mark}. For several "
                f"workers, put the experiments folder on a file system with locks: `{test}` tests one.",
            )
        if self._workers.by_mark:
            mark = str(self._workers.mark)
            self._log.warning("this file system has no locks: a second worker will be refused", mark=mark)

    def leave(self) -> None:
        """Be a worker no longer; the last one takes along the orders to stop. The caller holds the study's lock."""
        self._workers.release()
        with files.try_lock(self._workers.path) as alone:
            for name in (paths.STOP, paths.STOP_NOW) if alone else ():
                self.remove(name)

    def look(self) -> frozenset[str]:
        """The names of the current control files. `prune` files for finished or unknown trials are removed."""
        try:
            names = set(os.listdir(self.folder)) - self._ignored
        except OSError:  # no folder, no order
            return frozenset()
        return frozenset(name for name in names if not self._is_void(name))

    def asked(self, *orders: str) -> "Asked":
        """Whether a signal or one of these orders asks for a stop, from now on."""
        return Asked(self, orders)

    def wait_while_paused(self, trial_id: str, board: Scoreboard) -> None:
        """Wait while a pause is ordered, but no longer than until this trial, which is next, is to be pruned.

        Raises:
            Interrupted: a signal came, or an order to stop.
        """
        if not self._pauses(trial_id):
            return
        board.note("paused")
        app = command("tui", experiments=self.folder.parent.parent)
        self._log.warning(
            f"the study is paused as requested: to resume it, remove this file or press p in `{app}`",
            file=str(self.folder / paths.PAUSE),
        )
        ended = self.asked(paths.STOP_NOW, paths.STOP)
        if not wait_until(lambda: not self._pauses(trial_id), ended, every=POLL_S):
            raise Interrupted("stopped while the study was paused: run the same command again to resume it")
        self._log.info("the study resumes")
        board.note("running")

    def remove(self, name: str) -> bool:
        """Remove an order; whether it was there. One that cannot be removed is not obeyed again."""
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            self._ignored.add(name)
            self._log.warning(f"control/{name} cannot be removed and is ignored from now on", reason=error.strerror)
            return False
        return True

    def _pauses(self, trial_id: str) -> bool:
        orders = self.look()
        return paths.PAUSE in orders and paths.PRUNE + trial_id not in orders

    def _is_void(self, name: str) -> bool:
        """Whether this is a `prune` file that cannot be obeyed; then it is removed."""
        match = PRUNE.fullmatch(name)
        if match is None:
            return False
        record = files.read_json(paths.trial_dir(self._experiments, match[1]) / paths.TRIAL)
        if record is None or record.get("study_id") != self._study_id:
            if self.remove(name):
                self._log.warning(f"control/{name} does not name a trial of this study: it is removed")
            return True
        if record.get("state") in FINISHED:
            if self.remove(name):
                self._log.info(f"the request to prune trial {record['number']} came too late: it is {record['state']}")
            return True
        return False


class Asked:
    """Whether a signal, or one of these orders, asks for a stop. Once it has, it stays so: the stop is under way."""

    def __init__(self, control: Control, orders: tuple[str, ...]) -> None:
        self._control, self._orders, self._seen = control, orders, False

    @property
    def requested(self) -> bool:
        self._seen = self._seen or self._control.signals.requested or not self._control.look().isdisjoint(self._orders)
        return self._seen
