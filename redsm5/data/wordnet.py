"""Synonyms from WordNet (Miller 1995), read by NLTK from Debian's wordnet-base or from NLTK's own data.

Checking whether WordNet is installed reads no data and, with Debian's package, imports nothing. The first synonym takes
seconds and about 200 MB of memory; repeated words are cached.
"""

import io
import warnings
from functools import cache
from pathlib import Path
from typing import Any

SYSTEM_FOLDER = Path("/usr/share/wordnet")  # from the package wordnet-base of Debian and Ubuntu
# The files that the reader needs; NLTK's own data has these and `lexnames`.
FILES = tuple(f"{part}.{pos}" for pos in ("noun", "verb", "adj", "adv") for part in ("index", "data"))
LEXICOGRAPHER_FILES = 45  # lexnames(5WN)


def find() -> Any:
    """The location of WordNet: a folder, or an NLTK path pointer; None if it is not on this machine."""
    if all((SYSTEM_FOLDER / name).is_file() for name in FILES):
        return str(SYSTEM_FOLDER)
    import nltk  # takes a second

    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            return nltk.data.find(name)
        except LookupError:
            continue
    return None


@cache
def synonyms(word: str) -> tuple[str, ...]:
    """The single words that share a sense with `word` or with its base form, in WordNet's order and case.

    All senses of all parts of speech count, as in EDA (Wei & Zou 2019). The word itself in another case and its base
    form are left out. Empty for words that are not in WordNet, for stop words, which it has in another meaning (I:
    iodine), and for numbers (42: XLII).

    Raises:
        LookupError: WordNet is not on this machine.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    word = word.lower()
    if word in ENGLISH_STOP_WORDS or not word.isalpha():
        return ()
    wordnet = _reader()
    same = {word, *(wordnet.morphy(word, pos) for pos in "nvar")}
    names = dict.fromkeys(name for synset in wordnet.synsets(word) for name in synset.lemma_names())
    return tuple(name for name in names if name.isalpha() and name.lower() not in same)


@cache
def _reader() -> Any:
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):  # type: ignore[misc]
        """A WordNet reader without two files that Debian's package lacks and that synonyms do not need."""

        def open(self, file: str) -> Any:
            if file == "lexnames":  # names of the lexicographer files: only their number matters here
                return io.StringIO("".join(f"{number:02} unnamed 0\n" for number in range(LEXICOGRAPHER_FILES)))
            return super().open(file)

        def map_wn(self, version: str = "wordnet") -> None:
            """Skip the map to the senses of other versions: only other languages need it, and it needs index.sense."""

    root = find()
    if root is None:
        raise LookupError("WordNet is not on this machine")
    if root == str(SYSTEM_FOLDER) and root not in nltk.data.path:
        nltk.data.path.append(root)  # NLTK opens only files in its paths
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions are not available")
        return Reader(root, None)
