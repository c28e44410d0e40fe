"""Makes a process's surroundings usable before its work starts.

Its standard streams are open, and losing the terminal while it writes is no error; that the terminal is gone arrives as
SIGHUP, unless `nohup` or `setsid` said otherwise. File names beyond ASCII are read as UTF-8,
whatever the locale. Warnings are shown, but never raised. Errors caused by system limits get a remedy.
"""

import errno
import io
import os
import select
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

# What a process may not have more of, and what a person does about it.
LIMITS = {
    errno.EAGAIN: "Raise the limit of processes (`ulimit -u`; in a container, its pids limit)",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n 1024`)",
    errno.ENFILE: "End other programs, or raise fs.file-max: the machine has too many open files",
    errno.ENOMEM: "Free memory, or raise its limit (`ulimit -v`; in a job or a container, its memory)",
}


LOOK_MS = 1000  # between two looks at whether we are in the terminal's foreground


def prepare() -> None:
    """Make this process, and those that it starts, independent of how it was started. Called once, first of all."""
    _open_standard_streams()
    _use_utf8()
    _let_warnings_warn()
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(2)
    _hear_of_hangup()


def open_to_all(folder: Path) -> str | None:
    """The remedy if all users of this machine can write to a folder, and so remove or replace its content."""
    return f"chmod go-w {shlex.quote(str(folder))}" if folder.is_dir() and folder.stat().st_mode & 0o002 else None


def note_open_to_all(folder: Path, warn: Callable[..., object]) -> None:
    """Warn of a folder that everybody on this machine can write to."""
    if remedy := open_to_all(folder):
        warn("all users of this machine can write to the experiments folder", remedy=remedy)


def _open_standard_streams() -> None:
    """Open closed standard streams (`2>&-`): otherwise the next opened file would get the number, and all output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            stream = open(number, mode, closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _use_utf8() -> None:
    """Begin again where the locale has another encoding: paths would hold what no JSON file and no URL takes."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # PYTHONIOENCODING may name one without these characters


def _let_warnings_warn() -> None:
    """With PYTHONWARNINGS=error, a library's warning would end a training, or keep metrics from MLflow."""
    strict = [entry for entry in warnings.filters if entry[0] == "error"]
    for entry in strict:
        warnings.filters.remove(entry)  # type: ignore[attr-defined]
    if strict:
        warnings.simplefilter("default", append=True)  # changes nothing, but has the others looked at again
    if told := os.environ.get("PYTHONWARNINGS"):
        kept = [word for word in told.split(",") if not _is_error(word)]
        os.environ["PYTHONWARNINGS"] = ",".join(kept)


def _is_error(word: str) -> bool:
    action = word.partition(":")[0].strip().lower()
    return action != "" and "error".startswith(action)


def _hear_of_hangup() -> None:
    """Have SIGHUP arrive when the terminal goes away: of a window of tmux that is closed, the kernel tells only the
    window's own process, and `just` passes no SIGHUP on.

    Nothing changes under nohup, which ignores it, and under setsid, which leaves the terminal.
    """
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return
    with suppress(OSError, RuntimeError):  # there is no terminal, or no thread can be started
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
        threading.Thread(target=_await_hangup, args=(terminal,), daemon=True).start()


def _await_hangup(terminal: int) -> None:
    """Of a process in the background, its shell decides whether it is told."""
    gone, in_front = select.poll(), False
    gone.register(terminal, 0)  # asks for no event, so that the hangup alone is told
    with suppress(OSError):
        while True:
            in_front = os.tcgetpgrp(terminal) == os.getpgrp()
            if gone.poll(LOOK_MS):
                break
    if in_front:
        os.kill(os.getpid(), signal.SIGHUP)


class _Lasting(io.FileIO):
    """A descriptor whose other end may close: what cannot be written is dropped."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _lasting(descriptor: int) -> TextIO:
    raw = io.BufferedWriter(cast(io.RawIOBase, _Lasting(descriptor, "w", closefd=False)))
    return io.TextIOWrapper(raw, encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True)
