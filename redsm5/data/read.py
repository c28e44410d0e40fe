"""Reads ReDSM5's two CSV files and checks every row of them.

What is harmless is accepted (byte order mark, CRLF, additional columns, spaces around ids, repeated rows); all else is
an InputError that names file, line, value and remedy. No message ever holds a post's text.
"""

import codecs
import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from rapidfuzz import process

from redsm5.data.align import Alignment, align
from redsm5.data.posts import SYMPTOMS, Corpus, Post, Span
from redsm5.errors import InputError

POSTS_FILE = "redsm5_posts.csv"
ANNOTATIONS_FILE = "redsm5_annotations.csv"
POSTS_COLUMNS = ("post_id", "text")
ANNOTATIONS_COLUMNS = ("post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status")  # explanation is not used
SPECIAL_CASE = "SPECIAL_CASE"

_STATUSES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}  # pandas writes integers as floats once a column held a NaN
_MISSING = {"", "nan", "null", "none", "<na>", "n/a"}
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


def read_corpus(folder: Path) -> Corpus:
    """Read `folder`/redsm5_posts.csv and `folder`/redsm5_annotations.csv.

    A post has a symptom if any sentence of it has status 1 for that symptom, aligned or not. The counts are:
    posts, posts_without_symptom; annotations (rows), duplicate_annotations (rows that repeat another one), special_case
    (rows; no criterion); contradictions (a sentence with both statuses for one symptom: taken as present); evidence
    (distinct sentence and symptom with status 1) = aligned_exact + aligned_normalized + aligned_fuzzy + unaligned;
    hard_negatives (the same with status 0), of which hard_negatives_unaligned.

    Raises:
        InputError: a file is missing or malformed, or the two do not fit together.
    """
    if not folder.is_dir():
        raise InputError(
            "the data folder does not exist",
            where=str(folder),
            remedy=f"Set data.dir to the folder with {POSTS_FILE} and {ANNOTATIONS_FILE}.",
        )
    texts = _read_posts(folder / POSTS_FILE)
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    judgements = _read_annotations(folder / ANNOTATIONS_FILE, texts, counts)
    posts = tuple(_make_post(post_id, texts[post_id], judgements[post_id], counts) for post_id in sorted(texts))
    counts["posts"] = len(posts)
    counts["posts_without_symptom"] = sum(not any(post.labels) for post in posts)
    return Corpus(posts, dict(counts))


def _read_posts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(path, POSTS_COLUMNS):
        post_id = _required(row, "post_id", path, line)
        if post_id in texts:
            raise InputError(
                f"post_id {_shown(post_id)} occurs twice, first in line {lines[post_id]}",
                where=_at(path, line),
                remedy="Remove one of the two rows.",
            )
        _required(row, "text", path, line)
        texts[post_id], lines[post_id] = row["text"], line  # not stripped: offsets count from the text as it stands
    if not texts:
        raise InputError("there are no posts in the file", where=str(path), remedy="Export the data set again.")
    return texts


def _read_annotations(path: Path, texts: dict[str, str], counts: Counter[str]) -> defaultdict[str, _Judgements]:
    judgements: defaultdict[str, _Judgements] = defaultdict(dict)
    seen: set[tuple[str, ...]] = set()
    for line, row in _rows(path, ANNOTATIONS_COLUMNS):
        post_id = _required(row, "post_id", path, line)
        sentence = _required(row, "sentence_text", path, line)
        if post_id not in texts:
            raise InputError(
                f"post_id {_shown(post_id)} is not in {POSTS_FILE}",
                where=_at(path, line),
                remedy="Use the two files of the same release, or remove the row.",
            )
        symptom, status = _symptom(row, path, line), _status(row, path, line)
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


def _make_post(post_id: str, text: str, judgements: _Judgements, counts: Counter[str]) -> Post:
    labels = [0] * len(SYMPTOMS)
    evidence, negatives = set[Span](), set[Span]()
    found: dict[str, Alignment | None] = {}  # a sentence with two symptoms is looked for once
    for (sentence, symptom), statuses in judgements.items():
        if sentence not in found:
            found[sentence] = align(sentence, text)
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


def _symptom(row: dict[str, str], path: Path, line: int) -> str:
    value = row["DSM5_symptom"].strip()
    if (name := value.upper()) in (*SYMPTOMS, SPECIAL_CASE):
        return name
    nearest = process.extractOne(name, (*SYMPTOMS, SPECIAL_CASE))[0]
    raise InputError(
        f"unknown DSM5_symptom {_shown(value)}",
        where=_at(path, line),
        remedy=f"Did you mean {nearest}? Known are {', '.join(SYMPTOMS)} and {SPECIAL_CASE}.",
    )


def _status(row: dict[str, str], path: Path, line: int) -> int:
    value = row["status"].strip()
    if value not in _STATUSES:
        raise InputError(
            f"unknown status {_shown(value)}",
            where=_at(path, line),
            remedy="Use 1 (symptom present) or 0 (looked at and absent).",
        )
    return _STATUSES[value]


def _required(row: dict[str, str], column: str, path: Path, line: int) -> str:
    value = row[column].strip()
    if value.casefold() in _MISSING:
        raise InputError(
            f"{column} is empty" if not value else f"{column} is {value}, which stands for a missing value",
            where=_at(path, line),
            remedy=f"Fill in {column}, or remove the row.",
        )
    return value


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The records of a CSV file, each with the line on which it begins; blank ones are left out."""
    csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is less than a long post
    reader = csv.reader(io.StringIO(_decode(path), newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            raise InputError(
                "a quote opened in this record is never closed" if unclosed else "text follows a closing quote",
                where=_at(path, line),
                remedy='Enclose the field in quotes and double the quotes within it: "she said ""no""".',
            ) from None
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = [cell.strip() for cell in row]
            _check_header(header, columns, path, line)
        elif len(row) != len(header):
            raise InputError(
                f"the record has {len(row)} fields, the header has {len(header)}",
                where=_at(path, line),
                remedy="Enclose fields that contain commas, quotes or line breaks in quotes.",
            )
        else:
            yield line, dict(zip(header, row, strict=True))
    if header is None:
        raise InputError("the file is empty", where=str(path), remedy=f"It needs the columns {', '.join(columns)}.")


def _check_header(header: list[str], columns: tuple[str, ...], path: Path, line: int) -> None:
    # The columns that are there stay unnamed: in a file without a header they would be a post.
    for column in columns:
        if header.count(column) != 1:
            raise InputError(
                f"column {column} " + ("occurs twice" if column in header else "is missing"),
                where=_at(path, line),
                remedy=f"The first line must name the columns {', '.join(columns)}.",
            )


def _decode(path: Path) -> str:
    """The file's text with line breaks as \\n; a byte order mark is dropped, since Excel writes one."""
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path), remedy="Put both CSV files into data.dir.") from None
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror}", where=str(path), remedy="Check its permissions."
        ) from None
    try:
        text = data.decode()
        broken = data.find(b"\0")
        fault = "a NUL byte"
    except UnicodeDecodeError as error:
        text, broken, fault = "", error.start, f"byte 0x{data[error.start]:02x} is not UTF-8"
    if broken >= 0:
        line = len((data[:broken] + b"x").splitlines())
        raise InputError(fault, where=_at(path, line), remedy="Save the file as UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _at(path: Path, line: int) -> str:
    return f"{path}, line {line}"


def _shown(value: str) -> str:
    """A value as a message may show it: what looks like a sentence (columns swapped) may be a post's."""
    return repr(value) if re.fullmatch(r"\S{0,40}( \S{1,20}){0,2}", value) else f"({len(value)} characters, not shown)"
