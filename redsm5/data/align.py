"""Finds an annotated sentence in its post: exactly, after normalization, or by fuzzy matching.

The annotators' sentences are not always verbatim: quotes were straightened, whitespace was collapsed, some were edited.
The offsets returned always refer to the original text.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

# partial_ratio, 0 to 100. In the public sample the best score of a sentence in a post that it does not belong to is 75
# (128 pairs) for sentences of less than 40 characters, 54 (266 pairs) for longer ones. A wrong span teaches the model
# something false, but a missing one is only counted: so the thresholds are well above both.
FUZZY_CUTOFF_SHORT, FUZZY_CUTOFF_LONG = 80.0, 65.0
FUZZY_LONG_CHARS = 40
# A few characters are similar to some part of any long post.
FUZZY_MIN_CHARS = 12
SAME_WORD = 70.0  # ratio, 0 to 100, from which on two words are spellings of one
# Costs of the edits from a sentence's words to those of a span: what the post has besides costs least, since annotators
# leave words out.
INSERTION, DELETION, SUBSTITUTION = 1, 4, 4

_WORD = re.compile(r"\w+(?:'\w+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|nowhere|neither|nor|without|cannot|hardly|barely|"
    r"(?:ai|are|ca|could|did|do|does|had|has|have|is|might|must|need|should|was|were|wo|would)n'?t)\b"
)

_PLAIN = str.maketrans(
    {**dict.fromkeys("‘’‚‛′`´", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−", "-")},
)


By = Literal["words", "window"]


class Alignment(NamedTuple):
    """text[start:end] is the sentence; `method` says how it was found."""

    start: int
    end: int
    method: Literal["exact", "normalized", "fuzzy"]


def align(sentence: str, text: str, *, by: By = "words") -> Alignment | None:
    """The first match of `sentence` in `text`, in characters, or None if nothing is similar enough. Matches at word
    boundaries are preferred.

    Args:
        by: how the ends of a fuzzy match are found: by the words of the sentence, where a match with another number of
            negations is none; or as long as the sentence, as versions before 0.2.0 did.
    """
    sentence = sentence.strip()
    if not sentence:
        return None
    if (start := _find(sentence, text)) is not None:
        return Alignment(start, start + len(sentence), "exact")
    plain_text, origins = _normalize(text)
    needle = _normalize(sentence)[0].strip()
    if not needle:
        return None
    if (start := _find(needle, plain_text)) is not None:
        return Alignment(*_original(start, start + len(needle), origins, text), "normalized")
    window = _resembling(needle, plain_text)
    if window is not None and by == "words":
        window = _by_words(needle, plain_text, *window)
    return None if window is None else Alignment(*_original(*window, origins, text), "fuzzy")


def _find(needle: str, text: str) -> int | None:
    """The first occurrence at word boundaries, else the first occurrence."""
    first = start = text.find(needle)
    while start >= 0:
        if not _cuts_word(text, start) and not _cuts_word(text, start + len(needle)):
            return start
        start = text.find(needle, start + 1)
    return first if first >= 0 else None


def _cuts_word(text: str, position: int) -> bool:
    return 0 < position < len(text) and text[position - 1].isalnum() and text[position].isalnum()


def normalized(text: str) -> str:
    """The text with plain quotes and dashes, NFKD, case folded, single spaces: two texts that differ only in these are
    equal.
    """
    return " ".join("".join(map(_plain, text)).split())


@lru_cache(maxsize=4)
def _normalize(text: str) -> tuple[str, list[int]]:
    """Plain quotes and dashes, NFKD, case folded, each run of whitespace as one space; and each character's original
    index.

    NFKD and not NFKC: it decomposes each character by itself, so the original indices stay exact. For comparing two
    strings the two forms are equivalent.
    """
    characters: list[str] = []
    origins: list[int] = []
    for index, character in enumerate(text):
        for plain in _plain(character):
            if plain == " " and characters and characters[-1] == " ":
                continue
            characters.append(plain)
            origins.append(index)
    return "".join(characters), origins


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if unicodedata.category(character) == "Cf":  # zero-width spaces, soft hyphens, byte order marks
        return ""
    folded = unicodedata.normalize("NFKD", character.translate(_PLAIN)).casefold()
    return "".join(" " if c.isspace() else c for c in unicodedata.normalize("NFKD", folded))


def _original(start: int, end: int, origins: list[int], text: str) -> tuple[int, int]:
    """Map a range of the normalized text to a range of the original one, including the accents of its last letter."""
    first, last = origins[start], origins[end - 1] + 1
    while last < len(text) and unicodedata.combining(text[last]):
        last += 1
    return first, last


def _resembling(needle: str, text: str) -> tuple[int, int] | None:
    if len(needle) < FUZZY_MIN_CHARS:
        return None
    cutoff = FUZZY_CUTOFF_LONG if len(needle) >= FUZZY_LONG_CHARS else FUZZY_CUTOFF_SHORT
    if len(needle) > len(text):  # partial_ratio would look for the post in the sentence instead
        return (0, len(text)) if fuzz.ratio(needle, text) >= cutoff else None
    found = fuzz.partial_ratio_alignment(needle, text, score_cutoff=cutoff)
    if found is None:
        return None
    start, end = _nearest_boundary(text, found.dest_start), _nearest_boundary(text, found.dest_end)
    while end < len(text) and text[end] in ".!?":
        end += 1
    inside = text[start:end]
    start, end = start + len(inside) - len(inside.lstrip(" .,;:!?)-")), end - len(inside) + len(inside.rstrip())
    return (start, end) if start < end else None


def _by_words(needle: str, text: str, start: int, end: int) -> tuple[int, int] | None:
    """The span near this one that takes the fewest edits, word by word, from the needle's words to its own; of equal
    ones the most similar. None if the needle has more or fewer negations: it says something else.
    """
    slack = max(len(needle) // 2, 40)
    places = [m.span() for m in _WORD.finditer(text, _whole_word(text, start - slack), end + slack)]
    if places and _cuts_word(text, places[-1][1]):
        places.pop()
    wanted = _WORD.findall(needle)
    known = sorted(set(wanted))
    words = [_as_in(known, text[a:b]) for a, b in places]

    def likeness(span: tuple[int, int]) -> tuple[int, float]:
        i, j = span
        edits = Levenshtein.distance(wanted, words[i:j], weights=(INSERTION, DELETION, SUBSTITUTION))
        return -edits, fuzz.ratio(needle, text[places[i][0] : places[j - 1][1]])

    spans = [
        (i, j)
        for i, (a, _) in enumerate(places)
        if a <= start + slack
        for j in range(i + 1, len(places) + 1)
        if places[j - 1][1] >= end - slack
    ]
    if spans:
        i, j = max(spans, key=likeness)
        start, end = places[i][0], places[j - 1][1]
    while end < len(text) and text[end] in ".!?":
        end += 1
    same = len(_NEGATION.findall(needle)) == len(_NEGATION.findall(text[start:end]))
    return (start, end) if same else None


def _whole_word(text: str, position: int) -> int:
    """This position, or the end of the word that it cuts."""
    position = max(position, 0)
    while _cuts_word(text, position):
        position += 1
    return position


def _as_in(words: list[str], word: str) -> str:
    """The one of the words of which this is another spelling, or itself."""
    near = process.extractOne(word, words, scorer=fuzz.ratio, score_cutoff=SAME_WORD)
    return near[0] if near else word


def _nearest_boundary(text: str, position: int) -> int:
    """The nearer end of the word that is cut at this position: the matched window has the sentence's length and may cut
    words.
    """
    left = right = position
    while _cuts_word(text, left):
        left -= 1
    while _cuts_word(text, right):
        right += 1
    return left if position - left <= right - position else right
