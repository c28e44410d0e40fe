"""Aligned posts with their splits as an Arrow table, a post a row: what the cache keeps of them."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from redsm5.data import arrow
from redsm5.data.posts import SYMPTOMS, Corpus, Post, Span
from redsm5.data.split import Assignment
from redsm5.engine.jsonio import dumps, loads

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "validation", "test")


def pack_posts(corpus: Corpus, assignment: Assignment) -> bytes:
    """The bytes that `unpack_posts` reads. The fingerprint and the counts are in the metadata of the table's schema."""
    posts = corpus.posts
    facts = asdict(assignment)
    where = {post_id: number for number, name in enumerate(SPLITS) for post_id in facts.pop(name)}
    columns = {
        "post_id": arrow.text(post.post_id for post in posts),
        "text": arrow.text(post.text for post in posts),
        "labels": arrow.numbers((post.labels for post in posts), np.int8, len(SYMPTOMS)),
        "evidence": _spans([post.evidence for post in posts]),
        "negatives": _spans([post.negatives for post in posts]),
        "split": arrow.numbers((where[post.post_id] for post in posts), np.int8),
    }
    return arrow.to_bytes(columns, assignment=dumps(facts).decode(), counts=dumps(corpus.counts).decode())


def unpack_posts(content: Any) -> tuple[Corpus, Assignment]:
    """The posts, and their assignment to the splits."""
    table = arrow.from_bytes(content)
    post_ids, texts = (table.column(name).to_pylist() for name in ("post_id", "text"))
    labels = map(tuple, arrow.view(table.column("labels")).tolist())
    spans = (_spans_of(table.column(name)) for name in ("evidence", "negatives"))
    posts = tuple(map(Post, post_ids, texts, labels, *spans))
    at = arrow.view(table.column("split")).tolist()
    train, validation, test = (tuple(i for i, n in zip(post_ids, at, strict=True) if n == name) for name in range(3))
    facts, counts = (loads(table.schema.metadata[name]) for name in (b"assignment", b"counts"))
    return Corpus(posts, counts), Assignment(train, validation, test, **facts)


def as_dataset(posts: Sequence[Post]) -> "Dataset":
    """The posts as a `datasets.Dataset`; imports that library. Columns: post_id, text, labels (nine values 0 or 1),
    evidence and negatives (each a list of records with symptom, start and end, in characters of the text).
    """
    from datasets import ClassLabel, Dataset, Features, List, Value

    number = Value("int32")
    span = {"symptom": ClassLabel(names=list(SYMPTOMS)), "start": number, "end": number}
    features = Features(
        post_id=Value("string"),
        text=Value("string"),
        labels=List(Value("int8"), length=len(SYMPTOMS)),
        evidence=List(span),
        negatives=List(span),
    )
    return Dataset.from_list([asdict(post) for post in posts], features=features)


def _spans(rows: Sequence[Sequence[Span]]) -> Any:
    return arrow.lists_of([[(s.symptom, s.start, s.end) for s in row] for row in rows], np.int32, 3)


def _spans_of(column: Any) -> list[tuple[Span, ...]]:
    spans = [Span(*span) for span in arrow.view(column).tolist()]
    starts = arrow.starts_of(column).tolist()
    return [tuple(spans[first:end]) for first, end in pairwise(starts)]
