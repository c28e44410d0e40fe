"""One trial in detail: its metrics, checkpoints, configuration, log and report, followed as they grow."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redsm5.engine import paths
from redsm5.engine.jsonio import loads
from redsm5.engine.records import Decision, MetricRow, Receipt, RetentionRow, TrialRecord

from .files import Documents, Lines, read_object, records
from .reports import EvaluationReport

LOG = "log.jsonl"
LOG_TAIL = 1 << 18  # bytes
LOG_LINES = 500
MOST_FACTS = 50
MOST_METRICS = 400
SEVERITIES = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass
class Series:
    """A metric over time: its value after each step, the epochs completed by then, and when that was, in the order of
    the steps.
    """

    steps: list[int] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    times: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LogLine:
    """A line of the log; `facts`: its context, as name and value."""

    timestamp: str
    severity: str
    message: str
    facts: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class CheckpointLine:
    """A checkpoint, as of the last action on it. `bytes`: on disk now; `state`: full, weights or gone."""

    name: str
    score: float | None
    bytes: int
    state: str
    reason: str
    timestamp: str


@dataclass(frozen=True)
class TrialDetail:
    """A trial's folder at one moment.

    Attributes:
        series: by metric, in alphabetical order; `system_*` last.
        config: the configuration by dotted key.
        log: its last lines, oldest first.
        pruned: why the driver ended it, if it did.
        receipt: of a completed one, by which its weights can be trained again.
        problems: what could not be read completely, in words.
        version: changes when anything here does.
    """

    record: TrialRecord
    folder: Path
    series: dict[str, Series]
    checkpoints: tuple[CheckpointLine, ...]
    config: dict[str, Any]
    log: tuple[LogLine, ...]
    report: EvaluationReport | None
    problems: tuple[str, ...]
    pruned: str | None
    receipt: Receipt | None
    version: int


class TrialReader:
    """Follows one trial's folder."""

    def __init__(self, experiments: Path, trial_id: str) -> None:
        self.folder = paths.trial_dir(experiments, trial_id)
        self._documents = Documents()
        self._metrics = Lines(self.folder / paths.METRICS)
        self._retention = Lines(self.folder / paths.RETENTION)
        self._decisions = Lines(self.folder / paths.DECISIONS, LOG_TAIL)
        self._pruned: str | None = None
        self._log = Lines(self.folder / paths.LOGS / LOG, LOG_TAIL)
        self._series: dict[str, Series] = {}
        self._rows: dict[str, list[RetentionRow]] = {}
        self._lines: list[LogLine] = []
        self._config: dict[str, Any] = {}
        self._version = 0
        self._last: tuple[object, ...] = ()

    def read(self, record: TrialRecord) -> TrialDetail:
        for decision in records(self._decisions.look(), Decision):
            self._pruned = (decision.reason or "by the pruner") if decision.prune else self._pruned
        changed = self._read_metrics() | self._read_retention() | self._read_log()
        if not self._config:
            self._config = flatten(read_object(self.folder / paths.CONFIG) or {})
        report = self._documents.get(self.folder / paths.REPORT, EvaluationReport)
        own = self._documents.get(self.folder / paths.TRIAL, TrialRecord)  # the study's index has no receipts
        receipt = own.receipt if own else None
        problems = self._problems()
        seen = (record, report, problems, receipt)
        if changed or seen != self._last:
            self._version, self._last = self._version + 1, seen
        return TrialDetail(
            record=record,
            folder=self.folder,
            series=self._series,
            checkpoints=tuple(_checkpoint(self.folder, rows) for rows in self._rows.values()),
            config=self._config,
            log=tuple(self._lines),
            report=report,
            receipt=receipt,
            problems=problems,
            pruned=self._pruned,
            version=self._version,
        )

    def _read_metrics(self) -> bool:
        """The first line of a (metric, step) counts: later ones are from steps trained again after a resume."""
        lines = self._metrics.look()
        # A new dict, since a screen may be iterating over the previous one.
        found = {} if self._metrics.restarted else dict(self._series)
        for row in records(lines, MetricRow):
            series = found.get(row.metric)
            if series is None:
                if len(found) >= MOST_METRICS:
                    continue
                series = found[row.metric] = Series()
            if not series.steps or row.step > series.steps[-1]:
                series.steps.append(row.step)
                series.epochs.append(row.epoch)
                series.times.append(row.timestamp)
                series.values.append(row.value)
        if len(found) != len(self._series) or self._metrics.restarted:
            found = dict(sorted(found.items(), key=lambda item: (item[0].startswith("system_"), item[0])))
        self._series = found
        return bool(lines) or self._metrics.restarted

    def _read_retention(self) -> bool:
        lines = self._retention.look()
        if self._retention.restarted:
            self._rows = {}
        for row in records(lines, RetentionRow):
            self._rows.setdefault(row.checkpoint, []).append(row)
        return bool(lines)

    def _read_log(self) -> bool:
        lines = self._log.look()
        if self._log.restarted:
            self._lines = []
        self._lines = (self._lines + [line for raw in lines[-LOG_LINES:] if (line := log_line(raw))])[-LOG_LINES:]
        return bool(lines)

    def _problems(self) -> tuple[str, ...]:
        said = [f"{path.name} cannot be read" for path in sorted(self._documents.unreadable)]
        for lines in (self._metrics, self._retention, self._log):
            if lines.failed:
                said.append(f"{lines.path.name} cannot be read")
            elif lines.cut and lines is not self._log:
                said.append(f"{lines.path.name} is too long: only its end is shown")
        return tuple(said)


def _checkpoint(folder: Path, rows: list[RetentionRow]) -> CheckpointLine:
    """The state of a checkpoint from its rows: a `strip` row has the bytes freed, not those left."""
    held = 0
    state = "gone"
    for row in rows:
        if row.action == "keep":
            held, state = row.bytes, "full" if state in ("gone", "full") else state
        elif row.action == "strip":
            held, state = max(held - row.bytes, 0), "weights"
        else:
            held, state = 0, "gone" if row.action == "delete" else "quarantined"
    last = rows[-1]
    if held and not os.path.isdir(
        folder / paths.CHECKPOINTS / Path(last.checkpoint).name
    ):  # unlike Path.is_dir, it never raises for a long name
        held, state = 0, "gone"
    score = next((row.score for row in reversed(rows) if row.score is not None), None)
    return CheckpointLine(last.checkpoint, score, held, state, last.reason, last.timestamp)


def log_line(raw: bytes) -> LogLine | None:
    """A line of the log: time, severity, message and context."""
    try:
        line = loads(raw)
        if not isinstance(line, dict):
            return None
        severity = str(line.get("severity", "INFO")).upper()
        context = line.get("context")
        facts = [*context.items()][:MOST_FACTS] if isinstance(context, dict) else []
        return LogLine(
            timestamp=str(line.get("timestamp", "")),
            severity=severity if severity in SEVERITIES else "INFO" if severity != "CRITICAL" else "ERROR",
            message=str(line.get("message", "")),
            facts=tuple((key, v if isinstance(v, int | float) else str(v)) for key, v in facts),
        )
    except (ValueError, RecursionError):  # deeply nested JSON may be readable, and yet too deep to serialize
        return None


def flatten(document: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested object by dotted keys, with lists as text, since they may be deeply nested; at most 5,000 keys."""
    flat: dict[str, Any] = {}
    stack = [(prefix, document)]
    while stack and len(flat) < 5000:
        above, node = stack.pop()
        for key, value in node.items():
            if isinstance(value, dict) and value:
                stack.append((f"{above}{key}.", value))
            else:
                flat[f"{above}{key}"] = _written(value) if isinstance(value, list) and value else value
    return flat


def _written(value: list[Any]) -> str:
    try:
        return str(value)
    except RecursionError:
        return "…"
