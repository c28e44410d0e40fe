"""What all our JSON documents share: times, numbers that may not be finite, rejection of unknown keys.

Times are ISO 8601 in UTC with milliseconds. A value that is not finite is one of the strings "NaN", "Infinity",
"-Infinity".
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from redsm5.engine import files, migrations
from redsm5.engine.errors import InputError
from redsm5.engine.jsonio import dumps, from_json_number, loads, to_json_number

TIME_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"


def now() -> str:
    """The current time in the format of all files: 2026-01-31T12:00:00.000Z."""
    return timestamp(datetime.now(UTC))


def timestamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(time: str) -> int:
    """A time in the format of our files, as milliseconds since 1970."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


Number = Annotated[
    float, BeforeValidator(from_json_number), PlainSerializer(to_json_number, return_type=float | str, when_used="json")
]


class Record(BaseModel):
    """A part of a document that we own: an unknown key is an error, so that files and code cannot diverge."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class Document(Record):
    """A JSON file of ours, or a line of a JSON Lines file.

    Attributes:
        schema_number: `schema` in the file; redsm5/engine/migrations.py migrates older ones to it.
    """

    schema_number: Literal[1] = Field(default=1, alias=migrations.SCHEMA)

    @classmethod
    def form(cls) -> str:
        """Its name in the migration steps of redsm5/engine/migrations.py."""
        return cls.__name__

    def to_json(self) -> bytes:
        """The content of the file."""
        return dumps(self.model_dump(mode="json"), indent=True, strict=True) + b"\n"

    def to_line(self) -> bytes:
        """A line, with its newline."""
        return dumps(self.model_dump(mode="json"), strict=True) + b"\n"


class SecondForm(Document):
    """A document whose fields have changed once since schema 1."""

    schema_number: Literal[2] = Field(default=2, alias=migrations.SCHEMA)  # type: ignore[assignment]


D = TypeVar("D", bound=Document)


def parse(content: bytes | bytearray | dict[str, Any], kind: type[D]) -> D:
    """A document from its text or JSON object, written by this version or an older one.

    Raises:
        NewerSchemaError: a newer version wrote it.
        ValueError: it is not such a document.
    """
    document = content if isinstance(content, dict) else loads(content, strict=True)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return kind.model_validate(migrations.migrated(kind.form(), document))


def load(path: Path, kind: type[D]) -> D | None:
    """A document from its file; None if the file is missing.

    Raises:
        InputError: it is damaged, or a newer version wrote it.
    """
    try:
        return parse(files.read_bytes(path), kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise unreadable(path, error) from None


def load_lines(path: Path, kind: type[D]) -> list[D]:
    """The complete lines of a JSON Lines file; a torn last line is ignored. Empty if the file is missing.

    Raises:
        InputError: a line is damaged, or a newer version wrote it.
    """
    rows = []
    for number, line in enumerate(files.read_lines(path), 1):
        try:
            rows.append(parse(line, kind))
        except ValueError as error:
            raise unreadable(path, error, line=number) from None
    return rows


def unreadable(path: Path, error: ValueError, *, line: int | None = None) -> InputError:
    """The error for a file that `parse` refuses."""
    what = f"line {line}" if line else "the file"
    if isinstance(error, migrations.NewerSchemaError):
        return InputError(
            f"a newer version of redsm5 wrote {what}: {error}",
            where=str(path),
            remedy="Install that version or a newer one.",
        )
    remedy = "delete the line" if line else "move its folder out of the experiments folder"
    return InputError(f"{what} is damaged", where=str(path), remedy=f"Restore it from a copy, or {remedy}.")
