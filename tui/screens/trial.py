"""One trial: its metrics as a grid of charts, what it was made with, what became of its checkpoints, its log."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widgets import Input, Static, Tab, Tabs

from tui import text, trialpanels
from tui.detail import SEVERITIES, Series, TrialDetail
from tui.query import words
from tui.screens.base import FolderScreen, head
from tui.view import View
from tui.widgets.plot import Chart, Line, Plot, smoothed

SLOTS = 12  # charts that are ever in sight at once
CHART_WIDTH, CHART_HEIGHT = 34, 8  # at least, with the border
PANELS = ("charts", "configuration", "checkpoints", "log")


class TrialScreen(FolderScreen):
    needs: ClassVar[str] = "selected"
    side: ClassVar[tuple[str, int]] = ("#trial", 52)
    kept: ClassVar[tuple[str, ...]] = ("smooth", "log_axis", "by_epoch", "beside")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "app.neighbour(-1)", "Previous", show=False),
        Binding("right_square_bracket", "app.neighbour(1)", "Next", show=False),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("f", "find", "Find in the log", show=False),
        Binding("escape", "back", "Back", show=False),
        Binding("n,pagedown", "page(1)", "More charts", show=False),
        Binding("b,pageup", "page(-1)", "Charts before", show=False),
        Binding("enter", "enlarge", "Enlarge", show=False),
        Binding("left", "inspect(-1)", "Point before", show=False),
        Binding("right", "inspect(1)", "Point after", show=False),
        Binding("up", "choose(-1)", "Chart before", show=False),
        Binding("down", "choose(1)", "Next chart", show=False),
        Binding("w", "flip('smooth')", "Smooth", show=False),
        Binding("l", "flip('log_axis')", "Log axis", show=False),
        Binding("a", "flip('by_epoch')", "Step or epoch", show=False),
        Binding("r", "flip('beside')", "Reference", show=False),
        Binding("v", "severity", "Severity", show=False),
        Binding("tab", "panel(1)", "Panel", show=False, priority=True),
        Binding("m", "app.mark", "Mark", show=False),
        Binding("N", "app.note", "Note", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._page = self._chosen = 0
        self._query = self._wanted = ""  # of metrics, and in the log
        self._finding = False  # what is typed is looked for in the log
        self._large = False
        self._at: int | None = None  # the point of the enlarged chart that is looked at
        self._severity = 0
        self._panel = 0
        self.smooth = self.log_axis = self.by_epoch = False
        self.beside = True  # the reference's curves, behind this trial's
        self._view: View | None = None
        self._of: str | None = None
        self._seen: dict[str, tuple[object, ...]] = {}

    def body(self) -> ComposeResult:
        yield Static(id="about", markup=False)
        yield Tabs(*(Tab(name, id=f"tab-{name}") for name in PANELS), id="panels-tabs")
        yield Input(id="filter", compact=True)
        with Container(id="trial"):
            with Container(id="charts"):
                for slot in range(SLOTS):
                    yield Plot(id=f"plot-{slot}", classes="panel")
            with Container(id="side"):
                with VerticalScroll(id="configuration", classes="panel"):
                    yield Static(id="config-text", markup=False)
                yield Static(id="system", classes="panel", markup=False)
            with Container(id="below"):
                with VerticalScroll(id="checkpoints", classes="panel"):
                    yield Static(id="checkpoints-text", markup=False)
                with VerticalScroll(id="log", classes="panel"):
                    yield Static(id="log-text", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self._show_panel()

    def on_resize(self, event: events.Resize) -> None:
        self._again()

    def show(self, view: View) -> None:
        self._view = view
        detail = view.detail
        if detail is None:
            self.put(
                "about", "No trial yet: the first one comes when `just hpo` starts it." if not view.selected else "…"
            )
            return
        if detail.record.trial_id != self._of:
            self._of, self._page, self._at = detail.record.trial_id, 0, None
        self.put("about", trialpanels.about(view, detail, self._other(view) if self.beside else None))
        self._charts(detail)
        other = self._other(view)
        differs = f" · * differs from {text.number(other.record)}" if other else " · all differ from this one"
        head(self.query_one("#configuration"), f"configuration{differs}")
        if self._news("config", detail.folder, len(detail.config), other and (other.folder, len(other.config))):
            self.put("config-text", trialpanels.configuration(detail, other))
        if self._news("checkpoints", detail.folder, detail.version, view.now.date()):
            self.put("system", trialpanels.system(detail), "system")
            self.query_one("#system").display = any(name.startswith("system_") for name in detail.series)
            kept = sum(line.bytes > 0 for line in detail.checkpoints)
            self.put("checkpoints-text", trialpanels.checkpoints(view, detail))
            head(self.query_one("#checkpoints"), f"checkpoints: {kept} kept, {len(detail.checkpoints) - kept} gone")
        if self._news("log", detail.folder, len(detail.log), detail.log[-1:], self._severity, self._wanted):
            self._log_of(view, detail)

    def _news(self, panel: str, *seen: object) -> bool:
        """Whether what a panel is made of has changed: to write hundreds of lines anew keeps the keys waiting."""
        before, self._seen[panel] = self._seen.get(panel), seen
        return before != seen

    def _log_of(self, view: View, detail: TrialDetail) -> None:
        lines = [line for line in detail.log if SEVERITIES.index(line.severity) >= self._severity]
        lines = [line for line in lines if words(self._wanted)(line.message)]
        self.put("log-text", trialpanels.log(lines, view))
        title = f"log: {len(lines)} of the last {len(detail.log)} lines"
        head(self.query_one("#log"), title, f"v: {SEVERITIES[self._severity].lower()} and above")
        self.query_one("#log", VerticalScroll).scroll_end(animate=False)

    def _other(self, view: View) -> TrialDetail | None:
        """The pinned or best trial, where it is another one than this."""
        reference = view.reference
        return (
            view.details.get(reference.trial_id)
            if reference and reference is not view.snapshot.trials.by_id.get(view.selected or "")
            else None
        )

    # -----------------------------------------------------------------------------------------------------------------
    # charts

    def _charts(self, detail: TrialDetail) -> None:
        area = self.query_one("#charts", Container)
        names = self._names(detail)
        self._chosen = min(self._chosen, max(len(names) - 1, 0))
        across, down = self._grid()
        shown = across * down
        pages = max(-(-len(names) // shown), 1)
        self._page = min(self._page, pages - 1)
        on_page: Sequence[str] = names[self._page * shown : (self._page + 1) * shown]
        if self._large and names:
            on_page = [names[self._chosen]]
        if self._large or pages == 1:  # what is in sight takes all the place
            across = min(across, max(len(on_page), 1))
            down = max(-(-len(on_page) // across), 1)
        area.styles.grid_size_columns, area.styles.grid_size_rows = across, down
        for slot in range(SLOTS):
            plot = self.query_one(f"#plot-{slot}", Plot)
            plot.display = slot < max(len(on_page), 1)
            if slot < len(on_page):
                self._draw(plot, detail, on_page[slot], chosen=on_page[slot] == names[self._chosen])
            elif slot == 0:
                head(plot, "metrics", "")
                said = "no metric is called so: Esc clears the filter" if self._query else "no metric yet"
                plot.show(said, partial(Chart, empty=said))
        if len(on_page) and not self._large and pages > 1:
            last = self.query_one(f"#plot-{len(on_page) - 1}", Plot)
            head(last, None, f"page {self._page + 1} of {pages}: n, b")

    def _names(self, detail: TrialDetail) -> list[str]:
        names = [name for name in detail.series if words(self._query)(name)]
        metric = self._view.snapshot.study.metric if self._view and self._view.snapshot.study else ""
        first = [name for name in dict.fromkeys((metric, "val_loss", "train_loss")) if name in names]
        return first + [name for name in names if name not in first]

    def _grid(self) -> tuple[int, int]:
        size = self.query_one("#charts").size
        across = min(max(size.width // CHART_WIDTH, 1), 4)
        return across, min(max(size.height // CHART_HEIGHT, 1), SLOTS // across)

    def _draw(self, plot: Plot, detail: TrialDetail, name: str, *, chosen: bool) -> None:
        series = detail.series[name]
        other = self._other(self._view) if self._view and self.beside else None
        behind = other.series.get(name) if other else None
        at = self._at if self._large else None
        if at is not None:
            at = self._at = min(max(at, 0), len(series.values) - 1)
        how = [word for word, on in (("smoothed", self.smooth), ("log", self.log_axis)) if on]
        title = text.clean(name, 60) + (f" ({', '.join(how)})" if how else "")
        plot.set_class(chosen, "chosen")
        where = "" if at is None else f" at step {series.steps[at]}, epoch {series.epochs[at]}"
        head(plot, title, text.value(series.values[-1 if at is None else at]) + where)
        seen = (
            detail.folder,
            name,
            len(series.values),
            series.steps[-1:],
            self.smooth,
            self.log_axis,
            self.by_epoch,
            at,
            behind and len(behind.values),
        )
        plot.show(seen, lambda: self._chart(series, behind, at))

    def _chart(self, series: Series, behind: Series | None, at: int | None) -> Chart:
        xs = self._xs(series)
        lines = [Line(xs, series.values, "cyan")]
        if self.smooth:
            lines = [Line(xs, series.values, "bright_black"), Line(xs, smoothed(series.values), "cyan")]
        if len(series.values) == 1:
            lines = [Line(xs, series.values, "cyan", "points")]
        if behind and len(behind.values) > 1:
            values = smoothed(behind.values) if self.smooth else behind.values
            lines.insert(0, Line(self._xs(behind), values, "magenta"))
        word = "epoch" if self.by_epoch else "step"
        return Chart(lines, log=self.log_axis, x_label=lambda x: f"{word} {x:.4g}", at=None if at is None else xs[at])

    def _xs(self, series: Series) -> Sequence[float]:
        if not self.by_epoch:
            return series.steps
        return spread(series.epochs) if len(set(series.epochs)) < len(series.epochs) else series.epochs

    # -----------------------------------------------------------------------------------------------------------------
    # keys

    def _again(self) -> None:
        if self._view:
            self.show(self._view)

    def action_flip(self, what: str) -> None:
        setattr(self, what, not getattr(self, what))
        self._again()

    def action_severity(self) -> None:
        self._severity = (self._severity + 1) % len(SEVERITIES)
        self._again()

    def action_page(self, by: int) -> None:
        if not self._view or not self._view.detail:
            return
        across, down = self._grid()
        pages = max(-(-len(self._names(self._view.detail)) // (across * down)), 1)
        self._page = (self._page + by) % pages
        self._chosen = self._page * across * down
        self._again()

    def action_choose(self, by: int) -> None:
        if not self._view or not self._view.detail:
            return
        across, down = self._grid()
        self._chosen = (self._chosen + by) % max(len(self._names(self._view.detail)), 1)
        self._page = self._chosen // (across * down)
        self._again()

    def action_enlarge(self) -> None:
        self._large, self._at = not self._large, None
        self._again()

    def action_inspect(self, by: int) -> None:
        """On an enlarged chart, go to the point beside; else to the chart beside."""
        if not self._large:
            self.action_choose(by)
        elif self._view and (detail := self._view.detail) and (names := self._names(detail)):
            last = len(detail.series[names[self._chosen]].values) - 1
            self._at = last if self._at is None else min(max(self._at + by, 0), last)
            self._again()

    def action_filter(self) -> None:
        self._type(finding=False)

    def action_find(self) -> None:
        self._type(finding=True)

    def _type(self, *, finding: bool) -> None:
        """Open the line of input, for the metrics or for the log."""
        self._finding, line = finding, self.query_one(Input)
        line.placeholder = "words in the log, ~regex" if finding else "part of a metric's name: val_f1, system_, ~^val"
        with line.prevent(Input.Changed):
            line.value = self._wanted if finding else self._query
        line.display = True
        line.focus()

    @on(Input.Changed, "#filter")
    def _typed(self, event: Input.Changed) -> None:
        if self._finding:
            self._wanted = event.value[:100]
        else:
            self._query, self._page, self._chosen = event.value[:100], 0, 0
        self._again()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.query_one(Input).display = bool(self.query_one(Input).value)
        self.set_focus(None)

    def action_back(self) -> None:
        """Out of the filter, out of the enlarged chart, or back to the table."""
        if self.query_one(Input).display:
            self.query_one(Input).value = ""
            self.query_one(Input).display = False
            self.set_focus(None)
        elif self._large:
            self.action_enlarge()
        else:
            self.app.switch_mode("trials")

    def action_panel(self, by: int) -> None:
        self._panel = (self._panel + by) % len(PANELS)
        self.query_one(Tabs).active = f"tab-{PANELS[self._panel]}"
        self._show_panel()
        panel = self.query_one(f"#{PANELS[self._panel]}")
        self.set_focus(panel if isinstance(panel, VerticalScroll) else None)  # the arrows scroll it, or choose a chart

    @on(Tabs.TabActivated)
    def _tab(self, event: Tabs.TabActivated) -> None:
        self._panel = PANELS.index((event.tab.id or "tab-charts").removeprefix("tab-"))
        self._show_panel()

    def _show_panel(self) -> None:
        """On a narrow terminal one panel is in sight; the class of the container says which."""
        area = self.query_one("#trial")
        for place, name in enumerate(PANELS):
            area.set_class(place == self._panel, f"-{name}")
        self.call_after_refresh(self._again)

    def on_click(self, event: events.Click) -> None:
        widget = event.widget
        if isinstance(widget, Plot) and self._view and self._view.detail and widget.id:
            if not self._large:
                across, down = self._grid()
                self._chosen = self._page * across * down + int(widget.id.removeprefix("plot-"))
            self.action_enlarge()


def spread(epochs: Sequence[int]) -> list[float]:
    """Steps of the same epoch side by side: of the k-th of n after epoch e, e + k/n."""
    places: list[float] = []
    start = 0
    while start < len(epochs):
        end = start
        while end < len(epochs) and epochs[end] == epochs[start]:
            end += 1
        places += [epochs[start] + (k / (end - start)) for k in range(end - start)]
        start = end
    return places
