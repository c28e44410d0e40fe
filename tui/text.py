"""How things are written on the screen: numbers with units, states with symbols, panels as lines of text.

Everything here is a function of a snapshot and the time, so that `--once` prints what the screens show. Nothing is
parsed as markup, and control characters do not reach the terminal.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from rich.text import Text

from redsm5.records import Event, TrialRecord
from tui.reader import SETTLED, Snapshot

SYMBOLS = {
    "queued": "…",
    "preparing": "●",
    "running": "●",
    "finishing": "●",
    "completed": "✔",
    "failed": "✗",
    "pruned": "✂",
    "interrupted": "⏸",
    "paused": "⏸",
    "stopped": "■",
}
STYLES = {
    "preparing": "cyan",
    "running": "cyan",
    "finishing": "cyan",
    "completed": "green",
    "failed": "red",
    "pruned": "yellow",
    "interrupted": "magenta",
    "paused": "magenta",
}
DIM = "dim"
BAR = 20

# ---------------------------------------------------------------------------------------------------------------------
# words and numbers


def clean(text: str) -> str:
    """One line that the terminal shows as it stands."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def size(count: int) -> str:
    """Bytes in decimal units: 438 MB, 1.3 GB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{value:.1f} {unit}"


def trials(count: int) -> str:
    return f"{count} trial" if count == 1 else f"{count} trials"


def duration(seconds: float) -> str:
    """4:12, 1:04:12, 2 d 3 h."""
    minutes, s = divmod(max(0, int(seconds)), 60)
    hours, m = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def value(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"


def number(trial: TrialRecord | Event) -> str:
    return "–" if trial.number is None else f"#{trial.number}"


def parameter(setting: object) -> str:
    return f"{setting:.3g}" if isinstance(setting, float) else clean(str(setting))


def state(name: str, *, word: bool = True) -> Text:
    return Text(f"{SYMBOLS[name]} {name}" if word else SYMBOLS[name], STYLES.get(name, ""))


def time_of(timestamp: str) -> datetime:
    """A record's time; the epoch where it is not one."""
    try:
        return datetime.fromisoformat(timestamp)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def running_time(trial: TrialRecord, now: datetime) -> str:
    """From its start to its end, or until now."""
    if trial.started_at is None:
        return "–"
    end = time_of(trial.finished_at) if trial.finished_at else now
    return duration((end - time_of(trial.started_at)).total_seconds())


# ---------------------------------------------------------------------------------------------------------------------
# panels


def title(snapshot: Snapshot) -> Text:
    line = Text.assemble(("redsm5", "bold"), "   ")
    if snapshot.study is None:
        return line.append("single trials" if snapshot.trials else str(snapshot.experiments))
    line.append(clean(snapshot.study.name), "bold")
    if len(snapshot.studies) > 1:
        line.append(f" ({snapshot.studies.index(snapshot.study) + 1} of {len(snapshot.studies)})", DIM)
    return line


def status(snapshot: Snapshot) -> Text:
    """State of the study, and how far it is."""
    if snapshot.study is None:
        return Text(trials(len(snapshot.trials)) if snapshot.trials else "")
    begun = sum(count for name, count in snapshot.counts.items() if name != "queued")
    return state(snapshot.study.state).append(f"   trial {begun} of {snapshot.study.trials.wanted}", "default")


def best(snapshot: Snapshot) -> str:
    trial = snapshot.best
    if trial is None or trial.best is None:
        return "no trial completed yet"
    return f"best {value(trial.best.value)} · {number(trial)}"


def metric(snapshot: Snapshot) -> str:
    return clean(snapshot.study.metric) if snapshot.study else "objective"


def empty(snapshot: Snapshot) -> Text:
    return Text.assemble(
        f"No experiments in {snapshot.experiments} yet: run ",
        ("`just hpo`", "bold"),
        "\n\nThis view fills by itself once the first trial begins.",
        justify="center",
    )


def storage(snapshot: Snapshot) -> Text:
    free = 100 * snapshot.disk_free / snapshot.disk_total if snapshot.disk_total else 0
    lines = [
        f"{size(snapshot.bytes)} of checkpoints, {trials(sum(t.bytes > 0 for t in snapshot.trials))}",
        f"disk {size(snapshot.disk_free)} free of {size(snapshot.disk_total)} ({free:.0f}%)",
    ]
    if snapshot.unreadable:
        lines.append(f"unreadable files: {snapshot.unreadable}")
    return Text("\n".join(lines))


def pace(snapshot: Snapshot, now: datetime, *, words: bool = False) -> Text:
    """How the trials ended, how many an hour since the first began, and when the study may be done."""
    line = Text()
    for name in ("completed", "pruned", "failed", "interrupted", "queued"):
        if snapshot.counts[name]:
            line.append(f"{snapshot.counts[name]} ").append_text(state(name, word=words)).append("   ")
    if not line:
        line.append("no trial has ended yet", DIM)
    ended = [time_of(t.finished_at) for t in snapshot.trials if t.state in SETTLED and t.finished_at]
    began = [time_of(t.started_at) for t in snapshot.trials if t.started_at]
    hours = (max(ended) - min(began)).total_seconds() / 3600 if ended and began else 0.0
    if hours > 0:
        per_hour = len(ended) / hours
        line.append(f"\n{per_hour:.1f} trials/h" if per_hour < 100 else f"\n{per_hour:.0f} trials/h")
        left = snapshot.study.trials.wanted - len(ended) if snapshot.study else 0
        if left > 0 and snapshot.active():
            line.append(f", done about {(now + timedelta(hours=left / per_hour)).astimezone():%a %H:%M}")
    return line


def leader(snapshot: Snapshot) -> Text:
    """The best trial and what it was made with, a parameter a line."""
    trial = snapshot.best
    if trial is None or trial.best is None:
        return Text("no trial completed yet", DIM)
    page = Text.assemble((f"★ {number(trial)}", "bold"), f"  {value(trial.best.value)} after epoch {trial.best.epoch}")
    for key, setting in trial.parameters.items():
        page.append(f"\n  {parameter(setting):<14}").append(f" {key}", DIM)
    return page


def happening(snapshot: Snapshot, now: datetime, most: int = 3) -> Text:
    """The trial at work in three lines, or several in one each; where there is none, why, and what to do next."""
    active = snapshot.active()
    if not active:
        return Text(_idle(snapshot))
    if len(active) == 1:
        return Text("\n").join(_at_work(snapshot, active[0], now))
    lines = [
        _at_work(snapshot, trial, now)[0].append(f"  {value(trial.best.value)}" if trial.best else "")
        for trial in active[:most]
    ]
    if len(active) > most:
        lines.append(Text(f"and {len(active) - most} more at work", DIM))
    return Text("\n").join(lines)


def _idle(snapshot: Snapshot) -> str:
    study, waiting = snapshot.study, snapshot.counts["interrupted"]
    if study is None:
        return "Nothing is running."
    if study.state == "completed":
        return "The study is done; each trial's evaluation_report.json says how it did."
    held = f" {waiting} interrupted:" if waiting else ""
    return f"Nothing is running.{held} `just hpo study.name={clean(study.name)}` goes on."


def _at_work(snapshot: Snapshot, trial: TrialRecord, now: datetime) -> list[Text]:
    share = trial.epoch / trial.epochs if trial.epochs else 0.0
    full = round(BAR * share)
    head = Text.assemble(
        state(trial.state, word=False),
        (f" {number(trial)}", "bold"),
        f"  {trial.state}  epoch {trial.epoch} of {trial.epochs} ",
        ("━" * full, "cyan"),
        ("─" * (BAR - full), DIM),
        f" {share:4.0%}",
    )
    scores = Text("  ")
    row = snapshot.latest.get(trial.trial_id)
    if row:
        ago = (now - time_of(row.timestamp)).total_seconds()
        scores.append(f"{clean(row.metric)} {value(row.value)} at epoch {row.epoch}, {duration(ago)} ago")
    if trial.best:
        scores.append(f"{' · ' if row else ''}best here {value(trial.best.value)}, epoch {trial.best.epoch}")
    if not row and not trial.best:
        scores.append("no score yet", DIM)
    settings = " · ".join(f"{key.rsplit('.', 1)[-1]} {parameter(v)}" for key, v in trial.parameters.items())
    return [head, scores, Text(f"  {settings}", DIM)] if settings else [head, scores]


def lately(events: Iterable[Event], today: datetime) -> list[Text]:
    """The events, newest first, with the local time, and the day where it is another one."""
    lines = []
    for event in reversed([*events]):
        at = time_of(event.timestamp).astimezone()
        day = "" if at.date() == today.astimezone().date() else f"{at:%b %d} "
        line = Text.assemble((f"{day}{at:%H:%M:%S}", DIM), f"  {number(event):>5}  ", state(event.state))
        lines.append(line.append(f": {clean(event.message)}", "default") if event.message else line)
    return lines


def overview(snapshot: Snapshot, now: datetime, most: int = 10) -> str:
    """The overview as plain text, for a terminal that is no screen."""
    if snapshot.empty:
        return empty(snapshot).plain.split("\n")[0]
    lines = [
        f"{title(snapshot).plain}   {status(snapshot).plain}",
        f"{metric(snapshot)}: {best(snapshot)}",
        "",
        *(f"storage  {line}" for line in storage(snapshot).plain.split("\n")),
        *(f"pace     {line.rstrip()}" for line in pace(snapshot, now, words=True).plain.split("\n")),
        "",
        "now",
        *(f"  {line}" for line in happening(snapshot, now).plain.split("\n")),
    ]
    if snapshot.events:
        lines += ["", "lately", *(f"  {line.plain}" for line in lately(snapshot.events, now)[:most])]
    return "\n".join(lines)
