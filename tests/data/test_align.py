"""Whatever way a sentence is found, the offsets are those of the original text."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redsm5.data.align import align
from redsm5.data.phrases import FILLERS

BEFORE, AFTER = "Früher war 1 zero\u200bwidth. ", "  Then ﬁnally we left… and ½ came back."

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=8)
sentences = st.lists(words, min_size=1, max_size=8).map(" ".join)


def found(sentence, text):
    alignment = align(sentence, text)
    return None if alignment is None else (text[alignment.start : alignment.end], alignment.method)


@settings(max_examples=200, deadline=None)
@given(before=sentences, sentence=sentences, after=sentences)
def test_a_verbatim_sentence_is_found_exactly(before, sentence, after):
    assert found(sentence, f"{before} {sentence} {after}") == (sentence.strip(), "exact")


@settings(max_examples=200, deadline=None)
@given(sentence=st.text(max_size=30), text=st.text(max_size=200))
def test_offsets_are_always_a_proper_range_of_the_text(sentence, text):
    alignment = align(sentence, text)
    assert alignment is None or 0 <= alignment.start < alignment.end <= len(text)


@pytest.mark.parametrize(
    ("sentence", "written"),
    [
        ('I can\'t sleep, he said "no".', "I can’t sleep, he said “no”."),
        ("I am well-read - mostly.", "I am well‐read — mostly."),
        ("So tired of it.", "So  tired\n\nof\tit."),
        ("So tired of it.", "So tired\u00a0of\u200b it."),
        ("The office was fine.", "The oﬃce was ﬁne."),
        ("A café at noon.", "A cafe\u0301 at noon."),
        ("A cafe\u0301 at noon.", "A café at noon."),
        ("Everything Is Fine.", "EVERYTHING is fine."),
        ("Half a Straße.", "half a STRASSE."),
        ("Wait... what", "Wait… what"),
        ("I ate 1⁄2 of it", "I ate ½ of it"),
    ],
)
def test_typography_is_no_difference_and_offsets_map_back(sentence, written):
    assert found(sentence, BEFORE + written + AFTER) == (written, "normalized")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([f for f in FILLERS if "'" in f or '"' in f]), st.integers(0, 2**32), sentences, sentences)
def test_curled_and_spaced_sentences_map_back(sentence, seed, before, after):
    rng = random.Random(seed)
    written = sentence.replace("'", "’").replace('"', "”")
    written = "".join(rng.choice((" ", "  ", "\n", " \t")) if c == " " else c for c in written)
    assert found(sentence, f"{before}\n{written} {after}") == (written, "normalized")


def test_an_accent_is_not_left_behind():
    text = "At the Cafe\u0301 we sat."
    alignment = align("at the café", text)
    assert text[alignment.start : alignment.end] == "At the Cafe\u0301"


def test_an_edited_sentence_is_found_fuzzily_at_word_boundaries():
    text = "It was Monday. I have been so very tired since the spring began. Then we left."
    assert found("I have been very tired since the spring began.", text) == (
        "I have been so very tired since the spring began.",
        "fuzzy",
    )
    assert found("I've been so very tired since spring began!", text)[1] == "fuzzy"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_fuzzy_spans_cut_no_word(seed):
    rng = random.Random(seed)
    text = " ".join(rng.sample(FILLERS, 12))
    sentence = rng.choice([f for f in FILLERS if f in text]).split()
    del sentence[rng.randrange(len(sentence))]
    alignment = align(" ".join(sentence), text)
    if alignment is not None:
        assert alignment.start == 0 or not text[alignment.start - 1 : alignment.start + 1].isalnum()
        assert not text[alignment.end - 1 : alignment.end + 1].isalnum() or alignment.end == len(text)


@pytest.mark.parametrize(
    "sentence",
    ["", "  ", "Quite another matter.", "Nothing that was said here resembles this sentence, not at all.", "x"],
)
def test_what_is_not_there_is_not_found(sentence):
    assert align(sentence, "We took the train. It was late again, and my brother left.") is None


def test_a_sentence_longer_than_the_post_aligns_only_if_they_resemble_each_other():
    assert found("I was so tired of it all today.", "I was so tired of it all") == ("I was so tired of it all", "fuzzy")
    assert align("I was so tired of it all today, and then we took the train.", "I was so") is None


def test_a_place_that_cuts_no_word_is_preferred():
    assert align("eat", "Repeat, beat, eat it.").start == 14
    assert align("eat", "Repeat, beat").start == 3
