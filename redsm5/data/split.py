"""Splits by post, stratified over the nine symptoms, and the fingerprint of what came out.

The same posts and split_seed give the same splits, in whatever order the files list them. The test split is drawn
first, so that another validation_fraction leaves it as it is.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from redsm5.data.posts import SYMPTOMS, Corpus, Post
from redsm5.errors import InputError

if TYPE_CHECKING:
    from redsm5.sections import DataConfig


@dataclass(frozen=True, slots=True)
class Assignment:
    """The post_ids of each split, sorted: disjoint, together all posts, none empty.

    Attributes:
        fingerprint: SHA-256 (hexadecimal) over ids, texts, labels, spans and assignment; see `fingerprint`.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    fingerprint: str


def split(corpus: Corpus, config: "DataConfig") -> Assignment:
    """Assign every post to train, validation or test.

    Raises:
        InputError: too few posts for three splits of these fractions.
    """
    posts = sorted(corpus.posts, key=lambda post: post.post_id)
    n_test = max(1, round(config.test_fraction * len(posts)))
    n_validation = max(1, round(config.validation_fraction * len(posts)))
    if len(posts) <= n_test + n_validation:
        raise InputError(
            f"{len(posts)} posts are too few for a training, a validation and a test split",
            remedy="Use more posts, or lower data.test_fraction and data.validation_fraction.",
        )
    rest, test = _draw(posts, n_test, config.split_seed)
    train, validation = _draw(rest, n_validation, config.split_seed)

    names = {name: [post.post_id for post in part] for name, part in (("train", train), ("validation", validation))}
    names["test"] = [post.post_id for post in test]
    assigned = {post_id: name for name, ids in names.items() for post_id in ids}
    if sum(map(len, names.values())) != len(posts) or assigned.keys() != {post.post_id for post in posts}:
        raise RuntimeError("the splits overlap or leave posts out")
    train_ids, validation_ids, test_ids = (tuple(ids) for ids in names.values())
    return Assignment(train_ids, validation_ids, test_ids, fingerprint(posts, assigned))


def _draw(posts: Sequence[Post], size: int, seed: int) -> tuple[list[Post], list[Post]]:
    """(the others, about `size` posts drawn so that each symptom is represented in proportion); neither is empty."""
    # It brings scikit-learn and SciPy, 1.2 s; posts that have been split before need neither.
    from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

    labels_NC = np.array([post.labels for post in posts], dtype=bool)
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=size, random_state=seed)
    others, drawn = next(splitter.split(np.zeros(len(posts)), labels_NC))
    if len(others) == 0 or len(drawn) == 0:  # a handful of posts cannot be stratified: draw without
        order = np.random.RandomState(seed).permutation(len(posts))
        others, drawn = order[size:], order[:size]
    return [posts[i] for i in sorted(others)], [posts[i] for i in sorted(drawn)]


def fingerprint(posts: Sequence[Post], assigned: dict[str, str]) -> str:
    """SHA-256 over one JSON array a post, in the order of post_id, after one line that names the symptoms.

    JSON strings are delimited and escaped, so no two data sets have the same encoding.
    """
    digest = hashlib.sha256(json.dumps(SYMPTOMS).encode() + b"\n")
    for post in sorted(posts, key=lambda post: post.post_id):
        spans = [[(span.symptom, span.start, span.end) for span in kind] for kind in (post.evidence, post.negatives)]
        line = json.dumps([post.post_id, assigned[post.post_id], post.text, post.labels, *spans])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
