"""Errors that a person can cause or must act on, each with an exit code and a remedy.

They are raised where the cause is known and turned into one message in one place (`exit_with_message`); the codes are
those of the README: 0 done, 1 refused, 2 training failed, 3 disk or budget, 4 no valid checkpoint, 75 interrupted.
"""

import errno
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from redsm5.redaction import redact
from redsm5.terminal import one_line, show

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # a full disk, or a full quota
# The disk's fault and not the trial's: what ran can go on once the disk takes bytes again.
DISK_FAULTS = (*NO_ROOM, errno.EIO, errno.EROFS)
UNUSABLE_PATH = (PermissionError, FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError)

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
    resumable = False  # whether a trial that ends by it goes on later; else it has failed

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
    """Another worker is at the same study with another budget."""

    kind = "budget"
    resumable = True


class IncompatibleCheckpointError(RedSM5Error):
    """A checkpoint of another architecture, head, data set or format was to be loaded."""

    exit_code = 1
    kind = "incompatible_checkpoint"
    resumable = True


class TrainingError(RedSM5Error):
    """Training cannot go on: the loss is not finite, memory ran out, an operation failed."""

    exit_code = 2
    kind = "training"


class NotFiniteError(TrainingError):
    """The training loss is NaN or infinite."""

    kind = "not_finite"


class DiskError(RedSM5Error):
    """The disk or the byte budget has no room."""

    exit_code = 3
    kind = "disk"
    resumable = True


class NoCheckpointError(RedSM5Error):
    """No checkpoint is left that verifies."""

    exit_code = 4
    kind = "no_checkpoint"


class Interrupted(RedSM5Error):
    """A signal asked the process to stop; what it was doing can be resumed."""

    exit_code = 75
    kind = "interrupted"
    resumable = True


def show_error(error: RedSM5Error) -> None:
    """Tell a person about an error; of what it quotes, secrets are redacted."""
    show(f"{'interrupted' if isinstance(error, Interrupted) else 'error'}: {_indented(error.message())}", error=True)


def _indented(message: str) -> str:
    """Lines after the first are indented, so that no value that is quoted can begin a message of its own."""
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
    """Words that name the known name that looks most like this one; empty where none does."""
    close = closest(name, known)
    return f"; nearest: {close}" if close else ""


def exit_with_message(main: Callable[[], int]) -> None:
    """Run a script's `main` and exit with its code, or an error's message and code: never a traceback, unless it is
    ours to mend.
    """
    sys.excepthook = lambda _, error, __: show(redact("".join(traceback.format_exception(error))), error=True)
    try:
        code = main()
    except RedSM5Error as error:
        show_error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        show("interrupted before anything was begun", error=True)
        code = Interrupted.exit_code
    except UNUSABLE_PATH as error:
        where = redact(one_line(error.filename))
        show(f"error: {error.strerror}: {where}\n  Name another folder, or make this one usable.", error=True)
        code = InputError.exit_code
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        remedy = "Make room" if error.errno in NO_ROOM else "Look after the disk (dmesg says more)"
        where = f": {redact(one_line(error.filename))}" if error.filename else ""
        show(
            f"error: {error.strerror}{where}\n  {remedy} and run the same command again: it goes on where it was.",
            error=True,
        )
        code = DiskError.exit_code
    sys.exit(code)
