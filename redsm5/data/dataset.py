"""Posts in whatever the datasets library loads: Parquet, JSON lines, CSV, Arrow, a folder of `save_to_disk`.

They come as two tables, posts and annotations, or as one whose rows hold a list of annotations. The library reads the
files and holds the tables in memory; a CSV file is read by the strict reader (redsm5/data/csvfile.py), since the
library's own fills short records, takes text after a closing quote, and knows no lines. The rules for a row are those
of redsm5/data/read.py, whatever it comes from. Nothing is written but a lock file in a private folder that is removed
at once; nothing is asked of the network, and no code of the folder runs. The library is imported when tables are read.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from redsm5.data.align import By
from redsm5.data.csvfile import Place, Row, rows
from redsm5.data.posts import Corpus
from redsm5.data.read import ANNOTATIONS_COLUMNS, POSTS_COLUMNS, corpus_of
from redsm5.engine.errors import InputError, nearest
from redsm5.engine.jsonio import loads
from redsm5.hub import PREFIXES, TABLES

if TYPE_CHECKING:
    from datasets import Dataset

# If a table exists in several formats, the first suffix counts.
SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson", ".json", ".arrow")
# Written by `save_to_disk` into the folder of each Dataset, and into that of a DatasetDict.
STATE, DICT = "state.json", "dataset_dict.json"
BATCH = 1000  # rows
LINE = " line"  # the column with each record's line in a CSV file; no CSV column can have this name
NESTED = "annotations"  # the column of a table of posts that holds them
FREE_TEXT = ("text", "sentence_text")
CATEGORIES = ("DSM5_symptom", "status")
REMEDY = "See docs/own-data.md for the tables and columns that are read."


Table = tuple[Path, "Dataset"]


class Layout(NamedTuple):
    """The parts of each table: files, or folders of `save_to_disk`. `annotations` is None if the table of posts holds
    them.
    """

    posts: list[Path]
    annotations: list[Path] | None


# ---------------------------------------------------------------------------------------------------------------------
# which files


def layout_of(path: Path) -> Layout:
    """Find the tables of a file or a folder by names alone; no table is read.

    Raises:
        InputError: there is no table that can be read, or the choice is ambiguous.
    """
    where = f"data.path={path}"
    if not path.exists():
        raise InputError("there is no such file or folder", where=where, remedy="Give a local path that exists.")
    if path.is_file():
        if path.suffix not in SUFFIXES or path.suffix == ".csv":
            what = "a CSV file cannot hold lists" if path.suffix == ".csv" else "the name has no known suffix"
            remedy = f"Give a folder with posts.csv and annotations.csv, or a table of {', '.join(SUFFIXES[1:])}."
            raise InputError(what, where=where, remedy=remedy)
        return Layout([path], None)
    if (path / DICT).is_file():
        splits = {name: path / name for name in _split_names(path / DICT)}
        if splits.keys() >= TABLES:
            return Layout([splits["posts"]], [splits["annotations"]])
        return Layout(list(splits.values()), None)
    if (path / STATE).is_file():
        return Layout([path], None)
    found = {name: parts for name in sorted(TABLES) if (parts := _named(path, name))}
    if len(found) == 1:
        lacking = next(iter(TABLES - found.keys()))
        raise InputError(f"there is a table {next(iter(found))} and no table {lacking}", where=where, remedy=REMEDY)
    return Layout(found["posts"], found["annotations"]) if found else Layout(_parts(path), None)


def files_of(layout: Layout) -> list[Path]:
    """All files that are read, sorted."""
    files = set[Path]()
    for part in [*layout.posts, *(layout.annotations or [])]:
        files |= {p for p in part.rglob("*") if p.is_file()} if part.is_dir() else {part}
    return sorted(files)


def _split_names(path: Path) -> list[str]:
    try:
        names = loads(path.read_bytes())["splits"]
        if all((path.parent / name / STATE).is_file() for name in names) and names:
            return sorted(names)
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise InputError("it names no splits, or missing ones", where=str(path), remedy="Save the data set again.")


def _named(folder: Path, name: str) -> list[Path]:
    for stem in (f"{prefix}{name}" for prefix in PREFIXES):
        for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES):
            if path.is_file():
                return [path]
        if (folder / stem).is_dir():
            return [folder / stem] if (folder / stem / STATE).is_file() else _parts(folder / stem)
    return []


def _parts(folder: Path) -> list[Path]:
    """The files of one table, in the order of their names."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    kinds = sorted({path.suffix for path in files})
    if len(kinds) == 1:
        return files
    what = f"files of several kinds ({', '.join(kinds)})" if kinds else "no table"
    raise InputError(f"the folder has {what}", where=str(folder), remedy=REMEDY)


# ---------------------------------------------------------------------------------------------------------------------
# their rows


def read_dataset(path: Path, columns: Mapping[Any, str], alignment: By = "words") -> Corpus:
    """The posts of a file or a folder; `columns` maps our column names to its own, if they differ; `alignment` as
    `align` has it.

    Raises:
        InputError: the tables cannot be read, lack a column, or hold an invalid row.
    """
    layout = layout_of(path)
    if layout.annotations is None:
        tables = [(part, _load(part)) for part in layout.posts]
        return corpus_of(_rows(tables, POSTS_COLUMNS, columns), _nested_rows(tables, columns), path, alignment)
    posts, annotations = (
        _rows([(part, _load(part, [columns.get(name, name) for name in wanted])) for part in parts], wanted, columns)
        for parts, wanted in ((layout.posts, POSTS_COLUMNS), (layout.annotations, ANNOTATIONS_COLUMNS))
    )
    return corpus_of(posts, annotations, layout.posts[0], alignment)


def _rows(tables: Sequence[Table], wanted: Sequence[str], columns: Mapping[Any, str]) -> Iterator[Row]:
    for path, table in tables:
        read = _reader(table.features, wanted, columns, path)
        for number, record in enumerate(_records(table, [columns.get(name, name) for name in wanted]), 1):
            line = record.get(LINE)
            place = Place(path, line or number, "line" if line else "row")
            if any(map(str.strip, (row := read(record, place)).values())):
                yield place, row


def _nested_rows(tables: Sequence[Table], columns: Mapping[Any, str]) -> Iterator[Row]:
    """The annotations nested in the rows of the posts, each with the id of its post."""
    inner = [name for name in ANNOTATIONS_COLUMNS if name != "post_id"]
    ids, lists = columns.get("post_id", "post_id"), columns.get(NESTED, NESTED)
    for path, table in tables:
        _check_column(lists, table.features, path)
        read_id = _reader(table.features, ["post_id"], columns, path)
        read = _reader(_inner(table.features[lists], lists, path), inner, columns, path)
        for number, record in enumerate(_records(table, [ids, lists]), 1):
            for n, annotation in enumerate(_each(record[lists], Place(path, number, "row")), 1):
                place = Place(path, number, f"annotation {n} of row")
                if any(map(str.strip, (row := read(annotation, place)).values())):
                    yield place, read_id(record, place) | row


def _records(table: "Dataset", names: Sequence[str]) -> Iterator[dict[str, Any]]:
    wanted = [*dict.fromkeys(names), *({LINE} & {*table.column_names})]
    for batch in table.select_columns(wanted).iter(BATCH):
        for cells in zip(*batch.values(), strict=True):
            yield dict(zip(batch, cells, strict=True))


def _reader(
    features: Mapping[str, Any], wanted: Sequence[str], columns: Mapping[Any, str], path: Path
) -> Callable[[dict[str, Any], Place], dict[str, str]]:
    """A function that converts a record with these features to a row of our columns.

    Raises:
        InputError: a column is missing or has an unsupported type.
    """
    theirs = {name: columns.get(name, name) for name in wanted}
    for name in theirs.values():
        _check_column(name, features, path)
    categories = {name: _categories(features[there], name, there, path) for name, there in theirs.items()}

    def read(record: dict[str, Any], place: Place) -> dict[str, str]:
        return {name: _cell(record.get(there), categories[name], place) for name, there in theirs.items()}

    return read


def _each(found: Any, place: Place) -> list[dict[str, Any]]:
    """The annotations of a post: a list of records, or a record of lists."""
    if not isinstance(found, dict):
        return [annotation or {} for annotation in found or []]
    lists = [values or [] for values in found.values()]
    if len({*map(len, lists)}) > 1:
        raise InputError("the lists of its annotations differ in length", where=str(place), remedy="Correct the row.")
    return [dict(zip(found, values, strict=True)) for values in zip(*lists, strict=True)]


def _check_column(name: str, known: Mapping[str, Any], path: Path) -> None:
    if name not in known:
        raise InputError(
            f"column {name} is missing{nearest(name, list(known))}",
            where=str(path),
            remedy="Name the column to read instead, for example data.columns.text=body. " + REMEDY,
        )


def _inner(feature: Any, name: str, path: Path) -> Mapping[str, Any]:
    """The columns of the nested annotations."""
    if isinstance(feature, Mapping):  # a record of lists
        return {key: getattr(inner, "feature", None) for key, inner in feature.items()}
    if isinstance(getattr(feature, "feature", None), Mapping):
        inner: Mapping[str, Any] = feature.feature
        return inner
    raise InputError(f"column {name} holds no list of records", where=str(path), remedy=REMEDY)


def _categories(feature: Any, name: str, theirs: str, path: Path) -> Sequence[str] | None:
    """The names of a column's categories by number; None if its numbers or texts are the values themselves.

    Raises:
        InputError: its type cannot hold `name`.
    """
    dtype, kind = str(getattr(feature, "dtype", "")), type(feature).__name__
    text = kind == "Value" and dtype in ("string", "large_string", "string_view", "null")
    number = kind == "Value" and dtype.startswith(("int", "uint", "float", "bool")) and name not in FREE_TEXT
    if not text and not number and not (kind == "ClassLabel" and name in CATEGORIES):
        what = dtype if kind == "Value" else kind
        raise InputError(f"column {theirs} has type {what}, which cannot hold {name}", where=str(path), remedy=REMEDY)
    return feature.names if kind == "ClassLabel" and name != "status" else None


def _cell(value: Any, names: Sequence[str] | None, place: Place) -> str:
    """A value as the text that a CSV file would hold; `names` are the category names by number."""
    if names is not None and isinstance(value, int):
        value = names[value] if 0 <= value < len(names) else None
    if value is None:
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    text = str(value)
    if "\0" in text:
        raise InputError("it contains a NUL character", where=str(place), remedy="Remove it.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


# ---------------------------------------------------------------------------------------------------------------------
# the library


def _load(part: Path, names: Sequence[str] = ()) -> "Dataset":
    """One part of a table, in memory; a CSV file gives the columns `names` and LINE.

    Raises:
        InputError: it cannot be read.
    """
    if part.suffix == ".csv" and part.is_file():
        return _csv(part, names)
    if part.is_file() and part.stat().st_size == 0:
        raise InputError("the file is empty", where=str(part), remedy="Export the data set again.")
    with _quiet(), tempfile.TemporaryDirectory(prefix="redsm5-") as scratch:
        try:
            table = _loaded(part, scratch)
            table.data.validate(full=True)  # text is UTF-8, and lists lie within their values
            return table
        except MemoryError:
            raise
        except Exception as error:  # the library's message may quote a post
            raise InputError(
                f"the datasets library cannot read it ({type(error).__name__})",
                where=str(part),
                remedy="Check that the datasets library can load it, or export it again.",
            ) from None


def _loaded(part: Path, scratch: str) -> "Dataset":
    import pyarrow as pa
    from datasets import Dataset, IterableDataset

    if part.is_dir():
        return Dataset.load_from_disk(str(part), keep_in_memory=True)
    if part.suffix == ".arrow":
        return Dataset.from_file(str(part), in_memory=True)
    if part.suffix == ".parquet":  # streamed, since the other ways first write a copy of the posts
        stream = IterableDataset.from_parquet(str(part), cache_dir=scratch)
    else:  # in one piece, so that a column with several types is refused
        stream = IterableDataset.from_json(str(part), cache_dir=scratch, chunksize=part.stat().st_size)
    tables = list(stream.with_format("arrow").iter(BATCH))
    if tables:
        return Dataset(pa.concat_tables(tables))
    return Dataset.from_dict({name: [] for name in stream.features}, features=stream.features)


def _csv(path: Path, names: Sequence[str]) -> "Dataset":
    records = list(rows(path, names))
    with _quiet():
        from datasets import Dataset

        cells = {name: [row[name] for _, row in records] for name in names}
        return Dataset.from_dict({**cells, LINE: [place.number for place, _ in records]})


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which the library logs nothing, since that may quote a post, and sends no request to the Hub."""
    from datasets import config, logging

    verbosity, offline = logging.get_verbosity(), config.HF_HUB_OFFLINE
    logging.set_verbosity(logging.CRITICAL + 1)
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = offline
        logging.set_verbosity(verbosity)
