"""Logs: lines for people on the terminal, JSON Lines for programs in a file, secrets in neither.

A line of the file has timestamp, severity, message, context and schema. It is rotated at midnight UTC or at 50 MB.
The log folder of a study or a trial takes at most three times that, including the trial's output (output.log): the
oldest rotated files are deleted, and those of more than 14 days; of the output the newest part is kept. Several
processes may write to the same log. An error in logging, such as a full disk, never reaches the calling code. Output of
`logging` and `warnings` is logged here as well.
"""

import errno
import fcntl
import logging
import os
import re
import sys
import traceback
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import structlog
from structlog.typing import FilteringBoundLogger

from redsm5.engine import files, owned, paths
from redsm5.engine.documents import now
from redsm5.engine.jsonio import dumps, to_json_number
from redsm5.engine.migrations import SCHEMA
from redsm5.engine.redaction import REDACTED, SECRET_KEY, redact
from redsm5.engine.terminal import one_line, show

MAX_BYTES = 50_000_000  # of a file
FILES = 3  # of that size in a folder
KEPT = 14  # rotated ones, however small


def _plain(value: Any, key: str = "") -> Any:
    """The value as JSON can hold it, redacted all the way down; what goes by a secret's name is redacted whole."""
    if isinstance(value, dict):
        return {redact(str(name)): _plain(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, key) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return to_json_number(value)
    return REDACTED if SECRET_KEY.search(key) else redact(str(value))


# ---------------------------------------------------------------------------------------------------------------------
# the file


def _append(path: Path, line: bytes, max_bytes: int) -> None:
    """Append a whole line, or nothing. Opened for every line, so that forks and other writers need no care.

    Raises:
        OSError: the line is not in the file.
    """
    files.make_dir(path.parent)
    if path.parent.is_symlink():
        raise files.NotRegularError(path.parent, "it is a symbolic link, which is not followed")
    rotated = False
    while True:
        if rotated:  # not before its lock is released, which `bound` takes as well
            with suppress(OSError):
                bound(path.parent, max_bytes)
        fd = files.open_own(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            with suppress(OSError):  # a file system without locks: lines are still appended whole
                fcntl.flock(fd, fcntl.LOCK_EX)
            status = os.fstat(fd)
            if not _is_at(path, status):
                continue  # another process rotated it in between
            day = _day(fd, status)
            if _is_due(status, day, len(line), max_bytes):
                _rotate(path, day)
                rotated = True
                continue
            if status.st_size and os.pread(fd, 1, status.st_size - 1) != b"\n":
                line = b"\n" + line  # what a crash tore stays on a line of its own
            if os.write(fd, line) < len(line):
                os.ftruncate(fd, status.st_size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return
        finally:
            os.close(fd)


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False


def _is_due(status: os.stat_result, day: str, more: int, max_bytes: int) -> bool:
    """A clock that went back, or another machine's that is behind, rotates nothing: else each line might."""
    too_big = status.st_size + more > max_bytes
    return status.st_size > 0 and (too_big or day < now()[:10])


def _day(fd: int, status: os.stat_result) -> str:
    """The day of the first line, by the clock of who wrote it: that of a file server may be another."""
    told = re.match(rb'\s*\{"timestamp": ?"(\d{4}-\d\d-\d\d)T', os.pread(fd, 64, 0))
    return told[1].decode() if told else datetime.fromtimestamp(status.st_mtime, UTC).date().isoformat()


def _rotate(path: Path, day: str) -> None:
    """Rename the file to log.jsonl.<day>.<number>."""
    number = max((n for d, n, _ in owned.rotated_logs(path.parent) if d == day), default=0) + 1
    path.rename(path.with_name(f"{path.name}.{day}.{number:03d}"))


# ---------------------------------------------------------------------------------------------------------------------
# the bound of a folder


def excess_bytes(folder: Path) -> int:
    """The bytes of a folder's logs beyond its bound, which `bound` would free; what is not ours does not count."""
    return sum(size - left for _, size, left in _excess(folder, MAX_BYTES))


def bound(folder: Path, max_bytes: int = MAX_BYTES) -> None:
    """Delete and cut the logs of a folder that are beyond its bound, which older versions left; others may write there.

    Raises:
        OSError: it cannot be done.
    """
    for path, _, left in _excess(folder, max_bytes):
        with suppress(FileNotFoundError):  # another process was first
            if left:
                _keep_newest(path, max_bytes)
            else:
                path.unlink()


def _excess(folder: Path, max_bytes: int) -> list[tuple[Path, int, int]]:
    """The files that are to shrink or to go: path, bytes, and how many of them stay at the most."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    written = owned.written_logs(folder)
    today = now()[:10]  # a day to come is of a clock that was wrong, and would be the newest for ever
    ages = sorted(owned.rotated_logs(folder), key=lambda known: (known[0] <= today, known))
    rotated = [path for _, _, path in ages][::-1]
    others = len({path.name for path in written} | {paths.LOG})
    room = (FILES - others) * max_bytes  # those that are written now may yet grow as long as they may be
    found = []
    for path in written + rotated:
        size = files.file_bytes(path)
        left = size if size <= max_bytes else max_bytes // 2
        if path in rotated:
            if left > room or path in rotated[KEPT:]:
                left = room = 0  # nor is an older one kept
            room -= left
        if left < size:
            found.append((path, size, left))
    return found


def _keep_newest(path: Path, max_bytes: int) -> None:
    """Cut a file that is too long to its newest lines, half as long as it may be. In place: others append to it.

    They are copied to its beginning before it is cut: a crash between the two leaves them at its end as well.
    """
    fd = files.open_own(path, os.O_RDWR)
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        read = os.fstat(fd).st_size
        if read <= max_bytes:
            return  # another process was first
        tail = os.pread(fd, max_bytes // 2, read - max_bytes // 2)
        tail, end = tail[tail.find(b"\n") + 1 :], 0
        while tail:
            end += (written := os.pwrite(fd, tail, end))
            tail = tail[written:]
            if not tail:
                read += len(tail := os.pread(fd, max_bytes, read))  # what has been appended meanwhile
        os.ftruncate(fd, end)
    finally:
        os.close(fd)


# ---------------------------------------------------------------------------------------------------------------------
# the logger


def open_logs(folder: Path | None, *, terminal: bool = True, max_bytes: int = MAX_BYTES) -> FilteringBoundLogger:
    """A structlog logger: `log.info("trial done", epoch=3)`; DEBUG is dropped.

    A traceback (`exc_info=True`, or `log.exception`) goes to the file as `context.exception`, never to the terminal.
    The logger opened last also gets what libraries warn of, in place of their own output; a library that sets up its
    own output when it is imported (transformers, Optuna, MLflow) must have been imported before.

    Args:
        folder: where log.jsonl is written, with mode 0600; made with 0700 where missing. None for no file.
        terminal: whether to write to standard error.
        max_bytes: the size at which the file is rotated; the folder's logs take at most three times that.
    """
    output = _Output(folder / paths.LOG if folder else None, terminal, max_bytes)
    log = cast(
        FilteringBoundLogger,
        structlog.wrap_logger(
            output,
            processors=[structlog.processors.add_log_level],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        ),
    )
    _take_over_libraries(log)
    return log


class _Output:
    """Where structlog hands over an event: the two outputs, and the promise that neither fails the caller."""

    def __init__(self, path: Path | None, terminal: bool, max_bytes: int) -> None:
        self._path, self._terminal, self._max_bytes = path, terminal, max_bytes
        self._failing = self._bounded = False

    def write(self, /, event: object, level: str, exc_info: Any = None, **context: Any) -> None:
        # Everything is caught: a broken __str__ or a closed terminal is no reason to lose a night's training.
        try:
            message, facts = redact(str(event)), _plain(context)
        except Exception as error:
            message, facts = f"a line that cannot be formatted: {type(error).__name__}", {}
        if self._terminal:
            with suppress(OSError, ValueError):
                show(_terminal_line(message, level, facts), error=True)
        if self._path is None:
            return
        try:
            if exc_info:
                facts["exception"] = redact(_traceback(exc_info))
            record = {"timestamp": now(), "severity": level.upper(), "message": message, "context": facts, SCHEMA: 1}
            line = dumps(record) + b"\n"
            _append(self._path, line, self._max_bytes)
            self._failing = False
            with suppress(OSError):
                self._bound()
        except Exception as error:
            if self._terminal and not self._failing:
                with suppress(OSError, ValueError):
                    show(_terminal_line("the log file cannot be written", "warning", {"why": str(error)}), error=True)
            self._failing = True

    def _bound(self) -> None:
        """Once what an older version left; and always what the trial prints, which is not rotated."""
        assert self._path
        if not self._bounded or files.file_bytes(self._path.with_name(paths.OUTPUT)) > self._max_bytes:
            self._bounded = True
            bound(self._path.parent, self._max_bytes)

    info = warning = error = critical = write


def _terminal_line(message: str, level: str, facts: dict[str, Any]) -> str:
    pairs = "".join(f"  {name}={_shown(value)}" for name, value in facts.items())
    return one_line(f"{datetime.now():%H:%M:%S}  {level.upper():<8}  {message}{pairs}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and re.fullmatch(r"[^\s\"=]+", value):
        return value
    return dumps(value).decode()


def _traceback(exc_info: Any) -> str:
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    else:
        error = (exc_info if isinstance(exc_info, tuple) else sys.exc_info())[1]
    return "".join(traceback.format_exception(error)) if error else ""


# ---------------------------------------------------------------------------------------------------------------------
# libraries


class _FromLibraries(logging.Handler):
    """The root handler of `logging`: what a library warns of becomes a line of our log."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # the library's arguments do not fit its format
            message = str(record.msg)
        level = max(known for known in (30, 40, 50) if known <= record.levelno)
        self._log.log(level, message, library=record.name, exc_info=record.exc_info)


def _take_over_libraries(log: FilteringBoundLogger) -> None:
    root = logging.getLogger()
    for logger in [root, *logging.Logger.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            for handler in [*logger.handlers]:
                if type(handler) in (logging.StreamHandler, _FromLibraries):
                    logger.removeHandler(handler)
                    logger.propagate = True
    root.addHandler(_FromLibraries(log))

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        log.warning(str(message), category=category.__name__, where=f"{filename}:{lineno}")

    warnings.showwarning = show
