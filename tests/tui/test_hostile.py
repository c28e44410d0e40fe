"""Whatever stands in the files: nothing raises, nothing blocks, and nothing reaches the terminal that it would obey."""

import json
import math
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redsm5.engine import paths
from tests.tui.hostile import HUGE, NASTY, OF_STUDY, OF_TRIAL, complete, harmful, look, poison, readers, shown
from tui.panels import overview
from tui.read.reader import Reader
from tui.read.view import View

FUZZ = settings(
    deadline=None, max_examples=10, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
FILES = [*(("study", name) for name in OF_STUDY), *(("trial", name) for name in OF_TRIAL)]

texts = st.one_of(st.sampled_from([*NASTY, "\ud800", "x" * 1_000_000]), st.text(max_size=20))
numbers = st.one_of(
    st.sampled_from(
        [HUGE, -HUGE, 10**18, -1, 0, 2**63, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf")]
    ),
    st.integers(),
    st.floats(),
)
times = st.sampled_from(
    ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", "2126-01-01T00:00:00+23:59", "0001-01-01T00:00:00", "now"]
)
leaves = st.one_of(texts, numbers, times, st.none(), st.booleans())
values = st.one_of(
    leaves, st.lists(leaves, max_size=3), st.dictionaries(texts, leaves, max_size=3), st.just({"a": {"b": [[[{}]]]}})
)


def nodes(document, path=()):
    """The place of every value in a document."""
    yield path
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield from nodes(value, (*path, key))


def replaced(document, path, value):
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = replaced(document[path[0]], path[1:], value)
    return copy


@st.composite
def documents(draw, content):
    """A document like this one, but not quite."""
    document = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        document = replaced(document, draw(st.sampled_from([*nodes(document)])), draw(values))
    return json.dumps(document).encode("utf-8")


@st.composite
def mutations(draw, content, lines):
    """Bytes in place of these: any, cut off, with bits turned over, or with other values."""
    how = draw(st.sampled_from(["other", "other", "other", "any", "cut", "flip", "deep"]))
    if how == "any":
        return draw(st.binary(max_size=200))
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if how == "flip":
        flipped = bytearray(content)
        for at in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            flipped[at] ^= 1 << draw(st.integers(0, 7))
        return bytes(flipped)
    if how == "deep":
        return draw(st.sampled_from([b'{"a":' * 5000, b"[" * 5000, b'{"a":' + b"[" * 150 + b"]" * 150 + b"}\n"]))
    if not lines:
        return draw(documents(content))
    rows = content.splitlines()
    at = draw(st.integers(0, len(rows) - 1))
    return b"\n".join([*rows[:at], draw(documents(rows[at])), *rows[at:]]) + b"\n"


@pytest.fixture
def whole(folder):
    """A study with every file that is read."""
    study_id = folder.study(states=("completed", "running", "interrupted"))
    complete(folder, study_id)
    return folder


def place_of(root, kind, name):
    """The file of the study, or of the trial that runs."""
    found = sorted(root.glob(f"{kind}_*"))
    if kind == "trial":
        found = [p for p in found if json.loads((p / paths.TRIAL).read_bytes())["number"] == 1]
    return found[0] / name


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_any_bytes_in_any_file_are_read_and_shown_without_harm(whole, kind, name):
    path = place_of(whole.root, kind, name)
    original = path.read_bytes()
    kept = readers(whole.root)
    look(whole.root, kept)

    @FUZZ
    @given(mutations(original, (OF_STUDY | OF_TRIAL)[name]))
    def check(content):
        path.write_bytes(content)
        for view in (look(whole.root), look(whole.root, kept)):
            assert not harmful(shown(view))

    check()


EXTREMES = (HUGE, -(2**61), math.nan, math.inf, -math.inf, 1e308, 5e-324, -0.0, None)
TIMES = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00", "yesterday", "")


def with_all(document, key, value):
    """The document with this value wherever it has that key."""
    if isinstance(document, list):
        return [with_all(inner, key, value) for inner in document]
    if not isinstance(document, dict):
        return document
    return {k: value if k == key else with_all(inner, key, value) for k, inner in document.items()}


@pytest.mark.parametrize(("kind", "name"), [f for f in FILES if f[1] not in (paths.INDEX, paths.CONFIG)])
def test_every_field_may_be_extreme_in_all_files_of_the_kind(whole, kind, name):
    """In the types that it may have, so that what is read gets as far as the screens."""
    originals = {path: path.read_bytes() for path in whole.root.glob(f"{kind}_*/{name}")}
    next(whole.root.glob("study_*/index.json")).unlink()  # the folders are looked at
    documents = (
        {path: [json.loads(line) for line in raw.splitlines()] for path, raw in originals.items()}
        if (OF_STUDY | OF_TRIAL)[name]
        else {path: [json.loads(raw)] for path, raw in originals.items()}
    )
    fields = {p[-1]: None for path in documents for p in nodes(documents[path]) if p and isinstance(p[-1], str)}
    for key in fields:
        found = [v for path in documents for v in under(documents[path], key)]
        a_time = key.endswith("_at") or key == "timestamp"
        for value in TIMES if a_time else () if any(isinstance(v, str) for v in found) else EXTREMES:
            for path, rows in documents.items():
                path.write_text("".join(json.dumps(with_all(row, key, value)) + "\n" for row in rows))
            assert not harmful(shown(look(whole.root))), (key, value)


def under(document, key):
    for path in nodes(document):
        if path and path[-1] == key:
            inner = document
            for step in path:
                inner = inner[step]
            yield inner


@pytest.mark.parametrize("word", NASTY, ids=range(len(NASTY)))
def test_any_word_in_every_text_of_a_folder_is_shown_without_harm(folder, word):
    study_id = folder.study(states=("completed", "running", "failed", "pruned"))
    complete(folder, study_id, word)
    poison(folder, study_id, word)
    view = look(folder.root, most=4)
    assert len(view.snapshot.trials) == 4
    assert all(len(detail.series) == 4 and detail.report for detail in view.details.values())
    page = shown(view, word)
    assert not harmful(page)
    if word.startswith("[red]"):  # not taken for markup either
        assert page.count("[red]bold[/red] [@click=app.quit]x[/]") > 20


@pytest.mark.parametrize("name", ["\x1b[31m", "\u202ex", "[red]", " "])
def test_a_folder_by_a_harmful_name_is_none_of_ours(folder, name):
    trial = folder.trial(None, 1, "completed")
    record = trial.model_copy(update={"trial_id": name})
    old, new = paths.trial_dir(folder.root, trial.trial_id), paths.trial_dir(folder.root, name)
    old.rename(new)
    (new / paths.TRIAL).write_bytes(record.to_json())
    (new / paths.REPORT).write_bytes(b"{")
    view = look(folder.root)
    assert len(view.snapshot.trials) == 0
    assert not harmful(shown(view))


def test_the_path_of_the_folder_itself_is_shown_without_harm(tmp_path):
    for name in ("\x1b[31m", "[red]", "a\nb"):
        root = tmp_path / name
        assert not harmful(shown(look(root)))
        root.mkdir()
        assert not harmful(shown(look(root)))


# ---------------------------------------------------------------------------------------------------------------------
# what is no file


def in_its_place(kind, path, root):
    """Something else where a file is expected."""
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to(root / "nowhere")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "endless", "dangling"])
@pytest.mark.parametrize("which", FILES)
def test_what_is_no_file_blocks_nothing_and_hides_nothing_but_itself(whole, which, kind):
    path = place_of(whole.root, *which)
    in_its_place(kind, path, whole.root)
    kept = readers(whole.root)
    for _ in range(2):
        view = look(whole.root, kept)
        assert not harmful(shown(view))
        if which[1] != paths.STUDY:
            assert len(view.snapshot.trials) == 3


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "loop", "endless", "dangling"])
def test_folders_that_are_none(whole, kind):
    for name in ("study_x", "trial_x", "study_..", "trial_"):
        (whole.root / name).touch()
        in_its_place(kind, whole.root / name, whole.root)
    for path in whole.root.glob("trial_*-*"):
        (path / paths.CHECKPOINTS / "x").touch()
        in_its_place(kind, path / paths.CHECKPOINTS / "x", whole.root)
    (paths.study_dir(whole.root, whole.id("night-search")) / paths.CONTROL).symlink_to("/dev/zero")
    view = look(whole.root)
    assert len(view.snapshot.trials) == 3
    assert not harmful(shown(view))


def test_without_permission_it_says_so_and_reads_again_once_it_is_given(whole, monkeypatch):
    opened = os.open
    kept = readers(whole.root)

    def refused(path, *args, **more):
        if str(path).startswith(str(whole.root)):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        view = look(whole.root, kept)
        assert view.snapshot.unreadable
        assert not harmful(shown(view))
    assert len(look(whole.root, kept).snapshot.trials) == 3
    assert not look(whole.root, kept).snapshot.unreadable


def test_a_folder_that_cannot_be_listed_says_why(whole, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    snapshot = Reader(whole.root).read()
    assert "cannot be read: Permission denied" in overview.page(View(snapshot))


def test_files_may_vanish_between_being_listed_and_being_read(whole, monkeypatch):
    opened = os.open
    left = 0

    def vanishing(path, *args, **more):
        nonlocal left
        if str(path).startswith(str(whole.root)):
            left -= 1
            if left == 0:
                os.unlink(path)
        return opened(path, *args, **more)

    monkeypatch.setattr(os, "open", vanishing)
    for nth in range(1, 16):
        left = nth
        assert not harmful(shown(look(whole.root)))
