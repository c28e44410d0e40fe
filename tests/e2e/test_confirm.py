"""The winner of a search is confirmed: real trainings, killed and resumed, later or at once, by one or more workers."""

import json
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import paths
from tests.e2e.conftest import kill_group, metrics, processes_of, records, run, start, wait_for

METRIC = "val_loss"
SMALL = ["data.posts=90", "model.max_length=64", "train.epochs=2", "study.trials=2"]
SMALL += [f"study.metric={METRIC}", "study.direction=minimize", "study.sampler=grid", "~search.space"]
# One configuration hardly learns, so that its scores, and not its time, decide.
SMALL += ["+search.space={train.learning_rate:{type:categorical,choices:[0.004,1e-7]}}"]
CONFIRM = ["study.confirm.top=2", "study.confirm.repeats=2"]


def study_of(experiments: Path) -> dict[str, Any]:
    (path,) = experiments.glob("study_*/study.json")
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def repeats(experiments: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """trial.json of the repeats, by number and repeat."""
    return {(r["number"], r["repeat"]): r for r in records(experiments) if r["confirms"]}


def folder_of(experiments: Path, record: dict[str, Any]) -> Path:
    return paths.trial_dir(experiments, record["trial_id"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The experiments of a confirmed study that nothing interrupted, and what was printed."""
    experiments = tmp_path_factory.mktemp("whole") / "e"
    return experiments, run("hpo.py", *SMALL, *CONFIRM, f"experiments={experiments}")


def test_the_study_ends_with_the_confirmed_winner(whole: tuple[Path, str]) -> None:
    experiments, output = whole
    study = study_of(experiments)
    assert study["trials"] == {"wanted": 2, "finished": 2, "running": 0, "paused": 0}
    found, said = repeats(experiments), study["confirmed"]
    assert {r["state"] for r in found.values()} == {"completed"}
    assert sorted(found) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    scores = [found[said["number"], n]["best"]["value"] for n in (1, 2)]
    assert said["mean"] == pytest.approx(sum(scores) / 2)
    assert said["low"] < said["mean"] < said["high"]
    (last,) = [line for line in output.splitlines() if "is complete" in line]
    assert f"trial {said['number']} with {said['mean']:.4f}" in last
    # two repeats of one round have the same posts to validate, and those of two rounds do not
    reports = {key: json.loads((folder_of(experiments, r) / paths.REPORT).read_bytes()) for key, r in found.items()}
    prints = {key: report["data_fingerprint"] for key, report in reports.items()}
    assert prints[0, 1] == prints[1, 1] != prints[0, 2] == prints[1, 2]
    assert study["data_fingerprint"] not in prints.values()
    predicted = [json.loads((folder_of(experiments, r) / paths.PREDICTIONS).read_bytes()) for r in records(experiments)]
    assert len({tuple(document["post_ids"]) for document in predicted}) == 1, "all have the same test posts"


@pytest.mark.parametrize("later", [False, True], ids=["by the study", "by sync"])
def test_mlflow_shows_each_repeat_below_its_configuration(whole: tuple[Path, str], tmp_path: Path, later: bool) -> None:
    experiments, _ = whole
    if later:
        experiments = shutil.copytree(experiments, tmp_path / "e")
        for path in (*experiments.glob("mlflow.db*"), *experiments.glob("trial_*/shipped.json")):
            path.unlink()
        run("sync.py", "--experiments", str(experiments))
    database = sqlite3.connect(experiments / "mlflow.db")
    tags: dict[str, dict[str, str]] = {}
    for run_id, key, value in database.execute("SELECT run_uuid, key, value FROM tags"):
        tags.setdefault(run_id, {})[key] = value
    database.close()
    runs = {t["trial_id"]: run_id for run_id, t in tags.items()}
    for record in repeats(experiments).values():
        found = tags[runs[record["trial_id"]]]
        assert (found["confirms"], found["repeat"]) == (record["confirms"], str(record["repeat"]))
        assert found["mlflow.parentRunId"] == runs[record["confirms"]]
        assert found["mlflow.runName"] == f"trial {record['number']}·{record['repeat']}"


def test_the_summary_shows_the_winner_and_what_was_luck(whole: tuple[Path, str]) -> None:
    experiments, _ = whole
    said = study_of(experiments)["confirmed"]
    output = run("summarize.py", "--experiments", str(experiments))
    assert f"confirmed winner: trial {said['number']}, mean {METRIC} on validation {said['mean']:.4f}" in output
    document = json.loads(next(experiments.glob("study_*/summary.json")).read_bytes())
    rows = document["confirmation"]["configurations"]
    (winner,) = [row for row in rows if row["winner"]]
    assert (winner["number"], winner["mean"], winner["sd"]) == (said["number"], said["mean"], said["sd"])
    assert rows[0]["shrinkage"] == said["shrinkage"]
    tests = [trial["test_f1_macro"] for trial in winner["trials"]]
    assert winner["test_f1_macro"] == pytest.approx(sum(tests) / 2)
    assert [row["number"] for row in document["trials"]] == [r["number"] for r in rows], "the search's alone"


def test_killed_in_the_confirmation_it_trains_the_same_and_names_the_same_winner(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    """First the driver's group and then, in a later repeat, the trial's process dies by SIGKILL."""
    arguments = [*SMALL, *CONFIRM, f"experiments={tmp_path / 'e'}"]
    driver = start("hpo.py", *arguments)
    at = wait_for(lambda: next((r for r in repeats(tmp_path / "e").values() if r["epoch"] == 1), None))
    kill_group(driver)
    wait_for(lambda: not processes_of(at["trial_id"]), timeout_s=30)
    driver = start("hpo.py", *arguments)
    at = wait_for(lambda: next((r for r in repeats(tmp_path / "e").values() if r["repeat"] == 2 and r["step"]), None))
    for process in processes_of(at["trial_id"]):
        os.kill(process, signal.SIGKILL)
    output, _ = driver.communicate(timeout=280)
    assert driver.returncode == 0, output
    experiments, _ = whole
    expected, found = repeats(experiments), repeats(tmp_path / "e")
    assert found.keys() == expected.keys()
    for key, record in found.items():
        assert metrics(folder_of(tmp_path / "e", record)) == metrics(folder_of(experiments, expected[key]))
    assert sum(record["resumes"] for record in found.values()) >= 1
    one, other = study_of(experiments)["confirmed"], study_of(tmp_path / "e")["confirmed"]
    for said in (one, other):
        del said["trial_id"], said["raw_best"]["trial_id"]
    assert one == other


def test_a_finished_study_is_confirmed_by_name_with_the_same_repeats(whole: tuple[Path, str], tmp_path: Path) -> None:
    experiments, _ = whole
    here = f"experiments={tmp_path / 'e'}"
    run("hpo.py", *SMALL, here)
    assert not repeats(tmp_path / "e")
    run("hpo.py", "study.name=demo", *CONFIRM, here)
    expected, found = repeats(experiments), repeats(tmp_path / "e")
    assert {key: r["best"] for key, r in found.items()} == {key: r["best"] for key, r in expected.items()}
    output = run("hpo.py", "study.name=demo", here)
    assert "starting trial" not in output, "the study keeps what was asked for, and all is done"
    run("hpo.py", "study.name=demo", "study.confirm.repeats=1", here, expect=1)


def test_a_script_s_search_is_confirmed_by_its_records_alone(tmp_path: Path) -> None:
    script = ["study.script=examples/digits/train.py", "study.space=examples/digits/space.yaml"]
    run("hpo.py", *script, "study.trials=2", "train.epochs=2", *CONFIRM, f"experiments={tmp_path}")
    found, said = repeats(tmp_path), study_of(tmp_path)["confirmed"]
    assert sorted(found) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    seeds = {
        json.loads((folder_of(tmp_path, r) / paths.CONFIG).read_bytes())["train"]["seed"] for r in records(tmp_path)
    }
    assert len(seeds) == 6
    assert said["repeats"] == 2
    output = run("summarize.py", "--experiments", str(tmp_path))
    assert f"confirmed winner: trial {said['number']}," in output


def test_two_workers_confirm_what_one_does(whole: tuple[Path, str], tmp_path: Path) -> None:
    experiments, _ = whole
    run("hpo.py", *SMALL, *CONFIRM, "workers=2", f"experiments={tmp_path / 'e'}")
    expected, found = repeats(experiments), repeats(tmp_path / "e")
    assert found.keys() == expected.keys()
    assert {r["state"] for r in found.values()} == {"completed"}
    assert study_of(tmp_path / "e")["confirmed"]["repeats"] == 2
