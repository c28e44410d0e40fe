"""Orders to the drivers of a study: files in its folder `control/`, whose names alone count.

- `stop`: no other trial is started once the one at hand has ended.
- `stop-now`: as a SIGTERM to the driver; the trial at hand saves at its next step.
- `pause`: while the file is there, no trial trains; then the same one goes on.
- `prune-<uuid>`: this trial ends where it is, as pruned, and the next one begins.

Each worker of a study obeys the first three, so their files stay until all have: `pause` until it is removed by who
wrote it, the others until the last worker has ended, or a first one starts anew. An order to prune goes once it has
been carried out, or cannot be any more.
"""

import os
import re
import time
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from redsm5 import files, paths
from redsm5.errors import Interrupted, LockedError
from redsm5.records import FINISHED
from redsm5.study.registry import Scoreboard
from redsm5.study.signals import Stop

POLL_S = 0.5
BY_HAND = "ordered by hand"  # why a trial was pruned
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
        self._workers = files.Lock(study / paths.CLAIMS / "workers.lock", shared=True)
        self._ignored: set[str] = set()
        self._log = log

    def enter(self) -> None:
        """Become a worker of the study; the first one is newer than any order to stop.

        The caller holds the study's lock, so that no two come or go at once.

        Raises:
            LockedError: the file system has no locks, and another worker is at the study.
        """
        with files.try_lock(self._workers.path) as alone:
            for name in (paths.STOP, paths.STOP_NOW) if alone else ():
                if self.remove(name):
                    self._log.info(f"control/{name} was there before this start, which is newer: it is removed")
        # It is held exclusively only under the study's lock, or by a mark, which cannot be shared.
        if not self._workers.acquire(timeout_s=2.0):
            raise LockedError(
                "another worker is at this study, and on a file system without locks there can be only one",
                where=str(self.folder.parent),
                remedy=f"Wait for it to end; if it ended with its machine, remove {self._workers.mark}. For several "
                "workers, put the experiments folder on a file system with locks: `just doctor` tests one.",
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
        """The names of the orders that stand. Orders to prune what is finished or unknown are removed meanwhile."""
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
        self._log.warning(
            "the study is paused, as ordered: remove this file, or press p in `just tui`, and it goes on",
            file=str(self.folder / paths.PAUSE),
        )
        ended = self.asked(paths.STOP_NOW, paths.STOP)
        while self._pauses(trial_id):
            if ended.requested:
                raise Interrupted("stopped while the study was paused: run the same command again to go on")
            time.sleep(POLL_S)
        self._log.info("the study goes on")
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
        """Whether this is an order to prune that nobody can carry out; then it is removed."""
        match = PRUNE.fullmatch(name)
        if match is None:
            return False
        record = files.read_json(paths.trial_dir(self._experiments, match[1]) / paths.TRIAL)
        if record is None or record.get("study_id") != self._study_id:
            if self.remove(name):
                self._log.warning(f"control/{name} names no trial of this study: it is removed")
            return True
        if record.get("state") in FINISHED:
            if self.remove(name):
                self._log.info(f"the order to prune trial {record['number']} came too late: it is {record['state']}")
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
