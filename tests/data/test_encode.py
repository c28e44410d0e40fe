"""What the encoder reads leads back to the post: tokens to characters, windows to all text, pairs to symptoms."""

import re
from itertools import pairwise

import pytest

from redsm5.config import compose
from redsm5.data.encode import EncodedPosts, sentences_of
from redsm5.data.posts import SYMPTOMS, Post, Span
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import build_tokenizer
from redsm5.engine.errors import ConfigError

TIRED = "I am tired. "  # four tokens


@pytest.fixture(scope="module")
def posts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_csvs(folder, 120, 5)
    return read_corpus(folder).posts


@pytest.fixture(scope="module")
def tiny(posts):
    return build_tokenizer("tiny", posts)


@pytest.fixture(scope="module")
def small():
    """A tokenizer that knows the words of the short posts below."""
    return build_tokenizer("tiny", [make_post("I am tired. I am sad.")])


def make_post(text, *spans, negatives=()):
    labels = [0] * len(SYMPTOMS)
    for span in spans:
        labels[span.symptom] = 1
    return Post("p", text, tuple(labels), spans, negatives)


def encode(posts, tokenizer, max_length, *words):
    config = compose(["model.max_length=64", *words])
    model = config.model.model_copy(update={"max_length": max_length})
    return EncodedPosts(posts, tokenizer, config.model_copy(update={"model": model}))


def text_of(encoded, item, window, first, last):
    """The characters that these tokens stand for."""
    return encoded.posts[item.post].text[window.offsets[first][0] : window.offsets[last][1]]


def spans_found(encoded):
    """(post, symptom, text) of all gold spans in all windows."""
    return {
        (item.post, item.symptoms[output], text_of(encoded, item, window, first, last))
        for item in encoded.items
        for window in item.windows
        for output, first, last in window.spans
    }


def spans_annotated(posts):
    return {(p, s.symptom, post.text[s.start : s.end]) for p, post in enumerate(posts) for s in post.evidence}


# ---------------------------------------------------------------------------------------------------------------------
# one window


def test_chosen_tokens_cover_all_evidence_and_no_more(posts, tiny):
    encoded = encode(posts, tiny, 8192)
    assert encoded.lost_spans == encoded.truncated_posts == 0
    assert spans_found(encoded) == spans_annotated(posts)
    assert len(spans_annotated(posts)) > 80
    for item, post in zip(encoded.items, posts, strict=True):
        assert item.windows[0].input_ids.tolist() == tiny(post.text)["input_ids"]
        assert item.windows[0].text == (1, len(item.windows[0].input_ids) - 1)


def test_labels_and_texts_are_kept(posts, tiny):
    encoded = encode(posts, tiny, 64)
    assert len(encoded) == len(posts)
    assert [item.labels for item in encoded.items] == [post.labels for post in posts]
    assert encoded.posts == posts
    assert encoded.evidence_spans == sum(len(post.evidence) for post in posts)


def test_evidence_beyond_a_cut_is_counted_unknown_and_its_label_stands(small):
    early, late, cut = Span(0, 0, 11), Span(1, 240, 251), Span(2, 36, 59)
    encoded = encode([make_post(TIRED * 30, early, cut, late)], small, 18)  # [CLS], 16 tokens = 4 sentences, [SEP]
    window = encoded.items[0].windows[0]
    assert (encoded.truncated_posts, encoded.evidence_spans, encoded.lost_spans) == (1, 3, 2)
    assert window.spans == [(0, 1, 4)]
    assert window.known == [True, False, False, *[True] * 6]
    assert encoded.items[0].labels[:4] == (1, 1, 1, 0)


def test_all_evidence_of_a_symptom_is_taken(small):
    encoded = encode([make_post("I am tired. I am sad. I am tired.", Span(3, 12, 21), Span(3, 22, 33))], small, 64)
    assert encoded.items[0].windows[0].spans == [(3, 5, 8), (3, 9, 12)]


def test_a_post_that_fills_the_window_exactly_loses_nothing(small):
    encoded = encode([make_post("I am tired.", Span(3, 0, 11))], small, 6)
    assert (encoded.truncated_posts, encoded.lost_spans) == (0, 0)
    assert encode([make_post("I am tired.", Span(3, 0, 11))], small, 5).lost_spans == 1


@pytest.mark.parametrize("long_posts", ["truncate", "window"])
def test_a_label_without_aligned_evidence_is_unknown_everywhere(small, long_posts):
    post = Post("p", TIRED * 10, (0, 0, 0, 1, 0, 0, 0, 0, 0), (), ())
    encoded = encode([post], small, 18, f"data.long_posts={long_posts}")
    assert all(window.known == [c != 3 for c in range(9)] for window in encoded.items[0].windows)
    assert encoded.evidence_spans == encoded.lost_spans == 0


# ---------------------------------------------------------------------------------------------------------------------
# windows


def test_windows_overlap_and_show_all_of_the_post(posts, tiny):
    encoded = encode(posts, tiny, 64, "data.long_posts=window", "data.window_overlap=0.25")
    assert encoded.truncated_posts == 0
    several = 0
    for item in encoded.items:
        shown = [[*map(tuple, window.offsets[slice(*window.text)].tolist())] for window in item.windows]
        tokens = tiny(encoded.posts[item.post].text, return_offsets_mapping=True)["offset_mapping"][1:-1]
        assert sorted(set().union(*map(set, shown))) == tokens
        for before, after in pairwise(shown):
            assert len(set(before) & set(after)) == int(0.25 * 62)
            several += 1
        assert all(len(window.input_ids) <= 64 for window in item.windows)
    assert several > 100


def test_windows_lose_only_what_is_longer_than_their_overlap_allows(posts, tiny):
    encoded = encode(posts, tiny, 128, "data.long_posts=window", "data.window_overlap=0.5")
    assert encoded.lost_spans == 0
    assert spans_found(encoded) == spans_annotated(posts)


def test_a_sentence_that_a_window_cuts_is_unknown_there_and_known_where_it_is_whole(small):
    # 64 tokens of text; windows of 16, each 8 further: the sentence of tokens 13 to 20 is whole in the second only.
    span = Span(3, 3 * 12 + 0, 5 * 12 - 1)
    encoded = encode([make_post(TIRED * 16, span)], small, 18, "data.long_posts=window", "data.window_overlap=0.5")
    windows = encoded.items[0].windows
    assert [window.known[3] for window in windows[:4]] == [False, True, False, True]
    assert windows[1].spans == [(3, 5, 12)]
    assert not windows[3].spans, "known to hold none"


# ---------------------------------------------------------------------------------------------------------------------
# pairs


@pytest.mark.parametrize("long_posts", ["truncate", "window"])
def test_a_pair_is_read_with_its_symptoms_description_and_answers_for_it_alone(posts, tiny, long_posts):
    encoded = encode(posts[:6], tiny, 96, "model.input_format=binary_pairs", f"data.long_posts={long_posts}")
    config = compose([])
    assert [(item.post, item.symptoms) for item in encoded.items] == [(p, (c,)) for p in range(6) for c in range(9)]
    for item in encoded.items:
        post, (symptom,) = encoded.posts[item.post], item.symptoms
        description = tiny(config.symptoms[SYMPTOMS[symptom]], add_special_tokens=False)["input_ids"]
        assert item.labels == (post.labels[symptom],)
        for window in item.windows:
            first, end = window.text
            assert window.input_ids[1 : 1 + len(description)].tolist() == description
            assert first == len(description) + 2
            assert end == len(window.input_ids) - 1
            assert window.type_ids.tolist() == [0] * first + [1] * (end + 1 - first)
    found = spans_found(encoded)
    assert found <= spans_annotated(posts[:6])
    assert len(found) == encoded.evidence_spans - encoded.lost_spans


def test_a_description_that_leaves_no_room_is_refused(small):
    with pytest.raises(ConfigError, match="leaves too few for the post") as error:
        encode([make_post(TIRED)], small, 16, "model.input_format=binary_pairs")
    assert "model.max_length" in error.value.remedy


def test_a_symptom_without_a_description_is_refused(small):
    config = compose(["model.input_format=binary_pairs"])
    missing = {name: text for name, text in config.symptoms.items() if name != "FATIGUE"}
    with pytest.raises(ConfigError, match=r"symptoms\.FATIGUE is missing"):
        EncodedPosts([make_post(TIRED)], small, config.model_copy(update={"symptoms": missing}))


# ---------------------------------------------------------------------------------------------------------------------
# sentences


def test_sentences_are_the_texts_own_without_the_space_around_them():
    text = "  It's 3 a.m. again… I can't sleep 😀.\n\n“Why?” she said. no idea  "
    assert len(sentences_of(text)) > 2
    for start, end in sentences_of(text):
        assert text[start:end] == text[start:end].strip() != ""
    covered = "".join(text[start:end] for start, end in sentences_of(text))
    assert re.sub(r"\s", "", covered) == re.sub(r"\s", "", text)


def test_each_window_offers_whole_sentences_and_together_all_of_them(posts, tiny):
    words = ("model.evidence_head_type=sentence_reranker", "data.long_posts=window", "data.window_overlap=0.5")
    encoded = encode(posts, tiny, 128, *words)
    for item in encoded.items:
        text = encoded.posts[item.post].text
        offered = {
            text_of(encoded, item, window, first, last) for window in item.windows for first, last in window.sentences
        }
        assert offered == {text[start:end] for start, end in sentences_of(text)}


def test_a_sentence_that_is_whole_in_no_window_is_offered_in_pieces(small):
    words = ("model.evidence_head_type=sentence_reranker", "data.long_posts=window")
    encoded = encode([make_post("I am tired " * 20 + ".")], small, 18, *words)
    assert [window.sentences for window in encoded.items[0].windows] == [
        [(1, len(window.input_ids) - 2)] for window in encoded.items[0].windows
    ]


def test_posts_that_change_are_encoded_anew(small):
    encoded = encode([make_post("I am tired.", Span(3, 0, 11))], small, 32)
    encoded.encode([make_post("I am sad. I am tired.", Span(3, 10, 21))])
    assert encoded.items[0].windows[0].spans == [(3, 5, 8)]
    assert len(encoded) == 1
