"""What all screens show: one snapshot of the folder, made in a thread and immutable afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from redsm5.engine.records import TrialRecord

from .detail import TrialDetail
from .machine import MachineView
from .many import Many
from .reader import Snapshot
from .reports import Importance
from .standing import Standing
from .storage import StorageView
from .studies import StudyLine


@dataclass(frozen=True)
class View:
    """A snapshot of the study, and the details of some trials.

    Attributes:
        selected: the trial that the single-trial screens show.
        pinned: the trial with which the others are compared; None: the best.
        marked: the trials to compare, in the order in which they were marked.
        details: the details of the trials that the visible screen needs.
        studies: all studies side by side, if the visible screen shows them.
        many: the curves and times of all trials, if it shows them.
        tests: macro F1 on the test split by trial id, if the visible screen shows it.
        standing: how the best trials stand to each other and to the baseline.
        importance: the parameter importance in the study's summary.json; None if there is none.
        machine: the load of the machine on which the app runs.
        writable: whether orders can be given.
        notes: the user's notes by trial id.
    """

    snapshot: Snapshot
    selected: str | None = None
    pinned: str | None = None
    marked: tuple[str, ...] = ()
    details: Mapping[str, TrialDetail] = field(default_factory=dict)
    storage: StorageView = field(default_factory=StorageView)
    studies: tuple[StudyLine, ...] = ()
    many: Many = field(default_factory=Many)
    tests: Mapping[str, float] = field(default_factory=dict)
    standing: Standing = field(default_factory=Standing)
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
