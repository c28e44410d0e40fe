"""The Overview's panels as lines of text: pure functions of the snapshot and the time, so `--once` prints the same."""

from datetime import timedelta
from textwrap import fill

from rich.text import Text

from redsm5.engine.installed import command
from redsm5.engine.paths import PAUSE
from redsm5.engine.records import TrialRecord

from ..read.reader import Snapshot
from ..read.view import View
from . import text
from .storage import usage
from .study import READING, best, empty, metric, resume, status, title
from .text import COMMAND, DIM, clean, duration, number, parameter, parameter_name, state, time_of, value

LONGEST_LEFT_S = 1e8  # three years: beyond it nothing is told
PASSING = ("queued", "preparing", "finishing")  # states that the next one supersedes


def pace(view: View, *, words: bool = False) -> Text:
    """The trials' outcomes, the trials per hour of work, and when the study may be done."""
    snapshot, line = view.snapshot, Text()
    for name in ("completed", "pruned", "failed", "paused", "interrupted", "queued"):
        if count := snapshot.trials.counts[name]:
            line.append(f"{count:,} ").append_text(state(name, word=words)).append("   ")
    if not line:
        line.append(READING if snapshot.reading else "no trial has finished yet", DIM)
    if left := snapshot.time_left:
        told = []
        if (per_hour := left.trials_per_hour) is not None:
            told.append(f"{per_hour:.1f} trials/h" if per_hour < 100 else f"{per_hour:,.0f} trials/h")
        if ends := left.seconds > 0 and snapshot.trials.active and left.high < LONGEST_LEFT_S:
            told.append(f"in {duration(left.seconds)}")
        line.append("\n" + " · ".join(told) if told else "")
        if ends:
            first, last = ((view.now + timedelta(seconds=s)).astimezone() for s in (left.low, left.high))
            line.append(f"\ndone {first:%a %H:%M} to {last:{'%H:%M' if first.date() == last.date() else '%a %H:%M'}}")
    for trial in snapshot.trials.active[:1]:
        if (detail := view.details.get(trial.trial_id)) and (stall := detail.series.get("system_save_stall_seconds")):
            line.append(f"\nlast save stalled {stall.values[-1]:.2f} s")
    return line


def leader(view: View, width: int = 0) -> Text:
    """The best trial, what to know of its score, and its parameters, one per line.

    Args:
        width: at which sentences go on in the next line; 0: nowhere.
    """
    trial = view.snapshot.trials.best
    if trial is None or trial.best is None:
        return Text(READING if view.snapshot.reading else "no trial completed yet", DIM)
    page = Text.assemble((f"★ {number(trial)}", "bold"), f"  {value(trial.best.value)} after epoch {trial.best.epoch}")
    for sentence in view.standing.remarks:
        page.append("\n" + (fill(sentence, width, subsequent_indent="  ") if width else sentence), "yellow")
    for key, setting in [*trial.parameters.items()][:50]:
        page.append(f"\n  {parameter(setting):<14}").append(f" {parameter_name(key)}", DIM)
    return page


def happening(view: View, most: int = 3) -> Text:
    """A running trial in three lines, or several in one line each; if none is running, the reason and
    what to do next.
    """
    active = view.snapshot.trials.active
    if not active or (view.snapshot.study and not view.snapshot.driven):
        return Text(_idle(view.snapshot))
    if len(active) == 1:
        return Text("\n").join(_at_work(view, active[0]))
    lines = [
        _at_work(view, trial)[0].append(f"  {value(trial.best.value)}" if trial.best else "") for trial in active[:most]
    ]
    if len(active) > most:
        lines.append(Text(f"and {len(active) - most} more running", DIM))
    return Text("\n").join(lines)


def _idle(snapshot: Snapshot) -> str:
    study, trials = snapshot.study, snapshot.trials
    if study is None:
        return "Nothing is running."
    if snapshot.reading:
        return READING
    if study.state == "completed":
        page = clean(command("summary", study.name, experiments=snapshot.experiments), COMMAND)
        return f"The study is done. 4 shows the report of its best trial.\n  {page}"
    if snapshot.driven:
        if PAUSE in snapshot.orders:
            return "Paused as requested: p resumes it."
        waiting = [trial for trial in trials if trial.state == "queued"] or [
            trial for trial in trials if trial.state == "interrupted"
        ]
        return f"Trial {number(waiting[-1])} is starting." if waiting else "The driver is starting a trial."
    held = trials.counts["interrupted"] + len(trials.active)  # those that were killed still claim to run
    paused = "\nA pause is still ordered: p takes it back." if PAUSE in snapshot.orders else ""
    waits = f" {held:,} interrupted." if held else ""
    return f"Nothing is running.{waits} To resume it:\n  {resume(snapshot)}{paused}"


def _at_work(view: View, trial: TrialRecord) -> list[Text]:
    share = trial.epoch / trial.epochs if trial.epochs else 0.0
    head = Text.assemble(
        state(trial.state, word=False),
        (f" {number(trial)}", "bold"),
        f"  {trial.state}  epoch {trial.epoch} of {trial.epochs} ",
        text.bar(share, 20),
        f" {share:4.0%}",
    )
    scores = Text("  ")
    row = view.snapshot.latest.get(trial.trial_id)
    if row:
        ago = (view.now - time_of(row.timestamp)).total_seconds()
        scores.append(f"{clean(row.metric)} {value(row.value)} at epoch {row.epoch}, {duration(ago)} ago")
    if trial.best:
        scores.append(f"{' · ' if row else ''}best here {value(trial.best.value)}, epoch {trial.best.epoch}")
    if not row and not trial.best:
        scores.append("no score yet", DIM)
    settings = " · ".join(f"{parameter_name(key)} {parameter(v)}" for key, v in [*trial.parameters.items()][:50])
    return [head, scores, Text(f"  {settings}", DIM)] if settings else [head, scores]


def lately(view: View) -> list[Text]:
    """The latest outcomes of trials, and actions on the running trial's checkpoints, newest first."""
    lines: list[tuple[str, Text]] = []
    for event in view.snapshot.events:
        if event.state in PASSING:
            continue
        line = Text.assemble(f"{number(event):>5}  ", state(event.state))
        lines.append((event.timestamp, line.append(f": {clean(event.message)}") if event.message else line))
    for trial in view.snapshot.trials.active:
        for told in view.details[trial.trial_id].checkpoints[-20:] if trial.trial_id in view.details else ():
            what = f"{number(trial):>5}  {clean(told.name, 20)} {told.state}: {text.shorter(told.reason, 100)}"
            lines.append((told.timestamp, Text(what)))
    lines.sort(key=lambda pair: pair[0], reverse=True)
    return [Text.assemble((text.clock(time, view.now), DIM)).append_text(line) for time, line in lines]


def page(view: View, most: int = 10) -> str:
    """The overview as plain text, for --once."""
    snapshot = view.snapshot
    if snapshot.empty:
        return empty(snapshot).plain.split("\n")[0]
    lines = [
        f"{title(snapshot).plain}   {status(snapshot).plain}",
        f"{metric(snapshot)}: {best(view)}",
        *(clean(sentence, 400) for sentence in view.standing.remarks),
        "",
        *(f"storage  {line}" for line in usage(snapshot, view.storage, chart=False).plain.split("\n")),
        *(f"pace     {line.rstrip()}" for line in pace(view, words=True).plain.split("\n")),
        "",
        "now",
        *(f"  {line}" for line in happening(view).plain.split("\n")),
    ]
    if snapshot.events:
        lines += ["", "lately", *(f"  {line.plain}" for line in lately(view)[:most])]
    return "\n".join(lines)
