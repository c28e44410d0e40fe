"""The examples, each a script of one's own: what it gets is what ReDSM5's trials get, and what it takes is little."""

import ast
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import (
    ROOT,
    all_metrics,
    journal,
    kill_group,
    mlflow_rows,
    records,
    run,
    start,
    trial_at,
    wait_for,
    weights,
)
from tests.e2e.test_campaign import campaign, processes_at

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/train.py"))
MOST_LINES = 40


def words_for(name: str, experiments: Path, *words: str) -> list[str]:
    script = [f"study.script=examples/{name}/train.py", f"study.space=examples/{name}/space.yaml"]
    return [*script, "study.trials=2", f"experiments={experiments}", *words]


def test_there_are_three() -> None:
    assert EXAMPLES == ["arrays", "digits", "texts"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_takes_few_lines_of_its_own_besides_data_and_model(name: str) -> None:
    tree = ast.parse((ROOT / "examples" / name / "train.py").read_text())
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert main.end_lineno is not None
    assert main.end_lineno - main.lineno + 1 <= MOST_LINES


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_that_is_killed_ends_as_one_that_is_not(name: str, tmp_path: Path) -> None:
    once, often = tmp_path / "once", tmp_path / "often"
    every = ["train.checkpoint_every_steps=7", "train.epochs=3"]
    run("hpo.py", *words_for(name, once, *every))

    words = words_for(name, often, *every)
    study = start("hpo.py", *words)  # killed in the first trial's second epoch, in between two epochs' checkpoints
    wait_for(lambda: study.poll() is not None or list(often.glob("trial_*/checkpoints/step-*")))
    kill_all(study, often)
    study = start("hpo.py", *words)  # and in the second trial, in or after its first epoch
    wait_for(lambda: study.poll() is not None or trial_at(often, number=1, epoch=1))
    kill_all(study, often)
    run("hpo.py", "study.name=" + name, f"experiments={often}")  # goes on by its name alone

    assert [r["state"] for r in records(often)] == ["completed", "completed"]
    assert sum(r["resumes"] for r in records(often)) >= 1
    assert all_metrics(often) == all_metrics(once)
    assert weights(often) == weights(once)
    assert [r["parameters"] for r in records(often)] == [r["parameters"] for r in records(once)]
    for record in records(often):
        rows = mlflow_rows(often)[record["trial_id"]]
        assert len(rows) == len(journal(often / f"trial_{record['trial_id']}")), "MLflow lacks a row"


def kill_all(study: "subprocess.Popen[str]", experiments: Path) -> None:
    """SIGKILL for the driver and for its trial, which has a session of its own."""
    assert study.poll() is None, "the study ended before it could be killed"
    for pid in processes_at(experiments):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    kill_group(study)


def test_a_script_s_study_has_all_that_any_study_has(tmp_path: Path) -> None:
    """Budget, listings, summary, reproduction, a direction, and a terminal app that shows its metric."""
    experiments = tmp_path / "e"
    run("hpo.py", *words_for("digits", experiments, "train.epochs=2", "channels=4", "retention.max_total_size=4MB"))
    trials = records(experiments)
    assert all(r["parameters"].keys() == {"learning_rate", "weight_decay", "dropout"} for r in trials)
    config = json.loads((experiments / f"trial_{trials[0]['trial_id']}" / "config.json").read_bytes())
    assert (config["channels"], config["batch_size"], config["study"]["direction"]) == (4, 32, "maximize")
    assert {"val_accuracy", "val_loss", "train_loss", "test_accuracy"} <= {
        name for name, _ in journal(experiments / f"trial_{trials[0]['trial_id']}")
    }
    where = ["--experiments", str(experiments)]
    assert "digits" in run("studies.py", *where)
    assert "val_accuracy" in run("summarize.py", *where)
    assert "epoch-0002" in run("checkpoints.py", trials[0]["trial_id"], *where)
    again = run("reproduce.py", trials[0]["trial_id"], *where)
    assert "the weights are bit-identical" in again
    assert "verdict: reproduced, identical" in again
    refused = run("evaluate.py", "--trial-id", trials[0]["trial_id"], *where, expect=1)
    assert "a script of its own" in refused


def test_a_script_s_loss_is_minimized(tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    run("hpo.py", *words_for("arrays", experiments, "train.epochs=2"))
    study = json.loads(next(experiments.glob("study_*/study.json")).read_bytes())
    best = [r["best"]["value"] for r in records(experiments)]
    assert study["best"]["value"] == min(best) < max(best)
    for record in records(experiments):
        losses = [v for (m, _), v in journal(experiments / f"trial_{record['trial_id']}").items() if m == "val_loss"]
        assert record["best"]["value"] == min(losses)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study.script=nowhere.py"], "there is no such file"),
        (
            ["study.script=examples/digits/train.py", "study.space=nowhere.yaml"],
            "study.space=nowhere.yaml cannot be read",
        ),
        (["study.script=examples/digits/train.py", "learning_rte=1"], "unknown key learning_rte"),
        (["study.script=examples/digits/train.py", "train.epocs=1"], "nearest: train.epochs"),
    ],
)
def test_a_person_s_mistake_is_one_message(words: list[str], said: str, tmp_path: Path) -> None:
    output = run("hpo.py", *words, f"experiments={tmp_path / 'e'}", expect=1)
    assert said in output
    assert "Traceback" not in output


def test_a_script_that_reports_no_such_metric_says_what_there_is(tmp_path: Path) -> None:
    words = words_for("arrays", tmp_path / "e", "study.metric=val_f1", "study.trials=1", "train.epochs=1")
    assert "lacks val_f1, which the study minimizes; it has val_loss, val_accuracy" in run("hpo.py", *words, expect=2)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_fifty_kills_change_no_result_of_a_script(tmp_path: Path) -> None:
    words = words_for("digits", tmp_path / "once", "train.checkpoint_every_steps=10")
    run("hpo.py", *words)
    words = [word for word in words if not word.startswith("experiments=")]
    assert campaign(tmp_path, tmp_path / "once", kills=50, seed=7, words=words) >= 1


def test_a_dry_run_and_a_single_trial_of_a_script(tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    words = [word for word in words_for("digits", experiments) if not word.startswith("study.trials")]
    run("hpo.py", *words, "dry_run=true")
    assert records(experiments) == [], "a dry run leaves its log alone"
    values = ["learning_rate=0.003", "weight_decay=0.01", "dropout=0.1"]
    refused = run("launch.py", *words, *values, expect=1)
    assert "the search would draw channels, but a single trial needs a value for each" in refused
    words += ["train.epochs=1", "retention.keep_training_state=true"]
    run("launch.py", *words, *values, "channels=4")
    (record,) = records(experiments)
    assert (record["state"], record["epoch"]) == ("completed", 1)
    run("launch.py", f"experiments={experiments}", f"trial.id={record['trial_id']}", "train.epochs=2")
    (record,) = records(experiments)
    assert (record["state"], record["epoch"]) == ("completed", 2)


def test_an_error_of_a_script_names_its_line(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "from redsm5.engine.session import Session, run\n\n\n"
        "def main(session: Session) -> None:\n    session.parameters['lr'] + None\n\n\n"
        "if __name__ == '__main__':\n    run(main)\n"
    )
    (tmp_path / "space.yaml").write_text("lr: 0.1\n")
    words = [f"study.script={script}", f"study.space={tmp_path / 'space.yaml'}", f"experiments={tmp_path / 'e'}"]
    output = run("launch.py", *words, expect=2)
    assert "broken.py, line 5: unsupported operand" in output
