"""A pretrained encoder is trained for real: it learns, it resumes to the same bits, and it reads real posts."""

import json
import os
from pathlib import Path
from statistics import mean

import pytest

from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.posts import labels_of
from tests.e2e.conftest import ROOT, all_metrics, journal, records, run, start, wait_for, weights
from tests.e2e.test_campaign import kill
from tests.minilm import unpacked

PUBLIC = ROOT.parent / "shared" / "data" / "redsm5_sample"  # the preview of ReDSM5 that its authors publish
POSTS = ["data.posts=300", "model.max_length=64"]
TRAINED = ["model=minilm", *POSTS, "train.epochs=2"]

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def sample_model() -> None:
    unpacked()
    assert os.environ["REDSM5_CACHE"], "the processes that the tests start look for it there"


def trial(experiments: Path) -> Path:
    (record,) = records(experiments)
    assert record["state"] == "completed"
    return experiments / f"trial_{record['trial_id']}"


def test_it_learns_and_after_a_sigkill_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Chance is the best that anything reaches which does not look at the posts: to predict every symptom, always."""
    once, killed = tmp_path / "once", tmp_path / "killed"
    run("launch.py", *TRAINED, f"experiments={once}")
    validation = labels_of(load_splits(compose(POSTS).data).validation)
    positive = [float(share) for share in validation.mean(axis=0)]
    found = journal(trial(once))
    last = max(step for metric, step in found if metric == "val_loss")
    assert found["val_f1_macro", last] > 1.5 * mean(2 * share / (1 + share) for share in positive)

    process = start("launch.py", *TRAINED, f"experiments={killed}")
    wait_for(lambda: process.poll() is not None or [r for r in records(killed) if r["epoch"] == 1])
    assert process.poll() is None, "it ended before it could be killed"
    kill(killed, "all")
    process.communicate()
    (record,) = records(killed)
    assert record["epoch"] == 1
    run("launch.py", f"trial.id={record['trial_id']}", f"experiments={killed}")
    assert records(killed)[0]["resumes"] == 1
    assert all_metrics(killed) == all_metrics(once)
    assert weights(killed) == weights(once)


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public preview of ReDSM5 is not beside this checkout")
def test_the_public_posts_are_trained_on_and_evaluated(tmp_path: Path) -> None:
    words = ["data=csv", f"data.dir={PUBLIC}", "model.max_length=256", "train.batch_size=4", "train.epochs=2"]
    run("launch.py", "model=minilm", *words, f"experiments={tmp_path}")
    folder = trial(tmp_path)
    report = json.loads((folder / "evaluation_report.json").read_bytes())
    assert report["config"]["model"]["model_id"] == "minilm"
    per_criterion = report["test_metrics"]["criteria_matching"]["per_criterion"]
    tested = load_splits(compose(["data=csv", f"data.dir={PUBLIC}"]).data).counts["test"]
    assert {sum(map(sum, entry["confusion_matrix"])) for entry in per_criterion} == {tested}
    losses = [value for (metric, _), value in sorted(journal(folder).items()) if metric == "train_loss"]
    assert losses[-1] < losses[0]
