"""A folder that was moved or copied: its MLflow goes with it, nothing reaches where it was, nothing is sent twice."""

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from redsm5.config import Config, compose
from redsm5.engine import files, paths
from redsm5.engine.errors import ConfigError
from redsm5.engine.records import MetricRow, Shipped, TrialRecord
from redsm5.engine.study.registry import Scoreboard, open_study
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.trial import create_trial, read_record, write_record
from redsm5.engine.tracking import local
from redsm5.engine.tracking import shipper as shipper_module
from redsm5.engine.tracking.shipper import REPORT_LOST, Shipper, waiting
from redsm5.engine.tracking.tracker import Tracker
from redsm5.task import ReDSM5

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """MLflow takes seconds to make its tables: once for this module, with MLflow's own code."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    Tracker(f"sqlite:///{path}", path.parent)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shipper, "BACK_OFF_S", 0.005)


@pytest.fixture
def experiments(tmp_path: Path, empty_database: bytes) -> Path:
    """A folder with a database; its name has characters that an address must escape."""
    folder = tmp_path / "äußere 100%" / "e"
    folder.mkdir(parents=True)
    (folder / paths.MLFLOW_DB).write_bytes(empty_database)
    (folder / "study_study-1").mkdir()
    return folder


def add_trial(experiments: Path, number: int, *, completed: bool = True, uri: str | None = None) -> Path:
    words = [f"experiments='{experiments}'", "study.name=moving"] + ([f"study.tracking_uri='{uri}'"] if uri else [])
    trial_id = create_trial(compose(words), study_id="study-1", number=number).trial_id
    folder = paths.trial_dir(experiments, trial_id)
    rows = [
        MetricRow(trial_id=trial_id, metric="train_loss", step=step, epoch=0, value=1 / step, timestamp=TIME)
        for step in range(1, 11)
    ]
    files.append_durable(folder / paths.METRICS, b"".join(row.model_dump_json().encode() + b"\n" for row in rows))
    if completed:
        complete(folder)
    return folder


TIME = "2026-01-31T12:00:00.000Z"


def complete(folder: Path) -> None:
    (folder / paths.REPORT).write_text(f'{{"report_id": "{folder.name}"}}\n')
    record = read_record(folder)
    assert record is not None
    changes = {"state": "completed", "exit_code": 0, "finished_at": TIME}
    write_record(folder, TrialRecord.model_validate(record.model_copy(update=changes).model_dump()))


def ship(experiments: Path, uri: str | None = None) -> tuple[Shipper, list[tuple[str, dict]]]:
    """Ship all of a folder's trials, as `just sync` does; the shipper, closed, and what it said."""
    said: list[tuple[str, dict]] = []
    log = lambda sentence, **facts: said.append((sentence, facts))  # noqa: E731
    shipper = Shipper(uri or local.own_uri(experiments), experiments / paths.MLFLOW_ARTIFACTS, log)
    for folder in paths.trial_dirs(experiments):
        shipper.watch(folder)
    shipper.start()
    shipper.close()
    return shipper, said


def runs(experiments: Path, uri: str | None = None) -> dict[str, Run]:
    """The runs by the names of their trials' folders."""
    client = MlflowClient(tracking_uri=uri or local.own_uri(experiments))
    found = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    by_trial = {f"trial_{run.data.tags['trial_id']}": run for run in found}
    assert len(by_trial) == len(found), "a trial has two runs"
    return by_trial


def check_all_is_here(experiments: Path, uri: str | None = None) -> None:
    """Every completed trial has one run, ended, all rows once, and its report in this folder and nowhere else."""
    by_trial = runs(experiments, uri)
    client = MlflowClient(tracking_uri=uri or local.own_uri(experiments))
    for folder in paths.trial_dirs(experiments):
        run = by_trial[folder.name]
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "train_loss")) == 10
        place = experiments / paths.MLFLOW_ARTIFACTS / run.info.run_id / "artifacts"
        assert run.info.artifact_uri == place.resolve().as_uri()
        assert (place / paths.REPORT).read_bytes() == (folder / paths.REPORT).read_bytes()
        assert waiting(folder, uri or local.own_uri(experiments)) == 0


def execute(experiments: Path, sql: str, *values: object) -> list:
    with closing(sqlite3.connect(experiments / paths.MLFLOW_DB)) as db, db:
        return db.execute(sql, values).fetchall()


def as_older(experiments: Path) -> None:
    """Take back what an older version did not write: the tag, relative addresses, whether the report arrived."""
    execute(experiments, "DELETE FROM experiment_tags WHERE key = ?", local.TAG)
    for folder in paths.trial_dirs(experiments):
        if document := files.read_json(folder / paths.SHIPPED):
            document["tracking_uri"] = local.own_uri(experiments)
            del document["report"]
            files.write_atomic(folder / paths.SHIPPED, Shipped.model_validate(document).to_json())


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("trials", ["completed", "training"])
def test_a_moved_folder_leaves_nothing_where_it_was(
    experiments: Path, tmp_path: Path, older: bool, trials: str
) -> None:
    first = add_trial(experiments, 0, completed=trials == "completed")
    shipper, said = ship(experiments)
    assert (shipper.left(), said) == ([], [])
    if older:
        as_older(experiments)
    before, rows = experiments.parent, execute(experiments, "SELECT COUNT(*) FROM metrics")
    there = tmp_path / "elsewhere" / "renamed"
    there.parent.mkdir()
    experiments.rename(there)
    before.rmdir()
    first = there / first.name
    assert waiting(first, local.own_uri(there)) == 0, "what was confirmed stays confirmed"

    if trials == "training":
        complete(first)
    add_trial(there, 1)
    shipper, said = ship(there)
    assert (shipper.left(), said) == ([], [])
    check_all_is_here(there)
    assert not before.exists()
    assert execute(there, "SELECT COUNT(*) FROM metrics") == [(rows[0][0] + 10,)]
    assert str(before) not in (first / paths.SHIPPED).read_text()
    kept = tree(there)
    ship(there)
    assert tree(there) == kept, "and again changes nothing"


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("trials", ["completed", "training"])
def test_a_copy_beside_the_original_keeps_to_itself(
    experiments: Path, tmp_path: Path, older: bool, trials: str
) -> None:
    first = add_trial(experiments, 0, completed=trials == "completed")
    ship(experiments)
    if older:
        as_older(experiments)
    copy = tmp_path / "copy"
    shutil.copytree(experiments, copy)
    original = tree(experiments)
    if trials == "training":
        complete(copy / first.name)
    add_trial(copy, 1)
    shipper, said = ship(copy)
    assert (shipper.left(), said) == ([], [])
    check_all_is_here(copy)
    assert tree(experiments) == original
    complete(first)
    ship(experiments)
    check_all_is_here(experiments)


def test_reports_that_an_older_version_sent_to_the_old_place_come_home(experiments: Path, tmp_path: Path) -> None:
    """It had made the old folder anew, and noted the new address in every shipped.json."""
    first = add_trial(experiments, 0, completed=False)
    ship(experiments)
    there = tmp_path / "there"
    shutil.copytree(experiments, there)
    complete(first)
    ship(experiments)  # as it would have been sent from there
    shutil.copytree(experiments, there, dirs_exist_ok=True)
    as_older(there)
    shutil.rmtree(there / paths.MLFLOW_ARTIFACTS)
    for path in experiments.iterdir():
        if path.name != paths.MLFLOW_ARTIFACTS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert ship(there)[0].left() == []
    check_all_is_here(there)


def test_a_folder_behind_a_link_has_the_addresses_of_the_folder(experiments: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(experiments)
    first = add_trial(link, 0)
    ship(link)
    assert waiting(experiments / first.name, local.own_uri(experiments)) == 0
    check_all_is_here(experiments)
    there = tmp_path / "there"
    experiments.rename(there)
    link.unlink()
    link.symlink_to(there)
    add_trial(link, 1)
    assert ship(link)[0].left() == []
    check_all_is_here(there)
    assert not experiments.exists()


@pytest.mark.parametrize("place", ["store/mlartifacts", "store"])
def test_a_place_that_a_person_has_chosen_stays(experiments: Path, tmp_path: Path, place: str) -> None:
    chosen = tmp_path / place
    chosen.mkdir(parents=True)
    client = MlflowClient(tracking_uri=local.own_uri(experiments))
    client.create_experiment("moving", artifact_location=chosen.as_uri())
    first = add_trial(experiments, 0)
    assert ship(experiments)[0].left() == []
    there = tmp_path / "there"
    experiments.rename(there)
    assert ship(there)[0].left() == []
    assert not (there / paths.MLFLOW_ARTIFACTS).exists()
    [report] = chosen.glob(f"*/artifacts/{paths.REPORT}")
    assert report.read_bytes() == (there / first.name / paths.REPORT).read_bytes()
    [run] = runs(there).values()
    assert run.info.artifact_uri.startswith(f"{chosen.as_uri()}/")


def test_models_and_notes_of_a_person_go_with_the_folder(experiments: Path, tmp_path: Path) -> None:
    add_trial(experiments, 0)
    ship(experiments)
    before = (experiments / paths.MLFLOW_ARTIFACTS).as_uri()
    execute(
        experiments,
        "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms, "
        "last_updated_timestamp_ms, status, lifecycle_stage) VALUES ('m-1', 1, 'm', ?, 0, 0, 1, 'active')",
        f"{before}/models/m-1/artifacts",
    )
    execute(experiments, "INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('note', 'hello', 1)")
    there = tmp_path / "there"
    experiments.rename(there)
    ship(there)
    here = (there / paths.MLFLOW_ARTIFACTS).as_uri()
    assert execute(there, "SELECT artifact_location FROM logged_models") == [(f"{here}/models/m-1/artifacts",)]
    assert execute(there, "SELECT value FROM experiment_tags WHERE key = 'note'") == [("hello",)]


def test_the_artifacts_of_another_folder_in_a_shared_database_stay(experiments: Path, tmp_path: Path) -> None:
    """A database outside, that two folders use: each has experiments of its own there, and moves alone."""
    shared = tmp_path / "shared.db"
    (experiments / paths.MLFLOW_DB).rename(shared)
    uri = f"sqlite:///{shared}"
    other = tmp_path / "other"
    (other / "study_study-1").mkdir(parents=True)
    add_trial(experiments, 0, uri=uri)
    ship(experiments, uri)
    words = [f"experiments={other}", "study.name=another", f"study.tracking_uri={uri}"]
    trial_id = create_trial(compose(words), study_id="study-1", number=0).trial_id
    complete(paths.trial_dir(other, trial_id))
    ship(other, uri)
    there = tmp_path / "there"
    experiments.rename(there)
    ship(other, uri)
    assert ship(there, uri)[0].left() == []

    places = {run.info.artifact_uri.split("/mlartifacts/")[0] for run in runs(there, uri).values()}
    assert places == {there.as_uri(), other.as_uri()}
    assert not experiments.exists()


def test_a_database_in_the_folder_that_was_named_moves_too(experiments: Path, tmp_path: Path) -> None:
    saved = {"experiments": "/a/e", "study": {"tracking_uri": "sqlite:////a/e/x.db", "storage": "sqlite:////b/x.db"}}
    saved |= {"data": {"dir": "/a/e/data", "other": ["/a/elsewhere", 3]}}
    study = {"tracking_uri": "sqlite:////c/x.db", "storage": "sqlite:////b/x.db"}
    expected = {"experiments": "/c", "study": study, "data": {"dir": "/c/data", "other": ["/a/elsewhere", 3]}}
    assert paths.moved(saved, Path("/c")) == expected
    assert paths.moved(saved, Path("/a/e")) == saved
    relative = {"experiments": "e", "model": {"model_id": "e/model"}, "study": {"tracking_uri": "sqlite:///e/x.db"}}
    there = paths.moved(relative, Path("/c"))
    assert there == {
        "experiments": "/c",
        "model": {"model_id": "e/model"},
        "study": {"tracking_uri": study["tracking_uri"]},
    }


# ---------------------------------------------------------------------------------------------------------------------
# a report that cannot be sent


def unwritable(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file where the folder should be")


def test_a_report_that_cannot_be_sent_holds_nothing_back_and_is_sent_later(experiments: Path) -> None:
    folder = add_trial(experiments, 0)
    unwritable(experiments / paths.MLFLOW_ARTIFACTS)
    shipper, said = ship(experiments)
    assert shipper.failing
    assert [sentence for sentence, _ in said] == [REPORT_LOST]
    assert said[0][1]["trial"] == folder.name
    assert "File exists" in str(said[0][1]["reason"]) or "Not a directory" in str(said[0][1]["reason"])
    [left] = shipper.left()
    assert (left.folder, left.rows, left.report, bool(left.reason)) == (folder, 0, True, True)
    [run] = runs(experiments).values()
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "completed")
    assert len(MlflowClient(local.own_uri(experiments)).get_metric_history(run.info.run_id, "train_loss")) == 10

    (experiments / paths.MLFLOW_ARTIFACTS).unlink()
    shipper, said = ship(experiments)
    assert (shipper.left(), said, shipper.failing) == ([], [], False)
    check_all_is_here(experiments)


def test_a_report_that_cannot_be_sent_keeps_no_other_waiting(experiments: Path) -> None:
    """More of them than there are tries at the end."""
    folders = [add_trial(experiments, number) for number in range(shipper_module.LAST_TRIES + 3)]
    ship(experiments)
    late = add_trial(experiments, 9)
    for folder in folders:
        shipped = Shipped.model_validate_json((folder / paths.SHIPPED).read_bytes())
        shutil.rmtree(experiments / paths.MLFLOW_ARTIFACTS / shipped.run_id)
        unwritable(experiments / paths.MLFLOW_ARTIFACTS / shipped.run_id)
    shipper, said = ship(experiments)
    assert {left.folder for left in shipper.left()} == set(folders)
    assert late not in {left.folder for left in shipper.left()}
    assert [sentence for sentence, _ in said] == [REPORT_LOST] * shipper_module.SAID


def test_a_folder_that_is_gone_is_not_made_for_a_report(experiments: Path, tmp_path: Path) -> None:
    """Where it is not known that it was this one: an experiment of another folder's, in a database outside."""
    shared = tmp_path / "shared.db"
    (experiments / paths.MLFLOW_DB).rename(shared)
    uri, gone = f"sqlite:///{shared}", tmp_path / "gone" / paths.MLFLOW_ARTIFACTS
    MlflowClient(uri).create_experiment("moving", artifact_location=gone.as_uri())
    gone.parent.mkdir()
    add_trial(experiments, 0, completed=False, uri=uri)
    ship(experiments, uri)
    gone.parent.rmdir()
    complete(next(iter(paths.trial_dirs(experiments))))
    assert ship(experiments, uri)[0].left() == []
    check_all_is_here(experiments, uri)
    assert not gone.parent.exists()


def test_many_trials_that_mlflow_refuses_keep_no_other_waiting(experiments: Path) -> None:
    folders = [add_trial(experiments, number, completed=False) for number in range(shipper_module.LAST_TRIES + 3)]
    ship(experiments)
    client = MlflowClient(local.own_uri(experiments))
    for run in runs(experiments).values():
        client.delete_run(run.info.run_id)
    late = add_trial(experiments, 9)
    for folder in folders:
        complete(folder)
    shipper, said = ship(experiments)
    assert {left.folder for left in shipper.left()} == set(folders)
    assert len(said) == shipper_module.SAID
    assert runs(experiments)[late.name].info.status == "FINISHED"
    assert all("runs restore --run-id" in str(facts["remedy"]) for _, facts in said)


def test_two_processes_that_see_the_folder_at_two_places_do_not_mind(experiments: Path, tmp_path: Path) -> None:
    """One in a container, say: whoever opens the database last has its own paths there; reports arrive all the same."""
    first = add_trial(experiments, 0)
    ship(experiments)
    there = tmp_path / "inside"
    os.rename(experiments, there)
    tracker = Tracker(local.own_uri(there), there / paths.MLFLOW_ARTIFACTS)
    there.rename(experiments)
    ship(experiments)
    experiments.rename(there)
    late = add_trial(there, 1)
    assert tracker.ship(late)
    tracker.settle()
    tracker.ship_report(late)
    assert tracker.ship(there / first.name)
    check_all_is_here(there)
    assert not experiments.exists()


# ---------------------------------------------------------------------------------------------------------------------
# what else names the folder


def test_a_trial_and_a_study_whose_files_lie_in_the_folder_go_on_where_it_is_now(tmp_path: Path) -> None:
    """Data, a model and the databases in the experiments folder, by absolute paths, as a person may have them."""
    before, there = tmp_path / "before", tmp_path / "there"

    def words(folder: Path) -> list[str]:
        return [
            f"experiments={folder}",
            "study.name=whole",
            "data=csv",
            f"data.dir={folder}/data",
            f"study.storage=sqlite:///{folder}/optuna.db",
            f"study.tracking_uri=sqlite:///{folder}/own.db",
        ]

    study = open_study(compose(words(before)), ReDSM5())
    Scoreboard(before, study).write()
    trial_id = create_trial(compose(words(before)), study_id=study.study_id, number=0).trial_id
    before.rename(there)
    assert (
        open_study(compose(words(there)), ReDSM5()).study_id == study.study_id
    ), "the same study, and nothing has changed in it"
    config = trial_config(Config, [f"trial.id={trial_id}", f"experiments={there}"])
    assert str(before) not in config.model_dump_json()
    assert config.study.tracking_uri == f"sqlite:///{there}/own.db"
    with pytest.raises(ConfigError, match="another configuration"):
        open_study(compose([*words(there), "train.epochs=77"]), ReDSM5())


def test_the_ui_is_opened_on_the_folder_as_it_is_now(experiments: Path, tmp_path: Path) -> None:
    add_trial(experiments, 0)
    ship(experiments)
    there = tmp_path / "there"
    experiments.rename(there)
    command = [sys.executable, str(ROOT / "scripts" / "mlflow_ui.py")]

    def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "REDSM5_EXPERIMENTS": str(folder)}
        return subprocess.run([*command, *flags], env=env, capture_output=True, text=True, timeout=120, check=False)

    done = run(there, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    check_all_is_here(there)
    done = run(experiments)
    assert done.returncode == 1
    assert "Run `just hpo` first" in done.stderr


def test_a_process_on_another_machine_that_holds_a_trial_is_named(experiments: Path, monkeypatch: Any) -> None:
    """Where the file system has no locks, by the file that is to be removed if that machine has gone down."""
    folder = add_trial(experiments, 0)
    monkeypatch.setattr(files, "_have_locks", set())

    def no_locks(fd: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    mark = folder / f"{paths.SHIPPING_LOCK}.held"
    mark.write_text("another-boot pid:[1] 4242 99\n")
    [left] = ship(experiments)[0].left()
    assert (left.rows, f"remove {mark}" in str(left.reason)) == (10, True)
    mark.unlink()
    assert ship(experiments)[0].left() == []
