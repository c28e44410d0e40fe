"""From configuration to posts: read, download or synthesize, align and split them; later calls read the cache.

`load_splits` returns the posts for training, `load_learnable` also checks that they can be learned from. `load_test`
returns the test posts; only the evaluation calls it. What needs torch or transformers is in `redsm5.data.tokenize` and
`redsm5.data.batches`; import it from there.
"""

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redsm5 import hub
from redsm5.data import cache
from redsm5.data.aligned import as_dataset, pack_posts, unpack_posts
from redsm5.data.csvfile import rows
from redsm5.data.dataset import files_of, layout_of, read_dataset
from redsm5.data.posts import SYMPTOMS, Corpus, Post, Span, labels_of
from redsm5.data.read import ANNOTATIONS_FILE, POSTS_FILE, read_corpus
from redsm5.data.split import Assignment, authors_split, split
from redsm5.data.synthesize import write_csvs
from redsm5.engine.errors import HubError, InputError

if TYPE_CHECKING:
    from datasets import DatasetDict

    from redsm5.sections import DataConfig

__all__ = ["SYMPTOMS", "Corpus", "Post", "Span", "Splits", "TestSplit"]
__all__ += ["dataset_dict", "few_positives", "load_learnable", "load_splits", "load_test", "posts_by_row"]

FEW = 5  # posts with a symptom in a split; with fewer, the symptom's scores say little
FEW_POSITIVES = f"symptoms that fewer than {FEW} posts of a split have: their scores say little"


@dataclass(frozen=True, slots=True)
class Splits:
    """The training and validation posts: all that training may see.

    Attributes:
        train, validation: posts sorted by post_id.
        fingerprint: identifies the whole data set and its assignment to splits, test included; see
            `redsm5.data.split.fingerprint`.
        counts: those of `read_corpus`, over all posts; duplicate_posts and duplicate_groups as in Assignment; and
            train, validation, test: the sizes of the splits.
        positives: how many posts of each split, test included, have each symptom, in the order of SYMPTOMS.
    """

    train: list[Post]
    validation: list[Post]
    fingerprint: str
    counts: dict[str, int]
    positives: dict[str, tuple[int, ...]]

    @property
    def learned(self) -> list[Post]:
        """All that is learned or chosen from: the training and the validation posts."""
        return [*self.train, *self.validation]

    def head(self, posts: int) -> "Splits":
        """The first `posts` posts of each split, for a dry run."""
        return replace(self, train=self.train[:posts], validation=self.validation[:posts])


@dataclass(frozen=True, slots=True)
class TestSplit:
    """The test posts, sorted by post_id, with the fingerprint and counts of Splits. Only evaluation sees them."""

    __test__ = False  # tells pytest that this is no test class

    test: list[Post]
    fingerprint: str
    counts: dict[str, int]


def load_splits(config: "DataConfig", fold: int = -1) -> Splits:
    """The training and validation posts.

    Args:
        fold: of data.folds, the one that is the validation split; by default the last, whose model a trial keeps.

    Raises:
        InputError: the files are missing or malformed, the Hub does not give them, or there are too few posts.
    """
    corpus, assignment = _load(config, fold)
    train, validation = _choose(corpus, assignment.train), _choose(corpus, assignment.validation)
    counts, positives = _counts(corpus, assignment), _positives(corpus, assignment)
    return Splits(train, validation, assignment.fingerprint, counts, positives)


def load_learnable(config: "DataConfig") -> Splits:
    """The same, for the start of a study or trial: refused if no model can be trained on them, or none selected.

    Raises:
        InputError: as `load_splits`; or no training or no validation post has a symptom.
    """
    splits = load_splits(config)
    total = sum(map(sum, splits.positives.values()))
    if not total:
        raise InputError(
            f"no post has a symptom: none of {splits.counts['annotations']} annotations has status 1",
            where="data",
            remedy="Check the columns status and DSM5_symptom of the annotations.",
        )
    for name, aim in (("train", "learned from"), ("validation", "chosen by")):
        if not any(splits.positives[name]):
            raise InputError(
                f"no post of the {name} split has a symptom, so there is nothing to be {aim}",
                where="data",
                remedy="Use more posts with symptoms, or another data.split_seed or data.validation_fraction.",
            )
    return splits


def few_positives(splits: Splits, *, folds: bool = False) -> dict[str, str]:
    """The symptoms with fewer than FEW posts in a split, with the number of posts; logged before training.

    Args:
        folds: scores are over all posts but the test posts.
    """
    positives = dict(splits.positives)
    if folds:
        pairs = zip(positives.pop("train"), positives.pop("validation"), strict=True)
        positives["folds"] = tuple(a + b for a, b in pairs)
    columns = {symptom: {name: n[c] for name, n in positives.items()} for c, symptom in enumerate(SYMPTOMS)}
    return {
        symptom: ", ".join(f"{name} {count}" for name, count in counts.items())
        for symptom, counts in columns.items()
        if min(counts.values()) < FEW
    }


def load_test(config: "DataConfig") -> TestSplit:
    """The test posts, for evaluation only.

    Raises:
        InputError: as `load_splits`.
    """
    corpus, assignment = _load(config)
    return TestSplit(_choose(corpus, assignment.test), assignment.fingerprint, _counts(corpus, assignment))


def posts_by_row(config: "DataConfig") -> list[Post]:
    """All posts, test posts included, in the order of the rows of data.dir; from another source, by post_id. Only for
    the authors' split, which depends on that order.

    Raises:
        InputError: as `load_splits`.
    """
    return _by_row(_load(config)[0], config)


def _by_row(corpus: Corpus, config: "DataConfig") -> list[Post]:
    if config.source != "csv" or config.dir is None:
        return list(corpus.posts)
    table = Path(config.dir).expanduser() / POSTS_FILE
    places = {row["post_id"].strip(): place.number for place, row in rows(table, ["post_id"])}
    return sorted(corpus.posts, key=lambda post: places[post.post_id])


def dataset_dict(config: "DataConfig") -> "DatasetDict":
    """All posts as a `datasets.DatasetDict`, keyed by split, for use with that library. Do not choose an encoder or a
    threshold on test posts: see `load_splits`.

    Raises:
        InputError: as `load_splits`.
    """
    from datasets import DatasetDict  # takes a second

    splits = load_splits(config)
    parts = {"train": splits.train, "validation": splits.validation, "test": load_test(config).test}
    return DatasetDict({name: as_dataset(posts) for name, posts in parts.items()})


def _load(config: "DataConfig", fold: int = -1) -> tuple[Corpus, Assignment]:
    fold %= config.folds or 1
    key = _key(config, fold)
    if key and (content := cache.find(key)):
        return unpack_posts(content)
    corpus = _read(config)
    test_posts = authors_split(_by_row(corpus, config))[1] if config.test_split == "authors" else None
    assignment = split(corpus, config, fold, test_posts)
    if key and key == _key(config, fold):  # the files may change while they are read
        cache.keep(key, pack_posts(corpus, assignment))
    return corpus, assignment


def _key(config: "DataConfig", fold: int) -> str | None:
    """The cache key of the posts and their splits; None if a file cannot be read, which `_read` then reports."""
    source: list[Any] = [config.posts, config.seed]
    if config.source != "synthetic":
        try:
            source = [[str(name), _digest(path)] for name, path in _files(config).items()]
        except HubError:  # not left to `_read`, which would repeat all tries
            raise
        except (OSError, InputError):
            return None
        if not source:
            return None
        if config.source == "dataset":
            source.append(config.columns)
    seeds = (config.test_split, config.split_seed, config.validation_seed)
    split = (*seeds, config.validation_fraction, config.test_fraction, config.group_duplicates, config.folds, fold)
    return cache.key("posts", source, config.alignment, *split)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(config: "DataConfig") -> dict[Path, Path]:
    """All files that the posts are read from, by their names in the folder; empty if some are missing."""
    if config.source == "csv":
        if config.dir is None:
            return {}
        folder = Path(config.dir).expanduser()
        files = [folder / name for name in (POSTS_FILE, ANNOTATIONS_FILE)]
    else:
        folder = _path(config)
        files = files_of(layout_of(folder))
    whole = all(path.is_file() for path in files)  # reading a pipe may block forever
    return {path.relative_to(folder): path for path in files} if whole else {}


def _path(config: "DataConfig") -> Path:
    """The path that the datasets library reads."""
    return hub.data_files(config).folder if config.source == "hub" else Path(config.path or "").expanduser()


def _read(config: "DataConfig") -> Corpus:
    if config.source in ("hub", "dataset"):
        return read_dataset(_path(config), config.columns or {}, config.alignment)
    if config.source == "csv":
        if config.dir is None:
            raise InputError("no folder is set", where="data.dir", remedy="Set data.dir to the folder of the CSVs.")
        return read_corpus(Path(config.dir).expanduser(), config.alignment)
    if config.posts is None or config.seed is None:
        raise InputError("synthetic posts need a number and a seed", where="data", remedy="Set posts and seed.")
    # Through files, so that every user's first run tests the reader.
    with tempfile.TemporaryDirectory(prefix="redsm5-") as scratch:
        write_csvs(Path(scratch), config.posts, config.seed)
        return read_corpus(Path(scratch), config.alignment)


def _choose(corpus: Corpus, post_ids: tuple[str, ...]) -> list[Post]:
    chosen = set(post_ids)
    return [post for post in corpus.posts if post.post_id in chosen]


def _positives(corpus: Corpus, assignment: Assignment) -> dict[str, tuple[int, ...]]:
    splits = {"train": assignment.train, "validation": assignment.validation, "test": assignment.test}
    return {name: tuple(labels_of(_choose(corpus, ids)).sum(axis=0).tolist()) for name, ids in splits.items()}


def _counts(corpus: Corpus, assignment: Assignment) -> dict[str, int]:
    return {
        **corpus.counts,
        "duplicate_posts": assignment.duplicate_posts,
        "duplicate_groups": assignment.duplicate_groups,
        "train": len(assignment.train),
        "validation": len(assignment.validation),
        "test": len(assignment.test),
    }
