"""MLflow as the destination of journals and reports: what is sent, and what MLflow has confirmed.

`shipped.json` is updated only after MLflow's confirmation. After a crash in between, rows are sent again; MLflow's SQL
stores keep them once, since they are equal, timestamp included. A run is looked up by its trial_id before one is
created. Only one process at a time ships a trial. A report is sent last and holds nothing back.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from redsm5.engine import files, paths
from redsm5.engine.documents import load, milliseconds
from redsm5.engine.errors import InputError, LockedError
from redsm5.engine.records import FINISHED, Shipped, StudyRecord, TrialRecord
from redsm5.engine.spec import flatten, load_snapshot
from redsm5.engine.tracking import local
from redsm5.engine.tracking.access import NotTakenError, in_trash, is_refusal
from redsm5.engine.tracking.journal import JournalReader

BATCH_ROWS = 1000  # MLflow's limit for one log_batch
BATCH_PARAMS = 100  # MLflow's limit, too
PARENT = "mlflow.parentRunId"  # the tag by which MLflow shows a run below another one
WINNER = "winner"  # the tag of the run that a study chose
VALUE_CHARS = 6000  # MLflow's limit for a parameter's value; a tag's is higher
OLDER_LIMITS = (500, 250)  # those of servers before 2.8 and 1.28
REQUEST_TIMEOUT_S = 20
RUN_STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
Log = Callable[..., object]


class Tracker:
    """Its methods raise whatever MLflow's client raises; what concerns one trial alone, as an error of ours.

    Args:
        uri: MLflow's address.
        artifacts: where a local MLflow keeps its artifacts.
        on_confirmed: called whenever MLflow has confirmed something.
        log: called with a sentence and its facts about what MLflow does not take and nothing waits for.
    """

    def __init__(
        self,
        uri: str,
        artifacts: Path,
        on_confirmed: Callable[[], object] = lambda: None,
        log: Log = lambda *_, **__: None,
    ) -> None:
        # MLflow takes seconds to import: only where something is shipped, and never in a trial.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it would print the address with its password
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_S))
        # The retries are ours, whatever the environment says: MLflow's would send a create_run twice.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        self.uri = uri
        self._artifacts, self._on_confirmed, self._log = artifacts, on_confirmed, log
        self._database = local.database_of(uri)
        if self._database:
            local.create(self._database)
        self.settle()
        self._client = MlflowClient(tracking_uri=local.as_url(uri))
        self._locks: dict[Path, files.Lock] = {}
        self._journals: dict[Path, JournalReader] = {}
        self._runs_seen: dict[str, str] = {}  # and where their artifacts are

    def settle(self) -> None:
        """Have a local MLflow know where the folder's artifacts are now."""
        if self._database:
            local.settle(self._database, self._artifacts)

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Hold the trial's lock of shipping, and explain what MLflow refuses.

        Raises:
            LockedError: another process is shipping this trial.
        """
        from mlflow import MlflowException

        lock = self._locks.setdefault(folder, files.Lock(folder / paths.SHIPPING_LOCK))
        if not lock.acquire():
            hint = f"if its machine crashed, remove {lock.mark}" if lock.mark.exists() else None
            raise LockedError("another process is shipping it", remedy=hint)
        try:
            yield
        except MlflowException as error:
            raise self._explained(error, folder) from error
        finally:
            lock.release()

    def ship(self, folder: Path) -> bool:
        """Ship what a trial has that MLflow has not confirmed, but for its report; True once a finished trial is there.

        Raises:
            LockedError: another process is shipping this trial.
            InputError: a file of it cannot be read.
            NotTakenError: MLflow refuses this trial.
        """
        with self._alone(folder):
            record, config = load(folder / paths.TRIAL, TrialRecord), load_snapshot(folder)
            if record is None or config is None:
                raise InputError("the file is missing", where=str(folder / paths.CONFIG))
            if folder.name != paths.trial_dir(folder.parent, record.trial_id).name:
                raise InputError(f"it is of trial {record.trial_id}", where=str(folder / paths.TRIAL))
            shipped = self._cursor(folder, record, config)
            shipped = self._ship_params(folder, config, shipped)
            shipped = self._ship_rows(folder, shipped)
            self._ship_state(folder, record, shipped, str(config["study"].get("name") or ""))
        if record.state not in FINISHED:
            return False
        self._journals.pop(folder, None)
        return True

    def ship_report(self, folder: Path) -> None:
        """Send the report of a finished trial that was shipped, unless it is there.

        Raises:
            OSError: it cannot be written to where MLflow keeps it. What `ship` raises, likewise.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with self._alone(folder):
            shipped = self._saved(folder)
            if shipped is None or not (folder / paths.REPORT).exists():
                return
            place = local.artifact_folder(self._runs_seen.get(shipped.run_id)) if self._database else None
            if shipped.report is not False and (place is None or (place / paths.REPORT).exists()):
                return
            location = self._client.get_run(shipped.run_id).info.artifact_uri
            root = local.root_of(location)
            if self._database and root and not root.parent.exists():  # MLflow would make it
                raise NotTakenError(f"MLflow keeps the run's artifacts in {root}, but there is no folder {root.parent}")
            # not the client's log_artifact, which remembers where a run's artifacts were
            artifacts: Any = get_artifact_repository(location, tracking_uri=self.uri)
            artifacts.log_artifact(str(folder / paths.REPORT))
            self._confirm(folder, shipped, report=True)

    def name_winner(self, study: StudyRecord) -> None:
        """Tag the run of a complete study's winner, and no other: `confirmed`, or `best` where it confirmed none."""
        found = study.confirmed or study.best
        experiment = self._client.get_experiment_by_name(study.name)
        if study.state != "completed" or found is None or experiment is None:
            return
        ours = f"tags.study_id = '{study.study_id}'"
        kind = "confirmed" if study.confirmed else "best"
        for run in self._client.search_runs([experiment.experiment_id], f"{ours} AND tags.{WINNER} LIKE '%'"):
            if run.data.tags.get("trial_id") != found.trial_id:
                self._client.delete_tag(run.info.run_id, WINNER)
        for run in self._client.search_runs([experiment.experiment_id], f"tags.trial_id = '{found.trial_id}'"):
            if run.data.tags.get(WINNER) != kind:
                self._client.set_tag(run.info.run_id, WINNER, kind, synchronous=True)

    def _ship_params(self, folder: Path, config: dict[str, Any], shipped: Shipped) -> Shipped:
        from mlflow import MlflowException
        from mlflow.entities import Param

        if shipped.params:
            return shipped
        params = {key: str(value) for key, value in flatten(config).items() if key != "search.space"}
        keys = list(params)
        for start in range(0, len(keys), BATCH_PARAMS):
            batch = keys[start : start + BATCH_PARAMS]
            try:
                found = [Param(key, params[key][:VALUE_CHARS]) for key in batch]
                self._client.log_batch(shipped.run_id, params=found, synchronous=True)
            except MlflowException as error:
                if not is_refusal(error) or self._trash_of(folder):
                    raise
                self._ship_params_singly(folder, shipped.run_id, {key: params[key] for key in batch})
        return self._confirm(folder, shipped, params=True)

    def _ship_params_singly(self, folder: Path, run_id: str, params: dict[str, str]) -> None:
        """Send each parameter by itself, shorter if need be: what MLflow refuses is named, and nothing waits for it.

        What was logged before stays, also where the trial has been given another value since: more epochs, say, which
        its tags show.
        """
        from mlflow import MlflowException

        known = self._client.get_run(run_id).data.params
        for key, value in params.items():
            if key in known:
                continue
            for limit in (VALUE_CHARS, *OLDER_LIMITS):
                try:
                    self._client.log_param(run_id, key, value[:limit], synchronous=True)
                    break
                except MlflowException as error:
                    if not is_refusal(error):
                        raise
                    reason = str(error)
            else:
                where = str(folder / paths.CONFIG)
                self._log("MLflow rejects a parameter; its value is kept in", where=where, key=key, reason=reason)

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

    def _ship_state(self, folder: Path, record: TrialRecord, shipped: Shipped, study: str) -> None:
        from mlflow.entities import RunTag

        if (shipped.state, shipped.finished_at) == (record.state, record.finished_at):
            return
        tags: dict[str, Any] = {"state": record.state, "epochs": record.epochs}
        tags |= {"resumes": record.resumes, "exit_code": record.exit_code}
        if record.study_id:
            tags["study"] = study[:VALUE_CHARS]
        if record.duplicate_of:
            tags["duplicate_of"] = record.duplicate_of
        if record.rung is not None:
            tags["rung"] = record.rung
        if record.error:
            tags["error"] = f"{record.error.kind}: {record.error.message}"[:VALUE_CHARS]
        self._client.log_batch(shipped.run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()], synchronous=True)
        report = None
        if "paused" in (record.state, shipped.state) and record.state not in FINISHED:
            waiting = record.state == "paused"
            self._client.update_run(shipped.run_id, status="SCHEDULED" if waiting else "RUNNING")
        if record.state in FINISHED:
            report = False if (folder / paths.REPORT).exists() else None
            ended = milliseconds(record.finished_at) if record.finished_at else None
            self._client.set_terminated(shipped.run_id, RUN_STATUS[record.state], ended)
        self._confirm(folder, shipped, state=record.state, finished_at=record.finished_at, report=report)

    # -----------------------------------------------------------------------------------------------------------------
    # where it stands

    def _saved(self, folder: Path) -> Shipped | None:
        """What shipped.json says, if it is of this MLflow."""
        try:
            shipped = load(folder / paths.SHIPPED, Shipped)
        except InputError:  # damaged, or another version's: what has arrived is found in MLflow
            return None
        return shipped if shipped and local.is_meant(shipped.tracking_uri, self.uri, folder) else None

    def _cursor(self, folder: Path, record: TrialRecord, config: dict[str, Any]) -> Shipped:
        """Where shipping stands; the beginning, where MLflow or the run is another than the last time."""
        shipped = self._saved(folder)
        if shipped and (shipped.run_id in self._runs_seen or self._exists(shipped.run_id)):
            moved = shipped.tracking_uri != local.written(self.uri, folder.parent)
            return self._confirm(folder, shipped) if moved else shipped
        return self._confirm(folder, Shipped(tracking_uri="", run_id=self._run_id(record, config)))

    def _exists(self, run_id: str) -> bool:
        """Whether MLflow has the run; not if its database was deleted and recreated."""
        from mlflow import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        self._runs_seen[run_id] = str(run.info.artifact_uri)
        return True

    def _run_id(self, record: TrialRecord, config: dict[str, Any]) -> str:
        """The trial's run, made where there is none."""
        name = config["study"].get("name") if record.study_id else None
        experiment_id = self._experiment_id(str(name or "single trials"))
        find = partial(self._client.search_runs, [experiment_id], f"tags.trial_id = '{record.trial_id}'")
        found = find()
        run = found[0] if found else self._create_run(experiment_id, record)
        for other in [] if found else find():  # an earlier request, given up as lost, that reached a stalled server
            if other.info.run_id != run.info.run_id:
                self._client.delete_run(other.info.run_id)
        self._runs_seen[run.info.run_id] = str(run.info.artifact_uri)
        return str(run.info.run_id)

    def _create_run(self, experiment_id: str, record: TrialRecord) -> Any:
        tags = {"trial_id": record.trial_id, "study_id": record.study_id, "trial_number": record.number}
        if record.confirms:
            tags |= {"confirms": record.confirms, "repeat": record.repeat}
            if confirmed := self._client.search_runs([experiment_id], f"tags.trial_id = '{record.confirms}'"):
                tags[PARENT] = confirmed[0].info.run_id
        return self._client.create_run(
            experiment_id,
            start_time=milliseconds(record.started_at or record.created_at),
            run_name=record.trial_id if record.number is None else f"trial {record.label}",
            tags={k: str(v) for k, v in tags.items() if v is not None},
        )

    def _experiment_id(self, name: str) -> str:
        from mlflow import MlflowException
        from mlflow.entities import ViewType

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = self._artifacts.resolve().as_uri() if self._database else None
            tags = {local.TAG: location} if location else None
            try:
                return str(self._client.create_experiment(name, artifact_location=location, tags=tags))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)  # another worker was faster
                if experiment is None:  # a server that finds none of its trash by name
                    trash = self._client.search_experiments(ViewType.DELETED_ONLY)
                    experiment = next((e for e in trash if e.name == name), None)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            raise in_trash(self.uri, "experiment", experiment.experiment_id, name)
        return str(experiment.experiment_id)

    def _confirm(self, folder: Path, shipped: Shipped, **changes: Any) -> Shipped:
        shipped = shipped.model_copy(update={**changes, "tracking_uri": local.written(self.uri, folder.parent)})
        files.write_atomic(folder / paths.SHIPPED, shipped.to_json())
        self._on_confirmed()
        return shipped

    # -----------------------------------------------------------------------------------------------------------------
    # why MLflow refuses

    def _trash_of(self, folder: Path) -> NotTakenError | None:
        """What of MLflow's keeps a trial out because a person has deleted it."""
        shipped = self._saved(folder)
        if shipped is None:
            return None
        info = self._client.get_run(shipped.run_id).info
        experiment = self._client.get_experiment(info.experiment_id)
        if experiment.lifecycle_stage == "deleted":
            return in_trash(self.uri, "experiment", experiment.experiment_id, experiment.name)
        if info.lifecycle_stage == "deleted":
            return in_trash(self.uri, "run", shipped.run_id, info.run_name)
        return None

    def _explained(self, error: Exception, folder: Path) -> Exception:
        """The error, as one of ours if MLflow refuses this trial because of what a person has deleted."""
        from mlflow import MlflowException

        if not is_refusal(error):
            return error
        try:
            return self._trash_of(folder) or error
        except MlflowException:
            return error
