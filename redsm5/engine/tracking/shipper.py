"""Ships the journals to MLflow in a thread, without delaying the training.

Rows are shipped in the order in which they were written (redsm5/engine/tracking/tracker.py). A trial that MLflow
rejects does not hold back others, and a report that it rejects holds back neither metrics nor the run's end.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tenacity import (
    Retrying,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from redsm5.engine import files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError, LockedError, RedSM5Error
from redsm5.engine.records import Shipped, StudyRecord
from redsm5.engine.redaction import redact
from redsm5.engine.spec import StudySpec
from redsm5.engine.tracking import local
from redsm5.engine.tracking.access import of_one_trial, remedy
from redsm5.engine.tracking.tracker import Log, Tracker

LAST_TRIES = 3
REPORTS_S = 60.0  # between two tries of reports that MLflow did not take
SAID = 5  # refused trials that are named one by one
WARN_WAITING_BYTES = 100_000_000
LOST, FOUND = "metrics cannot be sent to MLflow and wait in the journals", "metrics reach MLflow again"
REPORT_LOST, REPORT_FOUND = "a report cannot be sent to MLflow; everything else can", "every report is in MLflow now"


def tracking_uri(config: StudySpec) -> str:
    """Where the metrics go: `study.tracking_uri`, or the database in the experiments folder."""
    return config.study.tracking_uri or local.own_uri(Path(config.experiments))


def _confirmed_bytes(folder: Path, uri: str) -> int:
    """How much of a trial's journal this MLflow has confirmed."""
    try:
        shipped = load(folder / paths.SHIPPED, Shipped)
    except InputError:
        return 0
    return shipped.bytes if shipped and local.is_meant(shipped.tracking_uri, uri, folder) else 0


def waiting_bytes(folder: Path, uri: str) -> int:
    """How many bytes of a trial's journal this MLflow has not confirmed."""
    try:
        return max(0, (folder / paths.METRICS).stat().st_size - _confirmed_bytes(folder, uri))
    except OSError:
        return 0


def waiting(folder: Path, uri: str) -> int:
    """How many of a trial's journal rows this MLflow has not confirmed."""
    try:
        with files.open_regular(folder / paths.METRICS) as file:
            file.seek(_confirmed_bytes(folder, uri))
            return sum(piece.count(b"\n") for piece in iter(partial(file.read, 1 << 20), b""))
    except OSError:
        return 0


@dataclass(frozen=True)
class Left:
    """What of a trial has not arrived, and why, as far as that is known.

    Attributes:
        rows: of its journal. Where there is neither a row nor a report, it is the run's end.
        reason: in MLflow's words or ours, and on the next lines what to do about it.
    """

    folder: Path
    rows: int
    report: bool
    reason: str | None

    @property
    def what(self) -> str:
        if self.report:
            return f"{self.folder.name}/{paths.REPORT}"
        rows = f"{self.rows} row{'s' * (self.rows > 1)}"
        return f"{self.folder.name}, {rows if self.rows else 'the end of its run'}"


class _Trouble:
    """Logs a failure once, and its end once. Rejected trials are named, up to SAID of them."""

    def __init__(self, uri: str, experiments: Path, log: Log, lost: str, found: str) -> None:
        self._experiments = experiments
        self._uri, self._log, self._lost, self._found = uri, log, lost, found
        self._said: set[str] = set()

    def note(self, error: Exception, folder: Path | None) -> str:
        """Say why, unless that has been said; the reason, with its remedy."""
        text = redact(_first_line(error))
        advice = error.remedy if isinstance(error, RedSM5Error) else remedy(str(error), self._uri, self._experiments)
        one = of_one_trial(error)
        said = text if one else "MLflow does not answer"
        reason = f"{text}\n{advice}" if advice else text
        if said in self._said or (one and len(self._said) >= SAID):
            return reason
        self._said.add(said)
        facts = {"trial": folder.name} if folder else {}
        if advice:
            facts["remedy"] = advice.replace("\n", " ")
        self._log(self._lost, error=type(error).__name__, reason=text, **facts)
        return reason

    def over(self) -> None:
        if self._said:
            self._log(self._found)
        self._said.clear()


def _first_line(error: Exception) -> str:
    if isinstance(error, RedSM5Error):
        return f"{error.where}: {error.what}" if error.where else error.what
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class Shipper(threading.Thread):
    """Ships watched trials in the background until it is closed.

    Args:
        uri: MLflow's address.
        artifacts: where a local MLflow keeps its artifacts.
        log: called with a sentence and its facts when MLflow does not take something, and when it does again.

    Attributes:
        failing: whether MLflow does not take something now, if only a report.
        away: why it takes nothing at all, where that is so.
    """

    INTERVAL_S = 1.0
    BACK_OFF_S = 1.0  # the wait after the first failure; it doubles up to 16 times this
    PATIENCE_S = 30.0  # without any confirmation, at the end
    HURRY_S = 3.0  # in all, once a signal came

    def __init__(self, uri: str, artifacts: Path, log: Log) -> None:
        super().__init__(name="mlflow-shipper", daemon=True)
        self._uri, self._artifacts, self._log = uri, artifacts, log
        self._folders: list[Path] = []
        self._reports: list[Path] = []  # trials of which all else has arrived
        self._reasons: dict[Path, str] = {}
        self._held: dict[Path, str] = {}  # by other processes, when last looked at
        self._metrics_trouble = _Trouble(uri, artifacts.parent, log, LOST, FOUND)
        self._report_trouble = _Trouble(uri, artifacts.parent, log, REPORT_LOST, REPORT_FOUND)
        self._complete: dict[str, StudyRecord] = {}
        self._closing = threading.Event()
        self._tracker: Tracker | None = None
        self._progress_at = math.inf  # importing MLflow and making its database take the time that they take
        self._reports_at = 0.0
        self._too_much_waits = False
        self.failing = False
        self.away: str | None = None

    def watch(self, folder: Path) -> None:
        """Ship this trial from now on."""
        if folder not in self._folders:
            self._folders.append(folder)

    def name_winner(self, study: StudyRecord) -> None:
        """Tag the winner of a complete study, once all of it has arrived; the last one named of each study."""
        self._complete[study.study_id] = study

    def close(self, hurried: Callable[[], bool] = lambda: False) -> int:
        """Ship what is left, as long as that gets on, and stop; the number of rows that MLflow has not confirmed.

        It ends after LAST_TRIES failures, or PATIENCE_S without a confirmation, or HURRY_S after `hurried` said yes.
        `failing` says whether something is left, if only a report, and `left` what it is.
        """
        self._closing.set()
        closed_at, hurried_at = time.monotonic(), math.inf
        while self.is_alive():
            self.join(0.05)
            if hurried():
                hurried_at = min(hurried_at, time.monotonic())
            patient_until = max(closed_at, self._progress_at) + self.PATIENCE_S
            if time.monotonic() > min(patient_until, hurried_at + self.HURRY_S):
                self.failing = True
                self.away = self.away or "it does not answer"
                break
        return sum(waiting(folder, self._uri) for folder in list(self._folders))

    @property
    def reports(self) -> int:
        """How many reports of trials of which all else has arrived have not."""
        return len(self._reports)

    def left(self) -> list[Left]:
        """What has not arrived of the watched trials, by trial; to be asked once it is closed."""
        found = []
        for folder in sorted({*self._folders, *self._reports}):
            rows, reason = waiting(folder, self._uri), self._reasons.get(folder)
            if folder in self._reports or rows or reason:
                reason = reason or self.away or self._held.get(folder)
                found.append(Left(folder, rows, folder in self._reports, reason))
        return found

    def run(self) -> None:
        retry = partial(
            Retrying,
            retry=retry_if_result(lambda done: not done),
            wait=wait_exponential(multiplier=self.BACK_OFF_S, max=16 * self.BACK_OFF_S),
            retry_error_callback=lambda _: None,
        )
        while not self._closing.wait(self.INTERVAL_S):
            retry(stop=stop_when_event_set(self._closing), sleep=sleep_using_event(self._closing))(self._ship_all)
        retry(stop=stop_after_attempt(LAST_TRIES))(self._ship_all)

    def _ship_all(self) -> bool:
        """One round over all trials; whether it was the last one, if no more rows come.

        A rejected trial does not hold back others. Any other failure ends the round, and its trial comes last in the
        next.
        """
        failed, others_at_work, away = False, False, None
        try:
            tracker = self._opened()
        except (
            Exception
        ) as error:  # whatever MLflow's many back-ends raise, training continues and the journal keeps everything
            failed, away = True, self._metrics_trouble.note(error, None)
        for folder in () if away else list(self._folders):
            try:
                if self._ship(tracker, folder):
                    self._folders.remove(folder)
                self._reasons.pop(folder, None)
            except LockedError as error:
                others_at_work = True
                self._held[folder] = error.message()
            except Exception as error:
                failed, reason = True, self._metrics_trouble.note(error, folder)
                self._put_last(self._folders, folder, reason)
                if not of_one_trial(error):
                    away = reason
                    break
        if not failed:
            self._metrics_trouble.over()
        if not away:
            others_at_work |= self._ship_reports(tracker)
        if self._closing.is_set() and not failed:
            failed = not self._name_winners(tracker)
        self._look_at_backlog()
        self.away = away
        self.failing = failed or bool(self._reports)
        return not failed and not (self._closing.is_set() and (others_at_work or self._reports))

    def _opened(self) -> Tracker:
        if self._tracker is None:
            self._tracker = Tracker(self._uri, self._artifacts, self._note_progress, self._log)
            self._note_progress()
        return self._tracker

    def _ship(self, tracker: Tracker, folder: Path) -> bool:
        """Whether nothing more is to come of the trial, but for its report."""
        if not (folder / paths.TRIAL).exists():
            return True
        finished = tracker.ship(folder)
        if finished and folder not in self._reports:
            self._reports.append(folder)
        return finished

    def _ship_reports(self, tracker: Tracker) -> bool:
        """Send the reports that are due, now and then where MLflow does not take them; whether others are at one."""
        others_at_work, failed = False, False
        if not self._reports or (time.monotonic() < self._reports_at and not self._closing.is_set()):
            return False
        try:
            tracker.settle()
        except Exception as error:
            failed = True
            self._report_trouble.note(error, None)
        for folder in () if failed else list(self._reports):
            try:
                tracker.ship_report(folder)
                self._reports.remove(folder)
                self._reasons.pop(folder, None)
            except LockedError as error:
                others_at_work = True
                self._held[folder] = error.message()
            except Exception as error:
                failed = True
                self._put_last(self._reports, folder, self._report_trouble.note(error, folder))
                if not of_one_trial(error):
                    break
        if failed:
            self._reports_at = time.monotonic() + REPORTS_S
        else:
            self._report_trouble.over()
        return others_at_work

    def _name_winners(self, tracker: Tracker) -> bool:
        """Whether all are named."""
        try:
            for study_id in list(self._complete):
                tracker.name_winner(self._complete[study_id])
                del self._complete[study_id]
        except Exception as error:
            self._metrics_trouble.note(error, None)
        return not self._complete

    def _put_last(self, folders: list[Path], folder: Path, reason: str) -> None:
        folders.remove(folder)
        folders.append(folder)
        self._reasons[folder] = reason

    def _note_progress(self) -> None:
        self._progress_at = time.monotonic()

    def _look_at_backlog(self) -> None:
        """Warn once when too much waits, and again only after it had become less."""
        size = sum(waiting_bytes(folder, self._uri) for folder in list(self._folders))
        if size > WARN_WAITING_BYTES and not self._too_much_waits:
            self._log(f"more than {WARN_WAITING_BYTES // 1_000_000} MB of metrics wait for MLflow", bytes=size)
        self._too_much_waits = size > WARN_WAITING_BYTES
