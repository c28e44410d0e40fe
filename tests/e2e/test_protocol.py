"""`just protocol` tabulates both splits, a study's winner on ours, and the authors' figures as theirs."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from redsm5.config import compose
from redsm5.data import load_splits, load_test, posts_by_row
from redsm5.data.split import authors_split
from redsm5.evaluation.protocol import COLUMNS, FIGURES, MAJORITY, THEIRS
from tests.e2e.conftest import ROOT, SMALL, environment, run

SAMPLE = ROOT.parent / "shared/data/redsm5_sample"


def protocol(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "scripts/protocol.py", *words]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=280, check=False
    )


def test_a_study_s_best_trial_is_shown_on_our_split_with_the_figures_of_its_report(uninterrupted: Path) -> None:
    words = ["data.posts=90", f"experiments={uninterrupted}"]
    study = json.loads(next(uninterrupted.glob("study_*/study.json")).read_bytes())
    done = protocol("--format", "json", *words, f"study={study['study_id'][:8]}")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    nine, ten, absent = [row for row in rows if row["model"].startswith("best of")]
    report = json.loads((uninterrupted / f"trial_{study['best']['trial_id']}/evaluation_report.json").read_bytes())
    criteria = report["test_metrics"]["criteria_matching"]
    assert (nine["split"], nine["labels"], ten["labels"]) == ("ours", 9, 10)
    assert nine["macro_f1"] == pytest.approx(criteria["f1_macro"])
    assert nine["micro_f1"] == pytest.approx(criteria["f1_micro"])
    interval = report["confidence_intervals"]["criteria_matching.f1_micro"]
    assert [nine["micro_low"], nine["micro_high"]] == pytest.approx(interval)
    config = compose(words).data
    held_out = {post.post_id for post in load_test(config).test}
    seen = [post for post in authors_split(posts_by_row(config))[1] if post.post_id not in held_out]
    assert absent["note"] == f"not evaluated: {len(seen)} of these posts are in its training or validation split"
    assert {absent[name] for name in FIGURES} == {None}
    theirs = {row["model"]: (row["macro_f1"], row["micro_f1"]) for row in rows if row["note"] and row["macro_f1"]}
    assert theirs == {f"{model} (theirs)": (macro, micro) for model, (_, macro, micro, _) in THEIRS.items()}


def test_a_study_trained_for_the_authors_split_is_shown_there(tmp_path: Path) -> None:
    words = ["data.posts=90", "data.test_split=authors", f"experiments={tmp_path}"]
    run("hpo.py", *SMALL[1:], *words, "study.name=theirs", "study.trials=1", "train.epochs=1")
    done = protocol("--format", "json", *words, "study=theirs")
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(done.stdout) if row["model"] == "best of theirs"]
    absent, nine, ten = rows
    report = json.loads(next(tmp_path.glob("trial_*/evaluation_report.json")).read_bytes())
    criteria = report["test_metrics"]["criteria_matching"]
    assert (nine["split"], nine["labels"], ten["labels"]) == ("authors", 9, 10)
    assert nine["posts"] == 18
    assert nine["macro_f1"] == pytest.approx(criteria["f1_macro"])
    config = compose(words).data
    theirs = {post.post_id for post in load_splits(config).learned}
    ours = load_test(config.model_copy(update={"test_split": "stratified"})).test
    known = sum(post.post_id in theirs for post in ours)
    assert (absent["split"], absent["note"]) == (
        "ours",
        f"not evaluated: {known} of these posts are in its training or validation split",
    )


def test_a_study_of_other_posts_is_refused(uninterrupted: Path) -> None:
    for words in (["data.posts=91"], ["data.posts=90", "data.seed=5"], ["data.posts=90", "data.split_seed=3"]):
        done = protocol(*words, f"experiments={uninterrupted}", "study=demo")
        assert (done.returncode, done.stdout) == (1, "")
        assert "was trained with other posts or splits" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_study_that_is_not_there_is_refused(uninterrupted: Path) -> None:
    done = protocol("data.posts=90", f"experiments={uninterrupted}", "study=nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no study nowhere" in done.stderr


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the public sample is not here")
def test_the_public_posts_have_both_splits(tmp_path: Path) -> None:
    done = protocol("data=csv", f"data.dir={SAMPLE}", f"experiments={tmp_path}", "--format", "csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert tuple(rows[0]) == COLUMNS
    assert {(row["split"], row["posts"]) for row in rows if row["model"] == MAJORITY} == {
        ("ours", "4"),
        ("authors", "4"),
    }


def test_a_table_says_what_its_columns_are(tmp_path: Path) -> None:
    done = protocol("data.posts=90", f"experiments={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "copies: the test posts that are duplicates" in done.stdout
    assert "CNN (theirs)" in done.stdout
