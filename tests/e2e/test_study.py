"""The main job, from posts to reports, and what interrupts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import jsonschema
import psutil
import pytest

from redsm5.engine import owned, paths
from redsm5.reports import SCHEMAS
from tests.e2e.conftest import (
    ROOT,
    SMALL,
    all_metrics,
    environment,
    journal,
    kill_group,
    mlflow_rows,
    processes_of,
    records,
    reports,
    run,
    start,
    trial_at,
    wait_for,
    weights,
)


def schema_of(name: str) -> object:
    return json.loads((ROOT / "redsm5" / "schemas" / f"{name}.json").read_text())


def test_every_trial_has_its_report_and_all_metrics_are_in_mlflow_once(uninterrupted: Path) -> None:
    trials = records(uninterrupted)
    assert [t["state"] for t in trials] == ["completed", "completed"]
    assert len(reports(uninterrupted)) == 2
    shipped = mlflow_rows(uninterrupted)
    for trial in trials:
        keys = [(row[0], row[1]) for row in shipped[trial["trial_id"]]]
        assert sorted(keys) == sorted(journal(uninterrupted / f"trial_{trial['trial_id']}"))


def test_every_epoch_of_a_trial_says_what_it_took_of_the_machine(uninterrupted: Path) -> None:
    names = ["steps_per_second", "save_stall_seconds", "cpu_percent", "memory_bytes"]
    if hasattr(psutil.Process, "io_counters"):
        names += ["disk_read_bytes_per_second", "disk_write_bytes_per_second"]
    for trial in uninterrupted.glob("trial_*"):
        found = journal(trial)
        ends = sorted(step for metric, step in found if metric == "val_loss")
        assert len(ends) == 4
        for name in names:
            assert all(found[f"system_{name}", step] >= 0 for step in ends), name
        assert all(50 < found["system_useful_tokens_percent", step] <= 100 for step in ends)
        assert all(found["system_steps_per_second", step] > 0 for step in ends)
        assert not [metric for metric, _ in found if "gpu" in metric], "it was trained with launch=cpu"


def test_every_document_validates_against_its_committed_schema(uninterrupted: Path) -> None:
    names = {"trial": "trial.json", "evaluation_report": "evaluation_report.json", "shipped": "shipped.json"}
    for trial in uninterrupted.glob("trial_*"):
        for name, file in names.items():
            jsonschema.validate(json.loads((trial / file).read_text()), schema_of(name))
        for line in (trial / "metrics.jsonl").read_text().splitlines():
            jsonschema.validate(json.loads(line), schema_of("metric"))
        for line in (trial / "retention.jsonl").read_text().splitlines():
            jsonschema.validate(json.loads(line), schema_of("retention"))
        for manifest in trial.glob("checkpoints/*/manifest.json"):
            jsonschema.validate(json.loads(manifest.read_text()), schema_of("manifest"))
    for study in uninterrupted.glob("study_*"):
        jsonschema.validate(json.loads((study / "study.json").read_text()), schema_of("study"))
        jsonschema.validate(json.loads((study / "index.json").read_text()), schema_of("index"))
    assert set(names) < set(SCHEMAS)


def test_no_post_text_leaves_the_data(uninterrupted: Path) -> None:
    from redsm5.config import compose
    from redsm5.data import load_splits, load_test

    config = compose([*SMALL, f"experiments={uninterrupted}"])
    splits = load_splits(config.data)
    posts = [*splits.train, *splits.validation, *load_test(config.data).test]
    pieces = [p.text[:40].encode() for p in posts if len(p.text) >= 40]
    assert len(pieces) > 50
    for path in uninterrupted.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [piece for piece in pieces if piece in content], path


def test_all_that_a_study_leaves_is_known_as_ours(uninterrupted: Path) -> None:
    folders = paths.study_dirs(uninterrupted) + paths.trial_dirs(uninterrupted)
    assert len(folders) == 3
    assert [owned.strangers(folder) for folder in folders] == [[], [], []]


def test_what_is_left_is_the_weights_of_the_best_and_verifies(uninterrupted: Path) -> None:
    for trial in uninterrupted.glob("trial_*"):
        checkpoints = list((trial / "checkpoints").iterdir())
        assert checkpoints
        for checkpoint in checkpoints:
            assert {p.name for p in checkpoint.iterdir()} == {"model.delta", "manifest.json", "SHA256SUMS"}
            subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=checkpoint, check=True)


def test_a_second_run_has_nothing_to_do(uninterrupted: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in uninterrupted.glob("trial_*/*.json")}
    output = run("hpo.py", *SMALL, f"experiments={uninterrupted}")
    assert "2 of 2" in output
    assert {p: p.stat().st_mtime_ns for p in uninterrupted.glob("trial_*/*.json")} == before


def test_another_configuration_is_refused_with_the_differences(uninterrupted: Path) -> None:
    output = run("hpo.py", *SMALL, "train.batch_size=4", f"experiments={uninterrupted}", expect=1)
    assert "train.batch_size: 8 before, 4 now" in output
    assert "Traceback" not in output


def test_a_driver_killed_in_mid_trial_changes_no_result(uninterrupted: Path, tmp_path: Path) -> None:
    """The driver's process group dies by SIGKILL and leaves its trial behind, which notices, saves and stops; the next
    run ends as if nothing had been.
    """
    arguments = [*SMALL, f"experiments={tmp_path / 'e'}"]
    driver = start("hpo.py", *arguments)
    folder = wait_for(lambda: trial_at(tmp_path / "e", number=0, epoch=2))
    assert processes_of(folder.name.removeprefix("trial_"))
    kill_group(driver)
    wait_for(lambda: not processes_of(folder.name.removeprefix("trial_")), timeout_s=30)
    run("hpo.py", *arguments)

    first = records(tmp_path / "e")[0]
    assert f"trial_{first['trial_id']}" == folder.name, "the same trial goes on"
    assert first["resumes"] >= 1
    assert reports(tmp_path / "e") == reports(uninterrupted)
    assert all_metrics(tmp_path / "e") == all_metrics(uninterrupted)
    assert weights(tmp_path / "e") == weights(uninterrupted)
    for trial in records(tmp_path / "e"):
        rows = mlflow_rows(tmp_path / "e")[trial["trial_id"]]
        assert (
            len({row[:2] for row in rows}) == len(rows) == len(journal(tmp_path / "e" / f"trial_{trial['trial_id']}"))
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_resumable_study_and_a_checkpoint_in_mid_epoch(
    uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = [*SMALL, f"experiments={tmp_path / 'e'}"]
    driver = start("hpo.py", *arguments)
    wait_for(lambda: trial_at(tmp_path / "e", number=0, epoch=1))
    os.kill(driver.pid, number)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 75, output
    assert "Traceback" not in output
    record = records(tmp_path / "e")[0]
    assert (record["state"], record["exit_code"]) == ("interrupted", 75)
    assert list((tmp_path / "e").glob("trial_*/checkpoints/step-*")), "a checkpoint in mid-epoch"
    run("hpo.py", *arguments)
    assert reports(tmp_path / "e") == reports(uninterrupted)
    assert all_metrics(tmp_path / "e") == all_metrics(uninterrupted)
    assert weights(tmp_path / "e") == weights(uninterrupted)


def test_two_workers_end_at_exactly_n_trials(tmp_path: Path) -> None:
    arguments = [*SMALL, "study.trials=3", "train.epochs=1", f"experiments={tmp_path / 'e'}"]
    workers = [start("hpo.py", *arguments) for _ in range(2)]
    for worker in workers:
        output, _ = worker.communicate(timeout=280)
        assert worker.returncode == 0, output
    trials = records(tmp_path / "e")
    assert [t["number"] for t in trials] == [0, 1, 2]
    assert {t["state"] for t in trials} == {"completed"}


def test_a_model_of_ones_own_is_a_local_folder(local_bert: Path, tmp_path: Path) -> None:
    own = ["model=bert_base", f"model.model_id={local_bert}", "study.trials=1", f"experiments={tmp_path / 'e'}"]
    run("hpo.py", *SMALL, *own)
    assert [t["state"] for t in records(tmp_path / "e")] == ["completed"]


def test_three_failures_in_a_row_for_the_same_reason_stop_the_study(local_bert: Path, tmp_path: Path) -> None:
    """A model whose weights are NaN: every trial fails at its first steps, with that reason."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(local_bert)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.fill_(float("nan"))
    model.save_pretrained(local_bert / "nan")
    for file in local_bert.glob("tokenizer*"):
        (local_bert / "nan" / file.name).write_bytes(file.read_bytes())
    own = ["model=bert_base", f"model.model_id={local_bert / 'nan'}", "study.trials=5", f"experiments={tmp_path / 'e'}"]
    output = run("hpo.py", *SMALL, *own, expect=2)
    assert "3 trials in a row failed for the same reason: not_finite: the loss is nan at step 1" in output
    assert [t["error"]["kind"] for t in records(tmp_path / "e")] == ["not_finite"] * 3


def test_train_alone_makes_one_trial_and_evaluate_gives_the_same_report(tmp_path: Path) -> None:
    run("launch.py", "data.posts=90", "model.max_length=64", "train.epochs=2", f"experiments={tmp_path / 'e'}")
    (record,) = records(tmp_path / "e")
    before = reports(tmp_path / "e")
    output = run("evaluate.py", "--trial-id", record["trial_id"], "--experiments", str(tmp_path / "e"))
    assert "F1 macro" in output
    assert reports(tmp_path / "e") == before
    again = run("launch.py", f"trial.id={record['trial_id']}", f"experiments={tmp_path / 'e'}")
    assert "nothing to do" in again
    assert records(tmp_path / "e")[0] == record


def test_a_real_terminal_shows_the_live_line(tmp_path: Path) -> None:
    """Under a pseudo-terminal the driver shows trial i of n, the best so far, bytes and the time left."""
    command = [sys.executable, "scripts/hpo.py", *SMALL, "study.trials=1", "train.epochs=1", f"experiments={tmp_path}"]
    shown = subprocess.run(
        ["script", "-qec", " ".join(command), "/dev/null"], cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stdout
    assert "trial 1 of 1" in shown.stdout
    assert "on disk" in shown.stdout


@pytest.mark.long
def test_the_pruner_decides_and_what_it_decided_is_on_disk(tmp_path: Path) -> None:
    """Optuna's median pruner needs 5 trials to compare with; every epoch of every trial has its decision."""
    arguments = [*SMALL, "study.trials=7", "train.epochs=2", "study.pruner=median", f"experiments={tmp_path / 'e'}"]
    # At so few posts F1 is 0 in every epoch, and not each seed draws a trial that falls behind.
    run("hpo.py", *arguments, "study.metric=val_macro_pr_auc", "study.seed=2")
    pruned = 0
    for trial in records(tmp_path / "e"):
        folder = tmp_path / "e" / f"trial_{trial['trial_id']}"
        decisions = [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]
        assert [d["epoch"] for d in decisions] == list(range(1, trial["epoch"] + 1))
        assert decisions[-1]["prune"] == (trial["state"] == "pruned")
        assert (folder / "evaluation_report.json").exists() == (trial["state"] == "completed")
        pruned += trial["state"] == "pruned"
    assert len(records(tmp_path / "e")) == 7
    assert pruned > 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data=csv data.dir=/nowhere", "/nowhere"),
        ("train.epochs=0", "train.epochs=0: allowed: at least 1"),
        ("trial.epoch=3", "unknown key trial.epoch"),
    ],
)
def test_what_is_refused_is_one_message_and_writes_nothing(tmp_path: Path, override: str, words: str) -> None:
    output = run("hpo.py", *override.split(), f"experiments={tmp_path / 'e'}", expect=1)
    assert words in output
    assert "Traceback" not in output
    assert not (tmp_path / "e").exists()


def test_two_trials_are_compared_on_the_same_test_posts(uninterrupted: Path, tmp_path: Path) -> None:
    first, second = (record["trial_id"] for record in records(uninterrupted)[:2])
    rows = json.loads(run("compare.py", first, second, "--experiments", str(uninterrupted), "--format", "json"))
    told = {row["metric"]: row for row in rows}
    for place, report in zip(("first", "second"), reports(uninterrupted), strict=False):
        assert told["f1_macro"][place] == round(report["test_metrics"]["criteria_matching"]["f1_macro"], 4)
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows)
    gone = run("compare.py", first, str(uuid.uuid4()), "--experiments", str(uninterrupted), expect=1)
    assert "there is no trial" in gone
    other = tmp_path / "other"
    shutil.copytree(uninterrupted, other)
    run("launch.py", *SMALL[:-1], "train.epochs=1", "data.split_seed=7", f"experiments={other}")
    elsewhere = next(r["trial_id"] for r in records(other) if r["trial_id"] not in (first, second))
    assert "different posts" in run("compare.py", first, elsewhere, "--experiments", str(other), expect=1)
