"""What every screen says of the study: its name, state, progress, metric and best score; or why there is none."""

from rich.text import Text

from redsm5.engine.installed import command
from redsm5.engine.paths import PAUSE, PRUNE, STOP, STOP_NOW

from ..read.reader import Snapshot
from ..read.trials import score
from ..read.view import View
from .text import COMMAND, clean, interval, number, state, trials, value

READING = "reading the trials…"


def title(snapshot: Snapshot) -> Text:
    line = Text.assemble(("redsm5", "bold"), "   ")
    if snapshot.study is None:
        return line.append("single trials" if snapshot.trials else clean(str(snapshot.experiments)))
    line.append(clean(snapshot.study.name), "bold")
    if len(snapshot.studies) > 1:
        line.append(f" ({snapshot.studies.index(snapshot.study) + 1} of {len(snapshot.studies)})")
    return line


def status(snapshot: Snapshot) -> Text:
    """The study's state, pending control files, and its progress."""
    if snapshot.study is None:
        return Text(trials(len(snapshot.trials)) if snapshot.trials else "")
    if snapshot.reading:
        begun = snapshot.study.trials.finished + snapshot.study.trials.running
    else:
        begun = min(len(snapshot.trials) - snapshot.trials.counts["queued"], snapshot.trials.searched)
    line = state(snapshot.study.state)
    if snapshot.study.state == "running" and not snapshot.driven:  # killed, or its machine is gone
        line = Text("■ no driver", "yellow")
    if ordered := orders(snapshot):
        line.append(f" · {ordered}", "bold yellow")
    return line.append(f"   trial {begun:,} of {snapshot.study.trials.wanted:,}", "default")


def orders(snapshot: Snapshot) -> str:
    """The pending control files, in words."""
    if snapshot.study is None or snapshot.study.state == "completed":
        return ""
    if not snapshot.driven:
        return "a pause is ordered" if PAUSE in snapshot.orders else ""
    words = {STOP_NOW: "stopping now", STOP: "stops after this trial"}
    paused = snapshot.study.state == "paused" and not snapshot.trials.active
    words[PAUSE] = "as requested" if paused else "pausing"
    said = [words[name] for name in words if name in snapshot.orders]
    said += ["pruning" for name in snapshot.orders if name.startswith(PRUNE)][:1]
    return ", ".join(said)


def resume(snapshot: Snapshot) -> str:
    """The command that resumes the study, for a shell in the folder in which the app was started."""
    assert snapshot.study
    return clean(snapshot.study.resumed_by(snapshot.experiments), COMMAND)


def started(before: Snapshot, now: Snapshot) -> list[str]:
    """The names of the studies that are new since the snapshot before."""
    known = {study.study_id for study in before.studies}
    return [clean(s.name, 60) for s in now.studies if s.study_id not in known] if before.exists else []


def waits(snapshot: Snapshot) -> bool:
    """Whether the study can be resumed: it is paused or has no driver, and is not complete."""
    return bool(
        snapshot.study and snapshot.study.state != "completed" and (PAUSE in snapshot.orders or not snapshot.driven)
    )


def best(view: View) -> str:
    """The best trial, its interval, and how many others are within noise of it."""
    trial = view.snapshot.trials.best
    if trial is None:
        return READING if view.snapshot.reading else "no trial completed yet"
    said = f"best {value(score(trial))} · {number(trial)}"
    if bounds := view.standing.intervals.get(trial.trial_id):
        said += f" · {interval(bounds)}"
    return said + (f" · {len(view.standing.near)} within noise" if view.standing.near else "")


def metric(snapshot: Snapshot) -> str:
    return clean(snapshot.study.metric, 40) if snapshot.study else "objective"


def empty(snapshot: Snapshot) -> Text:
    if snapshot.error:
        return Text.assemble(
            f"{clean(str(snapshot.experiments))} cannot be read: {clean(snapshot.error)}.\n\n",
            "Fix its permissions, or use another folder: ",
            (command("tui", "--experiments", "DIR"), "bold"),
            justify="center",
        )
    return Text.assemble(
        f"No experiments in {clean(str(snapshot.experiments))} yet: run ",
        (f"`{clean(command('hpo', experiments=snapshot.experiments), COMMAND)}`", "bold"),
        "\n\nThis view fills once the first trial starts.",
        justify="center",
    )
