"""Synthetic files have ReDSM5's shape and are the same bytes for the same seed."""

import csv
import hashlib
import os
import statistics
import subprocess
import sys

import pytest

from redsm5.data.posts import SYMPTOMS
from redsm5.data.read import ANNOTATIONS_FILE, POSTS_FILE, read_corpus
from redsm5.data.synthesize import REAL_SENTENCES, write_csvs

PRINT_DIGEST = """
import hashlib, sys, tempfile, pathlib
from redsm5.data.synthesize import write_csvs
with tempfile.TemporaryDirectory() as d:
    write_csvs(pathlib.Path(d), 80, 3)
    print(hashlib.sha256(b"".join(p.read_bytes() for p in sorted(pathlib.Path(d).iterdir()))).hexdigest())
"""


def digest(folder):
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    write_csvs(folder, 1484, 42)
    return folder


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_same_seed_same_bytes_in_every_process(tmp_path):
    write_csvs(tmp_path, 80, 3)
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        run = subprocess.run([sys.executable, "-c", PRINT_DIGEST], env=env, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == digest(tmp_path)
    write_csvs(tmp_path, 80, 4)
    assert digest(tmp_path) != run.stdout.strip()


def test_columns_are_those_of_the_data_set(full):
    assert list(rows(full / POSTS_FILE)[0]) == ["post_id", "text"]
    columns = ["post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status", "explanation"]
    assert list(rows(full / ANNOTATIONS_FILE)[0]) == columns
    assert b"\r" not in (full / POSTS_FILE).read_bytes()


def test_frequencies_are_the_real_ones(full):
    corpus = read_corpus(full)
    annotations = rows(full / ANNOTATIONS_FILE)
    present = [row["DSM5_symptom"] for row in annotations if row["status"] == "1"]
    assert {symptom: present.count(symptom) for symptom in SYMPTOMS} == REAL_SENTENCES
    assert corpus.counts["posts"] == 1484
    assert corpus.counts["posts_without_symptom"] == 392


def test_lengths_are_the_real_ones(full):
    words = sorted(len(row["text"].split()) for row in rows(full / POSTS_FILE))
    assert words[0] == 2
    assert 6000 <= words[-1] <= 6990
    assert statistics.mean(words) == pytest.approx(295, rel=0.02)
    assert 130 <= statistics.median(words) <= 190


def test_the_irregularities_of_the_real_files_occur(full):
    counts = read_corpus(full).counts
    texts = [row["text"] for row in rows(full / POSTS_FILE)]
    assert counts["aligned_exact"] > 600
    assert counts["aligned_normalized"] > 200
    assert counts["aligned_fuzzy"] > 10
    assert counts["unaligned"] < 20
    assert counts["hard_negatives"] > 150
    assert counts["special_case"] > 5
    annotations = rows(full / ANNOTATIONS_FILE)
    assert len({(row["post_id"], row["sentence_id"]) for row in annotations}) < len(annotations) - 20
    for irregular in ('"', "’", "“", "\n", ","):
        assert any(irregular in text for text in texts), irregular


def test_hard_negatives_share_the_vocabulary_of_evidence(full):
    annotations = [row for row in rows(full / ANNOTATIONS_FILE) if row["DSM5_symptom"] == "FATIGUE"]
    spoken = {
        status: {w for r in annotations if r["status"] == status for w in r["sentence_text"].split()} for status in "01"
    }
    assert {"exhausted", "drained"} <= spoken["0"] & spoken["1"]


def test_a_post_never_has_a_symptom_both_ways(full):
    assert read_corpus(full).counts["contradictions"] == 0


@pytest.mark.parametrize("posts", [1, 2, 5, 17, 60])
def test_few_posts_have_every_symptom_and_read_well(tmp_path, posts):
    write_csvs(tmp_path, posts, 0)
    corpus = read_corpus(tmp_path)
    assert len(corpus.posts) == posts
    assert all(any(post.labels[c] for post in corpus.posts) for c in range(len(SYMPTOMS)))
