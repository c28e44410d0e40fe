"""What the keys do and what the symbols mean."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui.text import state

KEYS = {
    "everywhere": {
        "1 to 6": "Overview, Trials, Trial, Report, Storage, Compare",
        "7  8": "Parameters, Machine",
        "s": "the next study, where there are several",
        "N": "a note on the trial, in Trials, Trial and Report; empty: none",
        "c  C": "copy the trial's id, its folder (OSC 52)",
        "P": "pin: hold the others against this trial, not against the best",
        "t  S": "light or dark; save the screen as SVG",
        "< > 0": "right column wider, narrower, as it was",
        "Ctrl+P": "command palette: all of this by name, more themes",
        "?  q": "this page; quit: the search goes on without this app",
    },
    "orders, each asked for confirmation": {
        "p": "pause: checkpoint and free the device; again: go on",
        "e  E": "end after the trial at work; stop now, with a checkpoint",
        "x": "prune the running trial",
        "K": "run cleanup",
    },
    "Overview": {
        "a A": "the objective over the trials, time, or a parameter",
    },
    "Trials": {
        "/": "filter: gated  head=mlp_*  lr<5e-5  !failed; Esc clears it",
        "": 'also: a or b  (a b)  "two words"  ~^regex  head~x$  note~.',
        "o O  i": "sort by the next, the previous column; turn around",
        "m  M": "mark for the comparison; clear the marks",
        "Enter  W": "open the trial; write the table as CSV",
    },
    "Trial, Compare, Report": {
        "[ ]": "the trial before, the next one",
        "arrows": "choose a chart; in Compare, and enlarged by Enter, ← → points",
        "n b  /": "more charts, the ones before; filter them by name",
        "+ = - z": "zoom in, out, see all; the wheel zooms, a click is a point",
        "w l a r": "smoothed, log axis, by step or epoch, best one behind",
        "v f Tab": "severity of the log, find in it; next panel, where one is in sight",
    },
    "Storage": {
        "u": "look for leftovers again",
    },
    "Parameters": {
        "i": "compute the importance anew (in the background, writes nothing)",
        "n b": "the parameters for which there was no room, the ones before",
    },
}
STATES = ("queued", "running", "completed", "pruned", "failed", "interrupted", "stopped")


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
