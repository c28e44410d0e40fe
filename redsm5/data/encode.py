"""Posts encoded as the model's input, with what a trial needs to know of them: labels, evidence, character offsets.

An item is the unit that gets one prediction: a post with its nine symptoms (multi_label), or a pair of a post and a
symptom, whose description comes before the post (binary_pairs). An item has one window of tokens, or several
overlapping ones (`long_posts: window`). Evidence is a range of tokens (first, last), both inclusive.

Shapes: P posts, N items, C outputs per item (9 or 1).
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sentencex import get_sentence_boundaries
from torch.utils.data import Dataset

from redsm5.config import Config
from redsm5.data import cache
from redsm5.data.packed import Item, PackedItems, Window, pack
from redsm5.data.posts import SYMPTOMS, Post, Span
from redsm5.engine.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

CharRange = tuple[int, int]
MIN_ROOM = 4  # tokens of a window that a description must leave to the post


class Example(NamedTuple):
    """An item with its position in the data set, as the loaders take it."""

    position: int
    item: Item


class EncodedPosts(Dataset[Example]):
    """A split as the encoder reads it; taken from the cache if it was encoded before.

    Args:
        cached: whether the cache is used. Posts that are not of the data set are never kept there.

    Attributes:
        posts: as given; their texts stay in memory for the character metrics.
        items: in the order of the posts and, within a post, of SYMPTOMS.

    Raises:
        ConfigError: a symptom has no description, or one that leaves no room for the post.
    """

    posts: Sequence[Post]
    items: Sequence[Item]
    _given_items: Sequence[Item]

    def __init__(
        self, posts: Sequence[Post], tokenizer: "PreTrainedTokenizerFast", config: Config, *, cached: bool = True
    ) -> None:
        self._tokenizer, self._config = tokenizer, config
        self.max_length = config.model.max_length
        self.posts = self._given = posts
        if not cached:
            self.items = self._given_items = self._encoded(posts)
            return
        key = self._key()
        content = cache.find(key)
        if content is None:
            packed = pack(self._encoded(posts))
            cache.keep(key, packed)
            self.items = PackedItems(bytearray(packed))
        else:
            self.items = PackedItems(content)
        self._given_items = self.items

    def encode(self, posts: Sequence[Post]) -> None:
        """Replace the posts by `posts`: the same ones, some of them augmented."""
        changed = [p for p, (post, given) in enumerate(zip(posts, self._given, strict=True)) if post is not given]
        items = list(self._given_items)
        each = len(items) // len(posts)
        encoded = self._encoded([posts[p] for p in changed]) if changed else ()  # a tokenizer takes no empty list
        for n, item in enumerate(encoded):
            post = changed[item.post]
            items[post * each + n % each] = replace(item, post=post)
        self.posts, self.items = posts, items

    @property
    def truncated_posts(self) -> int:
        """The number of posts that were longer than the window and were cut."""
        return len({item.post for item in self.items if item.cut})

    @property
    def evidence_spans(self) -> int:
        """The number of aligned evidence spans."""
        return sum(len(post.evidence) for post in self.posts)

    @property
    def lost_spans(self) -> int:
        """The number of aligned evidence spans that no window contains completely."""
        return sum(item.lost for item in self.items)

    def _key(self) -> str:
        """The cache key of the items: all that they depend on."""
        data, model = self._config.data, self._config.model
        pairs = model.input_format == "binary_pairs"
        return cache.key(
            "encoding",
            hashlib.sha256(repr(self.posts).encode()).hexdigest(),
            identity(self._tokenizer),
            model.max_length,
            data.long_posts,
            data.window_overlap,
            model.evidence_head_type == "sentence_reranker",
            list(self._config.symptoms.items()) if pairs else None,
        )

    def _encoded(self, posts: Sequence[Post]) -> list[Item]:
        items = []
        windowed = self._config.data.long_posts == "window"
        with_sentences = self._config.model.evidence_head_type == "sentence_reranker"
        sentences = [sentences_of(post.text) if with_sentences else [] for post in posts]
        for symptoms, encodings in self._tokenized([post.text for post in posts]):
            for index, (post, encoding) in enumerate(zip(posts, encodings, strict=True)):
                parts = [encoding, *encoding.overflowing] if windowed else [encoding]
                cutting = bool(encoding.overflowing)
                windows, lost = self._windows(post, symptoms, parts, sentences[index], cutting)
                labels = tuple(post.labels[symptom] for symptom in symptoms)
                items.append(Item(index, symptoms, labels, windows, cut=cutting and not windowed, lost=lost))
        return sorted(items, key=lambda item: item.post)  # stable: keeps the order of the symptoms within a post

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        return Example(index, self.items[index])

    def _tokenized(self, texts: list[str]) -> Iterator[tuple[tuple[int, ...], list["Encoding"]]]:
        """Each set of outputs that one pass predicts, with all posts as that pass reads them."""
        tokenizer, max_length = self._tokenizer, self.max_length
        overlap = self._config.data.window_overlap
        if self._config.model.input_format == "multi_label":
            room = max_length - tokenizer.num_special_tokens_to_add(pair=False)
            encoded = tokenizer(texts, truncation=True, max_length=max_length, stride=int(overlap * room))
            yield tuple(range(len(SYMPTOMS))), encoded.encodings or []
            return
        for symptom, name in enumerate(SYMPTOMS):
            description = self._config.symptoms.get(name)
            if description is None:
                raise ConfigError(f"symptoms.{name} is missing", remedy="Each symptom needs a description.")
            taken = len(tokenizer(description, add_special_tokens=False)["input_ids"])
            room = max_length - taken - tokenizer.num_special_tokens_to_add(pair=True)
            if room < MIN_ROOM:
                raise ConfigError(
                    f"the description symptoms.{name} has {taken} tokens, which leaves too few for the post with "
                    f"model.max_length={max_length}",
                    remedy="Raise model.max_length, or shorten the description.",
                )
            encoded = tokenizer(
                [description] * len(texts),
                texts,
                truncation="only_second",
                max_length=max_length,
                stride=int(overlap * room),
            )
            yield (symptom,), encoded.encodings or []

    def _windows(
        self, post: Post, symptoms: tuple[int, ...], parts: "list[Encoding]", sentences: list[CharRange], cutting: bool
    ) -> tuple[list[Window], int]:
        """The post's windows, and the number of evidence spans of these symptoms that no window contains completely."""
        typed = "token_type_ids" in self._tokenizer.model_input_names
        post_sequence = 1 if self._config.model.input_format == "binary_pairs" else 0
        reads = [_Read(part, post_sequence, len(post.text), cutting) for part in parts]
        whole_somewhere = {
            sentence
            for sentence in sentences
            if any(read.whole(*sentence) and read.tokens(*sentence) for read in reads)
        }
        found: set[Span] = set()
        windows = []
        for part, read in zip(parts, reads, strict=True):
            spans = []
            known = [
                not post.labels[symptom] or (len(parts) > 1 and any(s.symptom == symptom for s in post.evidence))
                for symptom in symptoms
            ]
            cut: list[int] = []
            for span in post.evidence:
                if span.symptom not in symptoms or (tokens := read.tokens(span.start, span.end)) is None:
                    continue
                output = symptoms.index(span.symptom)
                if read.whole(span.start, span.end):
                    spans.append((output, *tokens))
                    known[output] = True
                    found.add(span)
                else:
                    cut.append(output)
            for output in cut:
                known[output] = False
            kept = [s for s in sentences if s not in whole_somewhere or read.whole(*s)]
            windows.append(
                Window(
                    input_ids=part.ids,
                    type_ids=part.type_ids if typed else None,
                    offsets=read.offsets,
                    text=(read.first, read.end),
                    spans=spans,
                    known=known,
                    sentences=[tokens for s in kept if (tokens := read.tokens(*s)) is not None],
                )
            )
        return windows, sum(span.symptom in symptoms and span not in found for span in post.evidence)


def identity(tokenizer: "PreTrainedTokenizerFast") -> str:
    """The SHA-256 of everything that a tokenizer's output depends on."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # the previous call set it, and the next one sets it again
    backend.no_padding()
    said = (backend.to_str(), repr(tokenizer), tokenizer.model_input_names, tokenizer.split_special_tokens)
    return hashlib.sha256(repr(said).encode()).hexdigest()


class _Read:
    """The part of a post that a window contains."""

    def __init__(self, encoding: "Encoding", sequence: int, length: int, cutting: bool) -> None:
        of_post = [i for i, s in enumerate(encoding.sequence_ids) if s == sequence]
        self.first, self.end = (of_post[0], of_post[-1] + 1) if of_post else (1, 1)
        self.offsets: list[CharRange] = [(0, 0)] * len(encoding.ids)
        self.offsets[self.first : self.end] = encoding.offsets[self.first : self.end]
        starts_ends = self.offsets[self.first : self.end]
        self._starts, self._ends = [s for s, _ in starts_ends], [e for _, e in starts_ends]
        # Beyond the first and last token is only whitespace, unless the post continues there.
        self._shown = (self._starts[0], self._ends[-1]) if of_post and cutting else (0, length)

    def whole(self, start: int, end: int) -> bool:
        """Whether the window contains all of these characters, except whitespace at a cut."""
        return self._shown[0] <= start and end <= self._shown[1]

    def tokens(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and the last token that share a character with [start, end)."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end) - 1
        return (self.first + first, self.first + last) if first <= last else None


def tokens_of(window: Window, ranges: Sequence[CharRange]) -> NDArray[np.int64]:
    """tokens_M2: the first and the last token of the window that share a character with each range; -1 if none does."""
    first, end = window.text
    starts_T, ends_T = np.asarray(window.offsets, dtype=np.int64).reshape(-1, 2)[first:end].T
    start_M, end_M = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    tokens_M2 = np.stack([np.searchsorted(ends_T, start_M, "right"), np.searchsorted(starts_T, end_M) - 1], axis=1)
    return np.where((tokens_M2[:, :1] <= tokens_M2[:, 1:]) & (end > first), first + tokens_M2, -1)


def sentences_of(text: str) -> list[CharRange]:
    """The sentences of a post as characters [start, end), without the whitespace around them."""
    ranges = []
    for found in get_sentence_boundaries("en", text):
        start, end = found["start_index"], found["end_index"]
        sentence = text[start:end]
        if sentence.strip():
            start += len(sentence) - len(sentence.lstrip())
            ranges.append((start, start + len(sentence.strip())))
    return ranges
