"""The tokenizer is the same in every process, and tokens lead back to the characters of the evidence."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from transformers import CanineTokenizer

from redsm5.data.posts import SYMPTOMS, Post, Span
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import VOCABULARY_SIZE, build_tokenizer, encode
from redsm5.errors import InputError

PRINT_VOCABULARY = """
import sys, json, pathlib
from redsm5.data.read import read_corpus
from redsm5.data.tokenize import build_tokenizer
tokenizer = build_tokenizer("tiny", read_corpus(pathlib.Path(sys.argv[1])).posts)
print(json.dumps(tokenizer.backend_tokenizer.to_str()))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_csvs(folder, 120, 5)
    return folder


@pytest.fixture(scope="module")
def posts(folder):
    return read_corpus(folder).posts


@pytest.fixture(scope="module")
def tiny(posts):
    return build_tokenizer("tiny", posts)


def make_post(text, *spans):
    labels = [0] * len(SYMPTOMS)
    for span in spans:
        labels[span.symptom] = 1
    return Post("p", text, tuple(labels), spans, ())


@pytest.fixture(scope="module")
def small():
    """A tokenizer that knows the words of the posts below."""
    return build_tokenizer("tiny", [make_post("I am tired. I am sad.")])


# ---------------------------------------------------------------------------------------------------------------------
# tokenizers


def test_the_tiny_tokenizer_is_the_same_in_every_process(folder, tiny):
    def tokenizer(hash_seed):
        env = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", PRINT_VOCABULARY, str(folder)]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    runs = [tokenizer("1"), tokenizer("2")]
    first, second = (json.loads(run.communicate(timeout=60)[0]) for run in runs)
    assert first == second == tiny.backend_tokenizer.to_str()


def test_the_tiny_tokenizer_is_berts_in_form(tiny):
    assert tiny.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert (tiny.pad_token_id, tiny.cls_token_id, tiny.sep_token_id) == (0, 2, 3)
    assert len(tiny) <= VOCABULARY_SIZE
    ids = tiny("I am TIRED")["input_ids"]
    assert ids == tiny("i am tired")["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)


def test_a_word_that_was_not_in_training_is_spelled(tiny):
    assert tiny.tokenize("zebrasleep") == ["z", *(f"##{c}" for c in "ebrasleep")]


def test_a_vocabulary_of_many_words_and_signs_is_bounded():
    text = " ".join(hashlib.sha256(str(i).encode()).hexdigest()[:6] + chr(0x4E00 + i) for i in range(3000))
    assert len(build_tokenizer("tiny", [make_post(text)])) == VOCABULARY_SIZE


def test_a_saved_tokenizer_loads_from_its_folder(tmp_path, tiny):
    tiny.save_pretrained(tmp_path)
    loaded = build_tokenizer(str(tmp_path), [])
    assert loaded("I’m so tired.", return_offsets_mapping=True) == tiny("I’m so tired.", return_offsets_mapping=True)


def test_a_tokenizer_that_cannot_be_had_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        build_tokenizer(str(tmp_path / "no-such-model"), [])
    with pytest.raises(InputError, match="cannot be loaded") as error:
        build_tokenizer(str(tmp_path), [])
    assert "local folder" in error.value.remedy


def test_a_tokenizer_without_offsets_is_refused(tmp_path):
    CanineTokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no fast tokenizer"):
        build_tokenizer(str(tmp_path), [])


# ---------------------------------------------------------------------------------------------------------------------
# encoding


def test_chosen_tokens_cover_the_evidence_and_no_more(posts, tiny):
    encoded = encode(posts, tiny, 100_000)
    assert encoded.lost_spans == encoded.truncated_posts == 0
    checked = 0
    for n, post in enumerate(posts):
        assert encoded.input_ids[n] == tiny(post.text)["input_ids"]
        for c in range(len(SYMPTOMS)):
            spans = [span for span in post.evidence if span.symptom == c]
            start, end = int(encoded.starts_NC[n, c]), int(encoded.ends_NC[n, c])
            assert bool(encoded.has_gold_NC[n, c]) == bool(spans)
            if not spans:
                assert start == end == 0
                continue
            first = min(spans, key=lambda span: span.start)
            assert 0 < start <= end < len(encoded.input_ids[n]) - 1
            assert (encoded.offsets[n][start][0], encoded.offsets[n][end][1]) == (first.start, first.end)
            checked += 1
    assert checked > 80


def test_labels_ids_and_texts_are_kept(posts, tiny):
    encoded = encode(posts, tiny, 64)
    assert len(encoded) == len(posts)
    assert [tuple(map(int, row)) for row in encoded.labels_NC] == [post.labels for post in posts]
    assert encoded.post_ids == [post.post_id for post in posts]
    assert encoded.texts == [post.text for post in posts]
    assert encoded.evidence_spans == sum(len(post.evidence) for post in posts)


def test_evidence_beyond_the_window_is_counted_and_its_label_stands(small):
    text = "I am tired. " * 30
    early, late, cut = Span(0, 0, 11), Span(1, 240, 251), Span(2, 36, 59)
    assert text[late.start : late.end] == "I am tired."
    encoded = encode([make_post(text, early, cut, late)], small, 18)  # [CLS], 16 tokens = 4 sentences, [SEP]
    assert (encoded.truncated_posts, encoded.evidence_spans, encoded.lost_spans) == (1, 3, 2)
    assert encoded.starts_NC[0, :3].tolist() == [1, 0, 0]
    assert encoded.ends_NC[0, :3].tolist() == [4, 0, 0]
    assert encoded.has_gold_NC[0, :4].tolist() == [True, True, True, False]
    assert encoded.labels_NC[0, :4].tolist() == [1, 1, 1, 0]


def test_the_earliest_evidence_of_a_symptom_is_taken(small):
    encoded = encode([make_post("I am tired. I am sad. I am tired.", Span(3, 12, 21), Span(3, 22, 33))], small, 64)
    assert (int(encoded.starts_NC[0, 3]), int(encoded.ends_NC[0, 3])) == (5, 8)


def test_a_post_that_fills_the_window_exactly_loses_nothing(small):
    encoded = encode([make_post("I am tired.", Span(3, 0, 11))], small, 6)
    assert (encoded.truncated_posts, encoded.lost_spans) == (0, 0)
    assert encode([make_post("I am tired.", Span(3, 0, 11))], small, 5).lost_spans == 1


def test_a_label_without_aligned_evidence_has_no_gold(small):
    post = Post("p", "I am tired.", (0, 0, 0, 1, 0, 0, 0, 0, 0), (), ())
    encoded = encode([post], small, 16)
    assert encoded.labels_NC[0, 3] == 1
    assert not encoded.has_gold_NC.any()
    assert encoded.evidence_spans == encoded.lost_spans == 0
