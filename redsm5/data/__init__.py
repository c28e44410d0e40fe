"""From configuration to posts: read, download or synthesize, align, split.

`load_splits` is what training sees; the test posts come from `load_test`, which only evaluation calls. What needs torch
or transformers is in `redsm5.data.tokenize` and `redsm5.data.batches`, and is imported from there.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from redsm5 import hub
from redsm5.data.posts import SYMPTOMS, Corpus, Post, Span
from redsm5.data.read import read_corpus
from redsm5.data.split import Assignment, split
from redsm5.data.synthesize import write_csvs
from redsm5.errors import InputError

if TYPE_CHECKING:
    from redsm5.sections import DataConfig

__all__ = ["SYMPTOMS", "Corpus", "Post", "Span", "Splits", "TestSplit", "load_splits", "load_test"]


@dataclass(frozen=True, slots=True)
class Splits:
    """What training may see.

    Attributes:
        train, validation: posts sorted by post_id.
        fingerprint: of the whole data set and its assignment, test included; see `redsm5.data.split.fingerprint`.
        counts: those of `read_corpus`, over all posts, and train, validation, test: the sizes of the splits.
    """

    train: list[Post]
    validation: list[Post]
    fingerprint: str
    counts: dict[str, int]

    def head(self, posts: int) -> "Splits":
        """The first so many posts of each: for a trial run."""
        return replace(self, train=self.train[:posts], validation=self.validation[:posts])


@dataclass(frozen=True, slots=True)
class TestSplit:
    """What evaluation sees besides: the test posts, sorted by post_id, with the fingerprint and counts of Splits."""

    __test__ = False  # the name is not a test class's

    test: list[Post]
    fingerprint: str
    counts: dict[str, int]


def load_splits(config: "DataConfig") -> Splits:
    """The training and validation posts.

    Raises:
        InputError: the files are missing or malformed, the Hub does not give them, or there are too few posts.
    """
    corpus, assignment = _load(config)
    train, validation = _choose(corpus, assignment.train), _choose(corpus, assignment.validation)
    return Splits(train, validation, assignment.fingerprint, _counts(corpus, assignment))


def load_test(config: "DataConfig") -> TestSplit:
    """The test posts, for evaluation only.

    Raises:
        InputError: as `load_splits`.
    """
    corpus, assignment = _load(config)
    return TestSplit(_choose(corpus, assignment.test), assignment.fingerprint, _counts(corpus, assignment))


def _load(config: "DataConfig") -> tuple[Corpus, Assignment]:
    if config.source == "csv":
        if config.dir is None:
            raise InputError("no folder is given", where="data.dir", remedy="Set data.dir to the folder of the CSVs.")
        corpus = read_corpus(Path(config.dir).expanduser())
    elif config.source == "hub":
        corpus = read_corpus(hub.data_files(config).folder)
    else:
        if config.posts is None or config.seed is None:
            raise InputError("synthetic posts need a number and a seed", where="data", remedy="Set posts and seed.")
        # Through files, so that the first run of anybody exercises the reader.
        with tempfile.TemporaryDirectory(prefix="redsm5-") as folder:
            write_csvs(Path(folder), config.posts, config.seed)
            corpus = read_corpus(Path(folder))
    return corpus, split(corpus, config)


def _choose(corpus: Corpus, post_ids: tuple[str, ...]) -> list[Post]:
    chosen = set(post_ids)
    return [post for post in corpus.posts if post.post_id in chosen]


def _counts(corpus: Corpus, assignment: Assignment) -> dict[str, int]:
    return {
        **corpus.counts,
        "train": len(assignment.train),
        "validation": len(assignment.validation),
        "test": len(assignment.test),
    }
