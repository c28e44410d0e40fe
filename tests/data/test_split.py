"""Splits are by post, disjoint, complete, stratified, and the same in whatever order the posts are read."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from redsm5.data.duplicates import originals
from redsm5.data.posts import SYMPTOMS, Corpus, Post, Span
from redsm5.data.read import read_corpus
from redsm5.data.split import split
from redsm5.data.synthesize import write_csvs
from redsm5.engine.errors import InputError

SAMPLE = Path(__file__).parents[2].parent / "shared/data/redsm5_sample"


def config(**changes):
    return SimpleNamespace(
        **{
            "test_split": "stratified",
            "split_seed": 42,
            "validation_seed": None,
            "validation_fraction": 0.15,
            "test_fraction": 0.2,
        }
        | {"folds": None, "group_duplicates": True, "alignment": "words", **changes}
    )


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


# ---------------------------------------------------------------------------------------------------------------------
# copies of a post

# Of synthetic posts, by their number and seed: computed before copies were kept together.
BEFORE = {
    (60, 42): "5df31cbd1c8e46e3dee4377eb98389e128f74003362389f803589473150ab74c",
    (100, 7): "b5b1622649dc954ab820cc3a39c4c90734f88e6d35e34e9e7bc75ae532a619b7",
    (400, 42): "718c3d04bb9ec3e2afd58d277d0c636fd24a347ed6d8887df54402cb860340b0",
}


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("count", "seed"), BEFORE)
def test_posts_without_copies_are_split_as_ever(tmp_path, count, seed, grouped):
    write_csvs(tmp_path, count, seed)
    a = split(read_corpus(tmp_path, "window"), config(group_duplicates=grouped))
    assert a.fingerprint == BEFORE[count, seed]
    assert (a.duplicate_posts, a.duplicate_groups) == (0, 0)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the public sample of ReDSM5 is not beside this checkout")
def test_the_authors_sample_is_split_as_ever():
    a = split(read_corpus(SAMPLE, "window"), config())
    assert a.fingerprint == "d4230b1c7db271a25f3d4d4b2deea87a0816a7a92d3383f7e433b22028c07b1f"


def test_posts_with_copies_are_split_as_ever_where_an_older_study_is_of_them(tmp_path):
    write_csvs(tmp_path, 1484, 1)
    corpus = read_corpus(tmp_path, "window")
    a, b = split(corpus, config(group_duplicates=False)), split(corpus, config())
    assert a.fingerprint == "dbd031939dfbacae14f7f603d9f6076f41cfcc9d53e0ceb1a6520dd38632af1a"  # computed before
    assert b.fingerprint != a.fingerprint
    assert (a.duplicate_posts, a.duplicate_groups) == (b.duplicate_posts, b.duplicate_groups) == (9, 4)


WORDS = [f"word{i}" for i in range(3000)]


def reworded(text, changed, rng):
    """The text with so many of its words replaced, one after the other from a place on."""
    words = text.split()
    start = rng.randrange(len(words) - changed)
    words[start : start + changed] = rng.choices(WORDS, k=changed)
    return " ".join(words)


COPIES = {
    "equal": lambda text, rng: text,
    "case": lambda text, rng: text.upper(),
    "spaces": lambda text, rng: "\u00a0 " + text.replace(" ", " \n ") + "\n",
    "quotes_and_dashes": lambda text, rng: text.replace("'", "\u2019").replace("-", "\u2014").replace('"', "\u201c"),
    "full_width": lambda text, rng: text.translate({i: i + 0xFEE0 for i in range(33, 127)}),
    "unseen": lambda text, rng: text.replace(" ", " \u200b"),
    "a_tenth_reworded": lambda text, rng: reworded(text, 30, rng),
    "an_edit_added": lambda text, rng: text + " edit: " + " ".join(rng.choices(WORDS, k=60)),
    "cut": lambda text, rng: " ".join(text.split()[50:]),
}


def with_copies(alter, count=100, copied=30):
    """Posts of 300 words, the first of which have a copy."""
    rng = random.Random(5)
    posts = make_posts(count).posts
    texts = [f'It\'s "{i}" - ' + " ".join(rng.choices(WORDS, k=300)) for i in range(count)]
    posts = [replace(post, text=text) for post, text in zip(posts, texts, strict=True)]
    copies = [replace(post, post_id=f"q{post.post_id}", text=alter(post.text, rng)) for post in posts[:copied]]
    return Corpus((*posts, *copies), {})


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_a_post_are_in_one_split(kind):
    corpus = with_copies(COPIES[kind])
    a = split(corpus, config())
    assert (a.duplicate_posts, a.duplicate_groups) == (60, 30)
    where = {i: n for n, ids in enumerate((a.train, a.validation, a.test)) for i in ids}
    assert len(where) == 130
    assert all(where[f"p{i}"] == where[f"qp{i}"] for i in range(30))
    assert len({where[f"p{i}"] for i in range(30)}) == 3, "each split has some"
    assert len(a.test) == pytest.approx(26, abs=6)
    b = split(corpus, config(group_duplicates=False))
    apart = {i: n for n, ids in enumerate((b.train, b.validation, b.test)) for i in ids}
    assert any(apart[f"p{i}"] != apart[f"qp{i}"] for i in range(30)), "so the test can fail"


def test_copies_are_found_over_copies_in_whatever_order():
    rng = random.Random(3)
    first = " ".join(rng.choices(WORDS, k=300))
    middle = reworded(first, 40, rng)
    last = reworded(middle, 40, rng)
    posts = [replace(make_posts(1).posts[0], text=text) for text in (last, "another", first, middle, last.upper())]
    assert originals(posts) == [0, 1, 0, 0, 0]
    assert originals(posts[::-1]) == [0, 0, 0, 3, 0]


def test_posts_that_have_some_words_in_common_are_no_copies():
    rng = random.Random(4)
    text = " ".join(rng.choices(WORDS, k=300))
    texts = [
        text,
        reworded(text, 120, rng),
        "I am so tired of it all.",
        "I am so tired of it all",
        "I am so tired of it.",
    ]
    texts += [" ".join(WORDS[:10]), " ".join([*WORDS[:9], "other"]), "", " ", "\u200b"]
    posts = [replace(make_posts(1).posts[0], text=text) for text in texts]
    assert originals(posts) == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7]


def test_with_copies_the_order_of_the_posts_does_not_matter_and_the_test_split_keeps():
    corpus = with_copies(COPIES["an_edit_added"])
    shuffled = list(corpus.posts)
    random.Random(1).shuffle(shuffled)
    assert split(Corpus(tuple(shuffled), {}), config()) == split(corpus, config())
    assert split(corpus, config(validation_fraction=0.1)).test == split(corpus, config()).test


def test_posts_that_are_all_copies_of_two_are_too_few():
    posts = [replace(post, text=f"text {i % 2}") for i, post in enumerate(make_posts(20).posts)]
    with pytest.raises(InputError, match=r"20 posts \(2 without duplicates\) are too few"):
        split(Corpus(tuple(posts), {}), config())
    assert split(Corpus(tuple(posts), {}), config(group_duplicates=False)).test


# -- other training and validation splits of the same posts


def test_another_validation_seed_splits_the_rest_anew_and_leaves_the_test_split(corpus):
    first = split(corpus, config())
    labels = {post.post_id: post.labels for post in corpus.posts}
    seen = {first.validation}
    for seed in range(4):
        a = split(corpus, config(validation_seed=seed))
        assert a.test == first.test
        assert {*a.train, *a.validation} == {*first.train, *first.validation}
        assert len(a.validation) == pytest.approx(0.15 * 1484, abs=5)
        for c, symptom in enumerate(SYMPTOMS):
            rest = sum(labels[i][c] for i in (*a.train, *a.validation))
            share = len(a.validation) / (len(a.train) + len(a.validation))
            assert sum(labels[i][c] for i in a.validation) == pytest.approx(share * rest, abs=3), symptom
        assert a == split(corpus, config(validation_seed=seed))
        assert a.fingerprint != first.fingerprint
        seen.add(a.validation)
    assert len(seen) == 5
    assert split(corpus, config(validation_seed=42)) == first, "without one it is split_seed"


@pytest.mark.parametrize("kind", COPIES)
def test_copies_stay_together_whatever_the_validation_seed(kind):
    corpus = with_copies(COPIES[kind])
    for seed in range(3):
        a = split(corpus, config(validation_seed=seed))
        where = {i: n for n, ids in enumerate((a.train, a.validation, a.test)) for i in ids}
        assert all(where[f"p{i}"] == where[f"qp{i}"] for i in range(30))


def test_folds_are_all_posts_but_the_test_posts(corpus):
    folds = [split(corpus, config(folds=5), fold) for fold in range(5)]
    whole = split(corpus, config())
    dealt = Counter(post_id for a in folds for post_id in a.validation)
    assert set(dealt.values()) == {1}
    assert set(dealt) == {*whole.train, *whole.validation}
    for a in folds:
        assert {*a.train, *a.validation} == set(dealt)
        assert not {*a.train} & {*a.validation}
        assert (a.test, a.fingerprint) == (whole.test, folds[0].fingerprint)
        assert len(a.validation) == pytest.approx(len(dealt) / 5, rel=0.1)
    assert folds[0].fingerprint != whole.fingerprint
    assert folds[0].fingerprint != split(corpus, config(folds=5, validation_seed=7)).fingerprint
    assert split(corpus, config(folds=5)) == folds[-1], "the last one, unless another is asked for"


def test_each_symptom_is_in_each_fold_in_proportion(corpus):
    labels = {post.post_id: post.labels for post in corpus.posts}
    for fold in range(5):
        a = split(corpus, config(folds=5), fold)
        for c, symptom in enumerate(SYMPTOMS):
            total = sum(labels[i][c] for i in (*a.train, *a.validation))
            assert sum(labels[i][c] for i in a.validation) == pytest.approx(total / 5, abs=2), symptom


@pytest.mark.parametrize(("positives", "remedy"), [(3, "Choose data.folds=3 or fewer."), (1, "Leave data.folds out.")])
def test_more_folds_than_a_symptom_has_posts_are_refused(positives, remedy):
    posts = [
        Post(f"p{i}", f"text {i}", (int(i < 2 * positives), 1, *[0] * (len(SYMPTOMS) - 2)), (), ()) for i in range(60)
    ]
    few = split(Corpus(tuple(posts), {}), config())
    left = sum(int(i[1:]) < 2 * positives for i in (*few.train, *few.validation))
    with pytest.raises(InputError, match=f"data.folds={left + 1} is more than.*{SYMPTOMS[0]} {left}") as error:
        split(Corpus(tuple(posts), {}), config(folds=left + 1))
    if left == positives:
        assert error.value.remedy == remedy
    if left > 1:
        assert split(Corpus(tuple(posts), {}), config(folds=left))
