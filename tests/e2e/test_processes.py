"""One trial by two processes: what one would have trained, whatever ends one of the two, and never by another number."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import (
    all_metrics,
    metrics,
    processes_of,
    records,
    reports,
    run,
    start,
    trial_at,
    wait_for,
    weights,
)

ONE = ["data.posts=90", "model.max_length=64", "train.epochs=2", "train.batch_size=4"]
TWO = ["launch=multi_cpu", *ONE, "train.adversarial_epsilon=0.1", "train.accumulation_steps=2"]


@pytest.fixture(scope="session")
def without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT whose layers have no dropout."""
    from transformers import BertConfig, BertModel

    from redsm5.config import compose
    from redsm5.data import load_splits
    from redsm5.data.tokenize import build_tokenizer

    folder = tmp_path_factory.mktemp("bert")
    tokenizer = build_tokenizer("tiny", load_splits(compose(ONE).data).train)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **dropout)
    BertModel(config).save_pretrained(folder)
    return folder


def workers(trial_id: str) -> dict[int, int]:
    """The processes that train a trial, by their rank."""
    found = {}
    for pid in processes_of(trial_id):
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found.update({int(word.removeprefix(b"RANK=")): pid for word in words if word.startswith(b"RANK=")})
    return found


def opened_for_writing(pid: int) -> set[str]:
    """The files below an experiments folder that a process has open and may write."""
    files = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        path, info = os.readlink(entry), Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
        flags = int(info.partition("flags:")[2].split()[0], 8)
        if "/trial_" in path and flags & (os.O_WRONLY | os.O_RDWR):
            files.add(path)
    return files


def numbers(document: Any, path: str = "") -> dict[str, float]:
    """Every number of a document, by where it stands."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        return {k: v for name, value in items for k, v in numbers(value, f"{path}.{name}").items()}
    return {path: document} if isinstance(document, float) else {}


def test_two_processes_train_what_one_does(without_dropout: Path, tmp_path: Path) -> None:
    """Every loss and score of every step, and the report, with batches that do not divide and one post left over."""
    words = [f"model.model_id={without_dropout}", "model.criteria_dropout=0", "model.evidence_dropout=0"]
    words += ["train.learning_rate=0.01", "train.class_weights=true", "data.posts=91"]
    run("launch.py", *TWO, *words, "launch=cpu", f"experiments={tmp_path / 'one'}")
    run("launch.py", *TWO, *words, f"experiments={tmp_path / 'two'}")
    (one,), (two,) = all_metrics(tmp_path / "one"), all_metrics(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(abs(one[key] - two[key]) for key in one) < 1e-5
    (one_report,), (two_report,) = map(numbers, reports(tmp_path / "one")), map(numbers, reports(tmp_path / "two"))
    assert one_report.keys() == two_report.keys()
    assert max(abs(one_report[key] - two_report[key]) for key in one_report) < 1e-5


def test_interrupted_and_robbed_of_a_process_two_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Dropout, accumulated gradients, in the middle of an epoch: first SIGTERM, then SIGKILL to the second process."""
    experiments, alone = tmp_path / "e", tmp_path / "alone"
    run("launch.py", *TWO, f"experiments={alone}")
    every = [*TWO, "train.checkpoint_every_steps=2"]
    trial = start("launch.py", *every, f"experiments={experiments}")
    wait_for(lambda: list(experiments.glob("trial_*/checkpoints/step-*")))
    os.kill(trial.pid, signal.SIGTERM)
    output, _ = trial.communicate(timeout=120)
    assert trial.returncode == 75, output
    (record,) = records(experiments)
    assert (record["state"], record["error"]["kind"]) == ("interrupted", "interrupted")
    trial_id, folder = record["trial_id"], experiments / f"trial_{record['trial_id']}"
    assert f"step-{record['step']:08d}" in [path.name for path in folder.glob("checkpoints/*")]

    refused = run("launch.py", f"trial.id={trial_id}", "launch=cpu", f"experiments={experiments}", expect=1)
    assert "is of a training by 2 processes" in refused
    assert "Go on with 2 processes" in refused

    again = ["launch=multi_cpu", f"trial.id={trial_id}", f"experiments={experiments}"]
    trial = start("launch.py", *again)
    wait_for(lambda: json.loads((folder / "trial.json").read_bytes())["state"] == "running")
    both = workers(trial_id)
    assert opened_for_writing(both[0])
    assert not opened_for_writing(both[1])
    os.kill(both[1], signal.SIGKILL)
    output, _ = trial.communicate(timeout=120)
    assert trial.returncode == 75, output
    (record,) = records(experiments)
    assert (record["state"], record["error"]["kind"]) == ("interrupted", "killed")
    assert not workers(trial_id)

    run("launch.py", *again)
    assert all_metrics(experiments) == all_metrics(alone)
    assert weights(experiments) == weights(alone)
    assert "determinism" not in (folder / "logs" / "log.jsonl").read_text()
