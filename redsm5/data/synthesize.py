"""Generates synthetic posts in ReDSM5's format: the same two files, label frequencies, lengths and irregularities.

For a first run and for tests without the gated data set. The files are a pure function of (posts, seed), byte for byte.
The label frequencies are the published ones; lengths follow a log-normal distribution fitted to the published figures
(2 to 6,990 words, mean 295).
"""

import csv
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist

from redsm5.data.phrases import FILLERS, SLOTS, SPECIAL_SENTENCES, SYMPTOM_PHRASES
from redsm5.data.posts import SYMPTOMS
from redsm5.data.read import ANNOTATIONS_COLUMNS, ANNOTATIONS_FILE, POSTS_COLUMNS, POSTS_FILE, SPECIAL_CASE

REAL_POSTS = 1484
REAL_POSTS_WITHOUT_SYMPTOM = 392
REAL_SENTENCES = dict(zip(SYMPTOMS, (328, 311, 165, 124, 124, 102, 59, 44, 35), strict=True))
MIN_WORDS, MAX_WORDS = 2, 6990
# mean exp(mu + sigma²/2) = 295 words, and the longest of 1,484 posts (3.4 standard deviations) has 6,990.
LOG_WORDS = NormalDist(mu=5.067, sigma=1.113)

SHORT = 15  # words; a shorter post has no room for a sentence about a symptom
TWO_SYMPTOMS = 0.4  # the share of posts with several symptoms in which two symptoms share a sentence
NEGATIVE_WITHOUT, NEGATIVE_WITH = 0.6, 0.12  # the shares of posts without and with symptoms that have a hard negative
SPECIAL = 0.02  # the share of posts with a SPECIAL_CASE
CURLY = 0.35  # the share of posts with curly quotes; the annotators' sentences have straight ones
SPACED = 0.08  # the share of sentences with a line break or two spaces in the post but one space in the annotation
EDITED = 0.03  # the share of annotated sentences that lack a word of the post's sentence
EARLY, EARLY_SENTENCES = 0.85, 12  # most evidence is at the beginning, so that an encoder's window contains it
CLOSING_WORDS = ("Thank", "you", "all", "for", "reading", "this", "and", "take", "care", "everyone")


@dataclass
class _Sentence:
    text: str
    judgements: list[tuple[str, int]]  # (DSM5_symptom, status)


@dataclass
class _Draft:
    post_id: str
    words: int = 0
    symptoms: list[str] = field(default_factory=list)


def write_csvs(folder: Path, posts: int, seed: int) -> None:
    """Write redsm5_posts.csv and redsm5_annotations.csv into `folder`, which exists.

    `posts` is at least 1. The numbers of sentences of the symptoms are in the real proportions, but at least one each.
    """
    rng = random.Random(seed)
    post_rows, annotation_rows = list[Sequence[str]](), list[Sequence[str]]()
    for draft in _drafts(posts, rng):
        text, annotations = _compose(draft, rng)
        post_rows.append((draft.post_id, text))
        annotation_rows.extend(annotations)
    _write(folder / POSTS_FILE, POSTS_COLUMNS, post_rows)
    _write(folder / ANNOTATIONS_FILE, (*ANNOTATIONS_COLUMNS, "explanation"), annotation_rows)


def _drafts(posts: int, rng: random.Random) -> list[_Draft]:
    """The symptoms and the number of words of each post, in an order that is independent of both."""
    symptoms = [s for s, count in REAL_SENTENCES.items() for _ in range(max(1, round(count * posts / REAL_POSTS)))]
    rng.shuffle(symptoms)
    with_symptom = round((REAL_POSTS - REAL_POSTS_WITHOUT_SYMPTOM) * posts / REAL_POSTS)
    with_symptom = max(1, min(with_symptom, len(symptoms)))
    drafts = [_Draft(post_id) for post_id in _post_ids(posts, rng)]
    for index, symptom in enumerate(symptoms):
        drafts[index if index < with_symptom else rng.randrange(with_symptom)].symptoms.append(symptom)

    # Lengths are the distribution's quantiles, not drawn: a few drawn lengths would miss its mean. The shortest posts
    # have no room for a symptom.
    words = [round(math.exp(LOG_WORDS.inv_cdf((i + 0.5) / posts))) for i in range(posts)]
    words = [MIN_WORDS, *(min(max(count, MIN_WORDS), MAX_WORDS) for count in words[1:])]
    short = min(sum(count < SHORT for count in words), posts - with_symptom)
    tail = words[short:]
    rng.shuffle(tail)
    for draft, count in zip(drafts, tail + words[:short], strict=True):
        draft.words = count
    rng.shuffle(drafts)
    return drafts


def _post_ids(posts: int, rng: random.Random) -> list[str]:
    ids = dict[str, None]()  # an ordered set
    while len(ids) < posts:
        ids[f"s_{rng.randint(1, 3000)}_{rng.randint(0, 3000)}"] = None
    return list(ids)


def _compose(draft: _Draft, rng: random.Random) -> tuple[str, list[tuple[str, ...]]]:
    """The post's text and its rows of the annotations."""
    marked = _marked_sentences(draft, rng)
    sentences = _fillers(draft.words - sum(len(sentence.text.split()) for sentence in marked), rng)
    for sentence in marked:
        latest = min(len(sentences), EARLY_SENTENCES) if rng.random() < EARLY else len(sentences)
        sentences.insert(rng.randint(0, latest), sentence)

    text, rows = "", list[tuple[str, ...]]()
    for index, sentence in enumerate(sentences):
        if index:
            text += "\n\n" if rng.random() < 0.1 else " "
        spaced = sentence.judgements and rng.random() < SPACED
        text += _replace_a_space(sentence.text, rng.choice(("\n", "  ")), rng) if spaced else sentence.text
        edited = sentence.judgements and rng.random() < EDITED
        annotated = _drop_a_word(sentence.text, rng) if edited else sentence.text
        for symptom, status in sentence.judgements:
            sentence_id = f"{draft.post_id}_{index}"
            rows.append((draft.post_id, sentence_id, annotated, symptom, str(status), _explain(symptom, status, rng)))
    return (_curl(text) if rng.random() < CURLY else text), rows


def _marked_sentences(draft: _Draft, rng: random.Random) -> list[_Sentence]:
    """The sentences that have annotations: evidence, hard negatives, special cases."""
    symptoms, marked = list(draft.symptoms), list[_Sentence]()
    if len(set(symptoms)) > 1 and rng.random() < TWO_SYMPTOMS:
        first = symptoms.pop(0)
        second = symptoms.pop(next(i for i, symptom in enumerate(symptoms) if symptom != first))
        start, end = _say(first, 1, rng), _say(second, 1, rng)
        end = end if re.match(r"I\b", end) else end[0].lower() + end[1:]
        marked.append(_Sentence(f"{start.removesuffix('.')}, and {end}", [(first, 1), (second, 1)]))
    marked += [_Sentence(_say(symptom, 1, rng), [(symptom, 1)]) for symptom in symptoms]

    roomy = draft.words >= 2 * SHORT
    if roomy and rng.random() < (NEGATIVE_WITH if draft.symptoms else NEGATIVE_WITHOUT):
        others = [symptom for symptom in SYMPTOMS if symptom not in draft.symptoms]
        symptom = rng.choices(others, [REAL_SENTENCES[other] for other in others])[0]
        marked.append(_Sentence(_say(symptom, 0, rng), [(symptom, 0)]))
    if roomy and rng.random() < SPECIAL:
        marked.append(_Sentence(_fill(rng.choice(SPECIAL_SENTENCES), rng), [(SPECIAL_CASE, 1)]))
    return marked


def _say(symptom: str, status: int, rng: random.Random) -> str:
    phrases = SYMPTOM_PHRASES[symptom]
    return _fill(rng.choice(phrases.present if status else phrases.absent), rng, term=phrases.terms)


def _fill(template: str, rng: random.Random, **slots: tuple[str, ...]) -> str:
    choices = SLOTS | slots
    text = re.sub(r"\{(\w+)\}", lambda slot: rng.choice(choices[slot[1]]), template)
    return text[0].upper() + text[1:]


def _fillers(words: int, rng: random.Random) -> list[_Sentence]:
    """Neutral sentences with exactly `words` words in total; none if `words` is negative."""
    sentences = list[_Sentence]()
    while words > len(CLOSING_WORDS):
        text = _fill(rng.choice(FILLERS), rng)
        if len(text.split()) <= words:
            sentences.append(_Sentence(text, []))
            words -= len(text.split())
    if words > 0:
        sentences.append(_Sentence(" ".join(CLOSING_WORDS[:words]) + ".", []))
    return sentences


def _replace_a_space(text: str, by: str, rng: random.Random) -> str:
    space = rng.choice([i for i, character in enumerate(text) if character == " "])
    return text[:space] + by + text[space + 1 :]


def _drop_a_word(text: str, rng: random.Random) -> str:
    words = text.split()
    if len(words) > 2:
        del words[rng.randrange(1, len(words) - 1)]
    return " ".join(words)


def _curl(text: str) -> str:
    """Replace straight quotes by curly ones, as a phone's keyboard does."""
    text = re.sub(r'(^|\s)"', "\\1“", text)
    return text.replace('"', "”").replace("'", "’")


def _explain(symptom: str, status: int, rng: random.Random) -> str:
    name = symptom.lower().replace("_", " ")
    if status:
        choices = (f"The sentence points to {name}.", f'It speaks of "{name}", in the present and at length.', "")
    else:
        choices = (f"This does not meet the criterion, {name} is not the writer's own.", f"No sign of {name} here.", "")
    return rng.choice(choices)


def _write(path: Path, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
