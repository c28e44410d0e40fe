"""What all our JSON documents share: times, numbers that may not be finite, rejection of unknown keys.

Times are ISO 8601 in UTC with milliseconds. A value that is not finite is one of the strings "NaN", "Infinity",
"-Infinity".
"""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from redsm5 import files
from redsm5.errors import InputError

TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"


def now() -> str:
    """The time as it stands in every file: 2026-01-31T12:00:00.000Z."""
    return timestamp(datetime.now(UTC))


def timestamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(time: str) -> int:
    """A time as it stands in our files, in milliseconds since 1970."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def to_json_number(value: float | None) -> float | str | None:
    """A float as it stands in JSON: what is not finite becomes a string, since JSON has no word for it."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def from_json_number(value: Any) -> Any:
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


Number = Annotated[
    float, BeforeValidator(from_json_number), PlainSerializer(to_json_number, return_type=float | str, when_used="json")
]


class Record(BaseModel):
    """A document that we own: a key that we do not know is an error, so that files and code cannot drift apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_json(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


Document = TypeVar("Document", bound=Record)


def load(path: Path, kind: type[Document]) -> Document | None:
    """A document from its file; None where there is no such file.

    Raises:
        InputError: it is damaged, or of a version that this code does not read.
    """
    try:
        return kind.model_validate_json(files.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise InputError(
            "the file is damaged, or was written by another version",
            where=str(path),
            remedy="Restore it from a copy, or move its folder out of the experiments folder.",
        ) from None
