"""What the end-to-end tests share: real studies, run as a person runs them, compared after interruptions."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import files, paths
from redsm5.engine.storage.store import read_verified

ROOT = Path(__file__).parents[2]
# Short enough for a test, long enough to be interrupted in the middle.
SMALL = ["data.posts=90", "model.max_length=64", "train.epochs=4", "study.trials=2"]
VARIES = {"report_id", "trial_id", "study_id", "generated_at", "checkpoint_id", "path", "experiments", "id"}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start a script in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, f"scripts/{script}", *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def run(script: str, *arguments: str, expect: int = 0) -> str:
    """Run a script to its end and check its exit code; what it printed."""
    process = start(script, *arguments)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == expect, output
    return output


def wait_for(condition: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    """The first true value of the condition."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come to pass in time")


def records(experiments: Path) -> list[dict[str, Any]]:
    """trial.json of all trials, by number."""
    found = []
    for path in experiments.glob("trial_*/trial.json"):
        try:
            found.append(json.loads(path.read_bytes()))
        except FileNotFoundError:
            continue
    return sorted(found, key=lambda r: r["number"] or 0)


def trial_at(experiments: Path, *, number: int, epoch: int, beyond_step: int = 0) -> Path | None:
    """The folder of this trial once it has done so many epochs, and so many steps of the journal."""
    for record in records(experiments):
        if record["number"] == number and record["epoch"] >= epoch:
            return experiments / f"trial_{record['trial_id']}"
    return None


def without_what_varies(document: Any) -> Any:
    """The document but for ids, times and paths."""
    if isinstance(document, dict):
        return {k: without_what_varies(v) for k, v in document.items() if k not in VARIES}
    return [without_what_varies(v) for v in document] if isinstance(document, list) else document


def reports(experiments: Path) -> list[Any]:
    """All trials' reports, by number, but for what varies; a script's trials have none."""
    files = [experiments / f"trial_{r['trial_id']}" / "evaluation_report.json" for r in records(experiments)]
    return [without_what_varies(json.loads(file.read_bytes())) if file.exists() else None for file in files]


def journal(trial: Path) -> dict[tuple[str, int], Any]:
    """The journal's values by (metric, step); each must stand there once."""
    rows = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    values = {(row["metric"], row["step"]): row["value"] for row in rows}
    assert len(values) == len(rows), "a (metric, step) stands twice in the journal"
    return values


def metrics(trial: Path) -> dict[tuple[str, int], Any]:
    """The journal's values but for those of the clock and the machine: what a training gives again bit for bit."""
    return {key: value for key, value in journal(trial).items() if not key[0].startswith("system_")}


def all_metrics(experiments: Path) -> list[dict[tuple[str, int], Any]]:
    return [metrics(experiments / f"trial_{r['trial_id']}") for r in records(experiments)]


def weights(experiments: Path) -> list[dict[str, bytes]]:
    """The kept checkpoints' weights, by trial and checkpoint, however they are stored."""
    return [
        {
            p.parent.name: bytes(read_verified(p.parent)[paths.WEIGHTS])
            for p in experiments.glob(f"trial_{r['trial_id']}/checkpoints/*/{paths.SUMS}")
        }
        for r in records(experiments)
    ]


def mlflow_rows(experiments: Path) -> dict[str, list[tuple[str, int, float, int]]]:
    """By trial id: (metric, step, value, timestamp) of every row that MLflow's database holds."""
    database = sqlite3.connect(experiments / "mlflow.db")
    rows = database.execute(
        "SELECT t.value, m.key, m.step, m.value, m.timestamp FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid "
        "WHERE t.key = 'trial_id'"
    ).fetchall()
    database.close()
    by_trial: dict[str, list[tuple[str, int, float, int]]] = {}
    for trial_id, *row in rows:
        by_trial.setdefault(trial_id, []).append(tuple(row))
    return by_trial


def kill_group(process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGKILL) -> None:
    os.killpg(process.pid, number)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def processes_of(trial_id: str) -> list[int]:
    """The processes that have this trial's id on their command line, but for the driver's launcher."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if f"trial.id={trial_id}".encode() in words and b"accelerate.commands.launch" not in words:
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiments of a small study that nothing interrupted; made once, however many processes run the tests."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "uninterrupted"
    done = shared / "done"
    lock = files.Lock(shared / "lock")
    assert lock.acquire(timeout_s=280)
    if not done.exists():
        run("hpo.py", *SMALL, f"experiments={shared / 'experiments'}")
        done.touch()
    lock.release()
    return shared / "experiments"


@pytest.fixture(scope="session")
def local_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` writes it: what a user brings along as a model."""
    return small_bert(tmp_path_factory.mktemp("bert"), SMALL)


def small_bert(folder: Path, words: list[str], **settings: float) -> Path:
    """Save a BERT of one layer with random weights, and a tokenizer made of the training posts of these words."""
    from transformers import BertConfig, BertModel

    from redsm5.config import compose
    from redsm5.data import load_splits
    from redsm5.data.tokenize import build_tokenizer

    tokenizer = build_tokenizer("tiny", load_splits(compose(words).data).train)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64} | settings
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return folder
