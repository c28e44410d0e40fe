"""Errors that a user can cause or must act on, each with an exit code and a remedy.

They are raised where the cause is known, and printed in one place (`exit_with_message`). The exit codes are those of
docs/reference.md: 0 done, 1 refused, 2 training failed, 3 disk or budget full, 4 no valid checkpoint, 75 interrupted.
"""

import errno
import os
import pwd
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from redsm5.engine.redaction import redact
from redsm5.engine.surroundings import LIMITS, prepare
from redsm5.engine.terminal import one_line, show

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a full quota, or files that may not be so large
# Faults of the disk, not of the trial: it can be resumed once the disk is writable again.
DISK_FAULTS = (*NO_ROOM, errno.EIO, errno.EROFS)
UNUSABLE_PATH = (PermissionError, FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError)
UNUSABLE_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENODEV, errno.ENXIO)
LONG_NAME = 300  # characters of a path in a message
AGAIN = "run the same command again: it resumes where it stopped"

# How like a known name another is that may be meant to be it: a share of its characters, and a number of them.
MAX_WRONG, MIN_BEGINNING = 0.25, 3


class RedSM5Error(Exception):
    """What went wrong, where, and what to do about it.

    Args:
        what: the fault in one sentence, with the value that caused it. Never post text, never a token.
        where: file and line, configuration key or trial; left out where `what` says it.
        remedy: what the person can do.
    """

    exit_code = 2
    kind = "error"
    resumable = False  # whether a trial with this error is interrupted and resumed later, or else failed

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(self.message())

    def message(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  {self.remedy}" if self.remedy else head


class ConfigError(RedSM5Error):
    """A key, value or combination of the configuration is refused."""

    exit_code = 1
    kind = "configuration"


class InputError(RedSM5Error):
    """A file that we were given is missing, malformed or inconsistent."""

    exit_code = 1
    kind = "input"


class HubError(InputError):
    """The Hugging Face Hub does not have what it was asked for."""

    kind = "hub"


class HubAccessError(HubError):
    """The Hub refuses it: no token, one that is not valid any more, or terms that are not accepted."""

    kind = "hub_access"
    resumable = True


class HubUnavailableError(HubError):
    """The Hub does not answer, or answers that it cannot now."""

    kind = "hub_unavailable"
    resumable = True


class LockedError(RedSM5Error):
    """Another process holds the lock that this one needs."""

    exit_code = 1
    kind = "locked"
    resumable = True


class BudgetMismatchError(ConfigError):
    """Another worker of the same study has another budget."""

    kind = "budget"
    resumable = True


class IncompatibleCheckpointError(RedSM5Error):
    """A checkpoint of another architecture, head, data set or format was to be loaded."""

    exit_code = 1
    kind = "incompatible_checkpoint"
    resumable = True


class TrainingError(RedSM5Error):
    """Training cannot continue: the loss is not finite, memory ran out, an operation failed."""

    exit_code = 2
    kind = "training"


class NotFiniteError(TrainingError):
    """The training loss is NaN or infinite."""

    kind = "not_finite"


class DiskError(RedSM5Error):
    """The disk or the byte budget is full."""

    exit_code = 3
    kind = "disk"
    resumable = True


class NoCheckpointError(RedSM5Error):
    """No checkpoint is left that verifies."""

    exit_code = 4
    kind = "no_checkpoint"


class Interrupted(RedSM5Error):
    """A signal asked the process to stop; its work can be resumed."""

    exit_code = 75
    kind = "interrupted"
    resumable = True


def disk_remedy(error: OSError) -> str:
    """What to do about one of DISK_FAULTS."""
    if error.errno == errno.EFBIG:
        return f"Raise the limit of a file's size (`ulimit -f unlimited`) and {AGAIN}."
    if error.errno == errno.EROFS:
        return f"Remount it read-write and {AGAIN}; or name another folder."
    return f"{'Make room' if error.errno in NO_ROOM else 'Look after the disk (dmesg says more)'} and {AGAIN}."


def show_error(error: RedSM5Error) -> None:
    """Print an error; secrets in what it quotes are redacted."""
    show(f"{'interrupted' if isinstance(error, Interrupted) else 'error'}: {_indented(error.message())}", error=True)


def _indented(message: str) -> str:
    """Indent all lines after the first, so that no quoted value can look like a message of its own."""
    return re.sub(r"\n(?! )", "\n  ", redact(message))


def closest(name: str, known: Sequence[str]) -> str | None:
    """The known name that this one may be meant to be; None where none is like it. All suggestions come from here.

    A name is like another if at most a quarter of its characters are wrong, missing, too many or exchanged, or if it
    is the other's beginning. So RESTLESSNESS is not taken for WORTHLESSNESS, nor an empty name for anything.
    """
    from rapidfuzz.distance import OSA

    def like(other: str) -> bool:
        begins = len(name) >= MIN_BEGINNING and other.startswith(name)
        return begins or OSA.distance(name, other) <= max(len(name), len(other)) * MAX_WRONG

    return min(filter(like, known), key=lambda other: OSA.distance(name, other), default=None)


def nearest(name: str, known: Sequence[str]) -> str:
    """A suggestion of the most similar known name; empty if none is similar."""
    close = closest(name, known)
    return f"; nearest: {close}" if close else ""


def exit_with_message(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit with its code, or with an error's message and code; a traceback is printed only
    for a bug in this code.
    """
    prepare()
    sys.excepthook = lambda _, error, __: show(redact("".join(traceback.format_exception(error))), error=True)
    try:
        code = main()
        sys.stdout.flush()
    except RedSM5Error as error:
        show_error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        show("interrupted before anything was started", error=True)
        code = Interrupted.exit_code
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would say so as it ends
        code = 0
    except MemoryError:
        show(f"error: out of memory\n  {LIMITS[errno.ENOMEM]} and {AGAIN}.", error=True)
        code = TrainingError.exit_code
    except (OSError, RuntimeError) as error:
        if (told := _told(error)) is None:
            raise
        message, code = told
        show(f"error: {message}", error=True)
    sys.exit(code)


def _told(error: OSError | RuntimeError) -> tuple[str, int] | None:
    """The message and exit code of a system error; None if it may be a bug in this code."""
    if not isinstance(error, OSError):
        if "can't start new thread" not in str(error):
            return None
        error = OSError(errno.EAGAIN, "cannot start another thread (thread limit reached, or too little memory)")
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    shown = redact(one_line(f"{name[:LONG_NAME]}{'…' * (len(name) > LONG_NAME)}"))
    what = f"{error.strerror}: {shown}" if name else f"{error.strerror}"
    if error.errno in LIMITS:
        return f"{what}\n  {LIMITS[error.errno]} and {AGAIN}.", TrainingError.exit_code
    if error.errno in DISK_FAULTS:
        return f"{what}\n  {disk_remedy(error)}", DiskError.exit_code
    if isinstance(error, UNUSABLE_PATH) or (name and error.errno in UNUSABLE_NAME):
        remedy = "Name another folder, or make this one usable."
        if isinstance(error, PermissionError) and (owner := _owner(name)):
            remedy = f"It belongs to {owner}: ask for access, or name another folder."
        elif not name and "temporary" in what:
            remedy = "Set TMPDIR to a folder that you can write to."
        elif not name:  # only what asks for the folder that one is in has no name to tell
            what, remedy = (
                "the current folder no longer exists",
                "Change to an existing folder and run the command there.",
            )
        return f"{what}\n  {remedy}", InputError.exit_code
    return None


def _owner(name: str) -> str | None:
    """The owner of the file, or of the folder that hides it; None if that is this user."""
    for path in (name, *map(str, Path(name).parents)) if name else ():
        with suppress(OSError):
            owner = os.stat(path).st_uid
            with suppress(KeyError):
                return None if owner == os.geteuid() else pwd.getpwuid(owner).pw_name
            return f"user {owner}"
    return None
