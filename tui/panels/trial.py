"""The Trial screen's panels as lines of text: state, configuration, checkpoints, system metrics."""

import math

from rich.text import Text

from redsm5.engine.installed import command

from ..read.detail import TrialDetail
from ..read.trials import score
from ..read.view import View
from . import study, text


def about(view: View, detail: TrialDetail, beside: TrialDetail | None = None) -> Text:
    """The trial's line: number, state, id, time, number of resumes, and its error."""
    trial, best = detail.record, view.snapshot.trials.best
    star = " ★" if best and best.trial_id == trial.trial_id else ""
    line = Text.assemble((f"trial {text.number(trial)}{star}", "bold"), "  ", text.state(trial.state))
    line.append(f"  epoch {trial.epoch}/{trial.epochs}  {text.running_time(trial, view.now)}")
    line.append(f"  best {text.value(score(trial))}  resumed {trial.resumes} times")
    if trial.trial_id in view.marked:
        line.append("  • marked", "bold yellow")
    if beside:
        line.append(f"  behind it: {text.number(beside.record)}", "magenta")
    line.append(f"  {text.clean(trial.trial_id, 60)}", text.DIM)
    if note := view.notes.get(trial.trial_id):
        line.append(f"  ✎ {text.clean(note)}", "bold")
    if trial.error:
        line.append(f"\n✗ {text.clean(trial.error.kind, 60)}: {text.clean(trial.error.message)}", "red")
        line.append(f"  → {remedy(view, detail)}", "bold")
    if detail.pruned and trial.state == "pruned":
        line.append(f"\n✂ {text.clean(detail.pruned)}", "yellow")
    if trial.duplicate_of:
        line.append(f"\nduplicate of {text.clean(trial.duplicate_of, 60)}, not trained again", "yellow")
    if trial.confirms:
        line.append(f"\nrepeat of {text.clean(trial.confirms, 60)}, to confirm its score", "yellow")
    for problem in detail.problems:
        line.append(f"\n! {text.clean(problem)}", "yellow")
    return line


def remedy(view: View, detail: TrialDetail) -> str:
    """What to do about a trial's error, by its kind."""
    error = detail.record.error
    kind = error.kind if error else ""
    experiments = view.snapshot.experiments
    clean_up = text.clean(command("cleanup", "--execute", experiments=experiments), text.COMMAND)
    if detail.record.state == "interrupted":
        if view.snapshot.study:
            return f"{study.resume(view.snapshot)} resumes it"
        alone = command("train", f"trial.id={detail.record.trial_id}", experiments=experiments)
        return f"{text.clean(alone, text.COMMAND)} resumes it"
    return {
        "not_finite": "lower train.learning_rate, or train.mixed_precision=no",
        "out_of_memory": "lower train.batch_size, and raise train.accumulation_steps to match",
        "timeout": "raise study.trial_timeout in a new study, or lower train.epochs",
        "disk": f"{clean_up}, or raise retention.max_total_size",
        "killed": "see logs/output.log in its folder; the system may have been out of memory",
    }.get(kind, "see its log below, and logs/output.log in its folder")


def configuration(detail: TrialDetail, best: TrialDetail | None) -> Text:
    """The configuration: first the differences from the reference, next to its values; then the parameters, then the
    rest.
    """
    config, other = detail.config, best.config if best and best is not detail else {}
    own = {"trial.id", "experiments", "train.seed"}
    keys = sorted(config.keys() | other.keys())
    differs = [k for k in keys if other and k not in own and config.get(k) != other.get(k)]
    same = [k for k in keys if k in config and k not in differs]
    searched = [k for k in same if k in detail.record.parameters]
    rest = [k for k in same if k not in searched and not k.startswith(("search.", "study."))]
    page = Text()
    for key in differs:
        page.append(f"* {text.parameter_name(key):<18.18}", "bold yellow")
        page.append(f" {text.parameter(config.get(key)):<14.14}")
        page.append(f" {text.parameter(other.get(key)):.14}\n", text.DIM)
    for key in searched:
        page.append(f"  {text.parameter_name(key):<18.18} ").append(f"{text.parameter(config[key])}\n", "bold")
    for key in rest:
        page.append(f"  {text.clean(key, 30):<30} {text.parameter(config[key])}\n", text.DIM)
    return page or Text("its config.json cannot be read", text.DIM)


def checkpoints(view: View, detail: TrialDetail) -> Text:
    """Each checkpoint with its score and size, whether it is kept, and why."""
    page = Text()
    best = detail.record.best
    for line in reversed(detail.checkpoints):
        star = "★" if best and line.bytes and line.score == best.value else " "
        there = f"{text.size(line.bytes)} {line.state}" if line.bytes else "–"
        style = "" if line.bytes else text.DIM
        page.append(f"{star} {text.clean(line.name, 16):<14} {text.value(line.score):>7}  {there:<16}", style)
        page.append(f"  {text.clock(line.timestamp, view.now)} {text.shorter(line.reason)}\n", text.DIM)
    if receipt := detail.receipt:
        gone = not any(line.bytes for line in detail.checkpoints)
        again = command("rebuild", detail.record.trial_id[:8], experiments=view.snapshot.experiments)
        rebuild = f"; {text.clean(again, text.COMMAND)} trains it again" if gone else ""
        page.append(f"trained in {text.duration(receipt.seconds)}{rebuild}\n", text.DIM)
    page.rstrip()
    return page or Text("no checkpoint yet", text.DIM)


def system(detail: TrialDetail) -> Text:
    """The machine's metrics: the last value, and a graph of the latest ones."""
    page = Text()
    for name, series in detail.series.items():
        if name.startswith("system_") and series.values:
            label, shown = measured(text.clean(name.removeprefix("system_"), 80), series.values[-1])
            lately = [v for v in series.values[-16:] if math.isfinite(v)]
            page.append(f"{label:<18.18}", text.DIM).append(f"{shown:>11} ").append(text.spark(lately), "cyan")
            page.append("\n")
    page.rstrip()
    return page


def measured(name: str, number: float) -> tuple[str, str]:
    """A metric's name without its unit, and the value with the unit at the end of its name."""
    for ending, write in (
        ("_bytes_per_second", lambda v: f"{text.size(v)}/s"),
        ("_bytes", text.size),
        ("_percent", lambda v: f"{v:.0f}%"),
        ("_per_second", lambda v: f"{text.value(v)}/s"),
        ("_seconds", lambda v: f"{text.value(v)} s"),
    ):
        if name.endswith(ending):
            return name.removesuffix(ending), write(number) if math.isfinite(number) else str(number)
    return name, text.value(number)
