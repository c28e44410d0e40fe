"""What all screens show: one snapshot of the folder, made in a thread and immutable afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from redsm5.records import TrialRecord
from tui.detail import TrialDetail
from tui.machine import MachineView
from tui.parameters import Importance
from tui.reader import Snapshot
from tui.storage import StorageView


@dataclass(frozen=True)
class View:
    """The study, and of some trials all that their folders say.

    Attributes:
        selected: the trial that the screens of one trial are about.
        pinned: the trial that the others are held against; None: the best.
        marked: those to compare, in the order in which they were marked.
        details: of the trials that the screen in sight needs.
        importance: what the study's summary.json says of its parameters; None where there is none.
        machine: what the machine does that the app runs on.
        writable: orders can be given here.
        notes: the reader's own, by the ids of the trials.
    """

    snapshot: Snapshot
    selected: str | None = None
    pinned: str | None = None
    marked: tuple[str, ...] = ()
    details: Mapping[str, TrialDetail] = field(default_factory=dict)
    storage: StorageView = field(default_factory=StorageView)
    importance: Importance | None = None
    machine: MachineView = field(default_factory=MachineView)
    writable: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def reference(self) -> TrialRecord | None:
        """The pinned trial, or the best one."""
        trials = self.snapshot.trials
        return trials.by_id.get(self.pinned or "") or trials.best

    @property
    def detail(self) -> TrialDetail | None:
        return self.details.get(self.selected or "")
