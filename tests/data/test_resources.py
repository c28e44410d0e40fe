"""What augmentation lacks is known before a study begins, with what to do about it."""

import shutil
import subprocess
import sys

import huggingface_hub
import pytest

from redsm5.data import resources, wordnet
from redsm5.data.resources import check_available, missing_data
from redsm5.data.wordnet import synonyms
from redsm5.engine.errors import ConfigError
from redsm5.sections import AugmentationConfig
from tests.data.small_wordnet import forget, write_wordnet

ALL = ("synonym", "insert", "swap", "char_perturb", "back_translation")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without WordNet and without models; NLTK looks for data in the returned folder."""
    import nltk

    (tmp_path / "nltk_data").mkdir()
    monkeypatch.setattr(wordnet, "SYSTEM_FOLDER", tmp_path / "wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    forget()
    yield tmp_path
    forget()


# ---------------------------------------------------------------------------------------------------------------------
# WordNet


@pytest.mark.skipif(wordnet.find() is None, reason="WordNet is not installed (apt install wordnet-base)")
def test_the_real_wordnet_has_synonyms():
    forget()
    assert {"weary", "fatigue"} <= set(synonyms("tired"))
    assert synonyms("Tired") == synonyms("tired")
    assert {"slumber", "nap", "rest"} <= set(synonyms("sleep"))
    assert "walk" not in synonyms("walks")  # the base form is the same word
    assert "mouse" not in synonyms("mice")
    assert all(name.isalpha() for word in ("happy", "eating", "cried") for name in synonyms(word))
    for nothing in ("I", "it", "nothing", "qwertz", "don't", "42"):
        assert synonyms(nothing) == ()


def test_synonyms_are_in_wordnets_order_and_no_stop_words(bare):
    write_wordnet(bare / "wordnet")
    assert synonyms("tired") == ("fatigue", "Pall", "weary")
    assert synonyms("SLEEP") == ("slumber",)
    assert synonyms("I") == ()


@pytest.mark.parametrize("packed", [False, True])
def test_nltks_own_data_is_found_in_a_folder_or_a_zip_file(bare, packed):
    corpora = bare / "nltk_data" / "corpora"
    write_wordnet(corpora / "wordnet")
    if packed:
        shutil.make_archive(str(corpora / "wordnet"), "zip", corpora, "wordnet")
        shutil.rmtree(corpora / "wordnet")
    assert missing_data(["synonym"], None) == {}
    assert synonyms("really") == ("truly",)


def test_half_of_debians_package_is_none(bare):
    write_wordnet(bare / "wordnet")
    assert wordnet.find() == str(bare / "wordnet")
    (bare / "wordnet" / "data.verb").unlink()
    assert wordnet.find() is None
    with pytest.raises(LookupError):
        synonyms("tired")


# ---------------------------------------------------------------------------------------------------------------------
# what is missing


def cache_model(hub, model_id, *names):
    folder = hub / f"models--{model_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123456789")
    (folder / "snapshots" / "0123456789").mkdir(parents=True)
    for name in names:
        (folder / "snapshots" / "0123456789" / name).write_text("{}")


def test_methods_without_their_data_are_named_with_the_remedy(bare):
    missing = missing_data(ALL, ["o/en-de", "o/de-en"])
    assert missing.keys() == {"synonym", "insert", "back_translation"}
    assert missing["synonym"] == missing["insert"]
    assert "apt install wordnet-base" in missing["insert"]
    assert "python -m nltk.downloader wordnet" in missing["insert"]
    assert "hf download o/en-de`" in missing["back_translation"]
    assert "hf download o/de-en`" in missing["back_translation"]


def test_methods_without_data_need_none(bare):
    assert missing_data(["swap", "char_perturb"], None) == {}
    check_available(AugmentationConfig(methods=""))
    check_available(AugmentationConfig(methods="swap", probability=0.1))


def test_a_model_is_here_with_its_weights_only(bare, monkeypatch):
    cache_model(bare / "hub", "o/whole", "config.json", "tokenizer.json", "model.safetensors")
    cache_model(bare / "hub", "o/sharded", "config.json", "tokenizer.json", "pytorch_model.bin.index.json")
    cache_model(bare / "hub", "o/half", "config.json", "tokenizer.json")
    assert missing_data(["back_translation"], ["o/whole", "o/sharded"]) == {}
    remedy = missing_data(["back_translation"], ["o/whole", "o/half"])["back_translation"]
    assert remedy == "Download the translation model: `hf download o/half`."

    shutil.copytree(bare / "hub" / "models--o--whole" / "snapshots" / "0123456789", bare / "folder")
    assert missing_data(["back_translation"], [str(bare / "folder")] * 2) == {}
    (bare / "folder" / "model.safetensors").unlink()
    assert "lacks config.json or weights" in missing_data(["back_translation"], [str(bare / "folder")] * 2).popitem()[1]
    assert "There is no folder /nowhere/model" in missing_data(["back_translation"], ["/nowhere/model"]).popitem()[1]

    cache_model(bare / "hub", "o/slow", "config.json", "source.spm", "pytorch_model.bin")
    monkeypatch.setattr(resources, "find_spec", lambda name: None)
    assert "pip install sentencepiece" in missing_data(["back_translation"], ["o/slow"])["back_translation"]


def test_a_configuration_whose_data_is_missing_is_refused(bare):
    config = AugmentationConfig(
        methods="synonym+swap+back_translation", probability=0.2, translation_models=["o/there", "o/back"]
    )
    with pytest.raises(ConfigError, match="the data for synonym and back_translation is not on this machine") as error:
        check_available(config)
    assert error.value.where == "train.augmentation.methods=synonym+swap+back_translation"
    assert all(word in error.value.remedy for word in ("wordnet-base", "o/there", "o/back"))


def test_looking_for_data_loads_neither_torch_nor_transformers():
    check = (
        "import sys; from redsm5.data.resources import missing_data;"
        f"missing_data({ALL}, ['o/there', 'o/back']);"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
