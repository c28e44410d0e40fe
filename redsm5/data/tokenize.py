"""Posts as tokens, with what a trial needs to know of them: labels, evidence positions, and the way back to the text.

Positions: evidence is the range of tokens (start, end), both inclusive, that covers its characters; (0, 0), the first
special token, stands for "no evidence".
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, TypedDict

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.utils.data import Dataset

from redsm5 import hub
from redsm5.data.posts import SYMPTOMS, Post, Span
from redsm5.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_SIZE = 2000
# Of the training posts' characters, besides a-z and 0-9: posts full of emoji or of another script leave room for words.
ALPHABET_SIZE = 150


def build_tokenizer(
    model_id: str, train_posts: Sequence[Post], revision: str | None = None
) -> "PreTrainedTokenizerFast":
    """The tokenizer of `model_id`; for `tiny`, one whose vocabulary is made from the training posts.

    Raises:
        InputError: it cannot be loaded, or it does not report character offsets (only fast tokenizers do).
        HubError: the Hub does not give it.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # takes seconds

    if model_id == "tiny":
        return _from_posts(train_posts)
    folder = str(hub.model_files(model_id, revision).folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the tokenizer of {model_id} cannot be loaded ({type(error).__name__})",
            where="model.model_id",
            remedy="Choose another model, or give a local folder with a fast tokenizer beside the weights.",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"{model_id} has no fast tokenizer, and only those say which characters a token stands for",
            where="model.model_id",
            remedy="Choose another encoder, or convert the tokenizer and give the local folder.",
        )
    return tokenizer


def _from_posts(posts: Sequence[Post]) -> "PreTrainedTokenizerFast":
    """WordPiece over the most frequent words and, for all others, single characters.

    The tokenizers library can train a WordPiece too, but what it learns differs from process to process (it iterates
    over hash maps), and then a resumed trial would not read the posts that it began with.
    """
    from transformers import PreTrainedTokenizerFast

    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter[str]()
    for post in posts:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(post.text)))
    characters = Counter[str]()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    alphabet = dict.fromkeys([*ascii_lowercase, *digits, *_most_frequent(characters)[:ALPHABET_SIZE]])
    pieces = [*SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in alphabet), *_most_frequent(words)]
    vocabulary = list(dict.fromkeys(pieces))[:VOCABULARY_SIZE]

    tokenizer = Tokenizer(
        models.WordPiece(vocab={piece: index for index, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    cls, sep = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _most_frequent(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda item: (-counts[item], item))


class Example(TypedDict):
    """One post as the loaders take it; `index` is its place in EncodedPosts."""

    input_ids: list[int]
    labels: Tensor
    starts: Tensor
    ends: Tensor
    index: int


@dataclass(frozen=True)
class EncodedPosts(Dataset[Example]):
    """A split ready for training. N posts, C = 9 symptoms in the order of SYMPTOMS.

    Attributes:
        post_ids, texts: for the metrics over characters; they stay in memory.
        input_ids: token ids of each post, special tokens included, at most max_length.
        offsets: (start, end) in characters of each token; (0, 0) for special tokens.
        evidence: all aligned evidence of each post, whether or not it is within the window.
        labels_NC: float32, 0 or 1.
        starts_NC, ends_NC: int64, first and last token of the earliest evidence within the window; 0 if there is none.
        has_gold_NC: bool, whether the symptom has aligned evidence in the post, within the window or not.
        truncated_posts: posts that were longer than the window.
        evidence_spans, lost_spans: how many spans of aligned evidence there are, and how many of them the window cuts.
        max_length: the window in tokens.
    """

    post_ids: list[str]
    texts: list[str]
    input_ids: list[list[int]]
    offsets: list[list[tuple[int, int]]]
    evidence: list[tuple[Span, ...]]
    labels_NC: Tensor
    starts_NC: Tensor
    ends_NC: Tensor
    has_gold_NC: Tensor
    truncated_posts: int
    evidence_spans: int
    lost_spans: int
    max_length: int

    def __len__(self) -> int:
        return len(self.post_ids)

    def __getitem__(self, index: int) -> Example:
        return {
            "input_ids": self.input_ids[index],
            "labels": self.labels_NC[index],
            "starts": self.starts_NC[index],
            "ends": self.ends_NC[index],
            "index": index,
        }


def encode(posts: Sequence[Post], tokenizer: "PreTrainedTokenizerFast", max_length: int) -> EncodedPosts:
    """Tokenize `posts`, cut each to `max_length` tokens, and find the tokens of the evidence."""
    texts = [post.text for post in posts]
    encodings = tokenizer(texts, truncation=True, max_length=max_length, return_offsets_mapping=True).encodings or []
    offsets = [[(int(start), int(end)) for start, end in encoding.offsets] for encoding in encodings]

    shape = (len(posts), len(SYMPTOMS))
    starts_NC, ends_NC = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    has_gold_NC = torch.zeros(shape, dtype=torch.bool)
    lost_spans = 0
    for n, (post, encoding) in enumerate(zip(posts, encodings, strict=True)):
        window = max(end for _, end in offsets[n])
        for span in post.evidence:  # sorted: the first within the window is the earliest
            has_gold_NC[n, span.symptom] = True
            tokens = _tokens_of(span, offsets[n])
            if tokens is None or (encoding.overflowing and span.end > window):
                lost_spans += 1
            elif not starts_NC[n, span.symptom]:
                starts_NC[n, span.symptom], ends_NC[n, span.symptom] = tokens
    return EncodedPosts(
        post_ids=[post.post_id for post in posts],
        texts=texts,
        input_ids=[encoding.ids for encoding in encodings],
        offsets=offsets,
        evidence=[post.evidence for post in posts],
        labels_NC=torch.tensor([post.labels for post in posts], dtype=torch.float32).reshape(shape),
        starts_NC=starts_NC,
        ends_NC=ends_NC,
        has_gold_NC=has_gold_NC,
        truncated_posts=sum(bool(encoding.overflowing) for encoding in encodings),
        evidence_spans=sum(len(post.evidence) for post in posts),
        lost_spans=lost_spans,
        max_length=max_length,
    )


def _tokens_of(span: Span, offsets: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The first and the last token that share a character with the span."""
    inside = [i for i, (start, end) in enumerate(offsets) if start < span.end and end > span.start and start < end]
    return (inside[0], inside[-1]) if inside else None
