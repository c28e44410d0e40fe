"""The tokenizer is the same in every process, and one that cannot serve is refused."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from transformers import CanineTokenizer

from redsm5.data.posts import SYMPTOMS, Post
from redsm5.data.read import read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import VOCABULARY_SIZE, build_tokenizer
from redsm5.engine.errors import InputError

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


def make_post(text):
    return Post("p", text, (0,) * len(SYMPTOMS), (), ())


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
