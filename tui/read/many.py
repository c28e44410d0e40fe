"""The curves of the study's metric in all its trials, and when each trial ran; read step by step, as trials write."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from redsm5.engine import paths
from redsm5.engine.records import FINISHED, Event, MetricRow, TrialRecord

from .detail import Series
from .files import Lines, records
from .trials import ACTIVE

MOST_CURVES = 200  # of the newest trials
AT_ONCE = 500  # events that are parsed before the clock is looked at


class Span(NamedTuple):
    """A time in which a trial ran, in ISO format; `end` is None while it does, `state` what it was afterwards."""

    start: str
    end: str | None
    state: str


@dataclass(frozen=True)
class Many:
    """Curves and spans by trial id; `pending`: trials whose curves are not read yet. `version` changes with any."""

    curves: dict[str, Series] = field(default_factory=dict)
    spans: dict[str, tuple[Span, ...]] = field(default_factory=dict)
    pending: int = 0
    version: int = 0


class ManyReader:
    """Follows one study; another one starts it anew."""

    def __init__(self, experiments: Path) -> None:
        self._experiments = experiments
        self._begin(None, "")

    def _begin(self, study: str | None, metric: str) -> None:
        self._study, self._metric = study, metric
        self._lines: dict[str, Lines] = {}
        self._curves: dict[str, Series] = {}
        self._over: dict[str, TrialRecord] = {}
        self._events = Lines(paths.study_dir(self._experiments, study or "none") / paths.EVENTS)
        self._told: deque[bytes] = deque()  # events that are read, but not parsed yet
        self._spans: dict[str, list[Span]] = {}
        self._version = 0

    def look(self, study: str | None, metric: str, trials: Sequence[TrialRecord], seconds: float) -> Many:
        """What is known after reading for at most `seconds`; without any, nothing is read."""
        if (study, metric) != (self._study, self._metric):
            self._begin(study, metric)
        deadline, pending = time.monotonic() + seconds, 0
        if seconds > 0:
            self._read_events(deadline)
        for trial in reversed(trials[-MOST_CURVES:]):
            if self._over.get(trial.trial_id) is trial:
                continue
            if seconds <= 0 or time.monotonic() > deadline:
                pending += trial.trial_id not in self._curves
                continue
            self._read_curve(trial)
        return Many(dict(self._curves), {i: tuple(s) for i, s in self._spans.items()}, pending, self._version)

    def _read_curve(self, trial: TrialRecord) -> None:
        lines = self._lines.setdefault(
            trial.trial_id, Lines(paths.trial_dir(self._experiments, trial.trial_id) / paths.METRICS)
        )
        raw = lines.look()
        series = self._curves.get(trial.trial_id)
        if series is None or lines.restarted:
            series = self._curves[trial.trial_id] = Series()
        name = self._metric.encode()
        for row in records((line for line in raw if name in line), MetricRow):
            if row.metric == self._metric and (not series.steps or row.step > series.steps[-1]):
                series.steps.append(row.step)
                series.epochs.append(row.epoch)
                series.times.append(row.timestamp)
                series.values.append(row.value)
                self._version += 1
        if trial.state in FINISHED:
            self._over[trial.trial_id] = trial
            self._lines.pop(trial.trial_id, None)

    def _read_events(self, deadline: float) -> None:
        """Read new events, and parse those of so far until the deadline."""
        raw = self._events.look()
        if self._events.restarted:
            self._spans = {}
            self._told.clear()
        self._told += raw
        while self._told and time.monotonic() < deadline:
            self._note([self._told.popleft() for _ in range(min(len(self._told), AT_ONCE))])

    def _note(self, raw: list[bytes]) -> None:
        for event in records(raw, Event):
            self._version += 1
            spans = self._spans.setdefault(event.trial_id, [])
            open_ = bool(spans) and spans[-1].end is None
            if event.state in ACTIVE and not open_:
                spans.append(Span(event.timestamp, None, event.state))
            elif event.state not in ACTIVE and open_:
                spans[-1] = Span(spans[-1].start, event.timestamp, event.state)
