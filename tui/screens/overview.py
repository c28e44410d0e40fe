"""The study at a glance: the objective over the trials, what happens now, what it costs, what happened lately."""

from datetime import UTC, datetime

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Footer, Static

from tui import text
from tui.chart import ObjectiveChart
from tui.header import Header
from tui.reader import Snapshot


class OverviewScreen(Screen[None]):
    def compose(self) -> ComposeResult:
        yield Header()
        yield Static(id="empty")
        with Container(id="panels"):
            with Container(id="left"):
                yield ObjectiveChart(id="chart", classes="panel")
                yield Static(id="now", classes="panel")
            with Container(id="right"):
                yield Static(id="storage", classes="panel")
                yield Static(id="pace", classes="panel")
                yield Static(id="best", classes="panel")
            yield Static(id="lately", classes="panel")
        yield Footer()

    def on_mount(self) -> None:
        for name in ("now", "storage", "pace", "best", "lately"):
            self.query_one(f"#{name}").border_title = name
        self.watch(self.app, "snapshot", self.show)

    def show(self, snapshot: Snapshot | None) -> None:
        self.query_one("#panels").display = snapshot is not None and not snapshot.empty
        self.query_one("#empty").display = snapshot is not None and snapshot.empty
        if snapshot is None:
            return
        if snapshot.empty:
            self.query_one("#empty", Static).update(text.empty(snapshot))
            return
        now = datetime.now(UTC)
        chart = self.query_one(ObjectiveChart)
        chart.border_title = f"{text.metric(snapshot)} over the trials: • completed  x other"
        chart.border_subtitle = text.best(snapshot)
        chart.show(snapshot)
        self.query_one("#now", Static).update(text.happening(snapshot, now))
        self.query_one("#storage", Static).update(text.storage(snapshot))
        self.query_one("#pace", Static).update(text.pace(snapshot, now))
        self.query_one("#best", Static).update(text.leader(snapshot))
        self.query_one("#lately", Static).update(
            Text("\n").join(text.lately(snapshot.events, now)) or Text("nothing yet", text.DIM)
        )
