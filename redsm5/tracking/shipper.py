"""From the journals to MLflow, beside the training and never in its way.

What is on disk is shipped in the order in which it was written; `shipped.json` moves on only when MLflow has confirmed.
A crash between the two ships a stretch again, which MLflow's SQL stores keep once, since the rows are equal to the
timestamp. A run is looked up by its trial_id before one is made. Of several processes one at a time ships a trial.
"""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from tenacity import (
    Retrying,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from redsm5 import files, paths
from redsm5.config import Config, flatten
from redsm5.documents import milliseconds
from redsm5.errors import LockedError
from redsm5.records import FINISHED, Shipped, TrialRecord
from redsm5.redaction import redact, redact_address
from redsm5.tracking.access import remedy
from redsm5.tracking.journal import JournalReader

BATCH_ROWS = 1000  # MLflow's limit for one log_batch
BATCH_PARAMS = 100  # likewise
VALUE_CHARS = 6000  # MLflow's limit for a parameter's value; a tag's is higher
REQUEST_TIMEOUT_S = 20
LAST_TRIES = 3
WARN_WAITING_BYTES = 100_000_000
RUN_STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


def tracking_uri(config: Config) -> str:
    """Where the metrics go: `study.tracking_uri`, or the database in the experiments folder."""
    return config.study.tracking_uri or f"sqlite:///{Path(config.experiments).resolve() / paths.MLFLOW_DB}"


class Tracker:
    """MLflow as the destination of trials' journals. Its methods raise whatever MLflow's client raises.

    Args:
        uri: MLflow's address.
        artifacts: where a local MLflow keeps its artifacts.
        on_confirmed: called whenever MLflow has confirmed something.
    """

    def __init__(self, uri: str, artifacts: Path, on_confirmed: Callable[[], object] = lambda: None) -> None:
        # MLflow takes seconds to import: only where something is shipped, and never in a trial.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it would print the address with its password
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
        # The retries are ours, whatever the environment says: MLflow's would send a create_run twice.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        if uri.startswith("sqlite:///"):
            _create_database(Path(uri.removeprefix("sqlite:///")))
        self.uri = uri
        self._artifacts, self._on_confirmed = artifacts, on_confirmed
        self._client = MlflowClient(tracking_uri=_as_url(uri))
        self._locks: dict[Path, files.Lock] = {}
        self._journals: dict[Path, JournalReader] = {}
        self._runs_seen: set[str] = set()

    def ship(self, folder: Path) -> bool:
        """Ship what a trial has that MLflow has not confirmed; True once a finished trial is there as a whole.

        Raises:
            LockedError: another process is shipping this trial.
        """
        if folder not in self._locks:
            self._locks[folder] = files.Lock(folder / paths.SHIPPING_LOCK)
        lock = self._locks[folder]
        if not lock.acquire():
            raise LockedError(f"another process is shipping {folder.name}")
        try:
            record = TrialRecord.model_validate_json((folder / paths.TRIAL).read_bytes())
            config = Config.model_validate_json((folder / paths.CONFIG).read_bytes())
            shipped = self._cursor(folder, record, config)
            shipped = self._ship_params(folder, config, shipped)
            shipped = self._ship_rows(folder, shipped)
            self._ship_state(folder, record, shipped)
        finally:
            lock.release()
        if record.state not in FINISHED:
            return False
        del self._locks[folder]
        self._journals.pop(folder, None)
        return True

    def _ship_params(self, folder: Path, config: Config, shipped: Shipped) -> Shipped:
        from mlflow.entities import Param

        if shipped.params:
            return shipped
        flat = flatten(config.model_dump(mode="json"))
        params = [Param(k, str(v)[:VALUE_CHARS]) for k, v in flat.items() if k != "search.space"]
        for start in range(0, len(params), BATCH_PARAMS):
            self._client.log_batch(shipped.run_id, params=params[start : start + BATCH_PARAMS], synchronous=True)
        return self._confirm(folder, shipped, params=True)

    def _ship_rows(self, folder: Path, shipped: Shipped) -> Shipped:
        from mlflow.entities import Metric

        journal = self._journals.get(folder)
        if journal is None or journal.rows != shipped.rows:  # the first look, or another process went on meanwhile
            journal = self._journals[folder] = JournalReader(folder)
            while journal.rows < shipped.rows and journal.look(min(BATCH_ROWS, shipped.rows - journal.rows)):
                journal.advance()
        while journal.look(BATCH_ROWS):
            metrics = [Metric(r.metric, r.value, milliseconds(r.timestamp), r.step) for r in journal.piece]
            if metrics:
                self._client.log_batch(shipped.run_id, metrics=metrics, synchronous=True)
            journal.advance()
            shipped = self._confirm(folder, shipped, rows=journal.rows, bytes=journal.bytes)
        if (journal.rows, journal.bytes) != (shipped.rows, shipped.bytes):  # a cursor beyond a journal that was cut
            shipped = self._confirm(folder, shipped, rows=journal.rows, bytes=journal.bytes)
        return shipped

    def _ship_state(self, folder: Path, record: TrialRecord, shipped: Shipped) -> None:
        from mlflow.entities import RunTag

        if (shipped.state, shipped.finished_at) == (record.state, record.finished_at):
            return
        tags: dict[str, Any] = {"state": record.state, "epochs": record.epochs}
        tags |= {"resumes": record.resumes, "exit_code": record.exit_code}
        if record.duplicate_of:
            tags["duplicate_of"] = record.duplicate_of
        if record.error:
            tags["error"] = f"{record.error.kind}: {record.error.message}"[:VALUE_CHARS]
        self._client.log_batch(shipped.run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()], synchronous=True)
        if record.state in FINISHED:
            if (folder / paths.REPORT).exists():
                self._client.log_artifact(shipped.run_id, str(folder / paths.REPORT))
            assert record.finished_at is not None
            self._client.set_terminated(shipped.run_id, RUN_STATUS[record.state], milliseconds(record.finished_at))
        self._confirm(folder, shipped, state=record.state, finished_at=record.finished_at)

    def _cursor(self, folder: Path, record: TrialRecord, config: Config) -> Shipped:
        """Where shipping stands; the beginning, where MLflow or the run is another than the last time."""
        document = files.read_json(folder / paths.SHIPPED)
        if document and document["tracking_uri"] == redact_address(self.uri):
            shipped = Shipped.model_validate(document)
            if shipped.run_id in self._runs_seen or self._exists(shipped.run_id):
                self._runs_seen.add(shipped.run_id)
                return shipped
        run_id = self._run_id(record, config)
        self._runs_seen.add(run_id)
        return self._confirm(folder, Shipped(tracking_uri=redact_address(self.uri), run_id=run_id))

    def _exists(self, run_id: str) -> bool:
        """Whether MLflow has the run; it has not where its database was deleted and made anew."""
        from mlflow import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _run_id(self, record: TrialRecord, config: Config) -> str:
        """The trial's run, made where there is none."""
        experiment_id = self._experiment_id(config.study.name if record.study_id else "single trials")
        find = partial(self._client.search_runs, [experiment_id], f"tags.trial_id = '{record.trial_id}'")
        if found := find():
            return str(found[0].info.run_id)
        tags = {"trial_id": record.trial_id, "study_id": record.study_id, "trial_number": record.number}
        label = record.trial_id if record.number is None else f"trial {record.number}"
        run = self._client.create_run(
            experiment_id,
            start_time=milliseconds(record.started_at or record.created_at),
            run_name=label,
            tags={k: str(v) for k, v in tags.items() if v is not None},
        )
        for other in find():  # an earlier request, given up as lost, that reached a stalled server after all
            if other.info.run_id != run.info.run_id:
                self._client.delete_run(other.info.run_id)
        return str(run.info.run_id)

    def _experiment_id(self, name: str) -> str:
        from mlflow import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = self._artifacts.resolve().as_uri() if self.uri.startswith("sqlite:") else None
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            experiment = self._client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                raise
            return str(experiment.experiment_id)  # another worker was faster

    def _confirm(self, folder: Path, shipped: Shipped, **changes: Any) -> Shipped:
        shipped = shipped.model_copy(update=changes)
        files.write_atomic(folder / paths.SHIPPED, shipped.to_json())
        self._on_confirmed()
        return shipped


def _as_url(uri: str) -> str:
    """An address as MLflow takes it, as a URL, in which % and ? are no part of a name. In that of a folder that is
    there they are meant; were they quoted, MLflow would make a folder of the quoted name: so it goes by its descriptor.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if str(path) == uri or not re.search("[%?]", str(path.parent)) or not path.parent.is_dir():
        return uri
    return f"sqlite:////proc/self/fd/{_opened(path.parent)}/{path.name}"


@cache
def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def _create_database(path: Path) -> None:
    """Make a local MLflow database as a whole or not at all: MLflow refuses one that a kill left half migrated."""
    from mlflow.tracking import MlflowClient

    with files.Lock(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        MlflowClient(tracking_uri=_as_url(f"sqlite:///{temporary}")).search_experiments(max_results=1)
        temporary.rename(path)
        files.fsync_dir(path.parent)


def _confirmed_bytes(folder: Path, uri: str) -> int:
    """How much of a trial's journal this MLflow has confirmed."""
    document = files.read_json(folder / paths.SHIPPED)
    return int(document.get("bytes", 0)) if document and document["tracking_uri"] == redact_address(uri) else 0


def waiting_bytes(folder: Path, uri: str) -> int:
    """How many bytes of a trial's journal this MLflow has not confirmed."""
    try:
        return max(0, (folder / paths.METRICS).stat().st_size - _confirmed_bytes(folder, uri))
    except FileNotFoundError:
        return 0


def waiting(folder: Path, uri: str) -> int:
    """How many of a trial's journal rows this MLflow has not confirmed."""
    try:
        with (folder / paths.METRICS).open("rb") as file:
            file.seek(_confirmed_bytes(folder, uri))
            return sum(piece.count(b"\n") for piece in iter(partial(file.read, 1 << 20), b""))
    except FileNotFoundError:
        return 0


class Shipper(threading.Thread):
    """Ships watched trials in the background until it is closed.

    Args:
        uri: MLflow's address.
        artifacts: where a local MLflow keeps its artifacts.
        log: called with a sentence and its facts when MLflow does not take the metrics, and when it does again.
    """

    INTERVAL_S = 1.0
    BACK_OFF_S = 1.0  # the wait after the first failure; it doubles up to 16 times this
    PATIENCE_S = 30.0  # without any confirmation, at the end
    HURRY_S = 3.0  # in all, once a signal came

    def __init__(self, uri: str, artifacts: Path, log: Callable[..., object]) -> None:
        super().__init__(name="mlflow-shipper", daemon=True)
        self._uri, self._artifacts, self._log = uri, artifacts, log
        self._folders: list[Path] = []
        self._closing = threading.Event()
        self._tracker: Tracker | None = None
        self._progress_at = math.inf  # importing MLflow and making its database take the time that they take
        self._too_much_waits = False
        self.failing = False

    def watch(self, folder: Path) -> None:
        """Ship this trial from now on."""
        if folder not in self._folders:
            self._folders.append(folder)

    def close(self, hurried: Callable[[], bool] = lambda: False) -> int:
        """Ship what is left, as long as that gets on, and stop; the number of rows that MLflow has not confirmed.

        It ends after LAST_TRIES failures, or PATIENCE_S without a confirmation, or HURRY_S after `hurried` said yes.
        `failing` says whether something is left, if only a report.
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
                break
        return sum(waiting(folder, self._uri) for folder in list(self._folders))

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
        """One round over all trials; whether it is to be the last one, if no more is to come.

        What fails ends the round and is the last of the next one, so that it keeps nothing else waiting.
        """
        others_at_work, folder = False, None
        try:
            if self._tracker is None:
                self._tracker = Tracker(self._uri, self._artifacts, self._note_progress)
                self._note_progress()
            for folder in list(self._folders):
                try:
                    if not (folder / paths.TRIAL).exists() or self._tracker.ship(folder):
                        self._folders.remove(folder)
                except LockedError:
                    others_at_work = True
        except Exception as error:  # whatever MLflow's many back-ends raise, training goes on and the journal keeps all
            if not self.failing:
                self._say_why(error, folder)
            self.failing = True
            if folder is not None:
                self._folders.remove(folder)
                self._folders.append(folder)
        else:
            if self.failing:
                self._log("metrics reach MLflow again")
            self.failing = False
        self._look_at_backlog()
        return not self.failing and not (others_at_work and self._closing.is_set())

    def _note_progress(self) -> None:
        self._progress_at = time.monotonic()

    def _say_why(self, error: Exception, folder: Path | None) -> None:
        reason = redact(str(error).splitlines()[0] if str(error) else "")
        facts = {"trial": folder.name} if folder else {}
        if advice := remedy(str(error)):
            facts["remedy"] = advice
        self._log(
            "metrics do not reach MLflow and wait in the journals", error=type(error).__name__, reason=reason, **facts
        )

    def _look_at_backlog(self) -> None:
        """Warn once when too much waits, and again only after it had become less."""
        size = sum(waiting_bytes(folder, self._uri) for folder in list(self._folders))
        if size > WARN_WAITING_BYTES and not self._too_much_waits:
            self._log(f"more than {WARN_WAITING_BYTES // 1_000_000} MB of metrics wait for MLflow", bytes=size)
        self._too_much_waits = size > WARN_WAITING_BYTES
