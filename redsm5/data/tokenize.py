"""The tokenizer of an encoder; for `tiny`, one whose vocabulary is built from the training posts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from redsm5 import hub
from redsm5.config import Config
from redsm5.data import cache
from redsm5.data.posts import Post
from redsm5.engine.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_SIZE = 2000
# At most so many characters of the training posts, besides a-z and 0-9, are in the vocabulary: posts full of emoji or
# of another script leave room for words.
ALPHABET_SIZE = 150


def tokenizer_of(config: Config, train_posts: Sequence[Post]) -> "PreTrainedTokenizerFast":
    """The tokenizer of the configuration's model; raises as `build_tokenizer` does."""
    pairs = config.model.input_format == "binary_pairs"
    descriptions = config.symptoms.values() if pairs else ()
    return build_tokenizer(config.model.model_id, train_posts, config.model.revision, descriptions=descriptions)


def build_tokenizer(
    model_id: str, train_posts: Sequence[Post], revision: str | None = None, *, descriptions: Iterable[str] = ()
) -> "PreTrainedTokenizerFast":
    """The tokenizer of `model_id`; for `tiny`, one whose vocabulary is built from the training posts and contains the
    words of the descriptions.

    Raises:
        InputError: it cannot be loaded, or it does not report character offsets (only fast tokenizers do).
        HubError: the Hub does not give it.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast  # takes seconds

    if model_id == "tiny":
        return _from_posts(train_posts, descriptions)
    folder = str(hub.model_files(model_id, revision).folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the tokenizer of {model_id} cannot be loaded ({type(error).__name__})",
            where="model.model_id",
            remedy="Choose another model, or give a local folder with a fast tokenizer next to the weights.",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"{model_id} has no fast tokenizer, which is needed to map tokens to characters",
            where="model.model_id",
            remedy="Choose another encoder, or convert the tokenizer and use the local folder.",
        )
    return tokenizer


def _from_posts(posts: Sequence[Post], descriptions: Iterable[str]) -> "PreTrainedTokenizerFast":
    """WordPiece over the most frequent words and, for all others, single characters; taken from the cache if it was
    made before.
    """
    from transformers import PreTrainedTokenizerFast

    texts, descriptions = [post.text for post in posts], list(descriptions)
    key = cache.key("tokenizer", texts, descriptions)
    found = cache.find(key)
    content = bytes(found) if found else _trained(texts, descriptions).to_str().encode()
    if not found:
        cache.keep(key, content)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(content.decode()),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def _trained(texts: Iterable[str], descriptions: Iterable[str]) -> Tokenizer:
    """Train a WordPiece vocabulary. The tokenizers library's own trainer is not used: its result differs between
    processes (it iterates over hash maps), so a resumed trial would get other tokens.
    """
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()

    def words_of(texts: Iterable[str]) -> Counter[str]:
        words = Counter[str]()
        for text in texts:
            words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)))
        return words

    words = words_of(texts)
    characters = Counter[str]()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    alphabet = dict.fromkeys([*ascii_lowercase, *digits, *_most_frequent(characters)[:ALPHABET_SIZE]])
    pieces = [*SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in alphabet)]
    pieces += [*_most_frequent(words_of(descriptions)), *_most_frequent(words)]
    vocabulary = list(dict.fromkeys(pieces))[:VOCABULARY_SIZE]

    tokenizer = Tokenizer(
        models.WordPiece(vocab={piece: index for index, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    cls, sep = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _most_frequent(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda item: (-counts[item], item))
