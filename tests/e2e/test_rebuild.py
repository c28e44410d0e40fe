"""Weights that were deleted come back, the same to the bit; where they cannot, it is said before or after training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import paths
from redsm5.engine.storage.store import weights_sha256
from tests.e2e.conftest import SMALL, records, run, weights

STUDY = ("study.name=night", *SMALL, "study.trials=2", "train.epochs=2", "data.posts=60")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiments = tmp_path_factory.mktemp("rebuild") / "e"
    run("hpo.py", *STUDY, f"experiments={experiments}")
    return experiments


@pytest.fixture
def evicted(whole: Path, tmp_path: Path) -> Path:
    """The study's folder without the weights of its trials."""
    experiments = tmp_path / "an e, with=signs"
    shutil.copytree(whole, experiments)
    for folder in paths.trial_dirs(experiments):
        shutil.rmtree(folder / paths.CHECKPOINTS)
    return experiments


def trial(experiments: Path, number: int) -> Path:
    return paths.trial_dir(experiments, records(experiments)[number]["trial_id"])


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((folder / paths.TRIAL).read_bytes())
    edit(record)
    (folder / paths.TRIAL).write_text(json.dumps(record))


def rebuild(experiments: Path, *words: str, expect: int = 0) -> str:
    return run("rebuild.py", *words, "--experiments", str(experiments), expect=expect)


def test_a_completed_trial_has_a_receipt_of_its_weights(whole: Path) -> None:
    for record in records(whole):
        receipt = record["receipt"]
        assert record["best"] is not None
        folder = paths.trial_dir(whole, record["trial_id"])
        best = folder / paths.CHECKPOINTS / f"epoch-{record['best']['epoch']:04}"
        assert receipt["weights_sha256"] == weights_sha256(best)
        assert 0 < receipt["seconds"] <= record["active_seconds"]
        assert {"torch", "numpy", "python", "device", "redsm5", "transformers"} < receipt["versions"].keys()
        assert len(json.dumps(receipt)) + len((folder / paths.CONFIG).read_bytes()) < 10_000
        said = run("checkpoints.py", record["trial_id"], "--experiments", str(whole))
        assert receipt["weights_sha256"] in said
        assert "just rebuild" not in said
    assert "nothing to rebuild" in rebuild(whole, "night#0")


def test_deleted_weights_come_back_to_the_bit(whole: Path, evicted: Path) -> None:
    said = run("checkpoints.py", "night#1", "--experiments", str(evicted))
    trial_id = trial(evicted, 1).name.removeprefix("trial_")
    assert f"`just rebuild {trial_id} --experiments '{evicted}'` trains them again" in said
    for number in (0, 1):
        assert "every metric and the weights are bit-identical" in rebuild(evicted, f"night#{number}")
    assert weights(evicted) == weights(whole)
    sizes = [sum(p.stat().st_size for p in f.glob("checkpoints/*/*")) for f in paths.trial_dirs(evicted)]
    assert [json.loads((f / paths.TRIAL).read_bytes())["bytes"] for f in paths.trial_dirs(evicted)] == sizes
    again = run("evaluate.py", "night#1", "--experiments", str(evicted))
    assert "F1" in again or "f1" in again


def test_what_has_changed_is_named_before_anything_is_trained(evicted: Path) -> None:
    folder = trial(evicted, 0)
    change(folder, lambda record: record["receipt"]["versions"].update(numpy="1.0.0"))
    change(folder, lambda record: record["receipt"].update(data_fingerprint="ab" * 32))
    said = rebuild(evicted, "night#0", expect=1)
    assert "numpy: 1.0.0 then" in said
    assert "data: abababababab then" in said
    assert "epoch 1 of 2" not in said
    said = rebuild(evicted, "night#0", "--anyway")
    assert "bit-identical" in said
    assert list(folder.glob("checkpoints/*/model.delta"))


def test_other_weights_are_not_put_back(evicted: Path) -> None:
    folder = trial(evicted, 0)
    change(folder, lambda record: record["receipt"].update(weights_sha256="ab" * 32))
    said = rebuild(evicted, "night#0", expect=2)
    assert "the weights differ" in said
    assert "was NOT rebuilt" in said
    assert not list(folder.glob("checkpoints/*/*"))
    journal = folder / paths.METRICS
    lines = journal.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if '"train_loss"' in line)
    changed = json.loads(lines[row])
    changed["value"] += 1e-9
    journal.write_text("\n".join([*lines[:row], json.dumps(changed), *lines[row + 1 :]]) + "\n")
    assert "1 of " in rebuild(evicted, "night#0", expect=2)


def test_without_a_receipt_or_room_it_is_refused(evicted: Path) -> None:
    folder = trial(evicted, 0)
    change(folder, lambda record: record.update(receipt=None))
    assert "an older version completed it" in rebuild(evicted, "night#0", expect=1)
    study = paths.study_dirs(evicted)[0] / paths.STUDY
    document = json.loads(study.read_bytes())
    document["config"]["retention"]["max_total_size"] = 1000
    study.write_text(json.dumps(document))
    said = rebuild(evicted, "night#0", "--anyway", expect=3)
    assert "do not fit into the budget" in said
    assert not list(folder.glob("checkpoints/*/*"))
    change(folder, lambda record: record.update(state="pruned"))
    assert "is pruned" in rebuild(evicted, "night#0", expect=1)
