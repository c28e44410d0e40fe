"""Lists of numbers in Arrow's format, and back as views of the bytes, which may be those of a mapped file.

One record batch in Arrow's stream format, as pyarrow reads and writes it: the datasets library, which needs most of a
second to be imported, has no part in it, but opens such a file (`datasets.Dataset.from_file`). Columns are made of
buffers, since `pyarrow.array` and `to_numpy` import pandas, a quarter of a second.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_TYPES = {"int8": np.int8, "int32": np.int32, "int64": np.int64}


def numbers(values: Iterable[Any], dtype: type, width: int = 0) -> Any:
    """A column of numbers; with a width, of lists of `width` numbers each."""
    if not width:
        found: NDArray[Any] = np.fromiter(values, dtype)
        return pa.Array.from_buffers(pa.from_numpy_dtype(dtype), len(found), [None, pa.py_buffer(found)])
    return pa.FixedSizeListArray.from_arrays(numbers(chain.from_iterable(values), dtype), width)


def lists(rows: Sequence[Sequence[Any] | NDArray[Any]], values: Any) -> Any:
    """A column of lists with the lengths of `rows`; the column `values` holds their items, one list after the other."""
    return pa.LargeListArray.from_arrays(numbers(accumulate(map(len, rows), initial=0), np.int64), values)


def lists_of(rows: Sequence[Sequence[Any] | NDArray[Any]], dtype: type, width: int = 0) -> Any:
    """A column of lists of numbers; with a width, each item is a list of `width` numbers."""
    return lists(rows, numbers(chain.from_iterable(rows), dtype, width))


def struct(columns: Mapping[str, Any]) -> Any:
    """A column of records."""
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))


def text(values: Iterable[str]) -> Any:
    """A column of text."""
    encoded = [value.encode() for value in values]
    starts = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64)
    buffers = [None, pa.py_buffer(starts), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers)


def to_bytes(columns: Mapping[str, Any], **metadata: str) -> bytes:
    """The columns as the bytes of an Arrow stream."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    schema = batch.schema.with_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(metadata))
    return bytes(sink.getvalue())


def from_bytes(content: Any) -> Any:
    """The record batch of an Arrow stream; copies nothing and starts no thread."""
    options = pa.ipc.IpcReadOptions(use_threads=False)
    return pa.ipc.open_stream(pa.py_buffer(content), options=options).read_next_batch()


def starts_of(column: Any) -> NDArray[np.int64]:
    """The offset in the values at which each list of a column begins, and that at which the last one ends."""
    return view(column.offsets)


def view(column: Any, dtype: type | None = None) -> NDArray[Any]:
    """A view of the numbers of a column, or of those in its lists; `dtype` overrides the column's type."""
    width = 0
    while not pa.types.is_primitive(column.type):
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else 0
        column = column.values
    kind = dtype or _TYPES[str(column.type)]
    found: NDArray[Any] = np.frombuffer(column.buffers()[1] or b"", kind)[: len(column)]
    return found.reshape(-1, width) if width else found
