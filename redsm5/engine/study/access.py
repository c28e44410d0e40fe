"""Access to a study's data and to the Hugging Face Hub: checked before a study starts, waited for afterwards.

If a token expires during a search, no trial fails: the study is paused, logs the reason, asks the Hub every five
minutes, and resumes by itself.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from structlog.typing import FilteringBoundLogger

from redsm5 import hub
from redsm5.config import Config
from redsm5.data import FEW_POSITIVES, Splits, few_positives, load_learnable
from redsm5.engine import paths
from redsm5.engine.errors import HubAccessError, HubUnavailableError, Interrupted
from redsm5.engine.study.registry import Scoreboard, study_by_name
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.tracking.logs import open_logs
from redsm5.engine.waiting import Stop, wait_until
from redsm5.sections import CategoricalParameter

POLL_S = 300.0  # or what REDSM5_HUB_POLL_S says
AWAITED = (HubAccessError, HubUnavailableError)
AWAITED_KINDS = tuple(error.kind for error in AWAITED)


class CheckedData(NamedTuple):
    """What a study starts or resumes with.

    Attributes:
        config: as asked for.
        counts, fingerprint: of its posts and splits.
        remarks: what is to be said of them before the first trial, each with facts.
    """

    config: Config
    counts: dict[str, int]
    fingerprint: str
    remarks: list[tuple[str, dict[str, Any]]]


def check_data(config: Config, stop: StopRequest) -> CheckedData:
    """The study's data, after checking it and the access to its models.

    Raises:
        InputError: the data are not sound, or the study's record is damaged.
        HubError: the Hub does not give the data or a model. For these a study that has begun waits, as long as the Hub
            may yet give them.
        Interrupted: a signal came while it waited.
    """
    models = model_ids(config)
    while True:
        try:
            hub.check_access(config.data, models, config.model.revision)
            splits = load_learnable(config.data)
            remarks = _remarks(splits, config.data.group_duplicates)
            return CheckedData(config, splits.counts, splits.fingerprint, remarks)
        except AWAITED as error:
            experiments = Path(config.experiments)
            record = study_by_name(experiments, config.study.name)
            board = record and Scoreboard(experiments, record)
            if not board or not has_begun(board):
                raise
            log = open_logs(paths.study_dir(experiments, board.study.study_id) / paths.LOGS)
            wait_for_hub(error.message(), config, models, board, stop, log)


def _remarks(splits: Splits, together: bool) -> list[tuple[str, dict[str, Any]]]:
    remarks: list[tuple[str, dict[str, Any]]] = []
    if few := few_positives(splits):
        remarks.append((FEW_POSITIVES, few))
    if not together and (copies := splits.counts["duplicate_posts"]):
        told = "duplicates of a post may be in different splits, since data.group_duplicates is false"
        remarks.append((told, {"duplicate_posts": copies}))
    return remarks


def model_ids(config: Config) -> list[str]:
    """The models that the trials of this configuration may use."""
    searched = config.search.space.get("model.model_id")
    return [str(c) for c in searched.choices] if isinstance(searched, CategoricalParameter) else [config.model.model_id]


def has_begun(board: Scoreboard, *, but: str | None = None) -> bool:
    """Whether a trial of the study, other than this one, has ever been started."""
    return any(record.started_at for trial_id, record in board.trials.items() if trial_id != but)


def wait_for_hub(
    reason: str, config: Config, models: list[str], board: Scoreboard, stop: Stop, log: FilteringBoundLogger
) -> None:
    """Pause the study until the Hub gives access to the data of this configuration and to these models.

    Raises:
        Interrupted: a signal came, or an order to stop.
        HubError: the Hub says that what is needed is not there.
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
            hub.check_access(config.data, models, config.model.revision, tries=1)
        except AWAITED as error:
            reason = error.message()
        else:
            break
    log.info("the Hub grants access: the study resumes")
    board.note("running")
