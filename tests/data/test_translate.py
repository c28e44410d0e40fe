"""Back-translation is the same in every order, draws no random numbers, and leaves what it cannot translate."""

import random
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from redsm5.data import translate
from redsm5.data.augment import Augmenter
from redsm5.data.posts import Post, Span
from redsm5.data.translate import back_translator
from redsm5.engine.errors import ConfigError
from redsm5.sections import AugmentationConfig

WORDS = ("i", "am", "so", "tired", "of", "it", "all", "and", "nothing", "helps", "me", "sleep", "well", "today")
SENTENCES = [" ".join(random.Random(i).choices(WORDS, k=3 + i % 5)) for i in range(20)]
POSITIONS = 40


def save_model(folder, seed):
    """A model that translates words into random words; where it ends is random too."""
    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BartForConditionalGeneration(
            BartConfig(
                vocab_size=len(vocabulary),
                d_model=16,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=16,
                decoder_ffn_dim=16,
                max_position_embeddings=POSITIONS,
                init_std=1.0,
                forced_eos_token_id=None,
            )
        )
    model.final_logits_bias[0, vocabulary["</s>"]] = 8.0  # random weights seldom end
    model.generation_config.min_length = 4
    model.generation_config.max_length = 20
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("there", "back")]
    for seed, folder in enumerate(folders, start=4):
        save_model(folder, seed)
    return [str(folder) for folder in folders]


@pytest.fixture(scope="module")
def translator(folders):
    return back_translator(folders)


def test_a_translation_depends_on_its_sentence_alone(folders, translator):
    translations = [translator(sentence) for sentence in SENTENCES]
    assert all(translation is None or translation.strip() for translation in translations)
    assert len(set(translations)) > 5
    again = back_translator(folders)
    assert [again(sentence) for sentence in reversed(SENTENCES)] == translations[::-1]


def test_a_sentence_is_translated_once(folders, monkeypatch):
    calls = Counter()
    counted = translate._translate
    monkeypatch.setattr(translate, "_translate", lambda *args: calls.update([args[-1]]) or counted(*args))
    translator = back_translator(folders)
    assert len({translator(SENTENCES[0]) for _ in range(3)}) == 1
    assert calls[SENTENCES[0]] == 1


def test_neither_loading_nor_translating_draws_random_numbers(folders):
    before = torch.get_rng_state(), random.getstate()
    back_translator(folders)(SENTENCES[1])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_what_is_too_long_or_does_not_end_is_not_translated(folders, translator, tmp_path):
    assert translator(" ".join(["tired"] * (POSITIONS + 1))) is None
    model = BartForConditionalGeneration.from_pretrained(folders[0])
    model.final_logits_bias[0, 2] = -100.0
    PreTrainedTokenizerFast.from_pretrained(folders[0]).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    endless = back_translator([str(tmp_path), folders[1]])
    assert [endless(sentence) for sentence in SENTENCES[:3]] == [None] * 3


def test_evidence_is_translated_and_its_span_follows(folders):
    config = AugmentationConfig(methods="back_translation", probability=0.5, translation_models=folders)
    augmenter = Augmenter(config, seed=1)
    posts = []
    for index, sentence in enumerate(SENTENCES):
        text = f"Before. {sentence.capitalize()}!  After."
        end = 8 + len(sentence) + 1
        spans = (Span(0, 8, end),), (Span(1, end + 2, len(text)),)
        posts.append(Post(str(index), text, (1,) + (0,) * 8, *spans))
    changed = 0
    for epoch in range(3):
        new = augmenter(posts, epoch)
        assert new == augmenter(posts, epoch)
        for old, post in zip(posts, new, strict=True):
            (evidence,), (negative,) = post.evidence, post.negatives
            assert post.text[: evidence.start] == "Before. "
            assert post.text[evidence.end :] == "  After."
            assert post.text[negative.start : negative.end] == "After."
            sentence = post.text[evidence.start : evidence.end]
            assert sentence[0].isupper()
            assert sentence.endswith("!")
            changed += post.text != old.text
    assert changed > 8


def test_a_model_that_cannot_be_loaded_is_refused(tmp_path, folders):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded") as error:
        back_translator([folders[0], str(tmp_path)])
    assert error.value.where == "train.augmentation.translation_models"
    assert "hf download" in error.value.remedy
