"""The cache holds nothing stale and nothing damaged, is the user's alone, and is no more than a shortcut."""

import multiprocessing
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from redsm5.config import Config, compose
from redsm5.data import cache, load_splits, load_test, tokenize
from redsm5.data.augment import Augmenter
from redsm5.data.batches import eval_loader
from redsm5.data.encode import EncodedPosts
from redsm5.data.packed import Item
from redsm5.data.posts import Post
from redsm5.data.split import split
from redsm5.data.synthesize import write_csvs
from redsm5.data.tokenize import build_tokenizer, tokenizer_of
from redsm5.engine import paths
from redsm5.engine.errors import InputError

SMALL = ("data.posts=60", "model.max_length=64")
WINDOWS, WIDER = "data.long_posts=window", "model.max_length=256"
PAIRS, SENTENCES = "model.input_format=binary_pairs", "model.evidence_head_type=sentence_reranker"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDSM5_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def read(config: Config) -> tuple[Any, ...]:
    """All that training and evaluation read with this configuration."""
    splits, test = load_splits(config.data), load_test(config.data)
    tokenizer = tokenizer_of(config, splits.train)
    made = tokenizer.backend_tokenizer.to_str()
    encoded = [EncodedPosts(posts, tokenizer, config) for posts in (splits.train, splits.validation, test.test)]
    offsets = [[[*map(tuple, w.offsets)] for w in item.windows] for dataset in encoded for item in dataset.items]
    return splits, test, made, [*map(batches_of, encoded)], offsets, [*map(counts_of, encoded)]


def batches_of(dataset: EncodedPosts) -> list[Any]:
    parts = (part for batch in eval_loader(dataset, 8, 0) for part in batch)
    return [{name: (x.dtype, x.tolist()) for name, x in part.items()} for part in parts]


def counts_of(dataset: EncodedPosts) -> tuple[int, int, int]:
    return dataset.truncated_posts, dataset.evidence_spans, dataset.lost_spans


@pytest.fixture
def forbid_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, nothing can be read, split, trained or tokenized."""

    def forbid() -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("made again")

        monkeypatch.setattr("redsm5.data.read_corpus", refuse)
        monkeypatch.setattr("redsm5.data.split", refuse)
        monkeypatch.setattr(tokenize, "_trained", refuse)
        monkeypatch.setattr(EncodedPosts, "_encoded", refuse)

    return forbid


# ---------------------------------------------------------------------------------------------------------------------
# the same, only sooner


@pytest.mark.parametrize("words", [(), (WINDOWS,), (PAIRS,), (SENTENCES,), (WINDOWS, PAIRS, SENTENCES, WIDER)])
def test_what_is_read_is_the_same_with_an_empty_a_full_and_no_cache(
    words: tuple[str, ...], forbid_work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose([*SMALL, *words])
    with monkeypatch.context() as without:
        without.setenv("REDSM5_CACHE", "/dev/null/there-is-no-such-folder")
        never = read(config)
    first = read(config)
    forbid_work()
    assert read(config) == first == never


@pytest.mark.parametrize("words", [(), (PAIRS, WINDOWS, WIDER)])
def test_augmented_posts_are_encoded_and_the_others_taken_as_they_are(
    folder: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(
        [*SMALL, *words, "train.augmentation.methods=[swap]", "train.augmentation.probability=0.5"],
    )
    posts = load_splits(config.data).train
    tokenizer = tokenizer_of(config, posts)
    dataset, encoded = EncodedPosts(posts, tokenizer, config), list[int]()

    def counted(self: EncodedPosts, posts: Sequence[Post]) -> list[Item]:
        encoded.append(len(posts))
        return encode(self, posts)

    encode = EncodedPosts._encoded
    monkeypatch.setattr(EncodedPosts, "_encoded", counted)
    for epoch in (1, 2):
        before, augmented = entries(folder), Augmenter(config.train.augmentation, 7)(posts, epoch)
        dataset.encode(augmented)
        assert entries(folder) == before, "what is read in one epoch alone is not kept"
        assert 0 < encoded[-1] == sum(a is not b for a, b in zip(augmented, posts, strict=True)) < len(posts)
        whole = EncodedPosts(augmented, tokenizer, config)
        assert batches_of(dataset) == batches_of(whole)
        assert counts_of(dataset) == counts_of(whole)


# ---------------------------------------------------------------------------------------------------------------------
# nothing stale


@pytest.mark.parametrize(
    "word",
    [
        "data.posts=61",
        "data.seed=1",
        "data.split_seed=1",
        "data.test_split=authors",
        "data.validation_fraction=0.2",
        "data.test_fraction=0.3",
    ],
)
def test_other_posts_or_splits_are_another_entry(folder: Path, word: str) -> None:
    base = load_splits(compose(SMALL).data)
    assert load_splits(compose([*SMALL, word]).data) != base
    assert len(entries(folder)) == 2
    assert load_splits(compose(SMALL).data) == base
    assert len(entries(folder)) == 2


def test_splits_that_keep_copies_together_and_those_that_do_not_are_two_entries(folder: Path) -> None:
    load_splits(compose(SMALL).data)
    load_splits(compose([*SMALL, "data.group_duplicates=false"]).data)
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("name", ["redsm5_posts.csv", "redsm5_annotations.csv"])
def test_a_file_that_changes_is_read_again(folder: Path, tmp_path: Path, name: str) -> None:
    write_csvs(tmp_path, 60, 1)
    config = compose(["data=csv", f"data.dir={tmp_path}"])
    before = load_splits(config.data)
    moved = shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("cache", "copy"))
    assert load_splits(compose(["data=csv", f"data.dir={moved}"]).data) == before
    assert len(entries(folder)) == 1, "where the files lie does not matter"

    path, stamp = tmp_path / name, (tmp_path / name).stat()
    path.write_text(path.read_text().replace(" I ", " U ", 1))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # neither its size nor its times tell
    load_splits(config.data)
    assert len(entries(folder)) == 2
    path.write_text("nothing")
    with pytest.raises(InputError, match="column"):
        load_splits(config.data)


def test_files_that_change_while_they_are_read_are_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csvs(tmp_path, 60, 1)

    def slow(*arguments: Any) -> Any:
        with (tmp_path / "redsm5_posts.csv").open("a") as file:
            file.write("s_new,I came late.\n")
        return split(*arguments)

    monkeypatch.setattr("redsm5.data.split", slow)
    load_splits(compose(["data=csv", f"data.dir={tmp_path}"]).data)
    assert entries(folder) == set()


ENCODING = {
    "max_length": ["model.max_length=32"],
    "windows": [WINDOWS],
    "overlap": ["data.window_overlap=0.5"],
    "pairs": [PAIRS],
    "descriptions": [PAIRS, "symptoms.FATIGUE=always tired"],
    "sentences": [SENTENCES],
}


def test_each_part_of_an_encodings_key_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EncodedPosts, "_encoded", lambda self, posts: [])
    posts = load_splits(compose(SMALL).data).train
    tiny, other = build_tokenizer("tiny", posts), build_tokenizer("tiny", posts[:20])
    unnamed, cut_left = build_tokenizer("tiny", posts), build_tokenizer("tiny", posts)
    unnamed.model_input_names = ["input_ids"]
    cut_left.truncation_side = "left"

    def key(posts: Any, tokenizer: Any, *words: str) -> str:
        return EncodedPosts(posts, tokenizer, compose([*SMALL, *words]))._key()

    keys = [key(posts, tiny, *words) for words in ENCODING.values()]
    keys += [key(posts, tokenizer) for tokenizer in (tiny, other, unnamed, cut_left)]
    keys += [key(posts[:-1], tiny), key([posts[1], posts[0], *posts[2:]], tiny)]
    assert len(set(keys)) == len(keys)
    tiny("a call with other settings", truncation=True, max_length=3, padding="max_length")
    assert key(posts, tiny) == keys[len(ENCODING)], "what was tokenized before does not matter"
    assert key(posts, tiny, "symptoms.FATIGUE=always tired", "train.learning_rate=1") == keys[len(ENCODING)]


def test_other_posts_or_descriptions_are_another_tokenizer() -> None:
    posts = load_splits(compose(SMALL).data).train
    made = [
        build_tokenizer("tiny", posts).get_vocab(),
        build_tokenizer("tiny", posts[:10]).get_vocab(),
        build_tokenizer("tiny", posts, descriptions=["zymurgy"]).get_vocab(),
    ]
    assert made[0] != made[1]
    assert "zymurgy" in made[2]
    assert "zymurgy" not in made[0]


def test_other_code_or_libraries_are_other_entries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = {cache._code()}
    monkeypatch.setattr(cache, "version", lambda name: "99" if name == "tokenizers" else "1")
    before.add(cache._code())
    shutil.copytree(Path(cache.__file__).parent, tmp_path / "code")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "code" / "cache.py"))
    assert cache._code() in before
    with (tmp_path / "code" / "align.py").open("a") as file:
        file.write("# new\n")
    before.add(cache._code())
    assert len(before) == 3
    key = cache.key("posts", 1)
    monkeypatch.setattr(cache, "CODE", "another")
    assert cache.key("posts", 1) != key


# ---------------------------------------------------------------------------------------------------------------------
# nothing damaged


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 0),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.rename(path.with_name(path.name[:-1] + "g")),
    ],
)
def test_a_damaged_entry_is_made_anew(folder: Path, damage: Callable[[Path], None]) -> None:
    config = compose(SMALL)
    before, names = read(config), entries(folder)
    assert len(names) == 5
    for path in folder.iterdir():
        damage(path)
    assert read(config) == before
    assert entries(folder) == names
    for path in folder.iterdir():
        assert cache.find(path.name.rpartition("-")[0]) is not None


def test_what_is_written_to_a_found_entry_stays_in_this_process(folder: Path) -> None:
    cache.keep("k", b"content")
    found = cache.find("k")
    assert found is not None
    found[0:1] = b"C"
    assert bytes(cache.find("k") or b"") == b"content"


def write_and_find() -> None:
    for _ in range(200):
        cache.keep("k", b"x" * 100_000)
        found = cache.find("k")
        assert found is not None
        assert found[:] == b"x" * 100_000


def test_several_processes_at_once_do_each_other_no_harm(folder: Path) -> None:
    writers = [multiprocessing.get_context("fork").Process(target=write_and_find) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(entries(folder)) == 1


# ---------------------------------------------------------------------------------------------------------------------
# where it is, and how much


def test_it_is_the_users_alone(folder: Path) -> None:
    umask = os.umask(0o000)
    try:
        cache.keep("k", b"content")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_folder_beside_the_entries_stays_and_hinders_none(folder: Path) -> None:
    """The sample model's."""
    (folder / "minilm").mkdir(parents=True)
    os.utime(folder / "minilm", (0, 0))
    cache.keep("k", b"content")
    assert cache.find("k") is not None
    assert (folder / "minilm").is_dir()


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert paths.cache_dir() == folder
    monkeypatch.delenv("REDSM5_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert paths.cache_dir() == Path("/x/redsm5")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert paths.cache_dir() == Path("/home/somebody/.cache/redsm5")


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def on_a_full_disk(descriptor: int, mode: str) -> Any:
    os.close(descriptor)
    return open("/dev/full", mode)


@pytest.mark.parametrize("call", ["mkdir", "mkstemp", "write", "rename"])
def test_without_room_or_permission_there_is_no_cache_and_no_error(
    folder: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(SMALL)
    with monkeypatch.context() as broken:
        if call == "mkdir":
            broken.setattr(Path, "mkdir", full)
        elif call == "write":
            broken.setattr(cache, "open", on_a_full_disk, raising=False)
        else:
            broken.setattr(cache.tempfile if call == "mkstemp" else cache.os, call, full)
        assert load_splits(config.data).counts["posts"] == 60
    assert entries(folder) == set(), "nothing is left lying about"
    load_splits(config.data)
    assert len(entries(folder)) == 1


def test_a_cache_that_can_only_be_read_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(30, "Read-only file system")

    cache.keep("k", b"content")
    monkeypatch.setattr(cache.os, "utime", refuse)
    assert cache.find("k") is not None


def test_an_entry_takes_a_small_share_of_what_is_free(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10_000, 0, 10_000))
    cache.keep("large", b"x" * 101)
    cache.keep("small", b"x" * 100)
    assert [name.partition("-")[0] for name in entries(folder)] == ["small"]


def test_what_was_used_longest_ago_goes_first_and_what_is_in_use_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 100)
    days = {"old": 31, "older": 3, "found": 5, "new": 0}
    for name, age in days.items():
        cache.keep(name, b"x" * 25)
        (path,) = folder.glob(f"{name}-*")
        os.utime(path, (time.time() - age * 86400,) * 2)
    assert cache.find("found")

    def left() -> set[str]:
        return {name.partition("-")[0] for name in entries(folder)}

    cache.keep("more", b"x" * 25)
    assert left() == {"older", "found", "new", "more"}
    cache.keep("last", b"x" * 25)
    assert left() == {"found", "new", "more", "last"}
    cache.keep("none", b"x" * 25)
    assert left() == {"found", "new", "more", "last"}, "all were used today: nothing goes, and nothing comes"


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_clock_that_jumps_removes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 100)
    for name in ("one", "two", "three"):
        cache.keep(name, b"x" * 25)
    real = time.time
    monkeypatch.setattr(cache.time, "time", lambda: real() + jump)
    cache.keep("four", b"x" * 25)
    cache.keep("five", b"x" * 25)
    assert sorted(name.partition("-")[0] for name in entries(folder)) == ["four", "one", "three", "two"]
