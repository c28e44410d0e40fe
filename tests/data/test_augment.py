"""Evidence sentences become other words; nothing else of a post changes, and all spans still cover their sentences."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from redsm5.data import augment, wordnet
from redsm5.data.augment import WORD, WORD_EDITS, Augmenter
from redsm5.data.posts import SYMPTOMS, Post, Span
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.sections import AugmentationConfig
from tests.data.small_wordnet import forget, write_wordnet

METHODS = ("synonym", "insert", "swap", "char_perturb", "back_translation")
DIGEST = """
import hashlib, json, pathlib, sys
from redsm5.data.augment import Augmenter
from redsm5.data.read import read_corpus
from redsm5.sections import AugmentationConfig
augmenter = Augmenter(AugmentationConfig(methods="swap+char_perturb", probability=0.5), 7)
texts = [post.text for post in augmenter(read_corpus(pathlib.Path(sys.argv[1])).posts, 3)]
print(hashlib.sha256(json.dumps(texts).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_csvs(folder, 200, 5)
    return folder


@pytest.fixture(scope="module")
def posts(folder):
    return read_corpus(folder).posts


@pytest.fixture(scope="module")
def small_wordnet(tmp_path_factory):
    """A WordNet of a few words, where Debian's package would be."""
    import nltk

    folder = tmp_path_factory.mktemp("system") / "wordnet"
    write_wordnet(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wordnet, "SYSTEM_FOLDER", folder)
        patch.setattr(nltk.data, "path", [])
        forget()
        yield
    forget()


def backwards(sentence):
    return None if len(sentence) % 3 == 0 else f" {sentence[::-1]}. "


@pytest.fixture(scope="module", autouse=True)
def _translation_is_backwards():
    """Real models are in test_translate.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "back_translator", lambda models, device: backwards)
        yield


def make(methods, probability=0.5, seed=1):
    models = ["there", "back"] if "back_translation" in methods else None
    return Augmenter(
        AugmentationConfig(methods="+".join(methods), probability=probability, translation_models=models), seed
    )


def make_post(text, evidence=(), negatives=(), post_id="p"):
    labels = [0] * len(SYMPTOMS)
    for span in evidence:
        labels[span.symptom] = 1
    key = lambda span: (span.start, span.end, span.symptom)  # noqa: E731
    return Post(post_id, text, tuple(labels), tuple(sorted(evidence, key=key)), tuple(sorted(negatives, key=key)))


def span_of(text, sentence, symptom=0):
    start = text.index(sentence)
    return Span(symptom, start, start + len(sentence))


def outcomes(method, sentence, draws=60):
    """What a method makes of a sentence with many states of the random generator."""
    if method == "back_translation":
        return {augment._back_translated(sentence, backwards)}
    return {augment._edit_words(sentence, WORD_EDITS[method], random.Random(draw)) for draw in range(draws)}


def versions(augmenter, post, epochs=60):
    return [augmenter([post], epoch)[0] for epoch in range(epochs)]


# ---------------------------------------------------------------------------------------------------------------------
# the rest of the post


words = st.sampled_from(
    ["I", "I'm", "tired", "TIRED", "Sleep", "really", "well-read", "café", "cafe\u0301s", "a", "42"]
)
sentences = st.builds(
    lambda first, rest, end: first + "".join(space + word for space, word in rest) + end,
    words,
    st.lists(st.tuples(st.sampled_from([" ", "  ", "\n", ", ", " — ", "/"]), words), max_size=12),
    st.sampled_from([".", "?!", "…", "", " 🙂", ' "']),
)
symptoms = st.integers(0, len(SYMPTOMS) - 1)


@st.composite
def random_posts(draw):
    """Posts of sentences and odd characters; spans on sentences, the same for several symptoms, and anywhere else."""
    text, places = "", []
    for sentence in draw(st.lists(sentences, min_size=1, max_size=6)):
        text += draw(st.text(max_size=3))
        places.append((len(text), len(text) + len(sentence)))
        text += sentence
    text += draw(st.text(max_size=3))
    anywhere = st.tuples(st.integers(0, len(text) - 1), st.integers(1, 20)).map(
        lambda place: (place[0], min(len(text), sum(place)))
    )
    on_sentences = st.builds(lambda symptom, place: Span(symptom, *place), symptoms, st.sampled_from(places))
    odd = st.builds(lambda symptom, place: Span(symptom, *place), symptoms, anywhere)
    evidence = draw(st.sets(on_sentences, max_size=6)) | draw(st.sets(odd, max_size=2))
    negatives = draw(st.sets(on_sentences, max_size=2)) | draw(st.sets(odd, max_size=1))
    return make_post(text, evidence, negatives, post_id=draw(st.text(max_size=4)))


def overlap(a, b):
    return a.start < b.end and b.start < a.end


@settings(max_examples=120, deadline=None)
@given(post=random_posts(), methods=st.sets(st.sampled_from(METHODS), min_size=1), epoch=st.integers(1, 9))
@pytest.mark.usefixtures("small_wordnet")
def test_only_evidence_sentences_change_and_all_spans_keep_their_sentences(post, methods, epoch):
    new = make(sorted(methods))([post], epoch)[0]
    assert (new.post_id, new.labels) == (post.post_id, post.labels)
    old_spans, new_spans = (*post.evidence, *post.negatives), (*new.evidence, *new.negatives)
    assert [span.symptom for span in new_spans] == [span.symptom for span in old_spans]
    for spans in (new.evidence, new.negatives):
        assert list(spans) == sorted(spans, key=lambda span: (span.start, span.end, span.symptom))
        assert all(0 <= span.start < span.end <= len(new.text) for span in spans)

    pairs = list(zip(old_spans, new_spans, strict=True))
    changed = {}
    for old, moved in pairs:
        if post.text[old.start : old.end] != new.text[moved.start : moved.end]:
            changed[old.start, old.end] = moved.start, moved.end
            for other, _ in pairs:
                assert (other.start, other.end) == (old.start, old.end) or not overlap(other, old)
    assert changed.keys() <= {(span.start, span.end) for span in post.evidence}

    # What is left of both texts without the changed sentences is the same, and each span is moved by what changed
    # before it.
    edges = [((0, 0), (0, 0)), *sorted(changed.items()), ((len(post.text),) * 2, (len(new.text),) * 2)]
    for (before, new_before), (after, new_after) in pairwise(edges):
        assert post.text[before[1] : after[0]] == new.text[new_before[1] : new_after[0]]
    for old, moved in pairs:
        shift = sum(b - a - (end - start) for (start, end), (a, b) in changed.items() if end <= old.start)
        assert moved.start == old.start + shift


def test_a_sentence_with_two_symptoms_changes_once_for_both():
    text = "Hello there. I feel weary and empty. Bye now, all."
    sentence = "I feel weary and empty."
    post = make_post(text, [span_of(text, sentence, 0), span_of(text, sentence, 3)], [span_of(text, sentence, 5)])
    changed = 0
    for new in versions(make(["char_perturb"]), post):
        spans = {(span.start, span.end) for span in (*new.evidence, *new.negatives)}
        assert len(spans) == 1
        ((start, end),) = spans
        assert (new.text[:start], new.text[end:]) == ("Hello there. ", " Bye now, all.")
        changed += new.text[start:end] != sentence
    assert changed > 15


@pytest.mark.parametrize("other", ["weary and empty. Bye now,", "feel weary", "there. I feel weary and empty. Bye"])
@pytest.mark.parametrize("kind", ["evidence", "negatives"])
def test_a_sentence_that_another_span_overlaps_is_left(other, kind):
    text = "Hello there. I feel weary and empty. Bye now, all."
    spans = {"evidence": [span_of(text, "I feel weary and empty.")]}
    spans[kind] = [*spans.get(kind, []), span_of(text, other, 1)]
    for new in versions(make(["swap"]), make_post(text, **spans), epochs=10):
        assert "I feel weary and empty." in new.text


def test_hard_negatives_stay_as_they_are():
    text = "I sleep well enough. I feel weary and empty."
    post = make_post(text, [span_of(text, "I feel weary and empty.")], [span_of(text, "I sleep well enough.")])
    new = versions(make(["swap"]), post)
    assert all(version.text.startswith("I sleep well enough. ") for version in new)
    assert len({version.text for version in new}) > 5
    only_negative = make_post(text, [], [span_of(text, "I sleep well enough.")])
    assert versions(make(["swap"]), only_negative, epochs=10) == [only_negative] * 10


def test_without_methods_posts_are_returned_as_they_are(posts):
    assert Augmenter(AugmentationConfig(methods=""), 1)(posts, 1) == list(posts)
    assert make(["swap"], probability=0.0)(posts, 1) == list(posts)


# ---------------------------------------------------------------------------------------------------------------------
# chance


def sentences_of(posts):
    return [{(span.start, span.end) for span in post.evidence} for post in posts]


def changes(posts, new):
    """(index of the post, place in the old text) of each sentence that changed."""
    return {
        (index, old.start, old.end)
        for index, (post, version) in enumerate(zip(posts, new, strict=True))
        for old, moved in zip(post.evidence, version.evidence, strict=True)
        if post.text[old.start : old.end] != version.text[moved.start : moved.end]
    }


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_about_the_configured_share_of_sentences_changes(posts, probability):
    augmenter, epochs = make(["char_perturb"], probability), 8
    total = epochs * sum(map(len, sentences_of(posts)))
    assert total > 1000
    changed = sum(len(changes(posts, augmenter(posts, epoch))) for epoch in range(epochs))
    assert abs(changed / total - probability) < 4 * (probability * (1 - probability) / total) ** 0.5


def test_epochs_and_seeds_change_other_sentences_and_the_same_ones_otherwise(posts):
    first, second = make(["char_perturb"])(posts, 1), make(["char_perturb"])(posts, 2)
    assert changes(posts, first) != changes(posts, second)
    both = {place[0] for place in changes(posts, first) & changes(posts, second)}
    assert sum(first[index].text != second[index].text for index in both) > len(both) / 2
    assert changes(posts, make(["char_perturb"], seed=2)(posts, 1)) != changes(posts, first)


def test_each_method_is_drawn_about_as_often(posts, monkeypatch):
    def mark(name):
        return lambda words, count, rng: words.__setitem__(0, f"§{name}§")

    names = ["synonym", "insert", "swap"]
    for name in names:
        monkeypatch.setitem(WORD_EDITS, name, mark(name))
    texts = " ".join(post.text for epoch in range(8) for post in make(names)(posts, epoch))
    drawn = Counter(re.findall("§(.*?)§", texts))
    assert set(drawn) == set(names)
    assert min(drawn.values()) > 0.8 * max(drawn.values())


def test_a_post_becomes_the_same_beside_other_posts_and_however_methods_are_written(posts):
    new = make(["swap", "char_perturb"])(posts, 4)
    some = range(0, len(posts), 3)
    assert make(["char_perturb", "swap"])([posts[i] for i in reversed(some)], 4) == [new[i] for i in reversed(some)]


def test_a_post_becomes_the_same_in_every_process(posts, folder):
    texts = [post.text for post in make(["swap", "char_perturb"], seed=7)(posts, 3)]
    env = os.environ | {"PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", DIGEST, str(folder)]
    run = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    assert run.stdout.strip() == hashlib.sha256(json.dumps(texts).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# methods


@pytest.mark.usefixtures("small_wordnet")
def test_words_are_replaced_by_synonyms_in_their_case():
    assert outcomes("synonym", "I am so tired.") == {f"I am so {word}." for word in ("weary", "fatigue", "Pall")}
    assert outcomes("synonym", "TIRED!") == {"WEARY!", "FATIGUE!", "PALL!"}
    assert outcomes("synonym", "Mornings, I sleep.") == {"Forenoon, I sleep.", "Mornings, I slumber."}


@pytest.mark.usefixtures("small_wordnet")
def test_a_synonym_is_inserted_behind_a_word():
    assert outcomes("insert", "So little sleep.") == {
        "So slumber little sleep.",
        "So little slumber sleep.",
        "So little sleep slumber.",
    }


def test_two_words_are_exchanged_and_the_first_stays_capital():
    assert outcomes("swap", "Nothing really  helps, ok?") == {
        "Really nothing  helps, ok?",
        "Helps really  nothing, ok?",
        "Ok really  helps, nothing?",
        "Nothing helps  really, ok?",
        "Nothing ok  helps, really?",
        "Nothing really  ok, helps?",
    }
    assert outcomes("swap", "I’m sad.") == {"Sad I’m."}
    assert outcomes("swap", "so SAD") == {"SAD so"}


def test_a_typing_error_is_one_edit_inside_of_a_word():
    results = outcomes("char_perturb", "I hate mornings.", draws=400)
    assert all(OSA.distance("I hate mornings.", result) == 1 for result in results)
    assert {"I hte mornings.", "I haate mornings.", "I htae mornings.", "I hatr mornings."} - results == {
        "I hatr mornings."  # the last letter stays
    }
    assert {"I hste mornings.", "I hqte mornings.", "I hzte mornings."} <= results
    assert not any(result.startswith("I hlte") for result in results)
    assert "I HSTE." in outcomes("char_perturb", "I HATE.")


def test_a_translation_keeps_the_spaces_around_the_end_and_the_case_of_the_first_letter():
    def translated(sentence, translation):
        return augment._back_translated(sentence, lambda _: translation)

    assert translated(" So it is?! ", "that's how it is.") == " That's how it is?! "
    assert translated("so it is", "That's how it is.") == "that's how it is"
    assert translated("so am i…", "I'm too.") == "I'm too…"
    for nothing in (None, "", "...", " "):
        assert translated("So it is.", nothing) == "So it is."


@pytest.mark.parametrize("method", WORD_EDITS)
@pytest.mark.usefixtures("small_wordnet")
def test_a_tenth_of_the_words_changes_and_what_is_between_them_stays(method):
    sentence = " — ".join([f"morning\t{i}!" for i in range(1000, 1015)]) + "\n🙂"  # 30 words
    old = WORD.findall(sentence)
    for result in outcomes(method, sentence):
        new = WORD.findall(result)
        if method == "insert":
            assert len(new) == 33
            assert re.sub(" forenoon", "", result) == sentence
            continue
        assert WORD.split(result) == WORD.split(sentence)
        differing = sum(a != b for a, b in zip(old, new, strict=True))
        assert 0 < differing <= 6 if method == "swap" else differing == 3


WORDLESS = (" 🙂🙂 ", "...", "\n")


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        *((method, sentence) for method in METHODS for sentence in WORDLESS),
        *((method, sentence) for method in WORD_EDITS for sentence in ("Ok", "no No NO")),
    ],
)
@pytest.mark.usefixtures("small_wordnet")
def test_a_sentence_that_a_method_cannot_change_is_left(method, sentence):
    assert outcomes(method, sentence) == {sentence}
