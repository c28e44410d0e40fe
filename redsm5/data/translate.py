"""Back-translation (Sennrich et al. 2016, section 3): into another language and back, with two seq2seq models.

Each model translates in one fixed direction, as those of OPUS-MT do. Models are read from the Hub's cache or a folder,
never from the network. Beam search is deterministic, and sentences are translated one at a time, so a result does not
depend on other sentences.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from redsm5.engine.errors import ConfigError

BEAMS = 4
MAX_TOKENS = 256  # longer sentences are not translated


def back_translator(models: Sequence[str], device: torch.device | str = "cpu") -> Callable[[str], str | None]:
    """A function that returns a sentence's back-translation, or None if there is none.

    There is none for a sentence that is too long for the models, or if one of them returns nothing or does not
    terminate. Each sentence is translated once; the result stays in memory only.

    Args:
        models: two Hub ids or folders: for the forward and the backward translation.

    Raises:
        ConfigError: a model cannot be loaded.
    """
    there, back = (_load(model_id, device) for model_id in models)

    @cache
    def translate(sentence: str) -> str | None:
        foreign = _translate(*there, sentence)
        return _translate(*back, foreign) if foreign else None

    return translate


def _load(model_id: str, device: torch.device | str) -> tuple[Any, Any]:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer  # takes seconds

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_id, local_files_only=True)
        with torch.random.fork_rng(devices=[]):  # loading the models does not affect the training's random numbers
            model = AutoModelForSeq2SeqLM.from_pretrained(model_id, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(
            f"the translation model {model_id} cannot be loaded ({type(error).__name__})",
            where="train.augmentation.translation_models",
            remedy=f"Download it (`hf download {model_id}`), or use a folder that AutoModelForSeq2SeqLM and "
            "AutoTokenizer load; tokenizers without a tokenizer.json need `pip install sentencepiece`.",
        ) from error
    return tokenizer, model.to(device).eval()


def _translate(tokenizer: Any, model: Any, text: str) -> str | None:
    encoded = tokenizer(text, return_tensors="pt").to(model.device)
    limit = min(MAX_TOKENS, getattr(model.config, "max_position_embeddings", MAX_TOKENS))
    length = encoded["input_ids"].shape[1]
    if length > limit:
        return None
    longest = min(2 * length + 10, limit)
    with torch.inference_mode():
        output_1T = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            num_beams=BEAMS,
            do_sample=False,
            max_length=longest,
        )
    if output_1T.shape[1] == longest:  # no end token: the output was cut off
        return None
    translation: str = tokenizer.decode(output_1T[0], skip_special_tokens=True)
    return translation.strip() or None
