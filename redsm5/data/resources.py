"""Checks whether what augmentation needs (WordNet, translation models) is on this machine.

Separate from the methods themselves, so that the driver can refuse a study early without importing torch.
"""

from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from redsm5.data import wordnet
from redsm5.engine.errors import ConfigError

if TYPE_CHECKING:
    from redsm5.sections import AugmentationConfig

WEIGHTS = tuple(
    name + index for name in ("model.safetensors", "pytorch_model.bin") for index in ("", ".index.json")
)  # the index of weights that are split into several files


def missing_data(methods: Collection[str], translation_models: Sequence[str] | None) -> dict[str, str]:
    """The augmentation methods whose data is not on this machine, each with a remedy."""
    missing = dict[str, str]()
    words = [method for method in methods if method in ("synonym", "insert")]
    if words and wordnet.find() is None:
        remedy = "Install WordNet: `apt install wordnet-base` (Debian, Ubuntu) or `python -m nltk.downloader wordnet`."
        missing |= dict.fromkeys(words, remedy)
    if "back_translation" in methods:
        remedies = dict.fromkeys(filter(None, map(_remedy, translation_models or ())))
        if remedies:
            missing["back_translation"] = " ".join(remedies)
    return missing


def check_available(config: "AugmentationConfig") -> None:
    """Refuse methods of augmentation whose data is not on this machine.

    Raises:
        ConfigError: says what is missing and how to get it.
    """
    missing = missing_data(config.methods, config.translation_models)
    if missing:
        raise ConfigError(
            f"the data for {' and '.join(missing)} is not on this machine",
            where=f"train.augmentation.methods={'+'.join(config.methods)}",
            remedy=" ".join(dict.fromkeys(missing.values())),
        )


def _remedy(model_id: str) -> str | None:
    """The remedy for a translation model that cannot be used yet; None if it can."""
    try:
        complete = _has(model_id, "config.json") and any(_has(model_id, name) for name in WEIGHTS)
    except ValueError:  # neither a folder nor a valid Hub id
        return f"There is no folder {model_id}; use a folder with a seq2seq model, or a model of the Hub."
    if not complete:
        if Path(model_id).is_dir():
            return f"The folder {model_id} lacks config.json or weights; save a seq2seq model there."
        return f"Download the translation model: `hf download {model_id}`."
    if not _has(model_id, "tokenizer.json") and find_spec("sentencepiece") is None:
        return f"The tokenizer of {model_id} needs a package: `pip install sentencepiece`."
    return None


def _has(model_id: str, name: str) -> bool:
    folder = Path(model_id)
    if folder.is_dir():
        return (folder / name).is_file()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model_id, name), str)
