"""Data augmentation: rewords some evidence sentences of the training posts in each epoch.

Only the sentence changes. All other characters of the post stay, and every span still covers its sentence. The result
is a pure function of (seed, epoch, post), whatever the other posts are.

synonym, insert and swap are three of the four operations of EDA (Wei & Zou 2019, section 2; deletion could remove the
evidence). char_perturb is the synthetic noise of Belinkov & Bisk 2018. back_translation follows Sennrich et al. 2016.
They are implemented here because nlpaug's last release is of July 2022, and TextAttack (0.3.11, August 2026) uses the
global random state and depends on flair, pandas and language_tool_python.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from redsm5.data.posts import Post, Span
from redsm5.data.translate import back_translator
from redsm5.data.wordnet import synonyms

if TYPE_CHECKING:
    import torch

    from redsm5.sections import AugmentationConfig

ALPHA = 0.1  # the share of a sentence's words that are changed, at least one (Wei & Zou 2019, table 3)

# Letters and digits with the accents after them, joined by single apostrophes and hyphens.
WORD = re.compile(r"[^\W_](?:[\u0300-\u036f]|['’-]?[^\W_])*")
ENDINGS = ".!?…"

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))  # letters, and the row's indentation in keys
_KEYS = {letter: (row, x + indent) for row, (letters, indent) in enumerate(_ROWS) for x, letter in enumerate(letters)}
KEYBOARD_NEIGHBOURS = {
    key: "".join(k for k, (r, x) in _KEYS.items() if k != key and abs(r - row) <= 1 and abs(x - at) <= 1)
    for key, (row, at) in _KEYS.items()
}

# Changes about as many of a sentence's words as the second argument says, in place; none if it cannot.
WordEdit = Callable[[list[str], int, random.Random], None]
Edit = tuple[int, int, str]  # characters [start, end) of a text, and its replacement


class Augmenter:
    """Called with posts and the number of the epoch, it returns the posts of that epoch, in the same order.

    A sentence is the text of one evidence span, or of several equal ones. Each is changed with the configured
    probability, by one of the configured methods, drawn uniformly; a method that finds nothing to change leaves the
    sentence unchanged. A sentence is never changed if another, unequal span overlaps it, or if only negative spans
    cover it.

    Args:
        seed: the training's seed.
        device: the device for translation.

    Raises:
        ConfigError: a translation model cannot be loaded.
        LookupError: (when called) WordNet is not on this machine; `redsm5.data.resources` checks that before training.
    """

    def __init__(self, config: "AugmentationConfig", seed: int, device: "torch.device | str" = "cpu") -> None:
        self._seed = seed
        self._probability = config.probability or 0.0
        self._methods = sorted(config.methods)  # a set: the order in the configuration has no effect
        if "back_translation" in self._methods:
            self._translate = back_translator(config.translation_models or (), device)

    def __call__(self, posts: Sequence[Post], epoch: int) -> list[Post]:
        return [self._augment(post, epoch) for post in posts]

    def _augment(self, post: Post, epoch: int) -> Post:
        edits = list[Edit]()
        for start, end in _sentences(post) if self._methods else ():
            # `Random` seeds with the SHA-512 of a string, which is the same in every process.
            rng = random.Random(json.dumps([self._seed, epoch, post.post_id, start, end]))
            if rng.random() < self._probability:
                edits.append((start, end, self._changed(post.text[start:end], rng)))
        return _apply(post, edits) if edits else post

    def _changed(self, sentence: str, rng: random.Random) -> str:
        method = rng.choice(self._methods)
        if method == "back_translation":
            return _back_translated(sentence, self._translate)
        return _edit_words(sentence, WORD_EDITS[method], rng)


# ---------------------------------------------------------------------------------------------------------------------
# posts


def _sentences(post: Post) -> list[tuple[int, int]]:
    """The characters [start, end) of the evidence sentences that can be changed: they overlap no other span."""
    spans = {(span.start, span.end) for span in (*post.evidence, *post.negatives)}
    evidence = sorted({(span.start, span.end) for span in post.evidence})
    return [
        (start, end)
        for start, end in evidence
        if not any(a < end and b > start for a, b in spans if (a, b) != (start, end))
    ]


def _apply(post: Post, edits: Sequence[Edit]) -> Post:
    """The post with its sentences replaced; edits are sorted and disjoint, and no span begins or ends in one."""

    def moved(position: int) -> int:
        return position + sum(len(text) - (end - start) for start, end, text in edits if end <= position)

    def moved_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
        return tuple(replace(span, start=moved(span.start), end=moved(span.end)) for span in spans)

    text = _spliced(post.text, edits)
    return replace(post, text=text, evidence=moved_spans(post.evidence), negatives=moved_spans(post.negatives))


def _spliced(text: str, edits: Sequence[Edit]) -> str:
    parts, at = list[str](), 0
    for start, end, new in edits:
        parts += (text[at:start], new)
        at = end
    return "".join((*parts, text[at:]))


# ---------------------------------------------------------------------------------------------------------------------
# sentences


def _edit_words(sentence: str, edit: WordEdit, rng: random.Random) -> str:
    """The sentence with edited words; everything between them (spaces, punctuation, emoji) stays."""
    matches = list(WORD.finditer(sentence))
    words = [match[0] for match in matches]
    if words:
        edit(words, max(1, int(ALPHA * len(words))), rng)
    return _spliced(sentence, [(*match.span(), word) for match, word in zip(matches, words, strict=True)])


def _back_translated(sentence: str, translate: Callable[[str], str | None]) -> str:
    """The translation with the sentence's surrounding whitespace, final punctuation and case of the first letter."""
    core = sentence.strip()
    translation = (translate(core) or "").rstrip(ENDINGS + " ") if WORD.search(core) else ""
    if not translation:
        return sentence
    translation = _capitalized(translation) if core[0].isupper() else _uncapitalized(translation)
    return sentence.replace(core.rstrip(ENDINGS), translation, 1)


def _synonym(words: list[str], count: int, rng: random.Random) -> None:
    """Replace words by synonyms."""
    known = [place for place, word in enumerate(words) if synonyms(word)]
    for place in rng.sample(known, min(count, len(known))):
        words[place] = _cased_like(words[place], rng.choice(synonyms(words[place])))


def _insert(words: list[str], count: int, rng: random.Random) -> None:
    """Insert synonyms of some words at random positions."""
    known = [word for word in words if synonyms(word)]
    for _ in range(count if known else 0):
        words[rng.randrange(len(words))] += f" {rng.choice(synonyms(rng.choice(known)))}"


def _swap(words: list[str], count: int, rng: random.Random) -> None:
    """Swap two words, `count` times; if the sentence starts with a capital letter, it still does."""
    for _ in range(count):
        one = rng.randrange(len(words))
        others = [place for place, word in enumerate(words) if word.lower() != words[one].lower()]
        if not others:
            return
        first, second = sorted((one, rng.choice(others)))
        a, b = words[first], words[second]
        if first == 0 and a[0].isupper():
            a, b = _uncapitalized(a), _capitalized(b)
        words[first], words[second] = b, a


def _char_perturb(words: list[str], count: int, rng: random.Random) -> None:
    """Make one typing error in each of some words, at an inner letter."""
    long_enough = [place for place, word in enumerate(words) if _inner_letters(word)]
    for place in rng.sample(long_enough, min(count, len(long_enough))):
        words[place] = _mistyped(words[place], rng)


WORD_EDITS: dict[str, WordEdit] = {
    "synonym": _synonym,
    "insert": _insert,
    "swap": _swap,
    "char_perturb": _char_perturb,
}


# ---------------------------------------------------------------------------------------------------------------------
# words


def _inner_letters(word: str) -> list[int]:
    return [place for place in range(1, len(word) - 1) if word[place].isalpha()]


def _mistyped(word: str, rng: random.Random) -> str:
    """The word with one letter left out, typed twice, swapped with the next one, or replaced by a neighbour on the
    keyboard.
    """
    inner = _inner_letters(word)
    at = rng.choice(inner)
    before, letter, after = word[:at], word[at], word[at + 1 :]
    typos = [before + after, before + letter + letter + after]
    if at + 1 in inner and after[0] != letter:
        typos.append(before + after[0] + letter + after[1:])
    if keys := KEYBOARD_NEIGHBOURS.get(letter.lower()):
        key = rng.choice(keys)
        typos.append(before + (key.upper() if letter.isupper() else key) + after)
    return rng.choice(typos)


def _cased_like(word: str, new: str) -> str:
    if len(word) > 1 and word.isupper():
        return new.upper()
    return _capitalized(new) if word[0].isupper() else new


def _capitalized(word: str) -> str:
    return word[0].upper() + word[1:]


def _uncapitalized(word: str) -> str:
    """The word with a lower-case first letter, unless the second character is not a lower-case letter (I, I'm, TV)."""
    return word[0].lower() + word[1:] if word[1:2].islower() else word
