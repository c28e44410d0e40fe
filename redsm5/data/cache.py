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
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

MAX_BYTES = 1 << 30  # of all entries together
UNUSED_S = 30 * 86400.0  # what was not used for so long goes
IN_USE_S = 86400.0  # what was used since then stays, since a trial on another machine may have it mapped
SHARE_OF_FREE = 0.01  # an entry takes no more of what is free on the disk
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
    """What an entry depends on besides its parts: the code of this folder, its libraries, and Python's own tables."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(repr([platform.python_version(), *map(version, LIBRARIES)]).encode())
    return digest.hexdigest()


CODE = _code()  # as imported: a file that changes later is not what runs


def folder() -> Path:
    """Where the entries are: $REDSM5_CACHE, else redsm5 in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("REDSM5_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "redsm5"


def key(kind: str, *parts: object) -> str:
    """The key of an entry that is made from these parts, which are JSON."""
    return f"{kind}-{hashlib.sha256(json.dumps([CODE, *parts]).encode()).hexdigest()}"


def find(key: str) -> mmap.mmap | None:
    """An entry's bytes, verified: mapped into memory, so that processes share them, and private where written to."""
    with suppress(OSError, RuntimeError):  # RuntimeError: no home is known
        for path in folder().glob(f"{key}-*"):
            if content := _mapped(path):
                if hashlib.sha256(content).hexdigest() == path.name.rpartition("-")[2]:
                    with suppress(OSError):  # another's, or read-only: it can be read all the same
                        os.utime(path)  # used now
                    return content
                content.close()
            path.unlink()
    return None


def keep(key: str, content: bytes) -> None:
    """Store these bytes atomically, whoever else does so at the same time; do nothing if that is not possible."""
    with suppress(OSError, RuntimeError):
        where = folder()
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _make_room(where, len(content)):
            return
        descriptor, temporary = tempfile.mkstemp(dir=where, prefix=".")  # readable by its user alone
        try:
            with open(descriptor, "wb") as file:
                file.write(content)  # not synced: what a power failure leaves of it does not have its SHA-256
            os.rename(temporary, where / f"{key}-{hashlib.sha256(content).hexdigest()}")
        except BaseException:
            os.unlink(temporary)
            raise


def _mapped(path: Path) -> mmap.mmap | None:
    with path.open("rb") as file, suppress(ValueError):  # it is empty
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return None


def _make_room(where: Path, size: int) -> bool:
    """Remove the least recently used entries to make space for so many bytes; whether they may be written."""
    now, entries = time.time(), list[tuple[float, int, Path]]()
    for path in where.iterdir():
        with suppress(FileNotFoundError):  # another process removed it
            found = path.stat()
            entries.append((found.st_mtime, found.st_size, path))
    total = size + sum(bytes_ for _, bytes_, _ in entries)
    for used, bytes_, path in sorted(entries):
        if now - used > UNUSED_S or (total > MAX_BYTES and now - used > IN_USE_S):
            path.unlink(missing_ok=True)
            total -= bytes_
    return total <= MAX_BYTES and size <= SHARE_OF_FREE * shutil.disk_usage(where).free
