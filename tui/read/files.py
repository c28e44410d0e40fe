"""Reads files that others write, perhaps maliciously: bounded, never blocking, never raising for their content.

A file may be missing, half written, replaced, not a regular file, or endless. A file that cannot be read is marked, and
keeps the content that was read last. An unchanged file is not read again.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from redsm5.engine.documents import Document, Record, parse
from redsm5.engine.files import open_regular
from redsm5.engine.jsonio import loads

MAX_INDEX = 1 << 28  # bytes: one of 100,000 trials is 80 MB
MAX_TAIL = 1 << 24  # bytes: the longest other document; of a longer JSON Lines file only the end is read
MAX_OBJECT = 1 << 20  # bytes: far larger than any configuration
MAX_LINE = 1 << 16  # bytes: far longer than any line of redsm5
LARGEST = 1 << 62  # far larger than any count

R = TypeVar("R", bound=Document)
Signature = tuple[int, int, int]


class Documents:
    """JSON documents by path. `unreadable` holds those that exist but are not valid."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature | None, Document | None]] = {}
        self.unreadable: set[Path] = set()

    def get(self, path: Path, kind: type[R], most: int = MAX_TAIL) -> R | None:
        """A document of at most `most` bytes; its last valid version if it cannot be read; None if it is missing."""
        known = self._known.get(path)
        try:
            status = path.stat()
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known is None or known[0] != signature:
                known = (signature, self._read(path, kind, most) or (known[1] if known else None))
                # Not reached if it could not be opened: permissions may be fixed without a change of the file.
                self._known[path] = known
        except (FileNotFoundError, NotADirectoryError):
            self._known.pop(path, None)
            self.unreadable.discard(path)
            return None
        except (OSError, ValueError):
            self.unreadable.add(path)
        return known[1] if known and isinstance(known[1], kind) else None

    def forget(self, path: Path) -> None:
        self._known.pop(path, None)

    def _read(self, path: Path, kind: type[R], most: int) -> R | None:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(most) if size <= most else b""  # which is invalid, too
        try:
            document = parse(content, kind)
            if not plausible(document):
                raise ValueError("numbers without measure")
        except (ValueError, RecursionError, MemoryError):
            self.unreadable.add(path)
            return None
        self.unreadable.discard(path)
        return document


def plausible(record: Record) -> bool:
    """Whether all integers in it are plausible counts: arithmetic with huge ones would fail."""
    return all(
        plausible(v) if isinstance(v, Record) else not isinstance(v, int) or -LARGEST < v < LARGEST
        for v in record.__dict__.values()
    )


class Lines:
    """Follows a file of JSON lines: each look returns the complete lines since the last one.

    A truncated or replaced file is read again from its start, and `restarted` is True. Of a file longer than MAX_TAIL
    only the end is read, and `cut` is True.
    """

    def __init__(self, path: Path, tail: int = MAX_TAIL) -> None:
        self.path, self._most = path, tail
        self._at, self._inode = 0, 0
        self.restarted = self.cut = self.failed = False

    def look(self) -> list[bytes]:
        self.restarted = self.failed = False
        try:
            status = self.path.stat()
            if status.st_ino == self._inode and status.st_size == self._at:
                return []
            with open_regular(self.path) as file:
                return self._read(file, os.fstat(file.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            self.restarted, self._at, self._inode = self._at > 0, 0, 0
        except OSError:
            self.failed = True
        return []

    def _read(self, file: IO[bytes], status: os.stat_result) -> list[bytes]:
        if status.st_ino != self._inode or status.st_size < self._at:
            self.restarted, self._at, self._inode, self.cut = self._at > 0, 0, status.st_ino, False
        behind = status.st_size - self._at > self._most
        start = status.st_size - self._most if behind else self._at
        file.seek(start)
        content = file.read(self._most)
        end = content.rfind(b"\n") + 1
        if behind:
            self.cut = True
        self._at = start + end
        lines = content[:end].split(b"\n")
        return [line for line in lines[1 if behind else 0 :] if line and len(line) <= MAX_LINE]


def records(lines: Iterable[bytes], kind: type[R]) -> Iterator[R]:
    """The lines that are valid records of this kind; others are skipped."""
    for line in lines:
        try:
            record = parse(line, kind)
        except (ValueError, RecursionError):
            continue
        if plausible(record):
            yield record


def read_object(path: Path) -> dict[str, Any] | None:
    """Any JSON object; None if the file is missing or unreadable."""
    try:
        with open_regular(path) as file:
            document = loads(file.read(MAX_OBJECT))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
