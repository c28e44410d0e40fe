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

from redsm5.engine.errors import InputError, LockedError
from redsm5.engine.installed import command
from redsm5.engine.jsonio import loads
from redsm5.engine.waiting import wait_until

# flock's errors if the file system has no locks: NFS without its lock service, Lustre without flock, some FUSE
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
PAGE = 4096  # bytes: the alignment of direct I/O
DIRECT_FROM = 1 << 20  # bytes: the smallest size for direct I/O
MAX_LINE = 1 << 20  # bytes: far longer than any line of redsm5
PIECE = 1 << 20  # bytes per read


class NotRegularError(InputError, OSError):
    """The path is not a regular file: a pipe, a device, a folder, or a forbidden link."""

    kind = "not_regular"
    resumable = True

    def __init__(self, path: Path | str, what: str = "it is not a regular file") -> None:
        super().__init__(what, where=str(path), remedy="Move it out of the experiments folder, or put the file back.")


def open_regular(path: Path | str) -> BufferedReader:
    """Open a regular file for reading; refuse a pipe or a device, which could block or never end.

    Raises:
        NotRegularError: it is not a regular file.
        OSError: it cannot be opened.
    """
    return os.fdopen(_open(path, os.O_RDONLY), "rb")


def open_own(path: Path, flags: int) -> int:
    """Open one of redsm5's files for writing, never through a link; a new file gets mode 0600.

    Raises:
        NotRegularError: the path is a link, or something else that is not a regular file.
    """
    return _open(path, flags | os.O_NOFOLLOW)


def _open(path: Path | str, flags: int) -> int:
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegularError(path, "it is a symbolic link, which is not followed") from None
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a pipe without a reader, or a socket; a folder
            raise NotRegularError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegularError(path)
    return fd


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        NotRegularError: it is not a regular file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return file.read()


def make_private() -> None:
    """Make all files that this process and its children create from now on readable by their owner alone."""
    os.umask(0o077)


def fsync_dir(folder: Path) -> None:
    """fsync a folder: only then is a created, renamed or removed entry durable."""
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
                if error.errno != errno.EINVAL:  # it requires a larger alignment: write the rest through the page cache
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
    """Turn direct I/O on or off for a file; return whether its file system supports that."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
    except OSError:
        return False
    return True


def write_atomic(path: Path, content: bytes | memoryview) -> None:
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
    """Append lines to a file durably; if that fails, as on a full disk, restore the file's previous length.

    Only for one writer at a time, which has called `cut_torn_tail` before.
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
    """Cut the torn line that a crash left after the last newline; return the number of bytes cut."""
    try:
        file = os.fdopen(open_own(path, os.O_RDWR), "r+b")
    except FileNotFoundError:
        return 0
    with file:
        size = end = file.seek(0, os.SEEK_END)
        whole, piece = 0, 1  # usually the last byte is a newline; else search backwards
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
    """A JSON object; None if the file is missing or holds something else."""
    try:
        document = loads(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, NotRegularError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def whole_lines(file: BufferedReader) -> Iterator[bytes]:
    """The complete lines from the file's position on, each with its newline; a torn last line of any length is left
    out.

    A line longer than MAX_LINE, which redsm5 never writes, is cut to MAX_LINE bytes, without a newline.
    """
    while line := file.readline(MAX_LINE):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        if rest:
            yield line


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSON Lines file; a torn last line is ignored.

    Raises:
        InputError: a complete line is not JSON: the file is damaged.
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
    """An flock on a file that is never renamed or removed; the kernel releases it when the process ends, also after a
    kill.

    It is exclusive, or shared with other shared holders. A forked child closes its copy, so that the lock does not
    outlive the process that took it.

    If the file system has no locks, a file beside it, `<name>.held`, names the process that holds it, always
    exclusively. It is stale once that process has ended, which only the same machine can detect.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path, self.mark = path, path.with_name(f"{path.name}.held")
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._fd: int | None = None
        self._marked_by: int | None = None

    @property
    def by_mark(self) -> bool:
        """Whether it is held by a `.held` file, since the file system has no locks."""
        return self._marked_by is not None

    def acquire(self, timeout_s: float = 0.0) -> bool:
        """Take the lock within `timeout_s` seconds; return False if another process holds it.

        Raises:
            LockedError: the file system provided locks before, but no longer does.
            NotRegularError: its path is a link, or something else that is not a regular file.
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
            if self._marked_by == os.getpid():  # in a forked child the mark is the parent's
                self.mark.unlink(missing_ok=True)
            self._fd = self._marked_by = None
            _held.discard(self)

    def _open(self) -> int:
        """Open the lock's file, and create it if needed; without write permission it is opened read-only, which is
        enough to test the lock.
        """
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
                    remedy="Check the file server, and run the same command again. "
                    f"`{command('doctor', '--experiments', 'DIR')}` tests the experiments folder.",
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
_have_locks: set[int] = set()  # devices on which flock has worked


def _machine() -> str:
    """Identifies where a process id is valid: this boot of this machine, and its PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """The start time of a process on this machine, in ticks since boot; empty if it has ended."""
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
    """A context with the lock held, if it could be taken at once; yields whether it was taken."""
    lock = Lock(path)
    taken = lock.acquire()
    try:
        yield taken
    finally:
        lock.release()


def tree_bytes(folder: Path) -> int:
    """The sum of st_size of all files below a folder, which may change meanwhile."""

    def raise_unless_gone(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    total = 0
    for parent, _, names in os.walk(folder, onerror=raise_unless_gone):
        for name in names:
            total += file_bytes(os.path.join(parent, name))
    return total


def file_bytes(path: str | Path) -> int:
    """st_size of a file; 0 if it no longer exists."""
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0
