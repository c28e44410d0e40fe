"""Reads ReDSM5's two CSV files and checks every row.

Harmless deviations are accepted (byte order mark, CRLF, additional columns, spaces around ids, repeated rows).
Everything else is an InputError that names file, line, value and remedy. No message contains a post's text: a value is
quoted only if it has the form that its column requires, since rows may be shifted and columns swapped.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from redsm5.data.align import Alignment, By, align
from redsm5.data.csvfile import Place, Row, rows, stream
from redsm5.data.posts import SYMPTOMS, Corpus, Post, Span
from redsm5.engine.errors import InputError, closest

POSTS_FILE = "redsm5_posts.csv"
ANNOTATIONS_FILE = "redsm5_annotations.csv"
POSTS_COLUMNS = ("post_id", "text")
ANNOTATIONS_COLUMNS = ("post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status")  # explanation is not used
SPECIAL_CASE = "SPECIAL_CASE"

_STATUSES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}  # pandas writes integers as floats if a column held a NaN
_STATUS_FORM = r"[-+]?\d{1,4}([.,]\d{1,4})?|yes|no|y|n|true|false|present|absent|positive|negative|"
_MISSING = ("nan", "null", "none", "<na>", "n/a")
_COUNTS = (
    "posts",
    "posts_without_symptom",
    "annotations",
    "duplicate_annotations",
    "special_case",
    "contradictions",
    "evidence",
    "aligned_exact",
    "aligned_normalized",
    "aligned_fuzzy",
    "unaligned",
    "hard_negatives",
    "hard_negatives_unaligned",
)

# (sentence, symptom) -> the statuses given to it
_Judgements = dict[tuple[str, int], set[int]]


def read_corpus(folder: Path, alignment: By = "words") -> Corpus:
    """Read `folder`/redsm5_posts.csv and `folder`/redsm5_annotations.csv.

    A post has a symptom if any of its sentences has status 1 for that symptom, aligned or not. The counts are: posts,
    posts_without_symptom; annotations (rows), duplicate_annotations (rows that repeat another one), special_case (rows;
    no criterion); contradictions (a sentence with both statuses for one symptom: taken as present); evidence (distinct
    sentence and symptom with status 1) = aligned_exact + aligned_normalized + aligned_fuzzy + unaligned; hard_negatives
    (the same with status 0), of which hard_negatives_unaligned.

    Args:
        alignment: data.alignment, as `align` has it.

    Raises:
        InputError: a file is missing or malformed, or the two do not fit together.
    """
    if not folder.is_dir():
        raise InputError(
            "the data folder does not exist",
            where=str(folder),
            remedy=f"Set data.dir to the folder with {POSTS_FILE} and {ANNOTATIONS_FILE}.",
        )
    posts, annotations = folder / POSTS_FILE, folder / ANNOTATIONS_FILE
    return corpus_of(rows(posts, POSTS_COLUMNS), rows(annotations, ANNOTATIONS_COLUMNS), posts, alignment)


def corpus_of(post_rows: Iterable[Row], annotation_rows: Iterable[Row], table: Path, alignment: By) -> Corpus:
    """Build the corpus, as `read_corpus` does, from the rows of posts and annotations; `table` is the file of the
    posts.

    Raises:
        InputError: a row is malformed, or the two do not fit together.
    """
    texts = _read_posts(post_rows, table)
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    judgements = _read_annotations(annotation_rows, texts, counts, table.name)
    posts = tuple(
        _make_post(post_id, texts[post_id], judgements[post_id], counts, alignment) for post_id in sorted(texts)
    )
    counts["posts"] = len(posts)
    counts["posts_without_symptom"] = sum(not any(post.labels) for post in posts)
    return Corpus(posts, dict(counts))


def stream_posts(source: BinaryIO, path: Path) -> Iterator[tuple[str, str] | InputError]:
    """The (post_id, text) of each row of a posts file of any size, or of a pipe, in constant memory; in the place of a
    malformed row its error, which names the line. That a post_id occurs twice is not noticed.

    Args:
        source: from its beginning. path: its name, for messages.

    Raises:
        InputError: it is no CSV file, or lacks a column.
    """
    for record in stream(source, path, POSTS_COLUMNS):
        if isinstance(record, InputError):
            yield record
            continue
        place, row = record
        try:
            post_id = _required(row, "post_id", place)
            _required(row, "text", place)
        except InputError as error:
            yield error
        else:
            yield post_id, row["text"]


def _read_posts(records: Iterable[Row], table: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    places: dict[str, Place] = {}
    for place, row in records:
        post_id = _required(row, "post_id", place)
        if post_id in texts:
            shown = ascii(post_id) if _is_id(post_id) and not _is_id(row["text"]) else _unshown(post_id)
            first = places[post_id]
            raise InputError(
                f"post_id {shown} occurs twice, first in {first.within() if first.path == place.path else first}",
                where=str(place),
                remedy="Remove one of the two rows.",
            )
        _required(row, "text", place)
        texts[post_id], places[post_id] = row["text"], place  # not stripped: offsets refer to the original text
    if not texts:
        raise InputError("the file has no posts", where=str(table), remedy="Export the data set again.")
    return texts


def _read_annotations(
    records: Iterable[Row], texts: dict[str, str], counts: Counter[str], table: str
) -> defaultdict[str, _Judgements]:
    judgements: defaultdict[str, _Judgements] = defaultdict(dict)
    seen: set[tuple[str, ...]] = set()
    for place, row in records:
        post_id = _required(row, "post_id", place)
        sentence = _required(row, "sentence_text", place)
        if post_id not in texts:
            raise _unknown_post(post_id, texts, str(place), table)
        symptom, status = _symptom(row, texts[post_id], place), _status(row, place)
        counts["annotations"] += 1
        key = (post_id, row["sentence_id"].strip(), sentence, symptom, str(status))
        if key in seen:
            counts["duplicate_annotations"] += 1
        elif symptom == SPECIAL_CASE:
            counts["special_case"] += 1
        else:
            judgements[post_id].setdefault((sentence, SYMPTOMS.index(symptom)), set()).add(status)
        seen.add(key)
    return judgements


def _make_post(post_id: str, text: str, judgements: _Judgements, counts: Counter[str], by: By) -> Post:
    labels = [0] * len(SYMPTOMS)
    evidence, negatives = set[Span](), set[Span]()
    found: dict[str, Alignment | None] = {}  # a sentence with two symptoms is looked for once
    for (sentence, symptom), statuses in judgements.items():
        if sentence not in found:
            found[sentence] = align(sentence, text, by=by)
        alignment = found[sentence]
        if 1 in statuses:
            labels[symptom] = 1
            counts["evidence"] += 1
            counts["contradictions"] += 0 in statuses
            counts[f"aligned_{alignment.method}" if alignment else "unaligned"] += 1
        else:
            counts["hard_negatives"] += 1
            counts["hard_negatives_unaligned"] += alignment is None
        if alignment:
            (evidence if 1 in statuses else negatives).add(Span(symptom, alignment.start, alignment.end))
    return Post(post_id, text, tuple(labels), _in_order(evidence), _in_order(negatives))


def _in_order(spans: set[Span]) -> tuple[Span, ...]:
    return tuple(sorted(spans, key=lambda span: (span.start, span.end, span.symptom)))


def _symptom(row: dict[str, str], text: str, place: Place) -> str:
    value = _required(row, "DSM5_symptom", place)
    known = (*SYMPTOMS, SPECIAL_CASE)
    if (name := value.upper()) in known:
        return name
    near = closest(name, known)
    like_a_label = near or re.fullmatch(r"[A-Z0-9]{1,20}(_[A-Z0-9]{1,20}){1,3}", value)
    of_the_post = any(value.casefold() in words.casefold() for words in (text, row["sentence_text"]))
    raise InputError(
        f"unknown DSM5_symptom {ascii(value) if like_a_label and not of_the_post else _unshown(value)}",
        where=str(place),
        remedy=(f"Did you mean {near}? " if near else "") + f"Known are {', '.join(SYMPTOMS)} and {SPECIAL_CASE}.",
    )


def _status(row: dict[str, str], place: Place) -> int:
    value = row["status"].strip()
    if value not in _STATUSES:
        raise InputError(
            f"unknown status {ascii(value) if re.fullmatch(_STATUS_FORM, value.casefold()) else _unshown(value)}",
            where=str(place),
            remedy="Use 1 (symptom present) or 0 (checked and absent).",
        )
    return _STATUSES[value]


def _required(row: dict[str, str], column: str, place: Place) -> str:
    value = row[column].strip()
    if not value or value.casefold() in _MISSING:
        raise InputError(
            f"{column} is empty" if not value else f"{column} is a placeholder for a missing value",
            where=str(place),
            remedy=f"Fill in {column}, or remove the row."
            + (f" Placeholders for a missing value: {', '.join(_MISSING)}." if value else ""),
        )
    return value


# ---------------------------------------------------------------------------------------------------------------------
# ids in messages


def _unknown_post(post_id: str, known: Iterable[str], where: str, table: str) -> InputError:
    """The error for an annotation without its post; with the id that was probably meant, both escaped."""
    ids = [other for other in known if " " not in other and _is_id(_bare(other))]
    shown = _unshown(post_id)
    if " " not in post_id and _is_id(_bare(post_id)):
        near = next((other for other in ids if _bare(other) == _bare(post_id)), None)
        if near is not None:
            return InputError(
                f"post_id {post_id!a} is not in {table}; nearest: {near!a}",
                where=where,
                remedy="Use the same spelling: zeros, case, quotes and invisible characters count.",
            )
        if _is_id(post_id) and _shape(post_id) in map(_shape, ids):
            shown = ascii(post_id)
    return InputError(
        f"post_id {shown} is not in {table}",
        where=where,
        remedy="Use the two files of the same release, or remove the row.",
    )


def _bare(post_id: str) -> str:
    """An id without the usual changes by spreadsheets and copying: invisible characters, quotes, case, zeros before a
    number and `.0` after it.
    """
    text = unicodedata.normalize("NFKC", post_id)
    text = "".join(c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))
    text = re.sub(r"\.0+$", "", text.strip("'\"`‘’“”").casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _is_id(value: str) -> bool:
    """Whether a value looks like an id and not like text."""
    return re.fullmatch(r"\S{1,40}", value) is not None and (len(value) == 1 or any(c.isdigit() for c in value))


def _shape(post_id: str) -> str:
    """The pattern of an id, which the ids of one data set share: `a_0_0` for s_1270_9."""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", post_id))


def _unshown(value: str) -> str:
    """A description for messages of a value that may be a post's text, without the text."""
    return f"({len(value)} characters, not shown)" if value else "''"
