"""What can be ordered of the driver: what is asked before, what is done upon yes, and what is said then."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from redsm5 import paths
from tui import control, text
from tui.view import View

Do = Callable[[], object]

ORDERS = {
    "pause": ("Pause or go on", "The trial at work checkpoints; the driver waits"),
    "stop": ("End after this trial", "The search ends once the trial at work is over"),
    "stop-now": ("Stop now", "The trial at work checkpoints, and the search ends"),
    "prune": ("Prune the running trial", "It ends without a report, and the next one begins"),
    "cleanup": ("Run cleanup", "Delete what is left over: litter and orphans"),
}


def refusal(what: str, view: View) -> str:
    """Why this cannot be ordered now; empty where it can."""
    study, active = view.snapshot.study, view.snapshot.trials.active
    assert study
    if what in ("pause", "stop", "stop-now") and study.state == "completed":
        return "The study is done: nothing is running."
    if what in ("stop", "stop-now") and study.state != "running" and not active:
        return "Nothing is running."
    if what == "prune" and not active:
        return "No trial is running that could be pruned."
    return ""


def asked(what: str, view: View, experiments: Path, selected: str | None) -> tuple[str, Do, str]:
    """The question, what is done upon yes, and what is said then."""
    study = view.snapshot.study
    assert study
    give = partial(control.give, experiments, study.study_id)
    name = text.clean(study.name)
    if what == "pause" and paths.PAUSE in view.snapshot.orders:
        go_on = partial(control.take_back, experiments, study.study_id, paths.PAUSE)
        return f"Let {name} go on?", go_on, f"{name} goes on with the trial that it left."
    if what == "prune":
        active = view.snapshot.trials.active
        trial = next((t for t in active if t.trial_id == selected), active[0])
        question = f"Prune trial {text.number(trial)}, which is running? It ends without a report."
        return (
            question,
            partial(give, f"{paths.PRUNE}{trial.trial_id}"),
            "Ordered: the trial ends at its next step.",
        )
    if what == "cleanup":
        clean = partial(control.cleanup, experiments, "--execute")
        question = "Run cleanup? It deletes what is left over (see Storage); nothing that a trial needs."
        return question, clean, "Cleaned up"
    question, done = {
        "pause": (
            f"Pause {name}? The trial at work checkpoints and frees its device; p goes on.",
            "Ordered: the trial checkpoints at its next step.",
        ),
        "stop": (
            f"End {name} after the trial at work? `just hpo study.name={name}` goes on later.",
            "Ordered: the search ends after this trial.",
        ),
        "stop-now": (
            f"Stop {name} now? The trial at work checkpoints; `just hpo study.name={name}` goes on later.",
            "Ordered: the trial checkpoints at its next step, and the search ends.",
        ),
    }[what]
    return question, partial(give, what), done
