"""Finds duplicate posts: equal up to quotes, dashes, case and whitespace, or nearly equal.

Two posts of twenty words or more are nearly equal if they share 70 % of their word trigrams. MinHash with banding
(Broder 1997) finds 99 % of the pairs at exactly 70 %, and 99.99 % of those at 80 %; each candidate pair is then checked
exactly. Nothing is random: the same posts have the same duplicates everywhere. 1,484 posts of ReDSM5's lengths take 0.4
s of a CPU core, 20,000 take 11 s.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from redsm5.data.align import normalized
from redsm5.data.posts import Post

MIN_WORDS = 20  # shorter posts consist of common phrases
MIN_SHARE = 0.7  # of the word trigrams of two posts, the share that both have (Jaccard similarity)
BANDS, ROWS = 25, 5
AT_ONCE = 2000  # posts whose trigrams are in memory at once for their signatures

Hashes = NDArray[np.uint64]


def originals(posts: Sequence[Post]) -> list[int]:
    """For each post, the position of the first post of its group of copies (chains of copies included); its own if it
    has no copy.
    """
    texts = [normalized(post.text) for post in posts]
    first = _Groups(len(texts))
    seen: dict[str, int] = {}
    for position, text in enumerate(texts):
        first.join(seen.setdefault(text, position), position)
    distinct = sorted(seen.values())
    triples = dict(_triples(texts, distinct))
    for bucket in _buckets(triples):
        kinds: list[int] = []  # one post of each group in the bucket
        for position in bucket:
            like = (k for k in kinds if first.of(k) == first.of(position) or _alike(triples[k], triples[position]))
            if (kind := next(like, None)) is None:
                kinds.append(position)
            else:
                first.join(kind, position)
    return [first.of(position) for position in range(len(texts))]


class _Groups:
    """Disjoint groups of positions (union-find); the first position identifies a group."""

    def __init__(self, count: int) -> None:
        self._first = list(range(count))

    def of(self, position: int) -> int:
        while (first := self._first[position]) != position:
            self._first[position] = position = self._first[first]
        return position

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.of(a), self.of(b)))
        self._first[b] = a


def _triples(texts: Sequence[str], positions: Iterable[int]) -> Iterator[tuple[int, Hashes]]:
    """The distinct hashes of a text's word trigrams; none for a text of fewer than MIN_WORDS words."""
    known: dict[str, int] = {}
    for position in positions:
        words = re.findall(r"\w+", texts[position])
        if len(words) < MIN_WORDS:
            continue
        for word in words:
            if word not in known:
                known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        a = np.fromiter((known[word] for word in words), np.uint64, len(words))
        three = (a[:-2] * _ODD[0]) ^ (a[1:-1] * _ODD[1] >> _SHIFTS[0]) ^ (a[2:] * _ODD[2] >> _SHIFTS[1])
        yield position, np.unique(three)


def _alike(a: Hashes, b: Hashes) -> bool:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common >= MIN_SHARE * (len(a) + len(b) - common)


def _buckets(triples: dict[int, Hashes]) -> Iterator[list[int]]:
    """Groups of posts whose signatures agree in a band: candidates for duplicates, in the order of positions."""
    positions = list(triples)
    signatures = [
        _signatures([triples[position] for position in positions[start : start + AT_ONCE]])
        for start in range(0, len(positions), AT_ONCE)
    ]
    for band in range(BANDS):
        buckets: defaultdict[bytes, list[int]] = defaultdict(list)
        rows = (row for part in signatures for row in part[:, band * ROWS : (band + 1) * ROWS])
        for position, row in zip(positions, rows, strict=True):
            buckets[row.tobytes()].append(position)
        yield from (bucket for bucket in buckets.values() if len(bucket) > 1)


def _signatures(triples: Sequence[Hashes]) -> Hashes:
    """The MinHash signature of each post: the least hash of its trigrams under each of BANDS * ROWS functions, which
    multiply modulo 2^64.
    """
    flat = np.concatenate(triples)
    starts = np.cumsum([0, *map(len, triples[:-1])])
    signatures = np.empty((len(triples), BANDS * ROWS), np.uint64)
    for column, (factor, summand) in enumerate(zip(_FACTORS, _SUMMANDS, strict=True)):
        signatures[:, column] = np.minimum.reduceat(flat * factor + summand, starts)
    return signatures


def _numbers(name: str, count: int) -> Hashes:
    """`count` pseudo-random numbers, the same on every machine."""
    digests = (hashlib.blake2b(f"{name} {i}".encode(), digest_size=8).digest() for i in range(count))
    return np.array([int.from_bytes(digest) for digest in digests], np.uint64)


_ODD, _SHIFTS = _numbers("word", 3) | np.uint64(1), np.array([7, 13], np.uint64)
_FACTORS, _SUMMANDS = _numbers("factor", BANDS * ROWS) | np.uint64(1), _numbers("summand", BANDS * ROWS)
