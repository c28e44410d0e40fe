"""What the cache keeps of posts is Arrow: read without a copy or a thread, and open to whoever reads Arrow."""

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from redsm5.config import compose
from redsm5.data import arrow, cache, load_splits, load_test
from redsm5.data.encode import EncodedPosts
from redsm5.data.packed import PackedItems, pack
from redsm5.data.tokenize import tokenizer_of

WORDS = ["data.posts=60", "model.max_length=64", "data.long_posts=window"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDSM5_CACHE", str(tmp_path))
    return tmp_path


def test_an_item_s_numbers_are_those_of_the_mapped_file(folder: Path) -> None:
    config = compose(WORDS)
    posts = load_splits(config.data).train
    EncodedPosts(posts, tokenizer_of(config, posts), config)
    (path,) = folder.glob("encoding-*")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    of_file = np.frombuffer(content, np.uint8)
    windows = [window for item in PackedItems(content) for window in item.windows]
    assert len(windows) > len(posts)
    for window in windows:
        assert np.shares_memory(of_file, np.asarray(window.input_ids))
        assert np.shares_memory(of_file, np.asarray(window.offsets))


def test_the_datasets_library_opens_what_the_cache_keeps(folder: Path) -> None:
    config = compose(WORDS)
    splits = load_splits(config.data)
    encoded = EncodedPosts(splits.train, tokenizer_of(config, splits.train), config)
    (posts_path,), (items_path,) = (list(folder.glob(f"{kind}-*")) for kind in ("posts", "encoding"))
    posts = Dataset.from_file(str(posts_path), in_memory=True)
    every = sorted([*splits.train, *splits.validation, *load_test(config.data).test], key=lambda post: post.post_id)
    assert posts["post_id"][:] == [post.post_id for post in every]
    assert posts["text"][:] == [post.text for post in every]
    assert posts["labels"][:] == [list(post.labels) for post in every]
    assert posts["evidence"][:] == [[[s.symptom, s.start, s.end] for s in post.evidence] for post in every]
    table = Dataset.from_file(str(items_path), in_memory=True)
    for row, item in zip(table, encoded.items, strict=True):
        assert [w["input_ids"] for w in row["windows"]] == [list(w.input_ids) for w in item.windows]
        assert [w["text"] for w in row["windows"]] == [list(w.text) for w in item.windows]
        assert row["labels"] == list(item.labels)


def test_no_items_are_no_items() -> None:
    assert list(PackedItems(pack([]))) == []


def test_posts_that_are_found_wait_neither_for_pandas_nor_for_datasets() -> None:
    load = "import sys; from redsm5.config import compose; from redsm5.data import load_splits;"
    load += "load_splits(compose(['data.posts=60']).data); assert 'pyarrow' in sys.modules;"
    subprocess.run([sys.executable, "-c", f"{load} assert 'datasets' not in sys.modules"], check=True)
    found = "assert not {'pandas', 'datasets', 'sklearn'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", load + found], check=True)


def test_reading_starts_no_thread() -> None:
    cache.keep("k", arrow.to_bytes({"x": arrow.numbers(range(100_000), np.int32)}))
    code = (
        "import os; from redsm5.data import arrow, cache; before = len(os.listdir('/proc/self/task'));"
        "assert arrow.view(arrow.from_bytes(cache.find('k')).column('x')).sum() == 4999950000;"
        "assert len(os.listdir('/proc/self/task')) == before == 1"
    )
    environment = {**os.environ, "JE_ARROW_MALLOC_CONF": "background_thread:false", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
