"""Whatever form posts come in, they are those of the CSV files, by the same rules; and nothing is left lying about."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value

from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.dataset import read_dataset
from redsm5.data.read import ANNOTATIONS_COLUMNS, ANNOTATIONS_FILE, POSTS_FILE, read_corpus
from redsm5.data.synthesize import write_csvs
from redsm5.engine.errors import ConfigError, InputError
from tests.hub_server import HubServer

SAMPLE = Path(__file__).parents[2].parent / "shared/data/redsm5_sample"
SECRET = "A secret sentence, nobody's business."
POSTS = [{"post_id": "s_1", "text": f"{SECRET} I am tired. Bye."}, {"post_id": "s_2", "text": "Nothing here."}]
ANNOTATIONS = [
    {"post_id": "s_1", "sentence_id": "1", "sentence_text": "I am tired.", "DSM5_symptom": "FATIGUE", "status": 1},
    {"post_id": "s_2", "sentence_id": "0", "sentence_text": "Nothing here.", "DSM5_symptom": "ANHEDONIA", "status": 0},
]
Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def csvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files of 60 posts, some of which have line breaks, quotes and commas."""
    folder = tmp_path_factory.mktemp("csvs")
    write_csvs(folder, 60, 1)
    with (folder / POSTS_FILE).open("a", newline="") as file:
        csv.writer(file).writerow(["s_9", 'She said:\r\n"No, I am tired", and left.\n'])
    with (folder / ANNOTATIONS_FILE).open("a", newline="") as file:
        csv.writer(file).writerow(["s_9", "1", "No, I am tired", "FATIGUE", "1", ""])
    return folder


def tables_of(folder: Path) -> tuple[Records, Records]:
    """The rows of the two CSV files, with line breaks as they stand there and the status as a number."""
    found = []
    for name in (POSTS_FILE, ANNOTATIONS_FILE):
        with (folder / name).open(newline="") as file:
            found.append(list(csv.DictReader(file)))
    for row in found[1]:
        row["status"] = int(row["status"])
    return found[0], found[1]


def nested(posts: Records, annotations: Records) -> Records:
    by_post: dict[str, Records] = {post["post_id"]: [] for post in posts}
    for row in annotations:
        by_post[row["post_id"]].append({name: row[name] for name in ANNOTATIONS_COLUMNS if name != "post_id"})
    return [{**post, "annotations": by_post[post["post_id"]]} for post in posts]


# ---------------------------------------------------------------------------------------------------------------------
# all forms


def csv_files(folder: Path, posts: Records, annotations: Records) -> Path:
    for name, table in (("posts", posts), ("annotations", annotations)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, table[0])
            writer.writeheader()
            writer.writerows(table)
    return folder


def parquet(folder: Path, posts: Records, annotations: Records) -> Path:
    Dataset.from_list(posts).to_parquet(folder / "redsm5_posts.parquet")
    Dataset.from_list(annotations).to_parquet(folder / "redsm5_annotations.parquet")
    return folder


def json_lines(folder: Path, posts: Records, annotations: Records) -> Path:
    for name, table in (("posts", posts), ("annotations", annotations)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


def shards(folder: Path, posts: Records, annotations: Records) -> Path:
    """As `Dataset.push_to_hub` with two configurations leaves them."""
    for name, table in (("posts", posts), ("annotations", annotations)):
        (folder / name).mkdir()
        for i in range(2):
            shard = Dataset.from_list(table).shard(2, i)
            shard.to_parquet(folder / name / f"train-{i:05}-of-00002.parquet")
    (folder / "README.md").write_text("---\nconfigs: []\n---\n")
    return folder


def saved_tables(folder: Path, posts: Records, annotations: Records) -> Path:
    both = DatasetDict(posts=Dataset.from_list(posts), annotations=Dataset.from_list(annotations))
    both.save_to_disk(folder / "saved")
    return folder / "saved"


def saved_splits(folder: Path, posts: Records, annotations: Records) -> Path:
    table = Dataset.from_list(nested(posts, annotations))
    table.train_test_split(0.3, seed=1).save_to_disk(folder / "saved")
    return folder / "saved"


def saved_table(folder: Path, posts: Records, annotations: Records) -> Path:
    Dataset.from_list(nested(posts, annotations)).save_to_disk(folder / "saved")
    return folder / "saved"


def nested_parquet(folder: Path, posts: Records, annotations: Records) -> Path:
    Dataset.from_list(nested(posts, annotations)).to_parquet(folder / "all.parquet")
    return folder / "all.parquet"


def nested_json(folder: Path, posts: Records, annotations: Records) -> Path:
    table = nested(posts, annotations)
    for i in range(2):
        (folder / f"part{i}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table[i::2]))
    return folder


def json_array(folder: Path, posts: Records, annotations: Records) -> Path:
    (folder / "all.json").write_text(json.dumps(nested(posts, annotations)))
    return folder / "all.json"


def record_of_lists(folder: Path, posts: Records, annotations: Records) -> Path:
    table = [
        {**row, "annotations": {n: [a[n] for a in row["annotations"]] for n in ANNOTATIONS_COLUMNS if n != "post_id"}}
        for row in nested(posts, annotations)
    ]
    Dataset.from_list(table).to_parquet(folder / "all.parquet")
    return folder / "all.parquet"


def arrow_files(folder: Path, posts: Records, annotations: Records) -> Path:
    saved = saved_table(folder, posts, annotations)
    (saved / "data-00000-of-00001.arrow").rename(folder / "all.arrow")
    shutil.rmtree(saved)
    return folder


FORMS = [csv_files, parquet, json_lines, shards, saved_tables, saved_splits, saved_table, nested_parquet, nested_json]
FORMS += [json_array, arrow_files, record_of_lists]
form = pytest.mark.parametrize("form", FORMS)


@form
def test_posts_of_every_form_are_those_of_the_csv_files(form: Callable[..., Path], csvs: Path, tmp_path: Path) -> None:
    assert read_dataset(form(tmp_path, *tables_of(csvs)), {}) == read_corpus(csvs)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of the data set's authors is not here")
@form
def test_the_authors_sample_is_the_same_in_every_form(form: Callable[..., Path], tmp_path: Path) -> None:
    assert read_dataset(form(tmp_path, *tables_of(SAMPLE)), {}) == read_corpus(SAMPLE)


NAMES = {"post_id": "id", "text": "body", "sentence_text": "quote", "DSM5_symptom": "label", "annotations": "said"}


def renamed(value: Any) -> Any:
    """The rows with other names of their columns, at all depths."""
    if isinstance(value, list):
        return [renamed(row) for row in value]
    return {NAMES.get(k, k): renamed(v) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("one_table", [False, True])
def test_columns_may_have_other_names(one_table: bool, csvs: Path, tmp_path: Path) -> None:
    posts, annotations = tables_of(csvs)
    if one_table:
        Dataset.from_list(renamed(nested(posts, annotations))).to_parquet(tmp_path / "all.parquet")
    else:
        Dataset.from_list(renamed(posts)).to_parquet(tmp_path / "posts.parquet")
        csv_files(tmp_path, renamed(posts), renamed(annotations))
        (tmp_path / "posts.csv").unlink()
    assert read_dataset(tmp_path, NAMES) == read_corpus(csvs)


@pytest.mark.parametrize("kind", ["names", "numbers", "floats", "booleans"])
def test_categories_numbers_and_booleans_are_read_as_what_they_stand_for(kind: str, csvs: Path, tmp_path: Path) -> None:
    posts, annotations = tables_of(csvs)
    numbers = {post["post_id"]: n for n, post in enumerate(posts)}
    for row in [*posts, *annotations]:
        row["post_id"] = str(numbers[row["post_id"]])
    (tmp_path / "csv").mkdir()
    expected = read_dataset(csv_files(tmp_path / "csv", posts, annotations), {})
    casts = {
        "names": {"DSM5_symptom": ClassLabel(names=sorted({row["DSM5_symptom"] for row in annotations}))},
        "numbers": {"post_id": Value("int64"), "status": ClassLabel(names=["absent", "present"])},
        "floats": {"post_id": Value("float64"), "status": Value("float32")},
        "booleans": {"status": Value("bool")},
    }[kind]
    tables = {"posts": Dataset.from_list(posts), "annotations": Dataset.from_list(annotations)}
    for name, table in tables.items():
        for column, feature in casts.items():
            if column in table.column_names:
                table = table.cast_column(column, feature)
        table.save_to_disk(tmp_path / "saved" / name)
    assert read_dataset(tmp_path / "saved", {}) == expected


# ---------------------------------------------------------------------------------------------------------------------
# what is refused


def without(table: Records, column: str) -> Records:
    return [{name: value for name, value in row.items() if name != column} for row in table]


BAD: dict[str, tuple[Records, Records, tuple[str, ...]]] = {
    "an unknown symptom": (
        POSTS,
        [ANNOTATIONS[0], {**ANNOTATIONS[1], "DSM5_symptom": "FATIGE"}],
        ("row 2", "unknown DSM5_symptom 'FATIGE'", "Did you mean FATIGUE?"),
    ),
    "a post in the place of a symptom": (
        POSTS,
        [{**ANNOTATIONS[0], "DSM5_symptom": SECRET}],
        ("row 1", "unknown DSM5_symptom (37 characters, not shown)"),
    ),
    "an unknown status": (POSTS, [{**ANNOTATIONS[0], "status": 2}], ("row 1", "unknown status '2'", "Use 1")),
    "a post twice": ([*POSTS, POSTS[0]], ANNOTATIONS, ("row 3", "post_id 's_1' occurs twice, first in row 1")),
    "no id": (
        [POSTS[0], {**POSTS[1], "post_id": None}],
        ANNOTATIONS[:1],
        ("row 2", "post_id is empty", "Fill in post_id"),
    ),
    "no text": ([POSTS[0], {**POSTS[1], "text": " "}], ANNOTATIONS, ("row 2", "text is empty")),
    "a NUL": ([{**POSTS[0], "text": f"{SECRET}\0"}], [], ("row 1", "a NUL character")),
    "a word for a missing value": ([{**POSTS[0], "text": "NaN"}], [], ("row 1", "a placeholder for a missing value")),
}


def write(folder: Path, posts: Records, annotations: Records) -> Path:
    Dataset.from_list(posts).to_parquet(folder / "posts.parquet")
    columns: dict[str, list[Any]] = {name: [row[name] for row in annotations] for name in ANNOTATIONS_COLUMNS}
    Dataset.from_dict(columns).to_parquet(folder / "annotations.parquet")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_refused_by_its_number_without_the_text_of_a_post(name: str, tmp_path: Path) -> None:
    posts, annotations, words = BAD[name]
    with pytest.raises(InputError) as caught:
        read_dataset(write(tmp_path, posts, annotations), {})
    said = caught.value.message()
    assert all(word in said for word in (*words, str(tmp_path))), said
    assert SECRET not in said
    assert "tired" not in said


def test_an_annotation_of_no_post_is_refused_with_the_nearest(tmp_path: Path) -> None:
    bad = [{**ANNOTATIONS[0], "post_id": "S_01"}]
    with pytest.raises(
        InputError, match=r"annotations.parquet, row 1: .*'S_01' is not in posts.parquet; nearest: 's_1'"
    ):
        read_dataset(write(tmp_path, POSTS, bad), {})


def test_a_bad_annotation_within_a_post_is_refused_by_both_numbers(tmp_path: Path) -> None:
    bad = [ANNOTATIONS[0], {**ANNOTATIONS[0], "status": 7}, ANNOTATIONS[1]]
    with pytest.raises(InputError, match=r"all.parquet, annotation 2 of row 1: unknown status '7'"):
        read_dataset(nested_parquet(tmp_path, POSTS, bad), {})


def test_a_bad_line_of_a_csv_file_is_refused_by_its_line(tmp_path: Path) -> None:
    csv_files(tmp_path, [{**POSTS[0], "text": "two\nlines"}, {**POSTS[1], "text": ""}], ANNOTATIONS)
    with pytest.raises(InputError, match=r"posts.csv, line 4: text is empty"):
        read_dataset(tmp_path, {})
    (tmp_path / "posts.csv").write_text('post_id,text\ns_1,"never closed\n')
    with pytest.raises(InputError, match=r"posts.csv, line 2: a quote opened in this record is never closed"):
        read_dataset(tmp_path, {})


@pytest.mark.parametrize(
    ("change", "columns", "words"),
    [
        (lambda p, a: (without(p, "text"), a), {}, ("column text is missing", "data.columns.text=")),
        (lambda p, a: (p, a), {"text": "txt"}, ("column txt is missing; nearest: text",)),
        (lambda p, a: ([{**r, "text": 7} for r in p], a), {}, ("column text has type int64, which cannot hold text",)),
        (lambda p, a: ([{**r, "post_id": [1]} for r in p], a), {}, ("column post_id has type List",)),
    ],
)
def test_a_table_without_what_is_needed_is_refused_by_its_column(
    tmp_path: Path,
    change: Callable[[Records, Records], tuple[Records, Records]],
    columns: dict[str, str],
    words: tuple[str, ...],
) -> None:
    posts, annotations = change(POSTS, ANNOTATIONS)
    with pytest.raises(InputError) as caught:
        read_dataset(write(tmp_path, posts, annotations), columns)
    assert all(word in caught.value.message() for word in words), caught.value.message()
    assert SECRET not in caught.value.message()


def test_a_table_that_holds_no_annotations_is_refused(tmp_path: Path) -> None:
    Dataset.from_list(POSTS).to_parquet(tmp_path / "all.parquet")
    with pytest.raises(InputError, match="column annotations is missing"):
        read_dataset(tmp_path, {})
    Dataset.from_list([{**POSTS[0], "annotations": "FATIGUE"}]).to_parquet(tmp_path / "all.parquet")
    with pytest.raises(InputError, match="column annotations holds no list of records"):
        read_dataset(tmp_path, {})


def test_what_cannot_be_read_is_refused_without_a_word_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name, content in {
        "a.parquet": SECRET,
        "a.jsonl": f'{{"post_id": "{SECRET}',
        "b.jsonl": f'{{"post_id": "s_1", "text": "{SECRET}"}}\n{SECRET}',
        "a.arrow": SECRET,
        "empty.jsonl": "",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError) as caught:
            read_dataset(tmp_path / name, {})
        assert name in caught.value.message()
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        out, err = capfd.readouterr()
        assert "secret" not in caught.value.message() + out + err + caplog.text


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    bad = pa.array([SECRET.encode() + b"\xff"], pa.binary()).view(pa.string())
    table = pa.table({"post_id": ["s_1"], "text": bad, "annotations": [[]]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match=r"a\.arrow: the datasets library cannot read it \(ArrowInvalid\)"):
        read_dataset(tmp_path / "a.arrow", {})


def test_lists_of_different_lengths_within_a_post_are_refused(tmp_path: Path) -> None:
    row = {"sentence_id": ["1", "2"], "sentence_text": ["a"], "DSM5_symptom": ["FATIGUE"], "status": [1]}
    Dataset.from_list([{**POSTS[0], "annotations": row}]).to_parquet(tmp_path / "all.parquet")
    with pytest.raises(InputError, match=r"all.parquet, row 1: the lists of its annotations differ in length"):
        read_dataset(tmp_path, {})


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({}, "the folder has no table"),
        ({"a.jsonl": "", "b.parquet": ""}, r"files of several kinds \(.jsonl, .parquet\)"),
        ({"posts.parquet": ""}, "a table posts and no table annotations"),
        ({"dataset_dict.json": "[]"}, "it names no splits, or missing ones"),
        ({"dataset_dict.json": '{"splits": ["train"]}'}, "it names no splits, or missing ones"),
    ],
)
def test_a_folder_whose_tables_are_not_clear_is_refused(tmp_path: Path, made: dict[str, str], words: str) -> None:
    for name, content in made.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        read_dataset(tmp_path, {})


def test_a_path_that_is_not_there_or_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        load_splits(compose(["data=dataset", f"data.path={tmp_path / 'gone'}"]).data)
    (tmp_path / "posts.xlsx").touch()
    with pytest.raises(InputError, match="the name has no known suffix"):
        read_dataset(tmp_path / "posts.xlsx", {})
    (tmp_path / "posts.csv").touch()
    with pytest.raises(InputError, match="a CSV file cannot hold lists"):
        read_dataset(tmp_path / "posts.csv", {})


def test_a_column_that_we_do_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"data\.columns\.txt=txt: allowed: 'post_id', .*; nearest: text"):
        compose(["data=dataset", "data.path=/posts", "data.columns.txt=body"])
    with pytest.raises(ConfigError, match=r"data\.path is required"):
        compose(["data=dataset"])
    assert compose(["data=dataset", "data.path=/posts", "data.columns.text=007"]).data.columns == {"text": "007"}


# ---------------------------------------------------------------------------------------------------------------------
# the cache, and what is left


def test_other_tables_or_columns_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, csvs: Path) -> None:
    monkeypatch.setenv("REDSM5_CACHE", str(tmp_path / "cache"))
    posts, annotations = tables_of(csvs)
    (tmp_path / "data").mkdir()
    path = parquet(tmp_path / "data", [{**post, "body": post["text"].upper()} for post in posts], annotations)

    def load(*words: str) -> Any:
        return load_splits(compose(["data=dataset", f"data.path={path}", *words]).data)

    first = load()
    assert load() == first
    assert first.fingerprint == load_splits(compose(["data=csv", f"data.dir={csvs}"]).data).fingerprint
    assert load("data.columns.text=body") != first
    Dataset.from_list(posts[:-1]).to_parquet(path / "redsm5_posts.parquet")
    with pytest.raises(InputError, match=r"is not in redsm5_posts\.parquet"):
        load()


READ = """
import os, sys
from redsm5.config import compose
from redsm5.data import load_splits
before = set(sys.modules)
load_splits(compose(["data=dataset", f"data.path={sys.argv[1]}"]).data)
print("datasets" in before, "datasets" in sys.modules)
"""


@pytest.mark.parametrize("form", [csv_files, shards, nested_json, saved_splits])
def test_reading_leaves_nothing_but_our_cache_and_asks_the_network_for_nothing(
    form: Callable[..., Path], csvs: Path, tmp_path: Path
) -> None:
    for name in ("data", "home", "tmp"):
        (tmp_path / name).mkdir()
    path = form(tmp_path / "data", *tables_of(csvs))
    given = {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()}
    server = HubServer()
    environment = {
        **{name: value for name, value in server.environment(tmp_path / "home").items() if "TELEMETRY" not in name},
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "REDSM5_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }

    def read() -> str:
        command = [sys.executable, "-c", READ, str(path)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    assert read() == "False True"
    assert read() == "False False", "what is in our cache needs no library"
    assert server.requests == []
    server.close()
    assert [*(tmp_path / "home").rglob("*"), *(tmp_path / "tmp").rglob("*")] == []
    assert {p: p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file()} == given
    assert [oct(os.stat(p).st_mode & 0o777) for p in (tmp_path / "cache").iterdir()] == ["0o600"]
