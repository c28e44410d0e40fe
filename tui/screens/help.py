"""The help screen: keys and symbols."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from ..panels.text import state

KEYS = {
    "everywhere": {
        "1 to 6": "Overview, Trials, Trial, Report, Storage, Compare",
        "7  8  9": "Parameters, Machine, Studies: Enter opens one",
        "s": "next study",
        "N": "note on the trial, in Trials, Trial and Report; empty deletes it",
        "c  C": "copy the trial's id; copy its folder (OSC 52)",
        "P": "pin: compare others with this trial instead of the best",
        "t  S": "light or dark; save the screen as SVG",
        "< > 0": "right column wider, narrower, default width",
        "Ctrl+P": "command palette: all commands by name, more themes",
        "?  q": "this page; quit (the search keeps running)",
    },
    "control, with confirmation": {
        "p": "pause: save a checkpoint and free the device; again: resume",
        "e  E": "end after the running trial; stop now, with a checkpoint",
        "x": "prune the running trial",
        "K": "run cleanup",
    },
    "Overview": {
        "a A": "objective over trials, time, or a parameter",
        "v": "objective, curves of all trials, timeline",
        "Enter": "the chart fills the screen; in Parameters too",
    },
    "Trials": {
        "/": "filter: gated  head=mlp_*  lr<5e-5  !failed; Esc clears it",
        "": 'also: a or b  (a b)  "two words"  ~^regex  head~x$  note~.',
        "o O  i": "sort by the next, the previous column; reverse the order",
        "m  M": "mark for comparison; clear the marks",
        "Enter  W": "open the trial; write the table as CSV",
        "L  *": "choose the columns (Space shows or hides); your star",
    },
    "Trial, Compare, Report": {
        "[ ]": "previous trial, next trial",
        "arrows": "choose a chart; in Compare, and enlarged by Enter, ← → points",
        "n b  /": "next charts, previous charts; filter them by name",
        "+ = - z": "zoom in, out, see all; the wheel zooms, a click is a point",
        "w l a r": "smooth, log axis, step, epoch or time, best trial behind",
        "v f \\ Tab": "log: severity, find, wrap; next panel, where Enter opens a line",
    },
    "Storage": {
        "u": "look for reclaimable files again",
    },
    "Parameters": {
        "i": "recompute the importance (in the background, writes nothing)",
        "n b": "next parameters, previous parameters",
    },
}
STATES = ("queued", "running", "completed", "pruned", "failed", "paused", "interrupted", "stopped")


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [("escape,question_mark,q", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        page = Text()
        for title, keys in KEYS.items():
            page.append(f"{title}\n", "bold")
            for key, what in keys.items():
                page.append(f"{key:>8}", "bold cyan").append(f"  {what}\n")
        page.append("\n★ best   ◆ pinned   • marked   ")
        for name in STATES:
            page.append_text(state(name)).append("   ")
        with VerticalScroll(id="help", classes="panel"):
            yield Static(page, markup=False)

    def on_mount(self) -> None:
        self.query_one("#help").border_title = "help"
        self.query_one("#help").border_subtitle = "Esc closes"
        self.query_one("#help").focus()
