"""What a file helper promises about crashes and other processes, with real processes that are killed."""

import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redsm5.engine import files, waiting
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError, LockedError
from redsm5.engine.records import TrialRecord
from redsm5.engine.tracking import logs


def test_write_atomic_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    files.write_atomic(path, b"a long first version")
    files.write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["trial.json"]


def test_write_atomic_overwrites_what_a_crash_left_of_another_try(tmp_path: Path) -> None:
    (tmp_path / ".trial.json.tmp").write_bytes(b"half of something much longer than the new content")
    files.write_atomic(tmp_path / "trial.json", b"new")
    assert (tmp_path / "trial.json").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["trial.json"]


WRITER = """
import sys
import tempfile
from pathlib import Path
from redsm5.engine import files
n = 0
while True:
    n += 1
    files.write_atomic(Path(sys.argv[1]), (f"{n} " * 20_000).encode())
    if n == 5:
        print("going", flush=True)
"""


def test_a_killed_writer_leaves_one_whole_version_and_so_sees_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    for life in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        until = time.monotonic() + 0.05 + 0.03 * life
        while time.monotonic() < until:
            assert_one_version(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert_one_version(path)


def assert_one_version(path: Path) -> None:
    words = path.read_text().split()
    assert len(words) == 20_000
    assert len(set(words)) == 1


@pytest.mark.parametrize(
    "size", [0, 1, files.PAGE, files.DIRECT_FROM - 1, files.DIRECT_FROM, 3 * files.DIRECT_FROM + 17]
)
@pytest.mark.parametrize("offset", [0, 1, 64])
def test_a_file_is_written_whole_past_the_page_cache_or_through_it(tmp_path: Path, size: int, offset: int) -> None:
    """Whether the memory begins on a page or not, on a disk and on a file system in memory."""
    memory = mmap.mmap(-1, size + files.PAGE)  # begins on a page
    memory[:] = random.Random(size).randbytes(len(memory))
    content = memoryview(memory)[offset : offset + size]
    assert size == 0 or files._begins_on_a_page(content) == (offset == 0)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as in_memory:
        for folder in (tmp_path, Path(in_memory)):
            files.write_durable(folder / "file", content)
            assert (folder / "file").read_bytes() == bytes(content)
    if size:
        files.write_durable(tmp_path / "file", bytes(content))  # a content that cannot be changed may lie anywhere
        assert (tmp_path / "file").read_bytes() == bytes(content)


def test_make_dir_makes_parents_for_their_user_alone_and_twice_is_harmless(tmp_path: Path) -> None:
    files.make_dir(tmp_path / "a" / "b")
    files.make_dir(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_a_private_process_creates_files_for_its_user_alone(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys; from pathlib import Path; from redsm5.engine import files; files.make_private()\n"
        "files.write_atomic(Path(sys.argv[1]) / 'ours', b''); subprocess.run(['touch', sys.argv[1] + '/childs'])"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {"ours": 0o600, "childs": 0o600}


# ---------------------------------------------------------------------------------------------------------------------
# lines


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"", b""),
        (b'{"a": 1}\n', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"a"', b'{"a": 1}\n'),
        (b'{"a"', b""),
        (b'{"a": 1}\n\x00\x00\x00', b'{"a": 1}\n'),
        (b'{"a": 1}\n{"a": 2}', b'{"a": 1}\n'),
    ],
)
def test_a_torn_tail_is_cut_and_a_reader_does_not_count_it(tmp_path: Path, content: bytes, whole: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(content)
    expected = [{"a": 1}] if whole else []
    assert files.read_lines(path) == expected
    assert files.cut_torn_tail(path) == len(content) - len(whole)
    assert path.read_bytes() == whole
    files.append_durable(path, b'{"a": 3}\n')
    assert files.read_lines(path) == [*expected, {"a": 3}]


def test_a_missing_file_has_no_lines_and_no_tail(tmp_path: Path) -> None:
    assert files.read_lines(tmp_path / "none") == []
    assert files.cut_torn_tail(tmp_path / "none") == 0
    assert not (tmp_path / "none").exists()


def test_a_line_may_hold_every_character_that_json_allows(tmp_path: Path) -> None:
    """str.splitlines would split at U+2028, U+0085 and others, which JSON allows within a string."""
    path = tmp_path / "events.jsonl"
    path.write_bytes('{"message": "one\u2028two\u0085three\x0b"}\n'.replace("\x0b", "\\u000b").encode())
    assert files.read_lines(path) == [{"message": "one\u2028two\u0085three\x0b"}]


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"3", b"\xff"])
def test_read_json_gives_none_for_what_is_no_object(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "trial.json"
    if content is not None:
        path.write_bytes(content)
    assert files.read_json(path) is None


def test_read_json_gives_none_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert files.read_json(tmp_path / "file" / "trial.json") is None


def test_tree_bytes_sums_all_files_hidden_ones_too(tmp_path: Path) -> None:
    (tmp_path / ".tmp-x" / "deep").mkdir(parents=True)
    (tmp_path / ".tmp-x" / "deep" / "a").write_bytes(b"123")
    (tmp_path / "b").write_bytes(b"4567")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert files.tree_bytes(tmp_path) == 7 + (tmp_path / "link").lstat().st_size
    assert files.tree_bytes(tmp_path / "none") == 0


# ---------------------------------------------------------------------------------------------------------------------
# locks

HOLDER = """
import sys, time
from pathlib import Path
from redsm5.engine import files
assert files.Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""

FORKER = """
import os, sys, time
from pathlib import Path
from redsm5.engine import files
assert files.Lock(Path(sys.argv[1])).acquire()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


def test_a_lock_held_by_another_process_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "trial" / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    lock = files.Lock(path)
    assert not lock.acquire()
    with files.try_lock(path) as taken:
        assert not taken
    began = time.monotonic()
    assert not lock.acquire(timeout_s=0.2)
    assert 0.2 <= time.monotonic() - began < 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lock.acquire()
    lock.release()
    assert path.exists(), "the file of a lock is never removed"


def test_a_forked_child_does_not_keep_its_parent_s_lock(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FORKER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout
    child = int(process.stdout.readline())
    try:
        assert not files.Lock(tmp_path / "lock").acquire()
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.kill(child, 0)  # the child lives on
        assert files.Lock(tmp_path / "lock").acquire(timeout_s=1)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_shared_lock_has_several_holders_and_keeps_out_who_wants_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = files.Lock(path, shared=True), files.Lock(path, shared=True)
    assert first.acquire()
    assert second.acquire()
    first.release()
    assert not files.Lock(path).acquire()
    second.release()
    with files.Lock(path):
        assert not first.acquire()


def test_a_lock_is_released_at_the_end_of_its_block_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), files.Lock(tmp_path / "lock"):
        raise ValueError("boom")
    with files.try_lock(tmp_path / "lock") as taken:
        assert taken


# ---------------------------------------------------------------------------------------------------------------------
# a file system without locks


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    monkeypatch.setattr(files, "_have_locks", set())


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_mark_keeps_out_others_those_that_would_share_too(tmp_path: Path) -> None:
    holder = files.Lock(tmp_path / "lock", shared=True)
    assert holder.acquire()
    assert holder.by_mark
    assert not files.Lock(tmp_path / "lock", shared=True).acquire()
    if (pid := os.fork()) == 0:
        os._exit(0)  # a forked child does not take the mark along
    os.waitpid(pid, 0)
    assert not files.Lock(tmp_path / "lock").acquire()
    holder.release()
    with files.Lock(tmp_path / "lock"):
        pass
    assert not holder.mark.exists()


@pytest.mark.usefixtures("no_locks")
def test_a_mark_is_void_once_its_process_has_ended_on_this_machine(tmp_path: Path) -> None:
    lock = files.Lock(tmp_path / "lock")
    if (pid := os.fork()) == 0:
        os._exit(0 if lock.acquire() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert lock.mark.exists()
    assert lock.acquire()
    machine, holder, started = lock.mark.read_text().rsplit(maxsplit=2)
    lock.release()
    for mark in (
        f"{machine} {holder} {int(started) + 1}",  # its number went to another process
        f"{machine} 4194305 1",  # no process has this number
    ):
        lock.mark.write_text(mark)
        assert lock.acquire(), mark
        lock.release()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("mark", ["another-boot pid:[1] 4194305 1", "", "torn"])
def test_a_mark_of_another_machine_stands_and_the_refusal_names_it(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can see from here whether its process has ended."""
    lock = files.Lock(tmp_path / "lock")
    lock.mark.write_text(mark)
    assert not lock.acquire()
    monkeypatch.setattr(waiting.time, "monotonic", iter(range(0, 10_000, 100)).__next__)
    with pytest.raises(LockedError, match=f"If its machine crashed, remove {lock.mark}"), lock:
        pass


def test_a_file_system_that_gave_locks_before_is_not_taken_for_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark would keep out nobody who holds a lock there."""
    with files.Lock(tmp_path / "lock"):
        pass

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with pytest.raises(LockedError, match=r"no longer provides locks \(No locks available\)"):
        files.Lock(tmp_path / "lock").acquire()
    assert not list(tmp_path.glob("*.held"))


# ---------------------------------------------------------------------------------------------------------------------
# what lies in the place of a file


def make_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path, _: Path) -> None:
    path.mkdir()


def make_device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def make_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def make_loop(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [make_pipe, make_folder, make_device, make_loop])
def test_what_is_no_regular_file_is_not_read_and_keeps_nobody_waiting(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "trial.json"
    make(path, tmp_path)
    assert files.read_json(path) is None
    for read in (files.read_bytes, files.read_lines, lambda path: load(path, TrialRecord)):
        with pytest.raises(InputError, match=r"trial\.json: it is (not a regular file|a symbolic link)"):
            read(path)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [make_pipe, make_folder, make_device, make_loop, make_link])
def test_nothing_is_written_or_locked_through_a_link_or_into_a_pipe(
    tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious\nhalf")
    names = ("metrics.jsonl", "lock", ".trial.json.tmp", "log.jsonl")
    for name in names:
        make(tmp_path / name, outside)
    refused = pytest.raises(files.NotRegularError, match=r"it is (not a regular file|a symbolic link)")
    with refused:
        files.append_durable(tmp_path / "metrics.jsonl", b"{}\n")
    with refused:
        files.cut_torn_tail(tmp_path / "metrics.jsonl")
    with refused:
        files.Lock(tmp_path / "lock").acquire()
    with refused:
        files.write_atomic(tmp_path / "trial.json", b"{}\n")
    logs._Output(tmp_path / "log.jsonl", terminal=False, max_bytes=10**6).write("a line", "info")
    assert outside.read_bytes() == b"precious\nhalf"
    assert not (tmp_path / "trial.json").exists()


def test_a_log_is_not_written_through_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "outside")
    logs._Output(tmp_path / "logs" / "log.jsonl", terminal=False, max_bytes=10**6).write("a line", "info")
    assert os.listdir(tmp_path / "outside") == []


READ_SPARSE = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
from redsm5.engine import files
path = Path(sys.argv[1])
print(len(files.read_lines(path)), files.cut_torn_tail(path), path.stat().st_size)
"""


def test_a_journal_with_a_tail_of_a_gigabyte_is_read_and_cut_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n')
    os.truncate(path, 1 << 30)
    done = subprocess.run([sys.executable, "-c", READ_SPARSE, str(path)], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["2", str((1 << 30) - 18), "18"], "")


def test_a_line_beyond_measure_is_damaged_and_those_after_it_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"\0" * (files.MAX_LINE + 5) + b'\n{"b": 2}\n')
    with pytest.raises(InputError, match="line 2 is damaged"):
        files.read_lines(path)
    with files.open_regular(path) as file:
        assert [len(line) for line in files.whole_lines(file)] == [9, files.MAX_LINE, 9]
