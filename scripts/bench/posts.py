"""Tokenized posts from the cache, beside other ways to read the same Arrow file: `just bench posts`.

Posts are invented, as many as ReDSM5 has; those of the training split are tokenized and kept in the cache. Contenders
open that entry in turn, round after round, each in a process forked as a trial is, from one that has imported what
train.py imports (`datasets` is not part of it). `open` is the CPU time until the first item has been read, including
the imports for it; redsm5 has verified the SHA-256 of all bytes by then. `item` is the mean time to read one item; all
are read once, in random order.

- redsm5: items from views of the flat arrays in the mapped file;
- pyarrow: rows as Python's lists, from the same mapping;
- datasets: `Dataset.from_file`, with rows as NumPy's arrays (`with_format("numpy")`), and as Python's lists.
"""

import json
import mmap
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from results import Result, arguments_of, digits, finish

from redsm5.config import compose
from redsm5.data import arrow, cache, load_splits
from redsm5.data.encode import EncodedPosts
from redsm5.data.packed import PackedItems
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine.errors import exit_with_message
from redsm5.engine.tables import Row

POSTS = 1484  # as many as ReDSM5 has
WORDS = (f"data.posts={POSTS}", "model.max_length=512")
Open = Callable[[Path], Sequence[Any]]


class Rows(Sequence[Any]):
    """The rows of a record batch, read with pyarrow."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._batch = arrow.from_bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def __getitem__(self, index: Any) -> Any:
        return self._batch.slice(index, 1).to_pylist()[0]


def ours(path: Path) -> Sequence[Any]:
    content = cache.find(path.name.rpartition("-")[0])
    assert content is not None
    return PackedItems(content)


def by_datasets(kind: str | None) -> Open:
    def opened(path: Path) -> Sequence[Any]:
        from datasets import Dataset

        rows: Sequence[Any] = Dataset.from_file(str(path)).with_format(kind)
        return rows

    return opened


CONTENDERS: dict[str, Open] = {
    "redsm5": ours,
    "pyarrow": Rows,
    "datasets, NumPy": by_datasets("numpy"),
    "datasets, Python": by_datasets(None),
}


def preload() -> None:
    """Import what the standby process has imported."""
    import_module("redsm5.train")


def forked(opened: Open, path: Path) -> list[float]:
    """CPU time in ms until the first item, µs per item, and the number of threads at the end, in a forked process."""
    hears, says = os.pipe()
    if (pid := os.fork()) == 0:
        began = time.process_time()
        items = opened(path)
        items[0]
        open_ms = 1e3 * (time.process_time() - began)
        order = random.Random(1).sample(range(len(items)), len(items))
        began = time.perf_counter()
        for index in order:
            items[index]
        item_us = 1e6 * (time.perf_counter() - began) / len(items)
        os.write(says, json.dumps([open_ms, item_us, len(os.listdir("/proc/self/task"))]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(says)
    with open(hears, "rb") as heard:
        figures: list[float] = json.loads(heard.read())
    return figures


def main() -> int:
    parser = arguments_of("posts", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # as in the standby process
    preload()
    config = compose(WORDS)
    found: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="redsm5-") as folder:
        os.environ["REDSM5_CACHE"] = folder
        posts = load_splits(config.data).train
        EncodedPosts(posts, tokenizer_of(config, posts), config)
        (path,) = Path(folder).glob("encoding-*")
        size = path.stat().st_size
        for _ in range(arguments.rounds):
            for name, opened in CONTENDERS.items():
                found[name].append(forked(opened, path))
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in found.items()
    }
    times = {
        what: {name: figures[n] / medians["redsm5"][n] for name, figures in medians.items()}
        for n, what in enumerate(("opening tokenized posts", "reading an item"))
    }
    rows: list[Row] = [
        {
            f"{len(posts)} posts, {size / 1e6:.2f} MB": name,
            "open, CPU ms": digits(open_ms),
            "times redsm5 (open)": digits(times["opening tokenized posts"][name]),
            "item, µs": digits(item_us),
            "times redsm5 (item)": digits(times["reading an item"][name]),
            "threads": int(threads),
        }
        for name, (open_ms, item_us, threads) in medians.items()
    ]
    return finish(Result("Tokenized posts from the cache", rows, times, found), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
