"""Splits by post, stratified over the nine symptoms, and the fingerprint of the result.

Duplicates of a post stay in one split, so that no memorized post is evaluated (`redsm5.data.duplicates`). The same
posts and split_seed give the same splits, whatever the order of rows in the files. The test split is drawn first, so it
does not depend on validation_fraction; data.validation_seed draws the validation split of the rest with another seed.
With data.test_split=authors the test posts are those of ReDSM5's authors, whose order of rows matters, and whose
duplicates may be training posts. With data.folds the rest is dealt into folds instead, of which one is the validation
split.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redsm5.data.duplicates import originals
from redsm5.data.posts import SYMPTOMS, Corpus, Post, labels_of
from redsm5.engine.errors import InputError

if TYPE_CHECKING:
    from redsm5.sections import DataConfig


@dataclass(frozen=True, slots=True)
class Assignment:
    """The post_ids of each split, sorted: disjoint, together all posts, none empty.

    Attributes:
        fingerprint: SHA-256 (hexadecimal) over ids, texts, labels, spans and assignment; see `fingerprint`. With folds
            it is the same for each of them.
        duplicate_posts: posts that are copies of each other, including the first of each group.
        duplicate_groups: the number of groups of such copies.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    fingerprint: str
    duplicate_posts: int
    duplicate_groups: int


def authors_split(posts: Sequence[Post]) -> tuple[list[Post], list[Post]]:
    """(train, test) as ReDSM5's authors split all posts (github.com/eliseobao/redsm5, examples/), which are in the
    order of their rows.

    Raises:
        InputError: there are fewer than two posts.
    """
    from sklearn.model_selection import train_test_split  # takes a second, and is not needed if the split is cached

    if len(posts) < 2:
        raise InputError("a single post cannot be split", where="data", remedy="Use more posts.")
    train, test = train_test_split(list(posts), test_size=0.2, random_state=42)
    return train, test


def split(corpus: Corpus, config: "DataConfig", fold: int = -1, test_posts: Sequence[Post] | None = None) -> Assignment:
    """Assign every post to train, validation or test; with data.group_duplicates, all duplicates of a post to the same
    split.

    Args:
        fold: of data.folds, the one that is the validation split.
        test_posts: the test split, where it is not ours to draw; their duplicates stay among the others.

    Raises:
        InputError: too few posts for three splits of these fractions; or a symptom has fewer than there are folds.
    """
    posts = sorted(corpus.posts, key=lambda post: post.post_id)
    copies: defaultdict[int, list[Post]] = defaultdict(list)
    for post, first in zip(posts, originals(posts), strict=True):
        copies[first].append(post)
    groups = list(copies.values()) if config.group_duplicates else [[post] for post in posts]
    n_test = len(test_posts or ()) or max(1, round(config.test_fraction * len(groups)))
    n_validation = config.folds or max(1, round(config.validation_fraction * len(groups)))
    if len(groups) <= n_test + n_validation:
        different = "" if len(groups) == len(posts) else f" ({len(groups)} without duplicates)"
        raise InputError(
            f"{len(posts)} posts{different} are too few for a training, a validation and a test split",
            remedy="Use more posts, or lower data.test_fraction and data.validation_fraction.",
        )
    if test_posts is None:
        rest, test = _draw(groups, n_test, config.split_seed)
    else:
        drawn = {post.post_id for post in test_posts}
        rest = [left for group in groups if (left := [post for post in group if post.post_id not in drawn])]
        test = [[post] for post in test_posts]
    again = config.split_seed if config.validation_seed is None else config.validation_seed
    if config.folds:
        folds = _deal(rest, config.folds, again)
        parts = {f"fold {number}": groups for number, groups in enumerate(folds)}
        validation = folds.pop(fold)
        train = [group for groups in folds for group in groups]
    else:
        train, validation = _draw(rest, n_validation, again)
        parts = {"train": train, "validation": validation}

    names = {name: _ids(groups) for name, groups in {**parts, "test": test}.items()}
    assigned = {post_id: name for name, ids in names.items() for post_id in ids}
    if sum(map(len, names.values())) != len(posts) or assigned.keys() != {post.post_id for post in posts}:
        raise RuntimeError("the splits overlap or leave posts out")
    copied = [len(group) for group in copies.values() if len(group) > 1]
    digest = fingerprint(posts, assigned)
    return Assignment(_ids(train), _ids(validation), _ids(test), digest, sum(copied), len(copied))


def _ids(groups: Sequence[Sequence[Post]]) -> tuple[str, ...]:
    return tuple(sorted(post.post_id for group in groups for post in group))


Groups = list[list[Post]]


def _draw(groups: Groups, size: int, seed: int) -> tuple[Groups, Groups]:
    """(the other groups, the drawn groups): about `size` groups are drawn, stratified by symptom; neither part is
    empty. A group has the symptoms of all its posts.
    """
    # Imported here: it imports scikit-learn and SciPy (1.2 s), which are not needed if the split is cached.
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    labels_NC = np.array([labels_of(group).max(axis=0) for group in groups], dtype=bool)
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=size, random_state=seed)
    others, drawn = next(splitter.split(np.zeros(len(groups)), labels_NC))
    if len(others) == 0 or len(drawn) == 0:  # too few posts to stratify: draw without stratification
        order = np.random.RandomState(seed).permutation(len(groups))
        others, drawn = order[size:], order[:size]
    return [groups[i] for i in sorted(others)], [groups[i] for i in sorted(drawn)]


def _deal(groups: Groups, folds: int, seed: int) -> list[Groups]:
    """The groups in so many folds, stratified by symptom.

    Raises:
        InputError: a symptom has fewer posts than there are folds, so that a fold could not be scored on it.
    """
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    labels_NC = np.array([labels_of(group).max(axis=0) for group in groups], dtype=bool)
    few = {name: int(n) for name, n in zip(SYMPTOMS, labels_NC.sum(axis=0), strict=True) if 0 < n < folds}
    if few:
        most = min(few.values())
        raise InputError(
            f"data.folds={folds} is more than some symptoms have posts outside of the test split: "
            + ", ".join(f"{name} {count}" for name, count in few.items()),
            where="data",
            remedy=f"Choose data.folds={most} or fewer." if most > 1 else "Leave data.folds out.",
        )
    splitter = MultilabelStratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    dealt = splitter.split(np.zeros(len(groups)), labels_NC)
    return [[groups[i] for i in sorted(drawn)] for _, drawn in dealt]


def fingerprint(posts: Sequence[Post], assigned: dict[str, str]) -> str:
    """SHA-256 over a line that names the symptoms and one JSON array per post, in the order of post_id.

    JSON strings are delimited and escaped, so no two data sets have the same encoding.
    """
    digest = hashlib.sha256(json.dumps(SYMPTOMS).encode() + b"\n")
    for post in sorted(posts, key=lambda post: post.post_id):
        spans = [[(span.symptom, span.start, span.end) for span in kind] for kind in (post.evidence, post.negatives)]
        line = json.dumps([post.post_id, assigned[post.post_id], post.text, post.labels, *spans])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
