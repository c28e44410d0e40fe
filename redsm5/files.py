"""Files that survive a crash: atomic replacement, appended lines, locks between processes.

After `write_atomic` returns, a power failure leaves the new content; before that, it leaves the old or the new content,
never a mixture. Only regular files are read, so that a pipe cannot block us, and nothing is written or locked through a
symbolic link.
"""

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Self

from redsm5.errors import InputError, LockedError
from redsm5.jsonio import loads
from redsm5.waiting import wait_until

# What flock says where the file system has no locks: NFS without its lock service, Lustre without flock, some FUSE
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
PAGE = 4096  # bytes: what writes past the page cache must be aligned to
DIRECT_FROM = 1 << 20  # bytes: less is not worth it
MAX_LINE = 1 << 20  # bytes: no line of ours comes near it
PIECE = 1 << 20  # bytes read at once


class NotRegularError(InputError, OSError):
    """The path is not a regular file: a pipe, a device, a folder, or a link where none is allowed."""

    kind = "not_regular"
    resumable = True

    def __init__(self, path: Path, what: str = "it is not a regular file") -> None:
        super().__init__(what, where=str(path), remedy="Move it out of the experiments folder, or put the file back.")


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; a pipe or a device, which could block or never end, is refused.

    Raises:
        NotRegularError: it is none.
        OSError: it cannot be opened.
    """
    return os.fdopen(_open(path, os.O_RDONLY), "rb")


def open_own(path: Path, flags: int) -> int:
    """Open a file that we write, with mode 0600 where it is made, and never through a link.

    Raises:
        NotRegularError: there is a link, or something else that is no regular file.
    """
    return _open(path, flags | os.O_NOFOLLOW)


def _open(path: Path, flags: int) -> int:
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegularError(path, "it is a symbolic link, which is not followed") from None
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a pipe that nobody reads, a socket; a folder
            raise NotRegularError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegularError(path)
    return fd


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        NotRegularError: it is none.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return file.read()


def make_private() -> None:
    """From here on, what this process and its children create is readable by their user alone."""
    os.umask(0o077)


def fsync_dir(folder: Path) -> None:
    """Make the names in a folder durable: a created, renamed or removed entry is only then on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dir(folder: Path) -> None:
    """Create a folder, and its missing parents, durably."""
    if folder.is_dir():
        return
    make_dir(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    fsync_dir(folder.parent)


def write_durable(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Write a new file and fsync it. Its name is durable only once its folder is.

    Large contents at page-aligned addresses bypass the page cache, if the file system allows it: filling fresh cache
    pages takes several times as long as writing (1.3 GB: 0.4 s direct, 1.7 to 3.6 s through the cache), and evicts what
    the training reads.
    """
    view = memoryview(content)
    with FileIO(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        pages = len(view) // PAGE * PAGE if len(view) >= DIRECT_FROM and _begins_on_a_page(view) else 0
        if pages and _set_direct(file, True):
            try:
                _write_all(file, view[:pages])
            except OSError as error:
                if error.errno != errno.EINVAL:  # it takes larger pages only: the rest goes the other way
                    raise
            _set_direct(file, False)
        _write_all(file, view[file.tell() :])
        os.fsync(file.fileno())


def _write_all(file: FileIO, view: memoryview) -> None:
    while view:
        view = view[file.write(view) :]


def _begins_on_a_page(view: memoryview) -> bool:
    return not view.readonly and ctypes.addressof(ctypes.c_char.from_buffer(view)) % PAGE == 0


def _set_direct(file: FileIO, direct: bool) -> bool:
    """Have the writes to a file go past the page cache, or not; whether its file system does that."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return True


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file as a whole, durably. One writer at a time: its temporary file always has the same name."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write_durable(temporary, content)
    except NotRegularError:
        raise  # the existing file is not ours
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    temporary.rename(path)
    fsync_dir(path.parent)


def append_durable(path: Path, content: bytes) -> None:
    """Append lines to a file that has whole lines, durably, or nothing: what a full disk cut short is taken back.

    One writer at a time, which cut a torn tail before.
    """
    fresh = not path.exists()
    with FileIO(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise
    if fresh:
        fsync_dir(path.parent)


def cut_torn_tail(path: Path) -> int:
    """Cut what follows the last newline, which a crash left half written; return how many bytes that was."""
    try:
        file = os.fdopen(open_own(path, os.O_RDWR), "r+b")
    except FileNotFoundError:
        return 0
    with file:
        size = end = file.seek(0, os.SEEK_END)
        whole, piece = 0, 1  # most often the last byte is a newline; else from the end on: a tail may be long
        while end and not whole:
            start = max(end - piece, 0)
            file.seek(start)
            if newline := file.read(end - start).rfind(b"\n") + 1:
                whole = start + newline
            end, piece = start, PIECE
        if whole < size:
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())
        return size - whole


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where the file is missing or is none."""
    try:
        document = loads(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, NotRegularError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def whole_lines(file: BufferedReader) -> Iterator[bytes]:
    """The lines from where the file is, each with its newline, up to the last newline, however long what follows it is.

    Of a line longer than MAX_LINE, which is none of ours, the first bytes come, without a newline.
    """
    while line := file.readline(MAX_LINE):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        if rest:
            yield line


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON Lines file; a torn last one does not count.

    Raises:
        InputError: a whole line is no JSON: the file is damaged.
    """
    rows = []
    try:
        with open_regular(path) as file:
            for number, line in enumerate(whole_lines(file), 1):
                try:
                    rows.append(loads(line))
                except ValueError:
                    raise InputError(
                        f"line {number} is damaged",
                        where=str(path),
                        remedy="Restore the file from a copy, or delete the line.",
                    ) from None
    except FileNotFoundError:
        return []
    return rows


class Lock:
    """An flock on a file that is never renamed or removed; it ends with the process, however that ends.

    It is exclusive, or shared with others that ask for it so. A forked child closes its copy, or the lock would outlive
    the process that took it.

    Where the file system has no locks, a file beside it, `<name>.held`, names the process that holds it, always alone.
    It is void once that process has ended, which is seen on its own machine only.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path, self.mark = path, path.with_name(f"{path.name}.held")
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd: int | None = None
        self._marked_by: int | None = None

    @property
    def by_mark(self) -> bool:
        """Whether it is held where the file system has no locks."""
        return self._marked_by is not None

    def acquire(self, timeout_s: float = 0.0) -> bool:
        """Take the lock within `timeout_s` seconds; False where another process holds it.

        Raises:
            LockedError: the file system gives no lock now, and did before.
            NotRegularError: in its place lies a link, or something else that is no file.
        """
        make_dir(self.path.parent)
        fd = self._open()
        try:
            if not wait_until(lambda: self._take(fd), timeout=timeout_s, every=0.02):
                os.close(fd)
                return False
        except Exception:
            os.close(fd)
            raise
        self._fd = fd
        _held.add(self)
        return True

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            if self._marked_by == os.getpid():  # in a forked child it is the parent's
                self.mark.unlink(missing_ok=True)
            self._fd = self._marked_by = None
            _held.discard(self)

    def _open(self) -> int:
        """The lock's file, made where it is not there; who may not write it can still see whether others hold it."""
        try:
            return open_own(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EROFS) or not self.path.exists():
                raise
            return open_own(self.path, os.O_RDONLY)

    def _take(self, fd: int) -> bool:
        device = os.fstat(fd).st_dev
        try:
            fcntl.flock(fd, self._kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            if device in _have_locks:  # a mark would not exclude a process that holds a lock
                raise LockedError(
                    f"the file system no longer provides locks ({error.strerror})",
                    where=str(self.path),
                    remedy="Check the file server (`just doctor` tests it), and run the same command again.",
                ) from None
            return self._put_mark()
        _have_locks.add(device)
        return True

    def _put_mark(self) -> bool:
        if _has_ended(self.mark):
            self.mark.unlink(missing_ok=True)
        try:
            with self.mark.open("x") as file:
                file.write(f"{_machine()} {os.getpid()} {_started(os.getpid())}\n")
        except FileExistsError:
            return False
        self._marked_by = os.getpid()
        return True

    def __enter__(self) -> Self:
        if not self.acquire(timeout_s=60.0):
            remedy = "Wait for it to end, or stop it."
            if self.mark.exists():
                remedy += f" If its machine crashed, remove {self.mark}."
            raise LockedError(f"{self.path} is held by another process", remedy=remedy)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_held: set[Lock] = set()
_have_locks: set[int] = set()  # the devices on which flock has worked


def _machine() -> str:
    """What identifies where a process can be looked for: this machine's boot, and its PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """When a process of this machine began, in ticks since its boot; empty where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state in "ZX" else fields[18]


def _has_ended(mark: Path) -> bool:
    """Whether the process that a mark names ran on this machine and has exited."""
    try:
        machine, pid, started = mark.read_text().rsplit(maxsplit=2)
    except (FileNotFoundError, ValueError):
        return False
    return machine == _machine() and _started(int(pid)) != started


def _let_go_of_locks() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_of_locks)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Whether the lock could be taken at once; it is held for the length of the block."""
    lock = Lock(path)
    taken = lock.acquire()
    try:
        yield taken
    finally:
        lock.release()


def tree_bytes(folder: Path) -> int:
    """The sum of st_size of all files below a folder, which may change while we look."""

    def raise_unless_gone(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    total = 0
    for parent, _, names in os.walk(folder, onerror=raise_unless_gone):
        for name in names:
            total += file_bytes(os.path.join(parent, name))
    return total


def file_bytes(path: str | Path) -> int:
    """st_size of a file; 0 where it has just gone."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0
