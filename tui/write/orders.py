"""Control of the driver from the app: the question before, the action on yes, and the message afterwards."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from redsm5.engine import paths

from ..panels import study as study_panel
from ..panels import text
from ..read.view import View
from . import control

Do = Callable[[], object]

ORDERS = {
    "pause": ("Pause or resume", "The running trial saves a checkpoint; the driver waits"),
    "stop": ("End after this trial", "The search ends after the running trial"),
    "stop-now": ("Stop now", "The running trial saves a checkpoint, and the search ends"),
    "prune": ("Prune the running trial", "It ends without a report, and the next trial starts"),
    "cleanup": ("Run cleanup", "Delete reclaimable files: litter and orphans"),
}


def refusal(what: str, view: View) -> str:
    """Why this order cannot be given now; empty if it can."""
    study, active = view.snapshot.study, view.snapshot.trials.active
    assert study
    if what in ("pause", "stop", "stop-now") and study.state == "completed":
        return "The study is done: nothing is running."
    if what != "cleanup" and not view.snapshot.driven:
        return f"Nothing runs {text.clean(study.name)}, so nothing would obey. p copies the command that resumes it."
    if what == "prune" and not active:
        return "No running trial to prune."
    return ""


def resumption(view: View) -> tuple[str, str]:
    """For a study that nothing runs: the question whether to copy the command that resumes it, and that command."""
    assert view.snapshot.study
    command = study_panel.resume(view.snapshot)
    question = f"Nothing runs {text.clean(view.snapshot.study.name)}. Copy the command that resumes it?\n\n{command}"
    if paths.PAUSE in view.snapshot.orders:
        question += "\n\nA pause is still ordered, and the search would wait: "
        question += "it is taken back." if view.writable else "remove control/pause in the study's folder first."
    return question, command


def asked(what: str, view: View, experiments: Path, selected: str | None) -> tuple[str, Do, str]:
    """The question, the action on yes, and the message afterwards."""
    study = view.snapshot.study
    assert study
    give = partial(control.give, experiments, study.study_id)
    name, again = text.clean(study.name), study_panel.resume(view.snapshot)
    if what == "pause" and paths.PAUSE in view.snapshot.orders:
        go_on = partial(control.take_back, experiments, study.study_id, paths.PAUSE)
        return f"Resume {name}?", go_on, f"{name} resumes its interrupted trial."
    if what == "prune":
        active = view.snapshot.trials.active
        trial = next((t for t in active if t.trial_id == selected), active[0])
        question = f"Prune the running trial {text.number(trial)}? It ends without a report."
        return (
            question,
            partial(give, f"{paths.PRUNE}{trial.trial_id}"),
            "Requested: the trial ends at its next step.",
        )
    if what == "cleanup":
        clean = partial(control.cleanup, experiments, "--execute")
        question = "Run cleanup? It deletes reclaimable files (see Storage), and nothing that a trial needs."
        return question, clean, "Cleaned up"
    question, done = {
        "pause": (
            f"Pause {name}? The running trial saves a checkpoint and frees its device; p resumes.",
            "Requested: the trial saves a checkpoint at its next step.",
        ),
        "stop": (
            f"End {name} after the running trial? `{again}` resumes it later.",
            "Requested: the search ends after this trial.",
        ),
        "stop-now": (
            f"Stop {name} now? The running trial saves a checkpoint; `{again}` resumes it later.",
            "Requested: the trial saves a checkpoint at its next step, and the search ends.",
        ),
    }[what]
    return question, partial(give, what), done
