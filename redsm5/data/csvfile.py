"""Reads the records of a CSV file, separated by commas, semicolons, tabs or bars, with or without Excel's `sep=` line.

A file that is not CSV (a workbook, an archive, a web page, a Git LFS pointer, another encoding) is an InputError that
says what it is and what to do. No message quotes a field or a header: without a header line, the first line is a post.
"""

import codecs
import csv
import io
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from redsm5.engine.errors import InputError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MAX_FIELD = 1 << 24  # characters of a field that is streamed: one whose quote is never closed must not fill the memory
HEAD = 1 << 16  # bytes by which a stream is recognized
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, by Python's error handler surrogateescape
_EXPORT = "Open it with the program that made it and save it as CSV UTF-8."

# The first bytes of a file, its kind, and the remedy; {path} and {folder} are quoted for a shell.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "an Excel workbook (.xlsx) or another zip archive", "Save it as CSV UTF-8 in Excel, or unpack it."),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", "Save it as CSV UTF-8 in Excel."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it: mv {path} {path}.gz && gunzip {path}.gz"),
    (b"BZh", "compressed with bzip2", "Unpack it: mv {path} {path}.bz2 && bunzip2 {path}.bz2"),
    (b"\xfd7zXZ\0", "compressed with xz", "Unpack it: mv {path} {path}.xz && unxz {path}.xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Unpack it: mv {path} {path}.zst && unzstd {path}.zst"),
    (b"PAR1", "a Parquet file", "Write its table as CSV UTF-8."),
    (b"%PDF", "a PDF document", _EXPORT),
    (b"version https://git-lfs", "a pointer of Git LFS", "Get the file itself: git -C {folder} lfs pull"),
)
_CONVERT = "Convert it: iconv -f {encoding} -t UTF-8 {path} > {path}.utf8 && mv {path}.utf8 {path}"


class Place(NamedTuple):
    """The place of a record, for messages: `number` is the line on which it begins, or the row."""

    path: Path
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.path}, {self.within()}"

    def within(self) -> str:
        """The place without the file."""
        return f"{self.unit} {self.number}"


Row = tuple[Place, dict[str, str]]


def rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """The records, each with the line on which it begins; blank ones are skipped.

    Raises:
        InputError: the file is missing or no CSV file, lacks one of these columns, or a record is malformed.
    """
    csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, is less than a long post
    text, separator = _opened(_decode(path), columns)
    for record in _records(io.StringIO(text, newline=""), separator, columns, path):
        if isinstance(record, InputError):
            raise record
        yield record


def stream(source: BinaryIO, path: Path, columns: Sequence[str]) -> Iterator[Row | InputError]:
    """The records of a CSV file of any size, read in constant memory; in the place of a malformed one its error.

    A record with a byte that is not UTF-8, or with a NUL, is malformed, and so is a field of more than MAX_FIELD
    characters.

    Args:
        source: the file, or a pipe, from its beginning.
        path: its name, for messages.

    Raises:
        InputError: it is no CSV file, or lacks one of these columns.
    """
    csv.field_size_limit(MAX_FIELD)
    head = source.read(HEAD).removeprefix(codecs.BOM_UTF8)
    _refuse_foreign(head, path)
    joined = io.BufferedReader(_Joined(head, source))
    text = io.TextIOWrapper(joined, encoding="utf-8", errors="surrogateescape", newline=None)
    lines = iter(lambda: text.readline(MAX_FIELD), "")
    first = list(_up_to_header(lines))
    opened, separator = _opened("".join(first), columns)
    for record in _records(chain(io.StringIO(opened, newline=""), lines), separator, columns, path):
        yield record if isinstance(record, InputError) else _readable(record)


def _up_to_header(lines: Iterator[str]) -> Iterator[str]:
    """Lines up to the second that is not blank: the first may be Excel's `sep=`."""
    found = 0
    for line in lines:
        yield line
        found += bool(line.strip())
        if found == 2:
            return


def _readable(record: Row) -> Row | InputError:
    """The record, or its error if a byte was not UTF-8, or is NUL."""
    place, row = record
    text = "".join(row.values())
    if "\0" in text:
        return InputError("a NUL byte", where=str(place), remedy="Remove it.")
    if wrong := _ESCAPED.search(text):
        what = f"byte 0x{ord(wrong[0]) - 0xDC00:02x} is not UTF-8"
        return InputError(what, where=str(place), remedy="Save the file as UTF-8.")
    return record


class _Joined(io.RawIOBase):
    """A file from its beginning, of which `head` was read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


def _records(lines: Iterable[str], separator: str, columns: Sequence[str], path: Path) -> Iterator[Row | InputError]:
    """The records of lines that end with \\n; in the place of a malformed one its error.

    Raises:
        InputError: the header lacks a column, or there is none.
    """
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            malformed = _malformed(str(error), Place(path, line))
            if header is None:
                raise malformed from None
            yield malformed
            continue
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = [cell.strip() for cell in row]
            _check_header(header, columns, path, line)
        elif len(row) != len(header):
            yield InputError(
                f"the record has {len(row)} fields, the header has {len(header)}",
                where=str(Place(path, line)),
                remedy=f"Enclose fields that contain {SEPARATORS.get(separator, 'the separator')}, quotes or line "
                "breaks in quotes.",
            )
        else:
            yield Place(path, line), dict(zip(header, row, strict=True))
    if header is None:
        raise InputError("the file is empty", where=str(path), remedy=f"It must have the columns {', '.join(columns)}.")


def _malformed(error: str, place: Place) -> InputError:
    """The error for what the csv module refuses."""
    quote = 'Enclose the field in quotes and double the quotes within it: "she said ""no""".'
    if "unexpected end of data" in error:
        return InputError("a quote opened in this record is never closed", where=str(place), remedy=quote)
    if "field limit" in error:
        what = f"a field has more than {csv.field_size_limit()} characters, or a quote in it is never closed"
        return InputError(what, where=str(place), remedy=quote)
    return InputError("text follows a closing quote", where=str(place), remedy=quote)


def _opened(text: str, columns: Sequence[str]) -> tuple[str, str]:
    """The text, with Excel's `sep=` line blanked, and the delimiter: the one with which the header has the columns;
    else the declared one, else a comma.
    """
    declared = re.match(r'\s*?"?sep=([^\w\s"]|\t)"?[^\S\n]*(\n|$)', text, re.IGNORECASE)
    if declared:
        text = "\n" * declared[0].count("\n") + text[declared.end() :]
    first = next((line[0] for line in re.finditer(r"[^\n]+", text) if line[0].strip()), "")
    separators = [declared[1], *SEPARATORS] if declared else list(SEPARATORS)
    for separator in separators:
        header = next(csv.reader([first], delimiter=separator), [])
        if {*columns} <= {cell.strip() for cell in header}:
            return text, separator
    return text, separators[0]


def _check_header(header: list[str], columns: Sequence[str], path: Path, line: int) -> None:
    # The message does not quote the columns found: in a file without a header they would be a post.
    for column in columns:
        if header.count(column) != 1:
            raise InputError(
                f"column {column} " + ("occurs twice" if column in header else "is missing"),
                where=str(Place(path, line)),
                remedy=f"The first line must name the columns {', '.join(columns)}, separated by "
                "commas, semicolons, tabs or bars.",
            )


def _decode(path: Path) -> str:
    """The file's text with line breaks as \\n; a byte order mark, as Excel writes it, is dropped."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe may block
            raise InputError("it is not a regular file", where=str(path), remedy="Put the CSV file itself there.")
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError:
        raise InputError("the file is missing", where=str(path), remedy="Put both CSV files into data.dir.") from None
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror}", where=str(path), remedy="Check its permissions."
        ) from None
    _refuse_foreign(data, path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = _line_of(data, error.start)
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise InputError(what, where=str(Place(path, line)), remedy="Save the file as UTF-8.") from None
    if (nul := data.find(b"\0")) >= 0:
        raise InputError(
            "a NUL byte",
            where=str(Place(path, _line_of(data, nul))),
            remedy=_command("Remove it: tr -d '\\000' < {path} > {path}.new && mv {path}.new {path}", path),
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _refuse_foreign(data: bytes, path: Path) -> None:
    """Refuse a file that is not CSV, or is CSV in UTF-16 or UTF-32, by its first bytes."""
    what, remedy = next(((what, remedy) for magic, what, remedy in _FOREIGN if data.startswith(magic)), ("", ""))
    first = data[:1000].lstrip()[:1]
    if encoding := _wide_encoding(data):
        what, remedy = f"in {encoding}", _CONVERT.replace("{encoding}", encoding)
    elif data and not data.strip(b"\0"):
        what, remedy = "nothing but NUL bytes", "Its content is lost: copy or export it again."
    elif first == b"<":
        what, remedy = "an HTML or XML page, such as a login page", "Download the file itself."
    elif first in (b"{", b"["):
        what, remedy = "JSON, such as a server's response", "Download the file itself, or write its table as CSV UTF-8."
    if what:
        raise InputError(f"the file is {what}, not CSV text in UTF-8", where=str(path), remedy=_command(remedy, path))


def _wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32, if the bytes start with its byte order mark, or if about every other byte is NUL."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    even, odd = data[:1000:2], data[1:1000:2]
    for zeros, others, name in ((odd, even, "UTF-16LE"), (even, odd, "UTF-16BE")):
        if len(zeros) > 1 and zeros.count(0) > 0.8 * len(zeros) and others.count(0) < 0.2 * len(others):
            return name
    return None


def _line_of(data: bytes, position: int) -> int:
    return len((data[:position] + b"x").splitlines())


def _command(remedy: str, path: Path) -> str:
    """A remedy whose command can be pasted into a shell, whatever the path contains."""
    return remedy.replace("{path}", shlex.quote(str(path))).replace("{folder}", shlex.quote(str(path.parent)))
