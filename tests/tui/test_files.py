"""A file is read bounded, without waiting, and no more often than it changes; what is lost is marked."""

import json
import os
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redsm5.engine.files import open_regular
from redsm5.engine.records import Best, Decision, Event, TrialCounts, TrialRecord
from tui.read import files
from tui.read.files import Documents, Lines, plausible, read_object, records

MEGA = 1_000_000
SOME = Decision(epoch=1, prune=True, reason="b")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


# ---------------------------------------------------------------------------------------------------------------------
# opening


@pytest.mark.timeout(10)
def test_only_regular_files_are_opened(path):
    with pytest.raises(FileNotFoundError):
        open_regular(path)
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(path)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(path.parent)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(path)
    path.unlink()
    path.write_bytes(b"x")
    with open_regular(path) as file:
        assert file.read() == b"x"


def test_what_is_refused_leaves_no_file_open(path):
    os.mkfifo(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------------------------------------------------------------
# documents


def test_a_document_is_read_once_for_each_time_that_it_changes(path, monkeypatch):
    path.write_bytes(SOME.to_json())
    known = Documents()
    first = known.get(path, Decision)
    assert first == SOME
    assert known.get(path, Decision) is first
    path.write_bytes(Decision(epoch=1, prune=True, reason="another").to_json())
    assert known.get(path, Decision).reason == "another"
    path.unlink()
    assert known.get(path, Decision) is None


def test_a_document_that_breaks_keeps_its_last_content_and_is_named(path):
    path.write_bytes(SOME.to_json())
    known = Documents()
    known.get(path, Decision)
    path.write_bytes(b"{")
    assert known.get(path, Decision) == SOME
    assert known.unreadable == {path}
    path.write_bytes(SOME.to_json() + b" ")
    assert known.get(path, Decision) == SOME
    assert known.unreadable == set()
    path.write_bytes(b"{")
    known.get(path, Decision)
    path.unlink()
    assert known.get(path, Decision) is None
    assert known.unreadable == set()


def test_a_document_of_another_kind_is_none(path):
    path.write_bytes(SOME.to_json())
    known = Documents()
    known.get(path, Decision)
    assert known.get(path, Event) is None


def test_a_document_that_was_forbidden_is_read_once_it_is_not(path, monkeypatch):
    path.write_bytes(SOME.to_json())
    known = Documents()

    def refused(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(files, "open_regular", refused)
        assert known.get(path, Decision) is None
        assert known.unreadable == {path}
    assert known.get(path, Decision) == SOME
    assert known.unreadable == set()


def test_a_document_too_large_is_not_read(path):
    path.write_bytes(SOME.to_json() + b" " * 50)
    known = Documents()
    assert known.get(path, Decision, 50) is None
    assert known.unreadable == {path}
    assert known.get(path.with_name("none"), Decision, 50) is None


def test_a_path_that_no_file_can_have_is_no_document(tmp_path):
    known = Documents()
    for name in ("a\0b", "x" * 300, "\ud800"):
        assert known.get(tmp_path / name, Decision) is None


@pytest.mark.parametrize("number", [10**400, -(10**400), 1 << 62, -(1 << 62)])
def test_no_number_is_plausible_that_counts_nothing(number):
    trial = TrialRecord(trial_id="t", study_id=None, number=1, state="running", created_at="", epochs=3)
    assert plausible(trial)
    for field in ("number", "epoch", "epochs", "step", "bytes", "resumes", "exit_code"):
        assert not plausible(trial.model_copy(update={field: number}))
    assert not plausible(trial.model_copy(update={"best": Best(epoch=number, value=0.5)}))
    assert not plausible(TrialCounts(wanted=number))


# ---------------------------------------------------------------------------------------------------------------------
# lines

lines_of_text = st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b".")), max_size=12)


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(lines_of_text, st.lists(st.integers(0, 20), max_size=40))
def test_every_line_comes_once_however_the_writes_are_cut(tmp_path_factory, lines, cuts):
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(b"")
    whole, following, found = b"".join(line + b"\n" for line in lines), Lines(path), []
    for cut in [*cuts, len(whole)]:
        with path.open("ab") as file:
            file.write(whole[:cut])
        whole = whole[cut:]
        found += following.look()
        assert not following.restarted
    assert found == [line for line in lines if line]
    assert following.look() == []
    assert not following.cut


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(st.lists(lines_of_text, min_size=1, max_size=5), st.sampled_from(["replaced", "removed first"]))
def test_of_a_file_that_is_replaced_each_is_told_whole_and_the_change_is_marked(tmp_path_factory, contents, how):
    path = tmp_path_factory.getbasetemp() / "replaced"
    path.unlink(missing_ok=True)
    following, held = Lines(path), False
    for lines in contents:
        restarted = False
        if how == "removed first":
            path.unlink(missing_ok=True)
            assert following.look() == []
            restarted = following.restarted
        fresh = path.with_name("fresh")
        fresh.write_bytes(b"".join(line + b"\n" for line in lines))
        fresh.replace(path)
        assert following.look() == [line for line in lines if line]
        assert held == (restarted or following.restarted)
        held = bool(lines)


def test_a_file_that_was_cut_off_is_read_anew(path):
    path.write_bytes(b"one\ntwo\n")
    following = Lines(path)
    assert following.look() == [b"one", b"two"]
    path.write_bytes(b"new\n")
    assert following.look() == [b"new"]
    assert following.restarted
    path.write_bytes(b"")
    assert following.look() == []
    assert following.restarted
    assert following.look() == []
    assert not following.restarted


@settings(deadline=None, max_examples=100, derandomize=True, database=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(2, 40))
def test_of_a_long_file_whole_lines_at_its_end_come_and_the_cut_is_marked(tmp_path_factory, batches, tail):
    path = tmp_path_factory.getbasetemp() / "long"
    path.unlink(missing_ok=True)
    path.touch()
    following, number, found, cut = Lines(path, tail), 0, [], False
    for batch in batches:
        new = [f"{number + n}".encode() for n in range(batch)]
        number += batch
        with path.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in new))
        cut = cut or sum(map(len, new)) + len(new) > tail
        came = following.look()
        assert came == new[len(new) - len(came) :]  # the last ones, whole, and in their order
        found += came
        assert following.cut == cut
    assert len(set(found)) == len(found)
    assert cut or len(found) == number


def test_a_line_too_long_is_passed_over_and_those_around_it_are_not(path):
    path.write_bytes(b"before\n" + b"x" * (files.MAX_LINE + 1) + b"\nafter\n")
    assert Lines(path).look() == [b"before", b"after"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "folder", "endless", "loop"])
def test_what_is_no_file_has_no_lines_and_says_so(path, kind):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "endless" else path)
    following = Lines(path)
    for _ in range(2):
        assert following.look() == []
        assert following.failed
    path.rmdir() if kind == "folder" else path.unlink()
    assert following.look() == []
    assert not following.failed
    path.write_bytes(b"now\n")
    assert following.look() == [b"now"]


def test_what_has_not_changed_is_not_opened_again(path, monkeypatch):
    path.write_bytes(b"one\n")
    following = Lines(path)
    following.look()
    monkeypatch.setattr(files, "open_regular", lambda path: pytest.fail("opened"))
    assert following.look() == []


def test_a_gigabyte_takes_little_memory(path):
    with path.open("wb") as file:
        file.truncate(1000 * MEGA)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + SOME.model_dump_json().encode() + b"\n")
    following = Lines(path)
    tracemalloc.start()
    try:
        assert [*records(following.look(), Decision)] == [SOME]
        assert following.cut
        assert read_object(path) is None
        assert Documents().get(path, TrialCounts) is None
        assert tracemalloc.get_traced_memory()[1] < 100 * MEGA
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=100, derandomize=True, database=None)
@given(st.lists(st.binary(max_size=60)))
def test_a_strangers_lines_are_skipped(lines):
    mine = SOME.model_dump_json().encode()
    mixed = [piece for line in lines for piece in (line, mine)]
    assert [*records(mixed, Decision)] == [SOME] * len(lines)


def test_an_object_of_any_shape_or_none(path):
    assert read_object(path) is None
    for content in (b"", b"[1]", b"1", b"\xff", b'{"a":' * 100_000, b"9" * 10_000):
        path.write_bytes(content)
        assert read_object(path) is None
    path.write_text(json.dumps({"a": [1]}))
    assert read_object(path) == {"a": [1]}
