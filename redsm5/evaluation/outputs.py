"""The predictions of `just predict` as a file (CSV, JSON lines, Parquet): complete or absent, and resumed after a kill.

Until all posts are predicted, `OUT.partial` has a line of JSON for each, appended and synced a chunk at a time. What a
kill leaves of a chunk is cut off and predicted again, in the same batches, so the file has the same bytes as without
the kill. Then `OUT` is written from it in constant memory and takes its name in one step, and `OUT.partial` is removed.
"""

import csv
import io
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from redsm5.data.posts import SYMPTOMS
from redsm5.engine import files
from redsm5.engine.errors import InputError, LockedError
from redsm5.engine.jsonio import dumps, loads

if TYPE_CHECKING:
    from redsm5.evaluation.trained import PostPrediction

CHUNK = 256  # posts that are sorted by length together, and saved at once
FORMATS = ("csv", "jsonl", "parquet")
FORM, END = "redsm5_predictions", "end"  # keys of the first and the last line of `OUT.partial`
GROUP = 4096  # rows that Parquet gets at once
Row = dict[str, Any]


def format_of(path: Path) -> str:
    """The format that a file's name says.

    Raises:
        InputError: it says none.
    """
    form = path.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise InputError(f"--to {path} names no format", remedy="End the name with .csv, .jsonl or .parquet.")
    return form


def row_of(post_id: str, text: str, prediction: "PostPrediction", *, with_text: bool) -> Row:
    """A post's row, nested as in JSON lines.

    Args:
        with_text: whether the spans' text is in it.
    """
    symptoms = {}
    for each in prediction.symptoms:
        evidence: list[Row] = [{"start": s.start, "end": s.end, "score": s.score} for s in each.evidence]
        if with_text:
            evidence = [span | {"text": text[span["start"] : span["end"]]} for span in evidence]
        symptoms[each.symptom] = {"probability": each.probability, "present": each.present, "evidence": evidence}
    return {"post_id": post_id, "symptoms": symptoms}


def flat(row: Row) -> Row:
    """A row as CSV and Parquet have it: post_id, nine probabilities, nine decisions, and one list of all evidence."""
    symptoms = row["symptoms"]
    return {
        "post_id": row["post_id"],
        **{name: symptoms[name]["probability"] for name in SYMPTOMS},
        **{f"{name}_present": symptoms[name]["present"] for name in SYMPTOMS},
        "evidence": [{"symptom": name, **span} for name in SYMPTOMS for span in symptoms[name]["evidence"]],
    }


class Partial:
    """The predictions so far, in `OUT.partial`. As a context, no other process works on them.

    Attributes:
        done: how many posts it has, all in whole chunks unless it is complete.
        complete: whether all posts are predicted.
    """

    def __init__(self, to: Path, identity: Sequence[str], *, with_text: bool) -> None:
        """The predictions for the file `to`.

        Args:
            identity: of the model; predictions of another one are refused.
            with_text: whether rows have the spans' text.
        """
        self.to, self.path = to, to.with_name(f"{to.name}.partial")
        self.done, self.complete = 0, False
        self._header = {FORM: 1, "chunk": CHUNK, "text": with_text, "model": identity}
        self._with_text = with_text
        self._lock = files.Lock(self.path)

    def __enter__(self) -> "Partial":
        """Take up the predictions that are there.

        Raises:
            InputError: the file exists, or they are of another model.
            LockedError: another process makes them.
        """
        there = self.path.exists()
        if self.to.exists() and not there:
            raise self._exists()
        if not self._lock.acquire():
            raise LockedError(f"{self.path} is written by another process", remedy="Wait for it to end.")
        try:
            self._take_up()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.done and not self.complete:
            self.path.unlink(missing_ok=True)  # nothing is lost
        self._lock.release()

    def _take_up(self) -> None:
        files.cut_torn_tail(self.path)
        keep = total = 0
        last: Row = {}
        with self.path.open("rb") as file:
            first = file.readline()
            if first and loads(first) != loads(dumps(self._header)):
                raise InputError(
                    "it was begun with another model, or with other options",
                    where=str(self.path),
                    remedy=f"Run the command that began it, or remove it: rm {shlex.quote(str(self.path))}",
                )
            end = keep_bytes = file.tell()
            for line in file:
                end += len(line)
                total += 1
                if total % CHUNK == 0:
                    keep, keep_bytes = total, end
            if total:
                last = loads(line)
        if END in last:
            self.done, self.complete = last[END], True
            return
        if self.to.exists():
            raise self._exists()
        os.truncate(self.path, keep_bytes)
        self.done = keep
        if not first:
            files.append_durable(self.path, dumps(self._header) + b"\n")

    def _exists(self) -> InputError:
        return InputError("the file exists already", where=f"--to {self.to}", remedy="Name another file, or remove it.")

    def rows(self) -> Iterator[Row]:
        """The rows so far, read one at a time."""
        with self.path.open("rb") as file:
            file.readline()
            for line in islice(file, self.done):
                yield loads(line)

    def append(self, rows: Sequence[Row]) -> None:
        """Save a chunk of rows durably."""
        files.append_durable(self.path, b"".join(dumps(row) + b"\n" for row in rows))
        self.done += len(rows)

    def finish(self, form: str) -> None:
        """Write the file, and remove `OUT.partial`. Doing it again after a kill changes nothing."""
        if not self.complete:
            files.append_durable(self.path, dumps({END: self.done}) + b"\n")
            self.complete = True
        if not self.to.exists():  # else this was killed after the file had its name
            temporary = self.to.with_name(f".{self.to.name}.tmp")
            with temporary.open("wb") as file:
                WRITERS[form](file, self.rows(), with_text=self._with_text)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self.to)
            files.fsync_dir(self.to.absolute().parent)
        self.path.unlink()
        with suppress(FileNotFoundError):
            self._lock.mark.unlink()


def skip(done: Partial, posts: Iterator[tuple[str, str]]) -> None:
    """Take from the input the posts that are predicted already.

    Raises:
        InputError: they are not the same posts.
    """
    for number, row in enumerate(done.rows(), 1):
        post_id, _ = next(posts, (None, ""))
        if post_id != row["post_id"]:
            raise InputError(
                f"post {number} of the input is not the one that was predicted: the input has changed",
                where=str(done.path),
                remedy="Give the same posts, or remove the file to begin again: rm " + shlex.quote(str(done.path)),
            )


def chunks_of(posts: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """The posts, CHUNK at a time."""
    iterator = iter(posts)
    return iter(lambda: list(islice(iterator, CHUNK)), [])


# ---------------------------------------------------------------------------------------------------------------------
# formats


def write_jsonl(file: IO[bytes], rows: Iterable[Row], **_: bool) -> None:
    for row in rows:
        file.write(dumps(row) + b"\n")


def write_csv(file: IO[bytes], rows: Iterable[Row], *, header: bool = True, **_: bool) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(flat(_NO_POST))
    for row in rows:
        cells = flat(row)
        cells["evidence"] = dumps(cells["evidence"]).decode()
        writer.writerow(int(cell) if isinstance(cell, bool) else cell for cell in cells.values())
    text.detach()


def write_parquet(file: IO[bytes], rows: Iterable[Row], *, with_text: bool) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    span = [("symptom", pa.string()), ("start", pa.int32()), ("end", pa.int32()), ("score", pa.float64())]
    span += [("text", pa.string())] if with_text else []
    columns = [("post_id", pa.string()), *((name, pa.float64()) for name in SYMPTOMS)]
    columns += [(f"{name}_present", pa.bool_()) for name in SYMPTOMS]
    schema = pa.schema([*columns, ("evidence", pa.list_(pa.struct(span)))])
    with parquet.ParquetWriter(file, schema) as writer:
        iterator = iter(rows)
        while group := [flat(row) for row in islice(iterator, GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


_NO_POST: Row = {
    "post_id": "",
    "symptoms": {name: {"probability": 0.0, "present": False, "evidence": []} for name in SYMPTOMS},
}
WRITERS: dict[str, Callable[..., None]] = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}
