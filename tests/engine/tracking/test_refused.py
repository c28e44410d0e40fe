"""What MLflow does not take is told with what mends it: the very command, which is run here, and then all arrives."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.documents import now
from redsm5.engine.records import MetricRow, Shipped, TrialRecord
from redsm5.engine.study.trial import create_trial, read_record, write_record
from redsm5.engine.tracking import local
from redsm5.engine.tracking.access import REFUSED, remedy
from redsm5.engine.tracking.shipper import FOUND, LOST, REPORT_LOST, Shipper
from redsm5.engine.tracking.tracker import VALUE_CHARS
from tests.mlflow_server import FaultProxy, MlflowServer, check_arrived


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shipper, "BACK_OFF_S", 0.005)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is slow


def make_trial(experiments: Path, number: int = 0) -> Path:
    """A trial in training, of a study that goes by the folder's name."""
    (experiments / "study_study-1").mkdir(parents=True, exist_ok=True)
    config = compose([f"experiments={experiments}", f"study.name={experiments.name}"])
    folder = paths.trial_dir(experiments, create_trial(config, study_id="study-1", number=number).trial_id)
    write_rows(folder, 1, 3)
    return folder


def write_rows(folder: Path, first: int, last: int) -> None:
    trial_id = folder.name.removeprefix("trial_")
    for step in range(first, last + 1):
        row = MetricRow(trial_id=trial_id, metric="train_loss", step=step, epoch=0, value=1 / step, timestamp=now())
        files.append_durable(folder / paths.METRICS, row.model_dump_json().encode() + b"\n")


def complete(folder: Path) -> None:
    (folder / paths.REPORT).write_text('{"report_id": "r"}\n')
    record = read_record(folder)
    assert record is not None
    changes = {"state": "completed", "exit_code": 0, "finished_at": now()}
    write_record(folder, TrialRecord.model_validate(record.model_copy(update=changes).model_dump()))


def ship(uri: str, *folders: Path) -> tuple[Shipper, list[tuple[str, dict]]]:
    said: list[tuple[str, dict]] = []
    log = lambda sentence, **facts: said.append((sentence, facts))  # noqa: E731
    shipper = Shipper(uri, folders[0].parent / paths.MLFLOW_ARTIFACTS, log)
    for folder in folders:
        shipper.watch(folder)
    shipper.start()
    shipper.close()
    return shipper, said


def run_the_command(reason: str | None) -> None:
    """The last line of the reason, as a person pastes it, wherever that is."""
    line = (reason or "").splitlines()[-1]
    done = subprocess.run(["sh", "-c", line], cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (line, done.stderr)


@pytest.mark.parametrize("deleted", ["experiment", "run"])
@pytest.mark.parametrize("where", ["local", "server"])
def test_what_was_deleted_in_mlflow_is_told_with_the_command_that_restores_it(
    server: MlflowServer, tmp_path: Path, where: str, deleted: str
) -> None:
    experiments = tmp_path / f"{where}-{deleted}"
    folder = make_trial(experiments)
    uri = server.url if where == "server" else local.own_uri(experiments)
    ship(uri, folder)
    client = MlflowClient(uri)
    run_id = Shipped.model_validate_json((folder / paths.SHIPPED).read_bytes()).run_id
    if deleted == "run":
        client.delete_run(run_id)
    else:
        client.delete_experiment(client.get_run(run_id).info.experiment_id)
    write_rows(folder, 4, 5)
    complete(folder)
    folders = [folder, make_trial(experiments, 1)] if deleted == "experiment" else [folder]
    shipper, said = ship(uri, *folders)
    assert [sentence for sentence, _ in said] == [LOST], "once, not for each trial"
    assert "deleted" in str(said[0][1]["reason"])
    assert [left.rows for left in shipper.left() if left.folder == folder] == [2]
    assert len(shipper.left()) == len(folders)

    run_the_command(shipper.left()[0].reason)
    shipper, said = ship(uri, *folders)
    assert (shipper.left(), shipper.failing, said) == ([], False, [])
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "completed")
    assert len(client.get_metric_history(run_id, "train_loss")) == 5
    if where == "server":
        check_arrived(server, folder)


def test_an_experiment_in_the_trash_that_is_not_found_by_its_name(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Servers that look among the active ones only; the name is taken all the same."""
    folder = make_trial(tmp_path / "hidden")
    client = MlflowClient(server.url)
    client.delete_experiment(client.create_experiment("hidden"))
    proxy.fault = lambda method, path, body: "404 json" if "get-by-name" in path else "pass"
    shipper, _ = ship(proxy.url, folder)
    [left] = shipper.left()
    assert "experiments restore --experiment-id" in str(left.reason)


def test_another_value_of_a_parameter_holds_nothing_back(server: MlflowServer, tmp_path: Path) -> None:
    """The crash came before shipped.json said that the parameters were there, and then the trial got more epochs."""
    folder = make_trial(tmp_path / "values")
    ship(server.url, folder)
    shipped = Shipped.model_validate_json((folder / paths.SHIPPED).read_bytes())
    (folder / paths.SHIPPED).write_bytes(shipped.model_copy(update={"params": False}).to_json())
    config = (folder / paths.CONFIG).read_text()
    before = compose([]).train.epochs
    (folder / paths.CONFIG).write_text(config.replace(f'"epochs": {before}', f'"epochs": {before + 9}'))
    write_rows(folder, 4, 5)
    complete(folder)
    shipper, said = ship(server.url, folder)
    assert (shipper.left(), said) == ([], [])
    check_arrived(server, folder)
    assert MlflowClient(server.url).get_run(shipped.run_id).data.params["train.epochs"] == str(before)


@pytest.mark.parametrize("limit", [500, 250, 0])
def test_a_server_with_other_limits_of_parameters_gets_what_it_takes(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, limit: int
) -> None:
    """One before MLflow 2.8 takes 500 characters, one before 1.28 takes 250; one that takes none gets the rest."""
    folder = make_trial(tmp_path / f"limit-{limit}")
    config = (folder / paths.CONFIG).read_text()
    name = compose([]).model.model_id
    (folder / paths.CONFIG).write_text(config.replace(f'"model_id": "{name}"', f'"model_id": "{"x" * 9000}"'))
    too_long = b"x" * max(limit + 1, 3)
    proxy.fault = lambda method, path, body: "404 json" if too_long in body else "pass"
    complete(folder)
    shipper, said = ship(proxy.url, folder)
    assert shipper.left() == []
    check_arrived(server, folder)
    run_id = Shipped.model_validate_json((folder / paths.SHIPPED).read_bytes()).run_id
    params = MlflowClient(server.url).get_run(run_id).data.params
    assert params.get("model.model_id") == ("x" * limit or None)
    assert params["study.name"] == f"limit-{limit}"
    assert [facts["key"] for _, facts in said] == ([] if limit else ["model.model_id"])
    assert VALUE_CHARS == 6000


@pytest.mark.parametrize("answer", ["500", "503", "507"])
def test_a_server_that_fails_is_told_with_what_to_look_at(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, answer: str
) -> None:
    """A full disk of the server's: it answers 503, and its reason does not come through MLflow's client."""
    folder = make_trial(tmp_path / f"answers-{answer}")
    complete(folder)
    proxy.fault = lambda method, path, body: answer if method == "POST" else "pass"
    shipper, said = ship(proxy.url, folder)
    assert [sentence for sentence, _ in said] == [LOST]
    assert "df -h" in str(said[0][1]["remedy"])
    assert [left.rows for left in shipper.left()] == [3]
    proxy.fault = lambda *_: "pass"
    assert ship(proxy.url, folder)[0].left() == []
    check_arrived(server, folder)


def test_a_server_whose_artifacts_fail_gets_metrics_and_end(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    folders = [make_trial(tmp_path / "artifacts", number) for number in range(2)]
    for folder in folders:
        complete(folder)
    proxy.fault = lambda method, path, body: "507" if "mlflow-artifacts" in path else "pass"
    shipper, said = ship(proxy.url, *folders)
    assert [sentence for sentence, _ in said] == [REPORT_LOST]
    assert "free disk space" in str(said[0][1]["remedy"])
    assert [(left.rows, left.report) for left in shipper.left()] == [(0, True)] * 2
    for folder in folders:
        check_arrived(server, folder)
    proxy.fault = lambda *_: "pass"
    shipper, said = ship(proxy.url, *folders)
    assert (shipper.left(), said) == ([], [])
    for folder in folders:
        run_id = Shipped.model_validate_json((folder / paths.SHIPPED).read_bytes()).run_id
        assert list((server.folder / "artifacts").glob(f"*/{run_id}/artifacts/{paths.REPORT}"))


def test_a_report_that_failed_is_sent_while_the_study_goes_on(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redsm5.engine.tracking.shipper.REPORTS_S", 0.0)
    folder, going_on = make_trial(tmp_path / "later", 0), make_trial(tmp_path / "later", 1)
    complete(folder)
    proxy.fault = lambda method, path, body: "500" if "mlflow-artifacts" in path else "pass"
    said: list[str] = []
    shipper = Shipper(proxy.url, tmp_path / "later" / "x", lambda sentence, **_: said.append(sentence))
    for trial in (folder, going_on):
        shipper.watch(trial)
    for _ in range(2):
        shipper._ship_all()
    assert (said, shipper.failing, shipper.reports) == ([REPORT_LOST], True, 1)
    write_rows(going_on, 4, 9)
    shipper._ship_all()
    check_arrived(server, going_on)
    proxy.fault = lambda *_: "pass"
    shipper._ship_all()
    assert (said[1:], shipper.failing, shipper.reports) == (["every report is in MLflow now"], False, 0)
    assert FOUND not in said


def test_the_remedies_of_a_local_database_name_a_command() -> None:
    uri = "sqlite:////a b/e/mlflow.db"
    outdated = remedy("Detected out-of-date database schema (found version 1, but expected 2)", uri)
    assert outdated is not None
    assert outdated.splitlines()[-1] == f"{sys.executable} -m mlflow db upgrade '{uri}'"
    assert remedy("attempt to write a readonly database", uri) == "make the folder writable:\nchmod -R u+w '/a b/e'"
    assert "just cleanup --execute" in str(remedy("database or disk is full", uri))
    assert remedy("error code 500", uri) is None
    assert remedy("API request failed with error code 401", "http://x") == REFUSED
