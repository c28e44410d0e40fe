"""Cache of processed posts on disk, so that trials do not align, split or tokenize the same posts again.

The key of an entry is the SHA-256 of everything that it was made from, code included, so an entry is never stale. Its
file name ends with the SHA-256 of its content; a file that does not match is deleted and rebuilt. Entries contain
posts, which are private: they are stored in the user's own cache folder, readable by that user only, and never in an
experiments folder. If the folder is not writable or the disk is full, nothing is cached, and results are the same.
"""

import hashlib
import json
import mmap
import os
import platform
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from redsm5.engine.paths import cache_dir

MAX_BYTES = 1 << 30  # of all entries together
UNUSED_S = 30 * 86400.0  # entries unused for longer are removed
IN_USE_S = 86400.0  # entries used more recently stay, since a trial on another machine may have them mapped
SHARE_OF_FREE = 0.01  # an entry takes at most this share of the free disk space
LIBRARIES = (
    "datasets",
    "iterative-stratification",
    "numpy",
    "pyarrow",
    "rapidfuzz",
    "sentencex",
    "tokenizers",
    "transformers",
)


def _code() -> str:
    """A hash of what an entry depends on besides its parts: this folder's code, its libraries, and Python (its Unicode
    tables).
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(repr([platform.python_version(), *map(version, LIBRARIES)]).encode())
    return digest.hexdigest()


CODE = _code()  # computed at import: a file that changes later is not the code that runs


def key(kind: str, *parts: object) -> str:
    """The key of an entry made from these parts, which are JSON values."""
    return f"{kind}-{hashlib.sha256(json.dumps([CODE, *parts]).encode()).hexdigest()}"


def find(key: str) -> mmap.mmap | None:
    """An entry's verified bytes, mapped into memory copy-on-write, so that processes share them."""
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        for path in cache_dir().glob(f"{key}-*"):
            if content := _mapped(path):
                if hashlib.sha256(content).hexdigest() == path.name.rpartition("-")[2]:
                    with suppress(OSError):  # another user's, or read-only: it can still be read
                        os.utime(path)  # marks it as used
                    return content
                content.close()
            path.unlink()
    return None


def keep(key: str, content: bytes) -> None:
    """Store these bytes atomically, also if other processes do so at the same time; do nothing if it cannot."""
    with suppress(OSError, RuntimeError):
        where = cache_dir()
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _make_room(where, len(content)):
            return
        descriptor, temporary = tempfile.mkstemp(dir=where, prefix=".")  # readable only by its owner
        try:
            with open(descriptor, "wb") as file:
                file.write(content)  # not synced: if a power failure truncates it, its SHA-256 does not match
            os.rename(temporary, where / f"{key}-{hashlib.sha256(content).hexdigest()}")
        except BaseException:
            os.unlink(temporary)
            raise


def _mapped(path: Path) -> mmap.mmap | None:
    with path.open("rb") as file, suppress(ValueError):  # ValueError: it is empty
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return None


def _make_room(where: Path, size: int) -> bool:
    """Remove the least recently used entries to make space for `size` bytes; return whether they may be written."""
    now, entries = time.time(), list[tuple[float, int, Path]]()
    for path in where.iterdir():
        with suppress(FileNotFoundError):  # another process removed it
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):  # no entry: the sample model
                continue
            entries.append((found.st_mtime, found.st_size, path))
    total = size + sum(bytes_ for _, bytes_, _ in entries)
    for used, bytes_, path in sorted(entries):
        if now - used > UNUSED_S or (total > MAX_BYTES and now - used > IN_USE_S):
            path.unlink(missing_ok=True)
            total -= bytes_
    return total <= MAX_BYTES and size <= SHARE_OF_FREE * shutil.disk_usage(where).free
