"""The app: keys, screens, and the snapshot of the folder that all screens show, refreshed every second."""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Thread, Timer
from time import monotonic
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, InputEvent
from textual.reactive import reactive
from textual.screen import Screen

from redsm5.engine import paths

from .host import Host
from .panels import text
from .panels.study import started
from .read.look import Looker, Wanted
from .read.reader import Snapshot
from .read.view import View
from .screens.base import FolderScreen
from .screens.compare import CompareScreen
from .screens.confirm import ConfirmScreen
from .screens.help import HelpScreen
from .screens.machine import MachineScreen
from .screens.note import NoteScreen
from .screens.overview import OverviewScreen
from .screens.parameters import ParametersScreen
from .screens.report import ReportScreen
from .screens.storage import StorageScreen
from .screens.studies import StudiesScreen
from .screens.trial import TrialScreen
from .screens.trials import TrialsScreen
from .widgets.colours import LIGHT
from .write import control, export
from .write.memory import Here, Memory
from .write.orders import ORDERS, Do, asked, refusal, resumption

POLL_S = 1.0
LAST_S = 0.6  # until the app ends after a signal or a hangup, whatever does not answer
SAVE_S = 1.0  # between two checks for changes to save
MOST_MARKED = 8
BACKGROUND_S, FOREGROUND_S = 0.15, 0.3  # time for counting bytes in each second
HURRIED_S = 0.01  # the same, while the user waits for the snapshot
SWITCHED_S = 0.01  # until another screen is painted
NEVER = 1_000_000  # collections of the middle generation: no automatic full collection
COLLECT_S, IDLE_S = 60.0, 5.0  # between two full garbage collections; time without a key before one


class TerminalApp(App[None]):
    """Shows one experiments folder, which may vanish and come back. With `read_only`, it gives no orders."""

    TITLE = "redsm5"
    CSS_PATH = "app.tcss"
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "overview": OverviewScreen,
        "trials": TrialsScreen,
        "trial": TrialScreen,
        "report": ReportScreen,
        "storage": StorageScreen,
        "compare": CompareScreen,
        "parameters": ParametersScreen,
        "machine": MachineScreen,
        "studies": StudiesScreen,
    }
    DEFAULT_MODE = "overview"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(key), f"switch_mode('{mode}')", mode.capitalize()) for key, mode in enumerate(MODES, 1)),
        Binding("s", "next_study", "Study", show=False),
        Binding("p", "order('pause')", "Pause or resume", show=False),
        Binding("e", "order('stop')", "End after this trial", show=False),
        Binding("E", "order('stop-now')", "Stop now", show=False),
        Binding("x", "order('prune')", "Prune the trial", show=False),
        Binding("K", "order('cleanup')", "Clean up", show=False),
        Binding("c", "copy('id')", "Copy id", show=False),
        Binding("C", "copy('path')", "Copy path", show=False),
        Binding("P", "pin", "Pin", show=False),
        Binding("M", "unmark", "Clear marks", show=False),
        Binding("t", "theme", "Light or dark", show=False),
        Binding("S", "picture", "Screenshot", show=False),
        Binding("less_than_sign", "widen(4)", "Wider", show=False, key_display="<"),
        Binding("greater_than_sign", "widen(-4)", "Narrower", show=False, key_display=">"),
        Binding("0", "widen(0)", "Default width", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    view: reactive[View | None] = reactive(None, always_update=True)

    def __init__(self, experiments: Path, *, read_only: bool = False) -> None:
        super().__init__()
        self.experiments, self.read_only = experiments, read_only
        self._looker = Looker(experiments)
        self.memory = Memory(experiments)
        here = self.memory.here
        self._study_id, self._selected, self._pinned, self._marked = here.study, here.trial, here.pinned, [*here.marked]
        self._hurry = asyncio.Event()
        self._remembers, self._touched = True, monotonic()
        self.cleanups = 0  # cleanups done; each makes earlier findings out of date

    # -----------------------------------------------------------------------------------------------------------------
    # looking

    def on_mount(self) -> None:
        # Full collections wait until no key is pressed. On 10,000 trials and a busy machine, there were 20 in 90 s of
        # use otherwise, which held up keys for 0.2 s each, 0.6 s at most; the start took 8 % more CPU time.
        gc.set_threshold(*gc.get_threshold()[:2], NEVER)
        self.run_worker(self._watch_folder(), name="poll")
        if self.memory.theme in self.available_themes and not os.environ.get("TEXTUAL_THEME"):
            self.theme = self.memory.theme
        self.memory.follow(self, ("theme",), "TerminalApp")
        self.ansi_theme_light = LIGHT
        self.set_interval(SAVE_S, self._remember)
        for number in () if self.is_headless else (signal.SIGHUP, signal.SIGTERM):
            if signal.getsignal(number) is signal.SIG_DFL:  # ignored under nohup
                asyncio.get_running_loop().add_signal_handler(number, self._end_on, number)

    async def on_unmount(self) -> None:
        await self._remember()

    def _end_on(self, number: int) -> None:
        """End on a signal, and leave the terminal as it was; if it takes no more output, without that."""
        last = Timer(LAST_S, os._exit, (128 + number,))
        last.daemon = True
        last.start()
        self.exit(return_code=128 + number)

    def hang_up(self) -> None:
        """The terminal is gone: save what is remembered, unless the disk does not answer, and end this process."""
        here = Here(study=self._study_id, trial=self._selected, pinned=self._pinned, marked=(*self._marked,))
        saving = Thread(target=self.memory.save, args=(here,), daemon=True)
        if self._remembers and self.memory.changed(here):
            saving.start()
            saving.join(LAST_S / 2)
        os._exit(128 + signal.SIGHUP)

    async def _remember(self) -> None:
        """Save what has changed since the last save; if that fails, notify once and continue."""
        here = Here(study=self._study_id, trial=self._selected, pinned=self._pinned, marked=(*self._marked,))
        if self._remembers and self.memory.changed(here):
            try:
                await asyncio.to_thread(self.memory.save, here)
            except OSError as error:
                self._remembers = False
                why = f"The app's state cannot be saved: {text.clean(str(self.memory.path))}: {error.strerror or error}"
                self.notify(why, severity="warning", markup=False)

    async def _watch_folder(self) -> None:
        """Read, show, wait. One reading at a time, in a thread, so that a slow disk does not freeze the keys."""
        collected = monotonic()
        while True:
            hurried = self._hurry.is_set()
            self._hurry.clear()
            view = await asyncio.to_thread(self._look, self._wanted(hurried))
            if self.view is None or self.view.snapshot.reading:
                # Full collections skip its records. Of 10,000 trials: the shortest takes 28 ms, and 107 ms otherwise.
                gc.freeze()
                self._forget(view.snapshot)
            before, self.view = self.view, view
            for name in started(before.snapshot, view.snapshot) if before else ():
                self.notify(f"{name} has started: 9 lists the studies.", title="new study", markup=False)
            if monotonic() > max(collected + COLLECT_S, self._touched + IDLE_S):
                gc.collect()
                collected = monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), 0 if view.snapshot.reading else POLL_S)

    def _wanted(self, hurried: bool) -> Wanted:
        """What the screen and the user want to see now."""
        screen = self.screen_stack[0]
        needs = screen.needs if isinstance(screen, FolderScreen) else ""
        return Wanted(
            needs=needs,
            study=self._study_id,
            selected=self._selected,
            pinned=self._pinned,
            marked=tuple(self._marked),
            counting_s=HURRIED_S if hurried else FOREGROUND_S if needs == "storage" else BACKGROUND_S,
        )

    def _forget(self, snapshot: Snapshot) -> None:
        """Forget the selection, pin and marks of deleted trials, unless all are gone: a disk may be mounted again."""
        if not snapshot.empty and not snapshot.reading:
            there = snapshot.trials.by_id
            self._selected, self._pinned = (i if i in there else None for i in (self._selected, self._pinned))
            self._marked = [trial_id for trial_id in self._marked if trial_id in there]

    def _look(self, wanted: Wanted) -> View:
        view = self._looker.look(wanted)
        study = view.snapshot.study.study_id if view.snapshot.study else None
        writable = not self.read_only and control.writable(self.experiments, study)
        return replace(view, writable=writable, notes=self.memory.notes)

    async def on_event(self, event: Event) -> None:
        if isinstance(event, InputEvent):
            self._touched = monotonic()
        await super().on_event(event)

    def delay_update(self, delay: float = 0.05) -> None:
        """Textual delays painting by 50 ms when the screen changes, but here a change takes less. On a busy machine,
        81 ms pass from the key to the paint, and 95 ms with Textual's delay (medians).
        """
        super().delay_update(min(delay, SWITCHED_S))

    def hurry(self) -> None:
        """Read the folder again at once, since the screen needs other data."""
        self._hurry.set()

    @property
    def snapshot(self) -> Snapshot | None:
        return self.view.snapshot if self.view else None

    # -----------------------------------------------------------------------------------------------------------------
    # selection

    @property
    def selected(self) -> str | None:
        """The trial that the user selected last, else the one in the last view."""
        return self._selected or (self.view.selected if self.view else None)

    def select(self, trial_id: str | None) -> None:
        if trial_id and trial_id != self._selected:
            self._selected = trial_id
            screen = self.screen_stack[0]
            if isinstance(screen, FolderScreen) and screen.needs == "selected":  # a table's cursor needs no new data
                self.hurry()

    def action_next_study(self) -> None:
        if self.snapshot and self.snapshot.study:
            ids = [study.study_id for study in self.snapshot.studies]
            self.choose(ids[(ids.index(self.snapshot.study.study_id) + 1) % len(ids)])

    def choose(self, study_id: str) -> None:
        """Show another study on all screens."""
        if self.snapshot is None or self.snapshot.study is None or study_id != self.snapshot.study.study_id:
            self._study_id = study_id
            self._selected, self._pinned, self._marked = None, None, []
            self.hurry()

    def action_neighbour(self, by: int) -> None:
        """Select the trial before or after the current one."""
        ids = [trial.trial_id for trial in self.snapshot.trials] if self.snapshot else []
        if self.selected in ids:
            self.select(ids[(ids.index(self.selected) + by) % len(ids)])

    def action_mark(self) -> None:
        """Mark the trial for the comparison, or remove its mark."""
        chosen = self.selected
        if chosen is None:
            return
        if chosen in self._marked:
            self._marked.remove(chosen)
        elif len(self._marked) >= MOST_MARKED:
            self.notify(f"{MOST_MARKED} trials are marked: M clears the marks", severity="warning")
        else:
            self._marked.append(chosen)
        self.hurry()

    def action_pin(self) -> None:
        """Compare the others with this trial instead of the best; again: with the best."""
        self._pinned = None if self.selected == self._pinned else self.selected
        self.hurry()

    def action_unmark(self) -> None:
        self._marked = []
        self.hurry()

    def action_note(self) -> None:
        """Ask for a note on the trial, and save it."""
        trial = self.snapshot.trials.by_id.get(self.selected or "") if self.snapshot else None
        if trial is None:
            return

        def answered(note: str | None) -> None:
            if note is not None and not self.memory.note(trial.trial_id, note):
                self.notify("There are too many notes: delete some others.", severity="warning")
            self.hurry()

        self.push_screen(NoteScreen(text.number(trial), self.memory.notes.get(trial.trial_id, "")), answered)

    def action_copy(self, what: str) -> None:
        """Copy the trial's id or folder to the clipboard of the terminal, through OSC 52, which also works over ssh."""
        if chosen := self.selected:
            path = paths.trial_dir(self.experiments.absolute(), chosen)
            copied = text.clean(chosen if what == "id" else str(path), 4096)
            self.copy_to_clipboard(copied)
            self.notify(copied, title="copied", markup=False)

    def action_theme(self) -> None:
        self.theme = "textual-light" if self.current_theme.dark else "textual-dark"

    def action_picture(self) -> None:
        """Save the screen as SVG in the folder where the app was started, or else in the temporary folder."""
        name = f"redsm5-{self.current_mode}-{datetime.now():%Y%m%d-%H%M%S}.svg"
        try:
            self.notify(self.save_screenshot(name, str(export.place())), title="screenshot", markup=False)
        except OSError as error:
            self.notify(f"the screenshot cannot be saved: {error.strerror}", severity="error", markup=False)

    def action_widen(self, by: int) -> None:
        screen = self.screen_stack[0]
        if isinstance(screen, FolderScreen):
            screen.widen(by)

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        for command in super().get_system_commands(screen):
            if command.title not in ("Keys", "Maximize", "Minimize"):
                yield command
        for mode in self.MODES:
            yield SystemCommand(
                mode.capitalize(), f"Show screen {mode}", partial(self.run_action, f"switch_mode('{mode}')")
            )
        for study in reversed(self.snapshot.studies[-20:] if self.snapshot else ()):
            name = text.clean(study.name, 60).translate(str.maketrans("[]\\", "()/"))  # the palette parses markup
            yield SystemCommand(f"Study {name}", f"Show study {name}", partial(self.choose, study.study_id))
        for order, (title, meaning) in ORDERS.items():
            yield SystemCommand(title, meaning, partial(self.action_order, order))
        yield SystemCommand("Copy trial id", "To the terminal's clipboard", partial(self.action_copy, "id"))
        yield SystemCommand("Copy trial folder", "To the terminal's clipboard", partial(self.action_copy, "path"))

    # -----------------------------------------------------------------------------------------------------------------
    # orders

    def action_order(self, what: str) -> None:
        """Ask for confirmation, then give an order to the driver or clean up the folder."""
        view = self.view
        if view is None or view.snapshot.study is None:
            self.notify("There is no study to control.", severity="warning")
            return
        if what == "pause" and view.snapshot.study.state != "completed" and not view.snapshot.driven:
            self._offer_to_resume(view)
            return
        if not view.writable:
            why = (
                "the app was started with --read-only" if self.read_only else "the study's folder cannot be written to"
            )
            self.notify(f"Control is disabled: {why}.", severity="warning")
            return
        if refused := refusal(what, view):
            self.notify(refused, severity="warning", markup=False)
            return
        question, do, done = asked(what, view, self.experiments, self.selected)

        def answered(yes: bool | None) -> None:
            if yes:
                self.run_worker(self._carry_out(do, done), group="orders")

        self.push_screen(ConfirmScreen(question), answered)

    def _offer_to_resume(self, view: View) -> None:
        """Nothing would obey a pause or its end: offer the command that resumes the study for the clipboard."""
        question, command = resumption(view)
        study = view.snapshot.study
        assert study

        def answered(yes: bool | None) -> None:
            if yes:
                self.copy_to_clipboard(command)
                done = f"Copied: {command}"
                if view.writable and paths.PAUSE in view.snapshot.orders:
                    take_back = partial(control.take_back, self.experiments, study.study_id, paths.PAUSE)
                    self.run_worker(self._carry_out(take_back, done), group="orders")
                else:
                    self.notify(done, markup=False)

        self.push_screen(ConfirmScreen(question), answered)

    async def _carry_out(self, do: Do, done: str) -> None:
        try:
            result = await asyncio.to_thread(do)
        except OSError as error:
            self.notify(f"Failed: {error.strerror or error}", severity="error", markup=False)
        else:
            if isinstance(result, dict):
                totals = result.get("totals", {})
                freed = sum(kind.get("deleted_bytes", 0) for kind in totals.values())
                self.cleanups += 1
                done = f"{done}: {text.size(freed)} freed, {len(result.get('skipped', []))} skipped."
            self.notify(done, markup=False)
        self.hurry()


_HOST: type[Host] = TerminalApp  # the type checker sees here that the app has what its screens need
