"""The Trial screen: metrics as a grid of charts, configuration, checkpoints, log."""

from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Static, Tab, Tabs

from redsm5.engine.installed import command

from ..panels import log, text
from ..panels import trial as panels
from ..panels.curves import Curve, ordered
from ..read.detail import SEVERITIES, LogLine, TrialDetail
from ..read.query import words
from ..read.view import View
from ..widgets.frame import head
from ..widgets.grid import GRID_KEYS, ChartGrid
from ..widgets.table import Table
from .charts import ChartsScreen
from .line import LineScreen

PANELS = ("charts", "configuration", "checkpoints", "log")


class TrialScreen(ChartsScreen):
    needs: ClassVar[str] = "selected"
    side: ClassVar[tuple[str, int]] = ("#trial", 52)
    kept: ClassVar[tuple[str, ...]] = ("beside", "wrapped")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "app.neighbour(-1)", "Previous", show=False),
        Binding("right_square_bracket", "app.neighbour(1)", "Next", show=False),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("f", "find", "Find in the log", show=False),
        Binding("escape", "back", "Back", show=False),
        *GRID_KEYS,
        Binding("r", "beside", "Reference", show=False),
        Binding("backslash", "wrap", "Wrap the log", show=False),
        Binding("v", "severity", "Severity", show=False),
        Binding("tab", "panel(1)", "Panel", show=False, priority=True),
        Binding("m", "app.mark", "Mark", show=False),
        Binding("N", "app.note", "Note", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._wanted = ""  # words to find in the log
        self._finding = False  # whether the input is searched for in the log
        self._severity = 0
        self._panel = 0
        self.wrapped = False  # whether long lines of the log take several
        self._lines: dict[str, tuple[LogLine, str]] = {}
        self._logged: object = None  # the trial whose log is shown
        self.beside = True  # whether the reference's curves are drawn behind this trial's
        self._view: View | None = None
        self._seen: dict[str, tuple[object, ...]] = {}

    def body(self) -> ComposeResult:
        yield Static(id="about", markup=False)
        yield Tabs(*(Tab(name, id=f"tab-{name}") for name in PANELS), id="panels-tabs")
        yield self.line()
        with Container(id="trial"):
            yield ChartGrid(id="charts")
            with Container(id="side"):
                with VerticalScroll(id="configuration", classes="panel"):
                    yield Static(id="config-text", markup=False)
                yield Static(id="system", classes="panel", markup=False)
            with Container(id="below"):
                with VerticalScroll(id="checkpoints", classes="panel"):
                    yield Static(id="checkpoints-text", markup=False)
                yield Table(id="log", classes="panel")

    def on_mount(self) -> None:
        super().on_mount()
        self._show_panel()

    def show(self, view: View) -> None:
        self._view = view
        detail = view.detail
        if detail is None:
            start = text.clean(command("hpo", experiments=view.snapshot.experiments), text.COMMAND)
            self.put("about", f"No trial yet: `{start}` starts the first one." if not view.selected else "…")
            return
        other = self._other(view)
        beside = other if self.beside else None
        self.put("about", panels.about(view, detail, beside))
        names = ordered(detail.series, view.snapshot.study.metric if view.snapshot.study else "")
        self.grid.show(detail.record.trial_id, names, partial(self._curves, detail, beside))
        reference = view.snapshot.trials.best
        own = " of the best" if reference and reference.trial_id == detail.record.trial_id else ""
        differs = f" · * differs from {text.number(other.record)}" if other else own
        head(self.query_one("#configuration"), f"configuration{differs}")
        if self._news("config", detail.folder, len(detail.config), other and (other.folder, len(other.config))):
            self.put("config-text", panels.configuration(detail, other))
        if self._news("checkpoints", detail.folder, detail.version, view.now.date()):
            self.put("system", panels.system(detail), "system")
            self.query_one("#system").display = any(name.startswith("system_") for name in detail.series)
            kept = sum(line.bytes > 0 for line in detail.checkpoints)
            self.put("checkpoints-text", panels.checkpoints(view, detail))
            head(self.query_one("#checkpoints"), f"checkpoints: {kept} kept, {len(detail.checkpoints) - kept} gone")
        width = self.query_one("#log").size.width
        how = self._severity, self._wanted, self.wrapped, width
        if width and self._news("log", detail.folder, len(detail.log), detail.log[-1:], *how):
            self._log_of(view, detail, width)

    def _news(self, panel: str, *seen: object) -> bool:
        """Whether a panel's data have changed: rewriting hundreds of lines would delay keys."""
        before, self._seen[panel] = self._seen.get(panel), seen
        return before != seen

    def _log_of(self, view: View, detail: TrialDetail, width: int) -> None:
        """Show the chosen lines; the cursor follows the newest one if it was there."""
        lines = [line for line in detail.log if SEVERITIES.index(line.severity) >= self._severity]
        wanted = words(self._wanted)
        lines = [line for line in lines if wanted(log.said(line))]
        table = self.query_one("#log", Table)
        follows, other = table.cursor >= len(table.keys) - 1, self._logged != detail.folder
        self._lines, self._logged = log.rows(lines, width, self.wrapped), detail.folder
        nothing = ("", "", "nothing at this severity" if detail.log else "no log yet")
        shown = partial(log.cells, now=view.now)
        rows = self._lines
        table.fill(log.columns(width), [*rows] or ["-"], lambda key: shown(key, rows[key]) if key in rows else nothing)
        if follows or other:
            table.action_go(-1)
        title = f"log: {len(lines)} of the last {len(detail.log)} lines"
        head(table, title, f"v: {SEVERITIES[self._severity].lower()} and above")

    @on(Table.Chosen)
    def _opened(self) -> None:
        """Open the line of the cursor whole."""
        key = self.query_one("#log", Table).cursor_key
        if self._view and (row := self._lines.get(key or "")):
            self.app.push_screen(LineScreen(log.whole(row[0], self._view.now)))

    def action_wrap(self) -> None:
        self.wrapped = not self.wrapped
        self._again()

    def _other(self, view: View) -> TrialDetail | None:
        """The pinned or best trial, if it is not this one."""
        reference = view.reference
        return (
            view.details.get(reference.trial_id)
            if reference and reference is not view.snapshot.trials.by_id.get(view.selected or "")
            else None
        )

    def _curves(self, detail: TrialDetail, other: TrialDetail | None, name: str) -> list[Curve]:
        own = Curve(detail.series[name], "cyan", start=detail.record.started_at or "")
        behind = other.series.get(name) if other else None
        if other is None or behind is None:
            return [own]
        return [Curve(behind, "magenta", behind=True, start=other.record.started_at or ""), own]

    # -----------------------------------------------------------------------------------------------------------------
    # keys

    def _again(self) -> None:
        if self._view:
            self.show(self._view)

    def action_beside(self) -> None:
        self.beside = not self.beside
        self._again()

    def action_severity(self) -> None:
        self._severity = (self._severity + 1) % len(SEVERITIES)
        self._again()

    def action_filter(self) -> None:
        self._finding = False
        super().action_filter()

    def action_find(self) -> None:
        self._finding = True
        self.ask(self._wanted, "words in the log, ~regex")

    def typed(self, said: str) -> None:
        if self._finding:
            self._wanted = said
            self._again()
        else:
            super().typed(said)

    def action_panel(self, by: int) -> None:
        self._panel = (self._panel + by) % len(PANELS)
        self.query_one(Tabs).active = f"tab-{PANELS[self._panel]}"
        self._show_panel()
        panel = self.query_one(f"#{PANELS[self._panel]}")
        self.set_focus(
            panel if isinstance(panel, VerticalScroll | Table) else None
        )  # the arrows scroll it, or choose a chart

    @on(Tabs.TabActivated)
    def _tab(self, event: Tabs.TabActivated) -> None:
        self._panel = PANELS.index((event.tab.id or "tab-charts").removeprefix("tab-"))
        self._show_panel()

    def _show_panel(self) -> None:
        """On a narrow terminal only one panel is visible; the container's class says which."""
        area = self.query_one("#trial")
        for place, name in enumerate(PANELS):
            area.set_class(place == self._panel, f"-{name}")
        self.call_after_refresh(self._again)
