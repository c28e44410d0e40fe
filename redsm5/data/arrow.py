"""Lists of numbers in Arrow's format, and back as views of the bytes, which may be those of a mapped file.

One record batch in Arrow's stream format, as pyarrow reads and writes it: the datasets library, which needs a second to
be imported, has no part in it, but opens such a file (`datasets.Dataset.from_file`). Measured beside what else there
is by `just bench posts`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray


def numbers(values: Iterable[Any], dtype: type, width: int = 0) -> Any:
    """A column of numbers; of rows of so many numbers, where a width is given."""
    if not width:
        return pa.array(np.fromiter(values, dtype))
    return pa.FixedSizeListArray.from_arrays(numbers(chain.from_iterable(values), dtype), width)


def lists(rows: Sequence[Sequence[Any] | NDArray[Any]], values: Any) -> Any:
    """A column of lists: as long as these rows, of what the column `values` holds one after the other."""
    starts = np.array([0, *accumulate(map(len, rows))], np.int64)
    return pa.LargeListArray.from_arrays(pa.array(starts), values)


def lists_of(rows: Sequence[Sequence[Any] | NDArray[Any]], dtype: type, width: int = 0) -> Any:
    """A column of lists of numbers, or of rows of so many numbers."""
    return lists(rows, numbers(chain.from_iterable(rows), dtype, width))


def struct(columns: Mapping[str, Any]) -> Any:
    """A column of records."""
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def text(values: Iterable[str]) -> Any:
    """A column of text."""
    return pa.array(list(values), pa.large_string())


def to_bytes(columns: Mapping[str, Any], **metadata: str) -> bytes:
    """The file."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    schema = batch.schema.with_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(metadata))
    return bytes(sink.getvalue())


def from_bytes(content: Any) -> Any:
    """The record batch of a file; nothing is copied, and no thread is started."""
    options = pa.ipc.IpcReadOptions(use_threads=False)
    return pa.ipc.open_stream(pa.py_buffer(content), options=options).read_next_batch()


def starts_of(column: Any) -> NDArray[np.int64]:
    """Where each list of a column begins in its values, and where the last one ends."""
    found: NDArray[np.int64] = column.offsets.to_numpy()
    return found


def view(column: Any, dtype: type | None = None) -> NDArray[Any]:
    """The numbers of a column, of its lists, or of its rows of numbers; dtype: read as numbers of this type."""
    width = 0
    while not pa.types.is_primitive(column.type):
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0
        column = column.values
    found: NDArray[Any] = column.to_numpy()
    found = found if dtype is None else found.view(dtype)
    return found.reshape(-1, width) if width else found
