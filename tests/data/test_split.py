"""Splits are by post, disjoint, complete, stratified, and the same in whatever order the posts are read."""

import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

from redsm5.data.posts import SYMPTOMS, Corpus, Post, Span
from redsm5.data.read import read_corpus
from redsm5.data.split import split
from redsm5.data.synthesize import write_csvs
from redsm5.errors import InputError


def config(**changes):
    return SimpleNamespace(**{"split_seed": 42, "validation_fraction": 0.15, "test_fraction": 0.2, **changes})


def make_posts(count, seed=0):
    rng = random.Random(seed)
    labels = [tuple(int(rng.random() < 0.15) for _ in SYMPTOMS) for _ in range(count)]
    return Corpus(tuple(Post(f"p{i}", f"text {i}", labels[i], (), ()) for i in range(count)), {})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_csvs(folder, 1484, 1)
    return read_corpus(folder)


def test_splits_are_disjoint_and_complete(corpus):
    a = split(corpus, config())
    assert len(a.train) + len(a.validation) + len(a.test) == 1484
    assert {*a.train, *a.validation, *a.test} == {post.post_id for post in corpus.posts}
    assert len(a.test) == pytest.approx(0.2 * 1484, abs=3)
    assert len(a.validation) == pytest.approx(0.15 * 1484, abs=5)


def test_each_symptom_is_in_each_split_in_proportion(corpus):
    a = split(corpus, config())
    labels = {post.post_id: post.labels for post in corpus.posts}
    for c, symptom in enumerate(SYMPTOMS):
        total = sum(label[c] for label in labels.values())
        for ids, fraction in ((a.train, 0.65), (a.validation, 0.15), (a.test, 0.2)):
            assert sum(labels[i][c] for i in ids) == pytest.approx(fraction * total, abs=2), symptom


def test_the_order_of_the_posts_does_not_matter(corpus):
    shuffled = list(corpus.posts)
    random.Random(1).shuffle(shuffled)
    assert split(Corpus(tuple(shuffled), {}), config()) == split(corpus, config())


def test_another_seed_splits_differently_and_another_validation_fraction_keeps_the_test_split(corpus):
    a, b, c = (split(corpus, config(**changes)) for changes in ({}, {"split_seed": 43}, {"validation_fraction": 0.1}))
    assert a.test != b.test
    assert a.test == c.test
    assert len({a.fingerprint, b.fingerprint, c.fingerprint}) == 3


@pytest.mark.parametrize("count", [3, 4, 5, 8, 17, 60])
@pytest.mark.parametrize("seed", range(8))
def test_few_posts_still_give_three_splits(count, seed):
    a = split(make_posts(count, seed), config(split_seed=seed))
    assert a.train
    assert a.validation
    assert a.test
    assert max(Counter([*a.train, *a.validation, *a.test]).values()) == 1


def test_posts_without_any_label_can_be_split():
    posts = tuple(replace(post, labels=(0,) * 9) for post in make_posts(20).posts)
    assert len(split(Corpus(posts, {}), config()).test) == 4


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_posts_are_refused_with_a_remedy(count):
    with pytest.raises(InputError, match=f"{count} posts are too few") as error:
        split(make_posts(count), config())
    assert "data.test_fraction" in error.value.remedy


def test_the_fingerprint_changes_with_text_labels_evidence_and_id():
    posts = make_posts(30).posts
    original = split(Corpus(posts, {}), config()).fingerprint
    assert len(original) == 64
    assert original == split(Corpus(posts, {"unrelated": 1}), config()).fingerprint
    flipped = (1 - posts[3].labels[0], *posts[3].labels[1:])
    changes = (
        {"text": "text 3 "},
        {"labels": flipped},
        {"evidence": (Span(1, 0, 4),)},
        {"negatives": (Span(1, 0, 4),)},
        {"post_id": "p3x"},
    )
    prints = {
        split(Corpus((*posts[:3], replace(posts[3], **c), *posts[4:]), {}), config()).fingerprint for c in changes
    }
    assert len(prints | {original}) == 6
