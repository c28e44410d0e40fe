"""The types of a post: text, nine labels, and the evidence for them as character offsets.

Everything after reading (splits, tokens, metrics) works on these types and not on the CSV files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The order is part of every checkpoint (it is the order of the model's outputs) and of the data fingerprint.
SYMPTOMS = (
    "DEPRESSED_MOOD",
    "WORTHLESSNESS",
    "SUICIDAL_THOUGHTS",
    "FATIGUE",
    "ANHEDONIA",
    "SLEEP_ISSUES",
    "COGNITIVE_ISSUES",
    "APPETITE_CHANGE",
    "PSYCHOMOTOR",
)


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a post's text that are about the symptom SYMPTOMS[symptom]."""

    symptom: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Post:
    """One post.

    Attributes:
        labels: nine values 0 or 1, in the order of SYMPTOMS.
        evidence: spans with status 1, sorted by (start, end, symptom). A label may have none: its sentence was not
            aligned.
        negatives: spans with status 0, sorted likewise: hard negatives, which the annotator checked and found absent.
    """

    post_id: str
    text: str
    labels: tuple[int, ...]
    evidence: tuple[Span, ...]
    negatives: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All posts, sorted by post_id, and the counts taken while reading them (`read_corpus` lists the keys)."""

    posts: tuple[Post, ...]
    counts: dict[str, int]


def labels_of(posts: Sequence[Post]) -> NDArray[np.int64]:
    """labels_PC: 0 or 1, of P posts and C = 9 symptoms in the order of SYMPTOMS."""
    return np.array([post.labels for post in posts], dtype=np.int64).reshape(len(posts), len(SYMPTOMS))
