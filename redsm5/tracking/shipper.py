"""From the journals to MLflow, beside the training and never in its way.

What is on disk is shipped in the order in which it was written; `shipped.json` moves on only when MLflow has confirmed.
A crash between the two ships a stretch again, which MLflow's SQL stores keep once, since the rows are equal to the
timestamp. A run is looked up by its trial_id before one is made.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tenacity import Retrying, stop_after_attempt, wait_exponential

from redsm5 import files, paths
from redsm5.config import Config, flatten
from redsm5.records import FINISHED, Shipped, TrialRecord, milliseconds
from redsm5.tracking.journal import read_metrics
from redsm5.tracking.logs import redact

BATCH_ROWS = 1000  # MLflow's limit for one log_batch
BATCH_PARAMS = 100  # likewise
RUN_STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


def tracking_uri(config: Config) -> str:
    """Where the metrics go: `study.tracking_uri`, or the database in the experiments folder."""
    return config.study.tracking_uri or f"sqlite:///{Path(config.experiments).resolve() / paths.MLFLOW_DB}"


class Tracker:
    """MLflow as the destination of trials' journals. Its methods raise whatever MLflow's client raises."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        # MLflow takes seconds to import: only where something is shipped, and never in a trial.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the retries are ours
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        if uri.startswith("sqlite:///"):
            _create_database(Path(uri.removeprefix("sqlite:///")))
        self.uri = uri
        self._artifacts = artifacts
        self._client = MlflowClient(tracking_uri=uri)

    def ship(self, folder: Path) -> bool:
        """Ship what a trial has that MLflow has not confirmed; True once a finished trial is there as a whole."""
        from mlflow.entities import Metric, Param, RunTag

        record = TrialRecord.model_validate_json((folder / paths.TRIAL).read_bytes())
        config = Config.model_validate_json((folder / paths.CONFIG).read_bytes())
        shipped = self._cursor(folder, record, config)
        if not shipped.params:
            flat = {k: str(v)[:6000] for k, v in flatten(config.model_dump(mode="json")).items() if k != "search.space"}
            params = [Param(k, v) for k, v in flat.items()]
            for start in range(0, len(params), BATCH_PARAMS):
                self._client.log_batch(shipped.run_id, params=params[start : start + BATCH_PARAMS])
            shipped = self._confirm(folder, shipped, params=True)
        rows = read_metrics(folder)
        while shipped.rows < len(rows):
            batch = rows[shipped.rows : shipped.rows + BATCH_ROWS]
            metrics = [Metric(r.metric, r.value, milliseconds(r.timestamp), r.step) for r in batch]
            self._client.log_batch(shipped.run_id, metrics=metrics)
            shipped = self._confirm(folder, shipped, rows=shipped.rows + len(batch))
        if shipped.state != record.state:
            tags: dict[str, Any] = {"state": record.state, "resumes": record.resumes, "exit_code": record.exit_code}
            if record.error:
                tags["error"] = f"{record.error.kind}: {record.error.message}"
            self._client.log_batch(shipped.run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])
            if record.state in FINISHED:
                if (folder / paths.REPORT).exists():
                    self._client.log_artifact(shipped.run_id, str(folder / paths.REPORT))
                assert record.finished_at is not None
                self._client.set_terminated(shipped.run_id, RUN_STATUS[record.state], milliseconds(record.finished_at))
            self._confirm(folder, shipped, state=record.state)
        return record.state in FINISHED

    def _cursor(self, folder: Path, record: TrialRecord, config: Config) -> Shipped:
        document = files.read_json(folder / paths.SHIPPED)
        if document and document["tracking_uri"] == redact(self.uri):
            return Shipped.model_validate(document)
        shipped = Shipped(tracking_uri=redact(self.uri), run_id=self._run_id(record, config))
        return self._confirm(folder, shipped)

    def _run_id(self, record: TrialRecord, config: Config) -> str:
        name = config.study.name if record.study_id else "single trials"
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            local = self.uri.startswith("sqlite:")
            location = self._artifacts.resolve().as_uri() if local else None
            experiment_id = self._client.create_experiment(name, artifact_location=location)
        else:
            experiment_id = experiment.experiment_id
        found = self._client.search_runs([experiment_id], f"tags.trial_id = '{record.trial_id}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        tags = {"trial_id": record.trial_id, "study_id": record.study_id, "trial_number": record.number}
        label = record.trial_id if record.number is None else f"trial {record.number}"
        run = self._client.create_run(
            experiment_id,
            start_time=milliseconds(record.started_at or record.created_at),
            run_name=label,
            tags={k: str(v) for k, v in tags.items() if v is not None},
        )
        return str(run.info.run_id)

    def _confirm(self, folder: Path, shipped: Shipped, **changes: Any) -> Shipped:
        shipped = shipped.model_copy(update=changes)
        files.write_atomic(folder / paths.SHIPPED, shipped.to_json())
        return shipped


def _create_database(path: Path) -> None:
    """Make a local MLflow database as a whole or not at all: MLflow refuses one that a kill left half migrated."""
    from mlflow.tracking import MlflowClient

    with files.Lock(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments(max_results=1)
        temporary.rename(path)
        files.fsync_dir(path.parent)


def waiting(folder: Path, uri: str) -> int:
    """How many of a trial's journal rows this MLflow has not confirmed."""
    document = files.read_json(folder / paths.SHIPPED)
    confirmed = document["rows"] if document and document["tracking_uri"] == redact(uri) else 0
    return len(read_metrics(folder)) - int(confirmed)


class Shipper(threading.Thread):
    """Ships watched trials in the background until it is closed.

    Args:
        uri: MLflow's address.
        artifacts: where a local MLflow keeps its artifacts.
        log: called with a sentence and its facts when MLflow does not answer, and when it does again.
    """

    INTERVAL_S = 1.0

    def __init__(self, uri: str, artifacts: Path, log: Callable[..., object]) -> None:
        super().__init__(name="mlflow-shipper", daemon=True)
        self._uri, self._artifacts, self._log = uri, artifacts, log
        self._folders: list[Path] = []
        self._closing = threading.Event()
        self._tracker: Tracker | None = None
        self._failing = False

    def watch(self, folder: Path) -> None:
        """Ship this trial from now on."""
        if folder not in self._folders:
            self._folders.append(folder)

    def close(self) -> int:
        """Ship what is left, with the last retries, and stop; the number of rows that MLflow has not confirmed."""
        self._closing.set()
        self.join()
        return sum(waiting(folder, self._uri) for folder in self._folders)

    def run(self) -> None:
        while not self._closing.wait(self.INTERVAL_S):
            self._ship_all(attempts=1)
        self._ship_all(attempts=3)

    def _ship_all(self, *, attempts: int) -> None:
        retrying = Retrying(
            stop=stop_after_attempt(attempts), wait=wait_exponential(multiplier=1, max=16), reraise=True
        )
        try:
            retrying(self._ship_once)
        except Exception as error:  # whatever MLflow's many back-ends raise, training goes on and the journal keeps all
            if not self._failing:
                reason = redact(str(error).splitlines()[0] if str(error) else "")
                self._log(
                    "MLflow does not answer; metrics wait in the journals", error=type(error).__name__, reason=reason
                )
            self._failing = True
        else:
            if self._failing:
                self._log("MLflow answers again")
            self._failing = False

    def _ship_once(self) -> None:
        if self._tracker is None:
            self._tracker = Tracker(self._uri, self._artifacts)
        for folder in list(self._folders):
            if self._tracker.ship(folder):
                self._folders.remove(folder)
