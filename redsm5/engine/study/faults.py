"""What terminates a trial's process: the outcome that belongs to an error, and to a failure of another process."""

import os
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from redsm5.engine import errors
from redsm5.engine.errors import (
    DISK_FAULTS,
    DiskError,
    HubError,
    IncompatibleCheckpointError,
    NotFiniteError,
    RedSM5Error,
    disk_remedy,
)
from redsm5.engine.records import ErrorRecord
from redsm5.engine.redaction import redact

# The kinds of errors that leave a trial interrupted; "killed" is what the driver says of one that could not say a word.
RESUMABLE_KINDS = {"killed"} | {
    error.kind
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, RedSM5Error) and error.resumable
}
LOST = ("DistError", "DistBackendError", "DistNetworkError", "DistStoreError")  # of torch.distributed
LOST_IN_WORDS = ("gloo/", "[gloo]", "NCCL")


class Peers(Protocol):
    """The processes of a trial, as redsm5/engine/distributed.py has them."""

    world_size: int

    def report_fault(self, fault: dict[str, Any]) -> None: ...

    def reported_fault(self) -> dict[str, Any] | None: ...


def follows() -> bool:
    """Whether `accelerate launch` started this process to follow another one, the first of its trial."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"


class Reported(RedSM5Error):
    """What ended another process of the trial, and so all of it; it counts as if the first one had met it."""

    def __init__(self, fault: dict[str, Any]) -> None:
        super().__init__(f"process {fault['process']}: {fault['message']}")
        self.add_note(fault["traceback"])
        self.kind, self.exit_code, self.resumable = fault["kind"], fault["exit_code"], fault["resumable"]


def classify(error: Exception) -> tuple[str, int, bool]:
    """The kind of a failure, equal for equal causes; its exit code; whether the trial can be resumed."""
    if isinstance(error, RedSM5Error):
        return error.kind, error.exit_code, error.resumable
    if isinstance(error, OSError) and error.errno in DISK_FAULTS:
        return DiskError.kind, DiskError.exit_code, True
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory", NotFiniteError.exit_code, False
    return type(error).__name__, 2, False


PLACE = "place"


def say_where(error: Exception, script: Path) -> None:
    """Note the line of a script of one's own that failed, for the message: `train.py, line 12`."""
    lines = [number for frame, number in traceback.walk_tb(error.__traceback__) if _file_of(frame) == script.resolve()]
    if lines:
        setattr(error, PLACE, f"{script.name}, line {lines[-1]}: ")


def _file_of(frame: FrameType) -> Path:
    return Path(frame.f_code.co_filename).resolve()


def error_record(error: Exception) -> ErrorRecord:
    """The error as trial.json has it."""
    message = f"{getattr(error, PLACE, '')}{error.what if isinstance(error, RedSM5Error) else error}"
    if isinstance(error, OSError) and error.errno in DISK_FAULTS:
        message = f"{message}\n  {disk_remedy(error)}"
    if isinstance(error, DiskError | HubError | IncompatibleCheckpointError):
        message = error.message()  # the remedy names what takes the room, or how to be given access, or what would fit
    return ErrorRecord(kind=classify(error)[0], message=redact(message)[:2000])


def fault_of(error: Exception, process: int) -> dict[str, Any]:
    """What a process says of its end to the first one, which makes it a `Reported`."""
    kind, exit_code, resumable = classify(error)
    message = error_record(error).message
    return {"process": process, "kind": kind, "exit_code": exit_code, "resumable": resumable, "message": message} | {
        "traceback": redact("".join(traceback.format_exception(error)))
    }


def lost_contact(error: Exception) -> bool:
    """Whether the error only says that another process of the trial has exited."""
    words = isinstance(error, RuntimeError) and any(word in str(error) for word in LOST_IN_WORDS)
    return words or type(error).__name__ in LOST
