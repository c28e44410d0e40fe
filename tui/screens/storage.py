"""The Storage screen: bytes by kind and trial, next evictions, reclaimable files, recent moves."""

import asyncio
from datetime import UTC, datetime
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static

from tui import control, machinepanels, panels, text
from tui.reader import Snapshot
from tui.screens.base import FolderScreen, head
from tui.storage import KINDS, used_over_time
from tui.view import View

MOST = 200  # the most lines of a list


class StorageScreen(FolderScreen):
    needs: ClassVar[str] = "storage"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "ask_cleanup", "Again"),
        Binding("K", "app.order('cleanup')", "Clean up", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, Any] | None = None
        self._said = "looking for reclaimable files…"
        self._asked_of: tuple[str, int] | None = None
        self._view: View | None = None

    def body(self) -> ComposeResult:
        with Container(id="storage-panels"):
            yield Static(id="gauge", classes="panel", markup=False)
            yield Static(id="kinds", classes="panel", markup=False)
            with VerticalScroll(id="next", classes="panel"):
                yield Static(id="next-text", markup=False)
            with VerticalScroll(id="moves", classes="panel"):
                yield Static(id="moves-text", markup=False)
            with VerticalScroll(id="largest", classes="panel"):
                yield Static(id="largest-text", markup=False)
            yield Static(id="machine", classes="panel", markup=False)

    def show(self, view: View) -> None:
        self._view = view
        study = view.snapshot.study.study_id if view.snapshot.study else ""
        if self._asked_of != (study, self.owner.cleanups):
            self._asked_of = study, self.owner.cleanups
            self.action_ask_cleanup()
        width = self.query_one("#gauge").size.width or 60
        now_ms = int(view.now.timestamp() * 1000)
        pending = (
            f"checked {view.storage.looked_at:,} of {len(view.snapshot.trials):,} trials"
            if view.storage.pending
            else ""
        )
        self.put("gauge", panels.storage(view.snapshot, view.storage, width, now_ms, chart=False), "budget", pending)
        self.put("kinds", kinds(view), f"by kind: {text.trials(len(view.storage.by_trial))}")
        self.put("next-text", going(self._found, self._said, view))
        head(self.query_one("#next"), "evicted next, in this order")
        panel = self.query_one("#moves")
        page, highest = moves(view, panel.size.width or 60, now_ms)
        self.put("moves-text", page)
        head(panel, "writes and prunes, 6 h", highest)
        self.put("largest-text", largest(view, self.query_one("#largest").size.width or 60))
        head(self.query_one("#largest"), "by study, by trial")
        machine = self.query_one("#machine")
        if machine.size.width:  # it fits on the screen
            lines = machinepanels.strip(view.machine, machine.size.width)
            self.put("machine", lines, machinepanels.title(view.machine))

    def action_ask_cleanup(self) -> None:
        self.run_worker(self._ask(), exclusive=True, group="cleanup")

    async def _ask(self) -> None:
        """Run `just cleanup` as a dry run in a separate process, since it opens every checkpoint."""
        try:
            self._found = await asyncio.to_thread(control.cleanup, self.owner.experiments)
        except OSError as error:
            self._found, self._said = None, f"cleanup failed: {text.clean(str(error))}"
        if self._view:
            self.show(self._view)


def kinds(view: View) -> Text:
    """The bytes of each kind as bars, relative to the largest."""
    found = view.storage.kinds
    top = max(found.values(), default=0) or 1
    page = Text()
    for kind in KINDS:
        amount = found.get(kind, 0)
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
    numbers = {f"trial_{t.trial_id}": text.number(t) for t in view.snapshot.trials}
    for item in left[:MOST]:
        page.append(f"  {_place(item, numbers):<26} {text.size(item['bytes']):>8}  ").append(
            f"{_why(item)}\n", text.DIM
        )
    evictable = [item for item in items if item.get("kind") == "evictable" and _trial(item) in numbers]
    for item in evictable[:MOST]:
        page.append(f"{item.get('order') or '':>3} ", "bold").append(
            f"{_place(item, numbers):<24} {text.size(item['bytes']):>8}  "
        )
        page.append(f"{_why(item)}\n", text.DIM)
    if len(evictable) > MOST:
        page.append(f"and {len(evictable) - MOST:,} more\n", text.DIM)
    if not evictable:
        page.append("nothing can be evicted: only best checkpoints and resume points are left", text.DIM)
    page.rstrip()
    return page


def _trial(item: dict[str, Any]) -> str:
    return next((part for part in str(item.get("path", "")).split("/") if part.startswith("trial_")), "")


def _place(item: dict[str, Any], numbers: dict[str, str]) -> str:
    trial = _trial(item)
    if not trial:  # a study's logs
        *_, folder, rest = ["", *str(item.get("path", "")).split("/")]
        return text.clean(f"study {folder.removeprefix('study_')[:8]} {rest}", 40)
    rest = str(item.get("path", "")).rsplit(f"{trial}/", 1)[-1].removeprefix("checkpoints/")
    name = numbers.get(trial) or text.clean(trial, 14)
    return text.clean(f"trial {name} {'checkpoints' if rest == 'checkpoints' else rest}", 40)


def _why(item: dict[str, Any]) -> str:
    return text.clean(str(item.get("reason", "")), 100)


def moves(view: View, width: int, now_ms: int) -> tuple[Text, str]:
    """The bytes over time with their maximum, and each write and deletion, newest first."""
    seen = view.storage
    if not seen.moves:
        return Text("no checkpoint was written or pruned in the last 6 hours", text.DIM), ""
    heights = used_over_time(view.snapshot.trials.bytes, seen.moves, now_ms, max(min(width - 2, 60), 4))
    page = Text.assemble((text.spark(heights), "cyan"), "\n")
    numbers = [*reversed(seen.moves)][:MOST]
    for move in numbers:
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
    page.append_text(_by_trial(view.snapshot, view.storage.by_trial, width))
    page.rstrip()
    return page


def _by_trial(snapshot: Snapshot, by_trial: dict[str, dict[str, int]], width: int) -> Text:
    """As many columns as fit; the smallest trials come last."""
    names = ("all", "weights", "resume", "logs", "other")[: max((width - 7) // 9, 1)]
    page = Text.assemble((f"{'trial':<7}" + "".join(f"{name:>9}" for name in names) + "\n", text.DIM))
    ranked = sorted(by_trial.items(), key=lambda item: -sum(item[1].values()))[:MOST]
    for trial_id, kinds in ranked:
        trial = snapshot.trials.by_id.get(trial_id)
        name = text.number(trial) if trial else "–"
        cells = [sum(kinds.values()), kinds["weights"], kinds["training state"], kinds["logs"]]
        cells.append(kinds["other"] + kinds["temporary"])
        page.append(f"{name:<7}" + "".join(f"{text.size(n):>9}" for n in cells[: len(names)]) + "\n")
    return page
