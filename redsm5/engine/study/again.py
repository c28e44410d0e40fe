"""Trains a trial again from its snapshot, in another experiments folder."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, paths
from redsm5.engine.errors import Interrupted
from redsm5.engine.installed import quoted
from redsm5.engine.spec import StudySpec, validate
from redsm5.engine.study.launch import launch_trial
from redsm5.engine.study.outcomes import draw_report
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.study.trial import create_trial
from redsm5.engine.task import Task

C = TypeVar("C", bound=StudySpec)


def folder_for_repetitions(stack: ExitStack, into: Path | None) -> Path:
    """The experiments folder of the repetition: the one that a person names, or one that the stack removes."""
    folder = into or Path(stack.enter_context(TemporaryDirectory(prefix="redsm5-")))
    files.make_dir(folder)
    return folder


def saved_config(task: Task[C], experiments: Path, trial_id: str, data_dir: str | None, *changes: str) -> C:
    """The configuration of a trial, with its CSVs where they are now."""
    words = [f"trial.id={trial_id}", f"experiments={quoted(str(experiments))}", *changes]
    config = trial_config(task.spec, words)
    data: Any = getattr(config, "data", None)
    if not data_dir or data is None:
        return config
    moved = {**config.model_dump(), "data": {**data.model_dump(), "dir": data_dir}}
    return validate(type(config), moved)


def train_again(config: StudySpec, into: Path, task: Task[Any], stop: StopRequest, log: FilteringBoundLogger) -> Path:
    """Train a trial of this configuration in the experiments folder `into`, to its end; its folder.

    Raises:
        Interrupted: a stop was requested meanwhile.
    """
    again = validate(type(config), {**config.model_dump(), "experiments": str(into.absolute()), "trial": {"id": None}})
    trial_id = create_trial(again).trial_id
    folder = paths.trial_dir(into, trial_id)
    log.info("training the trial again", folder=str(folder))
    launch_trial(again, trial_id).attend(stop)
    draw_report(folder, task, log)
    if stop.requested:
        raise Interrupted("the repeated training was stopped; run the same command again to restart it")
    return folder
