"""A study's data, checked before it starts; if a server refuses them later, the study is paused until it gives access.

No trial fails because a token expires during a search: the study logs the reason, asks every five minutes, and resumes
by itself.
"""

import os
from pathlib import Path
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from redsm5.engine import paths
from redsm5.engine.errors import HubAccessError, HubUnavailableError, Interrupted
from redsm5.engine.spec import StudySpec
from redsm5.engine.study.registry import Scoreboard, study_by_name
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.task import CheckedData, Task
from redsm5.engine.tracking.logs import open_logs
from redsm5.engine.waiting import Stop, wait_until

C = TypeVar("C", bound=StudySpec)

POLL_S = 300.0  # or what REDSM5_HUB_POLL_S says
AWAITED = (HubAccessError, HubUnavailableError)
AWAITED_KINDS = tuple(error.kind for error in AWAITED)


def check_data(task: Task[C], config: C, stop: StopRequest) -> CheckedData:
    """The study's data, after checking them and the access to all that its trials read.

    Raises:
        InputError: the data are not sound, or the study's record is damaged.
        HubError: a server does not give what is needed. For this a study that has begun waits, as long as the server
            may yet give it.
        Interrupted: a signal came while it waited.
    """
    while True:
        try:
            return task.check_data(config)
        except AWAITED as error:
            experiments = Path(config.experiments)
            record = study_by_name(experiments, config.study.name)
            board = record and Scoreboard(experiments, record)
            if not board or not has_begun(board):
                raise
            log = open_logs(paths.study_dir(experiments, board.study.study_id) / paths.LOGS)
            wait_for_access(error.message(), task, config, board, stop, log)


def has_begun(board: Scoreboard, *, but: str | None = None) -> bool:
    """Whether a trial of the study, other than this one, has ever been started."""
    return any(record.started_at for trial_id, record in board.trials.items() if trial_id != but)


def wait_for_access(
    reason: str, task: Task[C], config: C, board: Scoreboard, stop: Stop, log: FilteringBoundLogger
) -> None:
    """Pause the study until there is access to all that this configuration reads.

    Raises:
        Interrupted: a signal came, or an order to stop.
        HubError: the server says that what is needed is not there.
    """
    poll_s = float(os.environ.get("REDSM5_HUB_POLL_S", POLL_S))
    board.note("paused")
    warned = None
    while True:
        if reason != warned:
            log.warning(
                "the study is paused; it resumes by itself once the Hub grants access", reason=reason, every_s=poll_s
            )
            warned = reason
        if wait_until(lambda: stop.requested, timeout=poll_s, every=0.2):
            raise Interrupted("stopped while the study was paused: run the same command again to resume it")
        try:
            task.check_access(config)
        except AWAITED as error:
            reason = error.message()
        else:
            break
    log.info("the Hub grants access: the study resumes")
    board.note("running")
