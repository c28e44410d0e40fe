"""The Overview's panels as lines of text: pure functions of the snapshot and the time, so `--once` prints the same."""

from datetime import timedelta

from rich.text import Text

from redsm5.engine.paths import PAUSE, PRUNE, STOP, STOP_NOW
from redsm5.engine.records import TrialRecord
from tui import text
from tui.reader import Snapshot, score
from tui.storage import StorageView, used_over_time
from tui.text import DIM, clean, duration, number, parameter, parameter_name, size, state, time_of, trials, value
from tui.view import View


def title(snapshot: Snapshot) -> Text:
    line = Text.assemble(("redsm5", "bold"), "   ")
    if snapshot.study is None:
        return line.append("single trials" if snapshot.trials else clean(str(snapshot.experiments)))
    line.append(clean(snapshot.study.name), "bold")
    if len(snapshot.studies) > 1:
        line.append(f" ({snapshot.studies.index(snapshot.study) + 1} of {len(snapshot.studies)})", DIM)
    return line


def status(snapshot: Snapshot) -> Text:
    """The study's state, pending control files, and its progress."""
    if snapshot.study is None:
        return Text(trials(len(snapshot.trials)) if snapshot.trials else "")
    begun = len(snapshot.trials) - snapshot.trials.counts["queued"]
    line = state(snapshot.study.state)
    if ordered := orders(snapshot):
        line.append(f" · {ordered}", "bold yellow")
    return line.append(f"   trial {begun:,} of {snapshot.study.trials.wanted:,}", "default")


def orders(snapshot: Snapshot) -> str:
    """The pending control files, in words."""
    if snapshot.study is None or snapshot.study.state == "completed":
        return ""
    words = {STOP_NOW: "stopping now", STOP: "stops after this trial"}
    paused = snapshot.study.state == "paused" and not snapshot.trials.active
    words[PAUSE] = "as requested" if paused else "pausing"
    said = [words[name] for name in words if name in snapshot.orders]
    said += ["pruning" for name in snapshot.orders if name.startswith(PRUNE)][:1]
    return ", ".join(said)


def best(snapshot: Snapshot) -> str:
    trial = snapshot.trials.best
    if trial is None:
        return "no trial completed yet"
    return f"best {value(score(trial))} · {number(trial)}"


def metric(snapshot: Snapshot) -> str:
    return clean(snapshot.study.metric, 40) if snapshot.study else "objective"


def empty(snapshot: Snapshot) -> Text:
    if snapshot.error:
        return Text.assemble(
            f"{clean(str(snapshot.experiments))} cannot be read: {clean(snapshot.error)}.\n\n",
            "Fix its permissions, or use another folder: ",
            ("just tui --experiments DIR", "bold"),
            justify="center",
        )
    return Text.assemble(
        f"No experiments in {clean(str(snapshot.experiments))} yet: run ",
        ("`just hpo`", "bold"),
        "\n\nThis view fills once the first trial starts.",
        justify="center",
    )


# ---------------------------------------------------------------------------------------------------------------------
# storage


def gauge(snapshot: Snapshot, width: int) -> Text:
    """The used and the reserved bytes as shares of the budget."""
    budget = snapshot.budget
    if not budget:
        return Text(f"{size(snapshot.trials.bytes)} of checkpoints, no budget")
    used, reserved = snapshot.trials.bytes / budget, snapshot.reserved / budget
    full = max(round(width * min(max(used, 0.0), 1.0)), int(used > 0))
    held = max(round(width * min(max(used + reserved, 0.0), 1.0)) - full, 0)
    style = "red" if used > 0.95 else "yellow" if used > 0.8 else "green"
    return Text.assemble(
        ("█" * full, style),
        ("▓" * held, "cyan"),
        ("░" * max(width - full - held, 0), DIM),
        f"  {size(snapshot.trials.bytes)} of {size(budget)}",
    )


def storage(snapshot: Snapshot, seen: StorageView, width: int = 42, now_ms: int = 0, *, chart: bool = True) -> Text:
    page = gauge(snapshot, max(width - 22, 6))
    kinds = seen.kinds
    parts = [f"{name} {size(kinds[kind])}" for name, kind in _KINDS if kinds.get(kind)]
    if snapshot.reserved:
        parts.append(f"reserved {size(snapshot.reserved)}")
    if parts:
        page.append("\n" + "  ".join(parts))
    free = 100 * snapshot.disk_free / snapshot.disk_total if snapshot.disk_total else 0
    page.append(f"\ndisk {size(snapshot.disk_free)} free of {size(snapshot.disk_total)} ({free:.0f}%)")
    page.append("\n" + keep_all(snapshot, seen))
    if chart and seen.moves:
        heights = used_over_time(snapshot.trials.bytes, seen.moves, now_ms, max(width - 14, 10))
        page.append(f"\n{text.spark(heights)}", "cyan").append("  last hours"[: width - len(heights)], DIM)
    if snapshot.unreadable:
        page.append(f"\nunreadable: {clean(snapshot.unreadable[0].name, 30)}", "yellow")
        if len(snapshot.unreadable) > 1:
            page.append(f" and {len(snapshot.unreadable) - 1} more files", "yellow")
    return page


_KINDS = (("weights", "weights"), ("resume", "training state"), ("temporary", "temporary"))


def keep_all(snapshot: Snapshot, seen: StorageView) -> str:
    """The bytes if everything written had been kept, compared with the bytes on disk."""
    if seen.pending:
        return f"keep-all would hold: counting, {seen.looked_at:,} of {len(snapshot.trials):,} trials"
    less = 1 - snapshot.trials.bytes / seen.keep_all if seen.keep_all > 0 else 0.0
    return f"keep-all would hold {size(seen.keep_all)}" + (f": {less:.1%} less" if less > 0 else "")


# ---------------------------------------------------------------------------------------------------------------------
# pace, now, lately

STARTS_WITHIN_S = 60  # a queued trial; after that its driver counts as ended
PASSING = ("queued", "preparing", "finishing")  # states that the next one supersedes


def pace(view: View, *, words: bool = False) -> Text:
    """The trials' outcomes, the trials per hour since the first started, and when the study may be done."""
    snapshot, line = view.snapshot, Text()
    for name in ("completed", "pruned", "failed", "interrupted", "queued"):
        if count := snapshot.trials.counts[name]:
            line.append(f"{count:,} ").append_text(state(name, word=words)).append("   ")
    if not line:
        line.append("no trial has finished yet", DIM)
    ended, first, last = snapshot.trials.span
    hours = (time_of(last) - time_of(first)).total_seconds() / 3600 if first and last else 0.0
    if hours > 0:
        per_hour = ended / hours
        line.append(f"\n{per_hour:.1f} trials/h" if per_hour < 100 else f"\n{per_hour:,.0f} trials/h")
        left = snapshot.study.trials.wanted - ended if snapshot.study else 0
        if left > 0 and snapshot.trials.active and left / per_hour < 1e5:
            done = (view.now + timedelta(hours=left / per_hour)).astimezone()
            line.append(f"\ndone {done:%a %H:%M} in {duration(3600 * left / per_hour)}")
    for trial in snapshot.trials.active[:1]:
        if (detail := view.details.get(trial.trial_id)) and (stall := detail.series.get("system_save_stall_seconds")):
            line.append(f"\nlast save stalled {stall.values[-1]:.2f} s")
    return line


def leader(snapshot: Snapshot) -> Text:
    """The best trial and its parameters, one per line."""
    trial = snapshot.trials.best
    if trial is None or trial.best is None:
        return Text("no trial completed yet", DIM)
    page = Text.assemble((f"★ {number(trial)}", "bold"), f"  {value(trial.best.value)} after epoch {trial.best.epoch}")
    for key, setting in [*trial.parameters.items()][:50]:
        page.append(f"\n  {parameter(setting):<14}").append(f" {parameter_name(key)}", DIM)
    return page


def happening(view: View, most: int = 3) -> Text:
    """A running trial in three lines, or several in one line each; if none is running, the reason and
    what to do next.
    """
    active = view.snapshot.trials.active
    if not active:
        return Text(_idle(view))
    if len(active) == 1:
        return Text("\n").join(_at_work(view, active[0]))
    lines = [
        _at_work(view, trial)[0].append(f"  {value(trial.best.value)}" if trial.best else "") for trial in active[:most]
    ]
    if len(active) > most:
        lines.append(Text(f"and {len(active) - most} more running", DIM))
    return Text("\n").join(lines)


def _idle(view: View) -> str:
    snapshot = view.snapshot
    study, waiting = snapshot.study, snapshot.trials.counts["interrupted"]
    if study is None:
        return "Nothing is running."
    if study.state == "completed":
        return "The study is done. 4 shows the report of its best trial; `just summary` makes its page."
    if PAUSE in snapshot.orders:
        return "Paused as requested: p resumes it."
    queued = [t for t in snapshot.trials[-100:] if t.state == "queued"]
    if queued and (view.now - time_of(queued[-1].created_at)).total_seconds() < STARTS_WITHIN_S:
        return f"Trial {number(queued[-1])} is starting."
    held = f" {waiting} interrupted:" if waiting else ""
    return f"Nothing is running.{held} `just hpo study.name={clean(study.name)}` resumes it."


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


def overview(view: View, most: int = 10) -> str:
    """The overview as plain text, for --once."""
    snapshot = view.snapshot
    if snapshot.empty:
        return empty(snapshot).plain.split("\n")[0]
    lines = [
        f"{title(snapshot).plain}   {status(snapshot).plain}",
        f"{metric(snapshot)}: {best(snapshot)}",
        "",
        *(f"storage  {line}" for line in storage(snapshot, view.storage, chart=False).plain.split("\n")),
        *(f"pace     {line.rstrip()}" for line in pace(view, words=True).plain.split("\n")),
        "",
        "now",
        *(f"  {line}" for line in happening(view).plain.split("\n")),
    ]
    if snapshot.events:
        lines += ["", "lately", *(f"  {line.plain}" for line in lately(view)[:most])]
    return "\n".join(lines)
