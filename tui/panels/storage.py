"""The study's bytes: the budget, kinds and trials, what cleanup would free and evict next, recent moves."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from redsm5.engine.records import TrialRecord

from ..read.reader import Snapshot
from ..read.storage import KINDS, StorageView, used_over_time
from ..read.view import View
from . import text
from .study import READING
from .text import DIM, clean, size

MOST = 200  # the most lines of a list


def held(snapshot: Snapshot, seen: StorageView) -> int:
    """The bytes of all checkpoints: those counted with their kinds, or as recorded by the trials before."""
    return snapshot.trials.bytes if seen.held is None else seen.held


def gauge(snapshot: Snapshot, seen: StorageView, width: int) -> Text:
    """The used and the reserved bytes as shares of the budget."""
    budget, there = snapshot.budget, held(snapshot, seen)
    if not budget:
        return Text(f"{size(there)} of checkpoints, no budget")
    used, reserved = there / budget, snapshot.reserved / budget
    full = max(round(width * min(max(used, 0.0), 1.0)), int(used > 0))
    more = max(round(width * min(max(used + reserved, 0.0), 1.0)) - full, 0)
    style = "red" if used > 0.95 else "yellow" if used > 0.8 else "green"
    return Text.assemble(
        ("█" * full, style),
        ("▓" * more, "cyan"),
        ("░" * max(width - full - more, 0), DIM),
        f"  {size(there)} of {size(budget)}",
    )


def usage(snapshot: Snapshot, seen: StorageView, width: int = 42, now_ms: int = 0, *, chart: bool = True) -> Text:
    """The budget, the bytes by kind, the disk, and what keeping everything would take."""
    if snapshot.reading:
        return Text(READING)
    page = gauge(snapshot, seen, max(width - 22, 6))
    kinds = {} if seen.held is None else seen.kinds  # total and parts are of one count
    parts = [f"{name} {size(kinds[kind])}" for name, kind in _KINDS if kinds.get(kind)]
    if snapshot.reserved:
        parts.append(f"reserved {size(snapshot.reserved)}")
    if parts:
        page.append("\n" + "  ".join(parts))
    free = 100 * snapshot.disk_free / snapshot.disk_total if snapshot.disk_total else 0
    page.append(f"\ndisk {size(snapshot.disk_free)} free of {size(snapshot.disk_total)} ({free:.0f}%)")
    if said := keep_all(snapshot, seen):
        page.append(f"\n{said}")
    if chart and seen.moves:
        heights = used_over_time(held(snapshot, seen), seen.moves, now_ms, max(width - 14, 10))
        page.append(f"\n{text.spark(heights)}", "cyan").append("  last hours"[: width - len(heights)], DIM)
    if snapshot.unreadable:
        page.append(f"\nunreadable: {clean(snapshot.unreadable[0].name, 30)}", "yellow")
        if len(snapshot.unreadable) > 1:
            page.append(f" and {len(snapshot.unreadable) - 1} more files", "yellow")
    return page


_KINDS = (("weights", "weights"), ("resume", "training state"), ("temporary", "temporary"), ("elsewhere", "elsewhere"))


def keep_all(snapshot: Snapshot, seen: StorageView) -> str:
    """The bytes if everything written had been kept, compared with the bytes on disk; empty if nothing was written."""
    if seen.held is None:
        return f"keep-all would hold: counting, {seen.looked_at:,} of {len(snapshot.trials):,} trials"
    if not seen.keep_all:
        return ""
    here = seen.held or 0
    less = f"{1 - here / seen.keep_all:.1%}" if 0 < here < seen.keep_all else "0.0%"
    return f"keep-all would hold {size(seen.keep_all)}" + (f": {less} less" if less not in ("0.0%", "100.0%") else "")


def kinds(view: View) -> Text:
    """The bytes of each kind as bars, relative to the largest."""
    found = view.storage.kinds
    top = max(found.values(), default=0) or 1
    page = Text()
    for kind in KINDS:
        amount = found.get(kind, 0)
        if kind == "elsewhere" and not amount:
            continue
        page.append(f"{kind:<15}{text.size(amount):>9} ").append(text.fine_bar(amount / top, 12) + "\n", "cyan")
    page.rstrip()
    return page


def going(found: dict[str, Any] | None, said: str, view: View) -> Text:
    """The findings of cleanup: the bytes it would free, and what the budget would evict next."""
    if found is None:
        return Text(said, text.DIM)
    items = [item for item in found.get("items", []) if isinstance(item, dict)]
    left = [item for item in items if item.get("kind") in ("litter", "orphan")]
    freed = found.get("freed", 0)
    page = Text.assemble((f"cleanup would free {text.size(freed)}", "bold"))
    page.append("\n" if left else " (nothing to reclaim)\n")
    trials = view.snapshot.trials.by_id
    for item in left[:MOST]:
        page.append(f"  {_place(item, trials):<26} {text.size(item['bytes']):>8}  ").append(f"{_why(item)}\n", text.DIM)
    evictable = [item for item in items if item.get("kind") == "evictable" and _trial(item) in trials]
    for item in evictable[:MOST]:
        page.append(f"{item.get('order') or '':>3} ", "bold").append(
            f"{_place(item, trials):<24} {text.size(item['bytes']):>8}  "
        )
        page.append(f"{_why(item)}\n", text.DIM)
    if len(evictable) > MOST:
        page.append(f"and {len(evictable) - MOST:,} more\n", text.DIM)
    if not evictable:
        page.append("nothing can be evicted: only best checkpoints and resume points are left", text.DIM)
    page.rstrip()
    return page


def _trial(item: dict[str, Any]) -> str:
    """The id of the trial to which it belongs; empty if it is none's."""
    parts = str(item.get("path", "")).split("/")
    return next((part.removeprefix("trial_") for part in parts if part.startswith("trial_")), "")


def _place(item: dict[str, Any], trials: Mapping[str, TrialRecord]) -> str:
    trial = _trial(item)
    if not trial:  # a study's logs
        *_, folder, rest = ["", *str(item.get("path", "")).split("/")]
        return text.clean(f"study {folder.removeprefix('study_')[:8]} {rest}", 40)
    rest = str(item.get("path", "")).rsplit(f"trial_{trial}/", 1)[-1].removeprefix("checkpoints/")
    name = text.number(trials[trial]) if trial in trials else text.clean(f"trial_{trial}", 14)
    return text.clean(f"trial {name} {'checkpoints' if rest == 'checkpoints' else rest}", 40)


def _why(item: dict[str, Any]) -> str:
    return text.clean(str(item.get("reason", "")), 100)


def moves(view: View, width: int, now_ms: int) -> tuple[Text, str]:
    """The bytes over time with their maximum, and each write and deletion, newest first."""
    seen = view.storage
    if not seen.moves:
        return Text("no checkpoint was written or pruned in the last 6 hours", text.DIM), ""
    heights = used_over_time(held(view.snapshot, seen), seen.moves, now_ms, max(min(width - 2, 60), 4))
    page = Text.assemble((text.spark(heights), "cyan"), "\n")
    for move in reversed(seen.moves[-MOST:]):
        time = text.clock(_iso(move.time), view.now)
        sign, style = ("+", "green") if move.bytes > 0 else ("−", "yellow")
        number = "" if move.number is None else f"#{move.number}"
        page.append(f"{time} ", text.DIM).append(f"{sign}{text.size(abs(move.bytes)):>8}", style).append(
            f"  {number}\n"
        )
    page.rstrip()
    return page, f"highest {text.size(max(heights))}"


def _iso(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return ""


def largest(view: View, width: int) -> Text:
    """Each study's bytes according to its trials' records, then this study's trials by size."""
    page = Text()
    for study in view.snapshot.studies[-10:]:
        here = view.snapshot.study and study.study_id == view.snapshot.study.study_id
        amount = text.size(sum(view.storage.kinds.values())) if here else "s shows it"
        page.append(
            f"{'▸' if here else ' '} {text.clean(study.name, 24):<24} {amount:>10}\n", "bold" if here else text.DIM
        )
    page.append_text(_by_trial(view.snapshot, view.storage, width))
    page.rstrip()
    return page


def _by_trial(snapshot: Snapshot, seen: StorageView, width: int) -> Text:
    """As many columns as fit; the smallest trials come last."""
    names = ("all", "weights", "resume", "logs", "other")[: max((width - 7) // 9, 1)]
    page = Text.assemble((f"{'trial':<7}" + "".join(f"{name:>9}" for name in names) + "\n", text.DIM))
    for trial_id in seen.largest:
        kinds = seen.by_trial[trial_id]
        trial = snapshot.trials.by_id.get(trial_id)
        name = text.number(trial) if trial else "–"
        cells = [sum(kinds.values()), kinds["weights"], kinds["training state"], kinds["logs"]]
        cells.append(kinds["other"] + kinds["temporary"] + kinds["elsewhere"])
        page.append(f"{name:<7}" + "".join(f"{text.size(n):>9}" for n in cells[: len(names)]) + "\n")
    return page
