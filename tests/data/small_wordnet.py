"""A WordNet of a few words in the format of the real one (wndb(5WN)), so that tests of synonyms need no download."""

from redsm5.data import wordnet

SYNSETS = (
    ("a", ("tired", "weary", "worn_out")),
    ("v", ("tire", "fatigue", "Pall")),
    ("n", ("sleep", "slumber", "24-hour_rest")),
    ("n", ("morning", "forenoon")),
    ("n", ("iodine", "I")),
    ("r", ("really", "truly")),
)
NAMES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}


def write_wordnet(folder):
    """The folder gets the index and data files of the four parts of speech, and empty lists of exceptions."""
    folder.mkdir(parents=True)
    for pos, name in NAMES.items():
        data, index = "  1 a line of the licence\n", {}
        for _, words in (synset for synset in SYNSETS if synset[0] == pos):
            for word in words:
                index[word.lower()] = len(data)
            lemmas = " ".join(f"{word} 0" for word in words)
            frames = " 00" if pos == "v" else ""
            data += f"{len(data):08} 00 {pos} {len(words):02x} {lemmas} 000{frames} | a gloss  \n"
        (folder / f"data.{name}").write_text(data)
        (folder / f"index.{name}").write_text(
            "".join(f"{word} {pos} 1 0 1 0 {offset:08}  \n" for word, offset in sorted(index.items()))
        )
        (folder / f"{name}.exc").write_text("")


def forget():
    """The next synonym is looked up in the WordNet that is found then."""
    wordnet._reader.cache_clear()
    wordnet.synonyms.cache_clear()
