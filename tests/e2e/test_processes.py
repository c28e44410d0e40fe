"""One trial by two processes: what one would have trained, whatever ends one of the two; and by no other number."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import compose
from redsm5.engine.files import make_dir
from redsm5.engine.study.launch import Launched, launch_trial
from redsm5.engine.study.outcomes import note_killed
from redsm5.engine.study.trial import create_trial, read_record
from tests.e2e.conftest import (
    all_metrics,
    processes_of,
    records,
    reports,
    run,
    small_bert,
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
    folder = tmp_path_factory.mktemp("bert")
    return small_bert(folder, ONE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def launched(experiments: Path, *words: str) -> tuple[Path, Launched]:
    """A trial that is being trained, a new one or that of the folder: the driver's part in it."""
    config = compose([*words, f"experiments={experiments}"])
    make_dir(experiments)
    found = records(experiments)
    trial_id = found[0]["trial_id"] if found else create_trial(config).trial_id
    folder = experiments / f"trial_{trial_id}"
    return folder, launch_trial(config, trial_id, output=folder / "logs" / "output.log")


def trained(experiments: Path, *words: str) -> dict[str, Any]:
    """Train a trial until it ends by itself; its record."""
    _, processes = launched(experiments, *words)
    processes.wait()
    return records(experiments)[0]


def workers(trial_id: str) -> dict[int, int]:
    """The processes that train a trial: at 0 the first, which holds its lock, and then the others."""
    first, others = [], []
    for pid in processes_of(trial_id):
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"processes.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                held = any(os.readlink(entry).endswith("/lock") for entry in Path(f"/proc/{pid}/fd").iterdir())
                (first if held else others).append(pid)
    return dict(enumerate(first + others))


def opened_for_writing(pid: int) -> set[str]:
    """The files below an experiments folder that a process has open and may write, but for its standard output."""
    files = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        path, info = os.readlink(entry), Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
        flags = int(info.partition("flags:")[2].split()[0], 8)
        if int(entry.name) > 2 and "/trial_" in path and flags & (os.O_WRONLY | os.O_RDWR):
            files.add(path)
    return files


def numbers(document: Any, path: str = "") -> dict[str, float]:
    """Every number of a document, by where it stands."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        return {k: v for name, value in items for k, v in numbers(value, f"{path}.{name}").items()}
    return {path: document} if isinstance(document, float) else {}


def test_two_processes_train_what_one_does(without_dropout: Path, tmp_path: Path) -> None:
    """Every loss and score of every step, and the report, with batches that do not divide and one post left over; the
    two compute their shares in parts, of which one may have more than the other.
    """
    words = [f"model.model_id={without_dropout}", "model.criteria_dropout=0", "model.evidence_dropout=0"]
    words += ["train.learning_rate=0.01", "train.class_weights=true", "data.posts=91"]
    for name, other in (("one", ["launch=cpu"]), ("two", ["launch=multi_cpu", "train.max_tokens=96"])):
        assert trained(tmp_path / name, *TWO, *words, *other)["state"] == "completed"
    (one,), (two,) = all_metrics(tmp_path / "one"), all_metrics(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(abs(one[key] - two[key]) for key in one) < 1e-5
    (one_report,), (two_report,) = map(numbers, reports(tmp_path / "one")), map(numbers, reports(tmp_path / "two"))
    assert one_report.keys() == two_report.keys()
    assert max(abs(one_report[key] - two_report[key]) for key in one_report) < 1e-5


def test_stopped_and_robbed_of_a_process_two_end_as_if_nothing_had_been(tmp_path: Path) -> None:
    """With dropout, in the middle of an epoch: SIGTERM to all, another number of processes, SIGKILL to the second."""
    experiments, alone = tmp_path / "e", tmp_path / "alone"
    assert trained(alone, *TWO)["state"] == "completed"

    folder, processes = launched(experiments, *TWO, "train.checkpoint_every_steps=2")
    wait_for(lambda: list(folder.glob("checkpoints/step-*")))
    processes.signal(signal.SIGTERM)
    processes.wait()
    (record,) = records(experiments)
    assert (record["state"], record["error"]["kind"]) == ("interrupted", "interrupted")
    assert f"step-{record['step']:08d}" in [path.name for path in folder.glob("checkpoints/*")]

    refused = trained(experiments, *TWO, "launch=cpu")
    assert (refused["state"], refused["error"]["kind"]) == ("interrupted", "incompatible_checkpoint")
    assert "was saved by 2 processes" in refused["error"]["message"]
    assert "Resume with 2 processes" in refused["error"]["message"]

    folder, processes = launched(experiments, *TWO)
    wait_for(lambda: records(experiments)[0]["state"] == "running")
    first, second = workers(record["trial_id"])[0], workers(record["trial_id"])[1]
    assert opened_for_writing(first)
    assert not opened_for_writing(second)
    os.kill(second, signal.SIGKILL)
    processes.wait()
    assert not workers(record["trial_id"])
    left = read_record(folder)
    assert left is not None
    assert (left.state, left.error) == ("running", None), "as after a kill of its one process"
    assert note_killed(folder, left).state == "interrupted"

    assert trained(experiments, *TWO)["state"] == "completed"
    assert all_metrics(experiments) == all_metrics(alone)
    assert weights(experiments) == weights(alone)
    assert "determinism" not in (folder / "logs" / "log.jsonl").read_text()
    assert "Traceback" not in (folder / "logs" / "output.log").read_text()


@pytest.mark.long
@pytest.mark.parametrize("victim", ["first", "second", "launcher"])
def test_a_driver_resumes_a_trial_that_lost_any_of_its_processes(victim: str, tmp_path: Path) -> None:
    """None of its processes outlives it, and the study ends with the bits of one that nothing happened to."""
    words = [*TWO, "study.trials=2", "train.epochs=4", "study.sampler=random"]
    run("hpo.py", *words, f"experiments={tmp_path / 'alone'}")
    study = start("hpo.py", *words, f"experiments={tmp_path / 'e'}")
    folder = wait_for(lambda: trial_at(tmp_path / "e", number=0, epoch=1))
    trial_id = folder.name.removeprefix("trial_")
    both = workers(trial_id)
    launcher = int(Path(f"/proc/{both[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill({"first": both[0], "second": both[1], "launcher": launcher}[victim], signal.SIGKILL)
    wait_for(lambda: not set(both.values()) & set(workers(trial_id).values()))
    output, _ = study.communicate(timeout=280)
    assert study.returncode == 0, output
    assert records(tmp_path / "e")[0]["resumes"] == 1
    assert all_metrics(tmp_path / "e") == all_metrics(tmp_path / "alone")
    assert weights(tmp_path / "e") == weights(tmp_path / "alone")
    assert reports(tmp_path / "e") == reports(tmp_path / "alone")


@pytest.mark.long
def test_three_processes_go_on_to_the_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sums of three depend on their order, which must be the same one after a resume."""
    monkeypatch.setenv("REDSM5_PROCESSES", "3")
    trained(tmp_path / "alone", *TWO)
    folder, processes = launched(tmp_path / "e", *TWO, "train.checkpoint_every_steps=2")
    wait_for(lambda: list(folder.glob("checkpoints/step-*")))
    processes.signal(signal.SIGTERM)
    processes.wait()
    assert trained(tmp_path / "e", *TWO)["resumes"] == 1
    assert all_metrics(tmp_path / "e") == all_metrics(tmp_path / "alone")
    assert weights(tmp_path / "e") == weights(tmp_path / "alone")
