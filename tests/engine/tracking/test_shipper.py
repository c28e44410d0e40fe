"""The journals arrive in MLflow once, with their times, whatever interrupts the shipping: over MLflow's own SQLite."""

import math
import socket
import sqlite3
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from redsm5.config import Config, compose
from redsm5.engine import files, paths
from redsm5.engine.documents import milliseconds
from redsm5.engine.records import Best, ErrorRecord, MetricRow, Shipped, TrialRecord
from redsm5.engine.study.outcomes import note_repeated
from redsm5.engine.study.trial import create_trial, read_record, write_record
from redsm5.engine.tracking.shipper import Shipper, tracking_uri, waiting
from redsm5.engine.tracking.tracker import VALUE_CHARS, Tracker

TRIAL_ID = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
STEPS = 1200  # more than MLflow takes at once


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """MLflow takes seconds to make its tables: once for this module, with MLflow's own code."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    Tracker(f"sqlite:///{path}", path.parent)._client.search_experiments()
    return path.read_bytes()


@pytest.fixture
def config(tmp_path: Path, empty_database: bytes) -> Config:
    (tmp_path / paths.MLFLOW_DB).write_bytes(empty_database)
    return compose([f"experiments={tmp_path}", "study.name=shipping"])


@pytest.fixture
def folder(config: Config) -> Path:
    """A trial of a study, in training, with three metrics in its journal."""
    create_trial(config, trial_id=TRIAL_ID, study_id="study-1", number=3)
    folder = paths.trial_dir(Path(config.experiments), TRIAL_ID)
    write_rows(folder, range(1, STEPS + 1), "train_loss")
    write_rows(folder, [STEPS], "val_f1_macro")
    return folder


def write_rows(folder: Path, steps: range | list[int], metric: str) -> None:
    rows = [
        MetricRow(
            trial_id=TRIAL_ID,
            metric=metric,
            step=step,
            epoch=0,
            value=1 / step,
            timestamp=f"2026-01-31T12:{step // 60:02d}:{step % 60:02d}.{step % 1000:03d}Z",
        )
        for step in steps
    ]
    lines = b"".join(row.model_dump_json().encode() + b"\n" for row in rows)
    files.append_durable(folder / paths.METRICS, lines)


def tracker_of(config: Config) -> Tracker:
    return Tracker(tracking_uri(config), Path(config.experiments) / paths.MLFLOW_ARTIFACTS)


def client_of(config: Config) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_uri(config))


def runs(config: Config) -> list[Run]:
    client = client_of(config)
    return [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]


def history(config: Config, metric: str) -> list[tuple[int, float, int]]:
    [run] = runs(config)
    return sorted((m.step, m.value, m.timestamp) for m in client_of(config).get_metric_history(run.info.run_id, metric))


def in_journal(folder: Path, metric: str) -> list[tuple[int, float, int]]:
    rows = [row for row in files.read_lines(folder / paths.METRICS) if row["metric"] == metric]
    return [(row["step"], row["value"], milliseconds(row["timestamp"])) for row in rows]


def test_every_row_arrives_once_with_its_time(config: Config, folder: Path) -> None:
    assert waiting(folder, tracking_uri(config)) == STEPS + 1
    assert not tracker_of(config).ship(folder), "a trial in training is never there as a whole"
    assert history(config, "train_loss") == in_journal(folder, "train_loss")
    assert history(config, "val_f1_macro") == in_journal(folder, "val_f1_macro")
    assert waiting(folder, tracking_uri(config)) == 0
    [run] = runs(config)
    assert run.info.run_name == "trial 3"
    assert (run.data.tags["trial_id"], run.data.tags["study_id"], run.data.tags["state"]) == (
        TRIAL_ID,
        "study-1",
        "queued",
    )
    assert run.data.params["train.learning_rate"] == str(config.train.learning_rate)
    assert client_of(config).get_experiment(run.info.experiment_id).name == "shipping"


def test_a_trial_that_repeats_another_has_a_run_that_says_so(config: Config) -> None:
    original, repeated = (create_trial(config, study_id="study-1", number=n) for n in (0, 1))
    folder = paths.trial_dir(Path(config.experiments), repeated.trial_id)
    note_repeated(
        folder, repeated, original.model_copy(update={"state": "completed", "best": Best(epoch=1, value=0.5)})
    )
    assert tracker_of(config).ship(folder)
    [run] = runs(config)
    assert run.data.tags["duplicate_of"] == original.trial_id
    assert (run.data.tags["state"], run.info.status) == ("completed", "FINISHED")


def test_shipping_again_ships_only_what_is_new(config: Config, folder: Path) -> None:
    tracker = tracker_of(config)
    tracker.ship(folder)
    write_rows(folder, [STEPS + 1], "train_loss")
    assert waiting(folder, tracking_uri(config)) == 1
    tracker.ship(folder)
    tracker_of(config).ship(folder)
    assert history(config, "train_loss") == in_journal(folder, "train_loss")


def test_a_crash_before_the_cursor_moved_on_doubles_nothing(config: Config, folder: Path) -> None:
    """Whatever cursor a crash left, down to none at all: the run is found and the rows stay single."""
    tracker_of(config).ship(folder)
    path = folder / paths.SHIPPED
    done = Shipped.model_validate_json(path.read_bytes())
    for left in (
        None,
        {"rows": 0, "bytes": 0, "params": False},
        {"rows": 0},
        {"rows": 1000},
        {"bytes": 0},
        {"state": None},
    ):
        path.unlink() if left is None else path.write_bytes(done.model_copy(update=left).to_json())
        tracker_of(config).ship(folder)
        assert history(config, "train_loss") == in_journal(folder, "train_loss")
        assert Shipped.model_validate_json(path.read_bytes()) == done


def test_a_database_made_anew_gets_everything_again(config: Config, folder: Path, empty_database: bytes) -> None:
    """Somebody deleted mlflow.db: the cursors say that all is shipped, but to a run that is no more."""
    end_trial(folder, "completed")
    assert tracker_of(config).ship(folder)
    (Path(config.experiments) / paths.MLFLOW_DB).write_bytes(empty_database)
    assert tracker_of(config).ship(folder)
    assert history(config, "train_loss") == in_journal(folder, "train_loss")
    [run] = runs(config)
    assert run.info.status == "FINISHED"


def test_a_cursor_beyond_a_journal_that_was_cut_loses_no_later_row(config: Config, folder: Path) -> None:
    tracker_of(config).ship(folder)
    done = Shipped.model_validate_json((folder / paths.SHIPPED).read_bytes())
    beyond = done.model_copy(update={"rows": done.rows + 3, "bytes": done.bytes + 300})
    (folder / paths.SHIPPED).write_bytes(beyond.to_json())
    tracker = tracker_of(config)
    tracker.ship(folder)
    write_rows(folder, [STEPS + 1], "train_loss")
    tracker.ship(folder)
    assert history(config, "train_loss") == in_journal(folder, "train_loss")


def test_a_value_longer_than_mlflow_takes_is_cut(config: Config) -> None:
    assert MAX_PARAM_VAL_LENGTH == VALUE_CHARS
    config = compose([f"experiments={config.experiments}", f"model.model_id={'x' * 7000}"])
    create_trial(config, trial_id=TRIAL_ID)
    folder = paths.trial_dir(Path(config.experiments), TRIAL_ID)
    tracker_of(config).ship(folder)
    [run] = runs(config)
    assert run.data.params["model.model_id"] == "x" * VALUE_CHARS


@pytest.mark.parametrize(("state", "status"), [("completed", "FINISHED"), ("pruned", "FINISHED"), ("failed", "FAILED")])
def test_a_finished_trial_ends_its_run_with_the_report(config: Config, folder: Path, state: str, status: str) -> None:
    (folder / paths.REPORT).write_text('{"report_id": "r"}\n')
    end_trial(folder, state)
    tracker = tracker_of(config)
    assert tracker.ship(folder)
    tracker.ship_report(folder)
    [run] = runs(config)
    assert run.info.status == status
    assert run.info.end_time == milliseconds("2026-01-31T13:00:00.000Z")
    assert run.data.tags["state"] == state
    assert ("error" in run.data.tags) == (state == "failed")
    assert [a.path for a in client_of(config).list_artifacts(run.info.run_id)] == [paths.REPORT]
    kept = (folder / paths.SHIPPED).read_bytes()
    tracker.ship_report(folder)
    assert tracker_of(config).ship(folder), "and again changes nothing"
    assert (folder / paths.SHIPPED).read_bytes() == kept
    assert len(runs(config)) == 1


def end_trial(folder: Path, state: str) -> None:
    record = read_record(folder)
    assert record is not None
    error = ErrorRecord(kind="not_finite", message="the loss is nan at step 3") if state == "failed" else None
    changes = {"state": state, "exit_code": 0, "finished_at": "2026-01-31T13:00:00.000Z", "error": error}
    Path(folder.parent / "study_study-1").mkdir(exist_ok=True)
    write_record(folder, TrialRecord.model_validate(record.model_copy(update=changes).model_dump()))


def test_a_metric_that_is_not_finite_arrives_and_stops_nothing(config: Config, folder: Path) -> None:
    row = MetricRow(
        trial_id=TRIAL_ID, metric="val_loss", step=5, epoch=1, value=math.nan, timestamp="2026-01-31T12:59:00.000Z"
    )
    files.append_durable(folder / paths.METRICS, row.model_dump_json().encode() + b"\n")
    tracker_of(config).ship(folder)
    [(step, value, _)] = history(config, "val_loss")
    assert step == 5
    assert math.isnan(value)


def test_two_trials_have_two_runs(config: Config, folder: Path) -> None:
    other = TRIAL_ID.replace("0b5c", "1b5c")
    create_trial(config, trial_id=other, study_id="study-1", number=4)
    tracker = tracker_of(config)
    tracker.ship(folder)
    tracker.ship(paths.trial_dir(Path(config.experiments), other))
    assert {run.data.tags["trial_id"] for run in runs(config)} == {TRIAL_ID, other}


def test_while_mlflow_is_away_rows_wait_it_is_said_once_and_they_arrive_later(config: Config, folder: Path) -> None:
    said: list[str] = []
    dead = f"http://127.0.0.1:{closed_port()}"
    shipper = Shipper(dead, Path(config.experiments), log=lambda sentence, **_: said.append(sentence))
    shipper.INTERVAL_S = 0.05
    shipper.watch(folder)
    shipper.start()
    left = shipper.close()
    assert left == STEPS + 1
    assert [s for s in said if "cannot be sent to MLflow" in s] == said[:1]
    assert len(said) == 1
    assert waiting(folder, tracking_uri(config)) == STEPS + 1

    shipper = Shipper(tracking_uri(config), Path(config.experiments), log=lambda sentence, **_: said.append(sentence))
    shipper.watch(folder)
    shipper.start()
    assert shipper.close() == 0
    assert history(config, "train_loss") == in_journal(folder, "train_loss")


def test_when_mlflow_is_back_the_shipper_says_so_and_ships(config: Config, folder: Path) -> None:
    said: list[str] = []
    shipper = Shipper(tracking_uri(config), Path(config.experiments), log=lambda sentence, **_: said.append(sentence))
    shipper.watch(folder)
    shipper._ship_all()
    write_rows(folder, [STEPS + 1], "train_loss")
    with sqlite3.connect(Path(config.experiments) / paths.MLFLOW_DB) as database:
        database.execute("ALTER TABLE metrics RENAME TO metrics_away")
    shipper._ship_all()
    shipper._ship_all()
    assert len(said) == 1
    assert "cannot be sent to MLflow" in said[0]
    assert waiting(folder, tracking_uri(config)) == 1
    with sqlite3.connect(Path(config.experiments) / paths.MLFLOW_DB) as database:
        database.execute("ALTER TABLE metrics_away RENAME TO metrics")
    shipper._ship_all()
    assert said[1:] == ["metrics reach MLflow again"]
    assert history(config, "train_loss") == in_journal(folder, "train_loss")


def test_a_password_in_the_address_is_never_written(config: Config, folder: Path) -> None:
    said: list = []
    secret = f"http://user:hunter2@127.0.0.1:{closed_port()}"
    shipper = Shipper(secret, Path(config.experiments), log=lambda sentence, **facts: said.append((sentence, facts)))
    shipper.watch(folder)
    shipper._ship_all()
    assert said
    assert "hunter2" not in str(said)
    assert not (folder / paths.SHIPPED).exists() or "hunter2" not in (folder / paths.SHIPPED).read_text()


def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def test_a_database_in_a_folder_of_any_name_is_used_and_no_other_is_made(tmp_path: Path) -> None:
    """MLflow takes its address as a URL, in which % and ? have a meaning."""
    experiments = tmp_path / "100%20 sure?" / "e"
    experiments.mkdir(parents=True)
    config = compose([f"experiments='{experiments}'", "study.name=odd"])
    create_trial(config, trial_id=TRIAL_ID, study_id="study-1", number=0)
    folder = paths.trial_dir(experiments, TRIAL_ID)
    write_rows(folder, range(1, 4), "train_loss")
    tracker_of(config).ship(folder)
    assert waiting(folder, tracking_uri(config)) == 0
    with sqlite3.connect(experiments / paths.MLFLOW_DB) as database:
        assert database.execute("SELECT count(*) FROM metrics").fetchone() == (3,)
    assert [path.name for path in tmp_path.iterdir()] == ["100%20 sure?"]
    assert [path.name for path in (tmp_path / "100%20 sure?").iterdir()] == ["e"]


@pytest.mark.parametrize("hour", ["11", "13"])
def test_a_clock_that_jumps_in_the_middle_loses_and_doubles_no_row(config: Config, folder: Path, hour: str) -> None:
    """All rows arrive, each once, with the times that they were given; the run ends, if before it began."""
    rows = (folder / paths.METRICS).read_text().splitlines()
    middle = len(rows) // 2
    tracker = tracker_of(config)
    jumped = [row.replace("T12:", f"T{hour}:") for row in rows[middle:]]
    (folder / paths.METRICS).write_text("\n".join(rows[:middle]) + "\n")
    tracker.ship(folder)
    (folder / paths.METRICS).write_text("\n".join(rows[:middle] + jumped) + "\n")
    record = read_record(folder)
    assert record is not None
    times = {"started_at": "2026-01-31T12:00:00.000Z", "finished_at": f"2026-01-31T{hour}:30:00.000Z"}
    ended = record.model_copy(update={"state": "completed", "exit_code": 0, **times})
    write_record(folder, ended)
    assert ended.seconds is not None
    assert ended.seconds >= 0
    assert tracker.ship(folder)
    assert history(config, "train_loss") == in_journal(folder, "train_loss")
    assert len(in_journal(folder, "train_loss")) == STEPS
    [run] = runs(config)
    assert run.info.status == "FINISHED"
