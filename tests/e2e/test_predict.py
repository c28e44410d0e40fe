"""`just predict` and `redsm5.load`: new posts get what the trial's own evaluation would record for them."""

import csv
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import redsm5
from redsm5.config import Config
from redsm5.data import SYMPTOMS, load_test
from redsm5.engine.errors import InputError
from redsm5.engine.spec import load_config
from redsm5.evaluation import outputs
from tests.e2e.conftest import ROOT, records, wait_for

SENTENCES = (
    "I cannot sleep at night.",
    'I feel worthless, and "empty".',
    "Work was fine,\nand the shop too.",
    "Nichts — 😀.",
)
Predict = Callable[..., "subprocess.CompletedProcess[bytes]"]


def command(*words: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "predict_posts.py"), *map(str, words)]


@pytest.fixture
def predict(tmp_path: Path) -> Predict:
    def run(*words: object, expect: int = 0, given: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        done = subprocess.run(command(*words), cwd=tmp_path, input=given, capture_output=True, timeout=120, check=False)
        assert done.returncode == expect, done.stderr.decode()
        return done

    return run


@pytest.fixture(scope="module")
def trial(uninterrupted: Path) -> Path:
    return uninterrupted / f"trial_{records(uninterrupted)[0]['trial_id']}"


def posts_of(path: Path, count: int) -> list[str]:
    """Write invented posts of one to forty sentences; their ids."""
    draw = random.Random(7)
    texts = [" ".join(draw.choices(SENTENCES, k=draw.randint(1, 40))) for _ in range(count)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("post_id", "text"), *((f"p{n}", text) for n, text in enumerate(texts))])
    return [f"p{n}" for n in range(count)]


def as_posts(path: Path, trial: Path) -> dict[str, Any]:
    """Write the trial's test posts as new posts; predictions.json of them."""
    posts = load_test(load_config(Config, trial).data).test
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("post_id", "text"), *((post.post_id, post.text) for post in posts)])
    recorded: dict[str, Any] = json.loads((trial / "predictions.json").read_bytes())
    return recorded


def test_probabilities_are_those_that_the_evaluation_recorded(trial: Path, predict: Predict, tmp_path: Path) -> None:
    recorded = as_posts(tmp_path / "posts.csv", trial)
    limits = json.loads((trial / "evaluation_report.json").read_bytes())["decision_thresholds"]
    words = ("--model", trial.name.removeprefix("trial_"), "--experiments", trial.parent)
    predict(*words, "--posts", "posts.csv", "--to", "out.jsonl", "--text")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["post_id"] for row in rows] == recorded["post_ids"]
    texts = [row["text"] for row in csv.DictReader((tmp_path / "posts.csv").open(newline=""))]
    for row, expected, text in zip(rows, recorded["probabilities"], texts, strict=True):
        found = [row["symptoms"][name] for name in SYMPTOMS]
        assert [each["probability"] for each in found] == pytest.approx(expected, abs=1e-6)
        assert [each["present"] for each in found] == [
            p >= limits[name] for p, name in zip(expected, SYMPTOMS, strict=True)
        ]
        assert all(span["text"] == text[span["start"] : span["end"]] for each in found for span in each["evidence"])

    model = redsm5.load(trial)
    for row, prediction in zip(rows, model.predict(texts), strict=True):
        for name, each in row["symptoms"].items():
            assert prediction[name].probability == pytest.approx(each["probability"], abs=1e-6)
        assert prediction.present == tuple(name for name in SYMPTOMS if row["symptoms"][name]["present"])


def test_all_formats_say_the_same(trial: Path, predict: Predict, tmp_path: Path) -> None:
    as_posts(tmp_path / "posts.csv", trial)
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        predict("--model", trial, "--posts", "posts.csv", "--to", name)
    nested = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert table == [outputs.flat(row) for row in nested]
    with (tmp_path / "out.csv").open(newline="") as file:
        for row, expected in zip(csv.DictReader(file), table, strict=True):
            assert row["post_id"] == expected["post_id"]
            assert json.loads(row["evidence"]) == expected["evidence"]
            for name in SYMPTOMS:
                assert float(row[name]) == expected[name]
                assert row[f"{name}_present"] == str(int(expected[f"{name}_present"]))
    content = (tmp_path / "posts.csv").read_bytes()
    piped = predict("--model", trial, "--posts", "-", "--to", "-", "--format", "jsonl", given=content)
    assert piped.stdout == (tmp_path / "out.jsonl").read_bytes()
    piped = predict("--model", trial, "--posts", "-", "--to", "-", given=content)
    assert piped.stdout == (tmp_path / "out.csv").read_bytes()


@pytest.mark.parametrize("form", [pytest.param("csv", marks=pytest.mark.long), "jsonl", "parquet"])
def test_a_killed_run_is_resumed_to_the_same_bytes(form: str, trial: Path, predict: Predict, tmp_path: Path) -> None:
    count = 5 * outputs.CHUNK + 10
    posts_of(tmp_path / "posts.csv", count)
    words = ("--model", trial, "--posts", "posts.csv", "--to")
    predict(*words, f"whole.{form}")
    partial = tmp_path / f"out.{form}.partial"
    for kill, chunks in ((signal.SIGKILL, 1), (signal.SIGTERM, 2)):
        running = subprocess.Popen(command(*words, f"out.{form}"), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        wait_for(lambda n=chunks: partial.exists() and partial.read_bytes().count(b"\n") > n * outputs.CHUNK)
        running.send_signal(kill)
        _, told = running.communicate(timeout=60)
        assert running.returncode == (75 if kill == signal.SIGTERM else -kill), told
    assert "posts are saved in" in told
    assert f"predict --model {trial} --posts posts.csv --to out.{form}` continues" in told
    lines = partial.read_bytes()
    partial.write_bytes(lines + lines.splitlines(keepends=True)[1] + b'{"post_id":"torn')  # as a kill within a write
    predict(*words, f"out.{form}")
    assert not partial.exists()
    assert (tmp_path / f"out.{form}").read_bytes() == (tmp_path / f"whole.{form}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"posts.csv", f"out.{form}", f"whole.{form}"}


def test_a_run_that_was_killed_as_it_ended_ends_again(trial: Path, predict: Predict, tmp_path: Path) -> None:
    posts_of(tmp_path / "posts.csv", 20)
    words = ("--model", trial, "--posts", "posts.csv", "--to", "out.csv")
    predict(*words)
    whole = (tmp_path / "out.csv").read_bytes()
    told = predict(*words, expect=1).stderr
    assert b"the file exists already" in told
    predict(*words[:-1], "out.jsonl")
    rows = (tmp_path / "out.jsonl").read_bytes()
    with outputs.Partial(tmp_path / "out.csv.2", redsm5.load(trial).identity, with_text=False) as begun:
        begun.append([json.loads(line) for line in rows.splitlines()])
        begun.path.write_bytes(begun.path.read_bytes() + b'{"end":20}\n')
    os.rename(tmp_path / "out.csv.2.partial", tmp_path / "out.csv.partial")
    predict(*words)  # the file had its name already
    assert not (tmp_path / "out.csv.partial").exists()
    assert (tmp_path / "out.csv").read_bytes() == whole


def test_other_posts_or_another_model_do_not_continue_a_run(
    trial: Path, uninterrupted: Path, predict: Predict, tmp_path: Path
) -> None:
    posts_of(tmp_path / "posts.csv", 3 * outputs.CHUNK)
    words = ("--posts", "posts.csv", "--to", "out.csv")
    running = subprocess.Popen(command("--model", trial, *words), cwd=tmp_path)
    partial = tmp_path / "out.csv.partial"
    wait_for(lambda: partial.exists() and partial.read_bytes().count(b"\n") > outputs.CHUNK)
    running.send_signal(signal.SIGSTOP)
    assert b"is written by another process" in predict("--model", trial, *words, expect=1).stderr
    running.kill()
    running.wait()
    before = partial.read_bytes()
    other = uninterrupted / f"trial_{records(uninterrupted)[1]['trial_id']}"
    assert b"begun with another model" in predict("--model", other, *words, expect=1).stderr
    assert b"begun with another model" in predict("--model", trial, *words, "--text", expect=1).stderr
    lines = (tmp_path / "posts.csv").read_text().replace("p7,", "q7,", 1)
    (tmp_path / "posts.csv").write_text(lines)
    assert b"post 8 of the input is not the one" in predict("--model", trial, *words, expect=1).stderr
    assert partial.read_bytes() == before[: len(partial.read_bytes())]


MALFORMED = (
    'post_id,text\na,"I sleep"\nb\nc,"\nnever slept"\n,nobody\nd,nan\ne,I am tired\nf,"quoted" twice\ng,\xff bad\n'
    "h,nul\0\ni,fine\n"
)
PLACES = {"line 3": "fields", "line 6": "post_id is empty", "line 7": "placeholder", "line 9": "closing quote"}
PLACES |= {"line 10": "0xff is not UTF-8", "line 11": "NUL"}


def test_malformed_rows_are_named_by_their_lines_and_refused_or_skipped(
    trial: Path, predict: Predict, tmp_path: Path
) -> None:
    (tmp_path / "posts.csv").write_bytes(MALFORMED.encode("latin-1"))
    words = ("--model", trial, "--posts", "posts.csv", "--to")
    told = predict(*words, "out.csv", expect=1).stderr.decode()
    assert "posts.csv, line 3: the record has 1 fields, the header has 2" in told
    assert "--on-error skip" in told
    assert [path.name for path in tmp_path.iterdir()] == ["posts.csv"]
    told = predict(*words, "out.jsonl", "--on-error", "skip").stderr.decode()
    for line, what in PLACES.items():
        assert any(f"{line}" in row and what in row for row in told.splitlines()), (line, told)
    assert "nobody" not in told
    rows = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(row)["post_id"] for row in rows] == ["a", "c", "e", "i"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--to", "out.xlsx"), "names no format"),
        (("--to", "no/out.csv"), "there is no such folder"),
        (("--to", "out.csv", "--posts", "none.csv"), "there is no such file"),
        (("--to", "out.csv", "--model", "winner:none"), "there is no study none"),
        (("--to", "out.csv", "--model", "."), "there is no trained model"),
        (("--to", "out.csv", "--device", "tpu"), "there is no device tpu"),
    ],
)
def test_what_a_person_mistypes_is_refused_in_words(
    words: tuple[str, ...], told: str, trial: Path, predict: Predict, tmp_path: Path
) -> None:
    posts_of(tmp_path / "posts.csv", 3)
    model = ("--model", trial, "--experiments", trial.parent)
    error = predict(*model, "--posts", "posts.csv", *words, expect=1).stderr.decode()
    assert error.startswith("error: ")
    assert told in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["posts.csv"]


def test_a_pipe_that_is_closed_ends_the_run_without_a_word(trial: Path, tmp_path: Path) -> None:
    posts_of(tmp_path / "posts.csv", 4 * outputs.CHUNK)
    words = command("--model", trial, "--posts", "posts.csv", "--to", "-")
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stderr
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(timeout=60) == 0


def test_a_terminal_gets_no_control_character(trial: Path, tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("post_id,text\n\x1b]0;owned\x07,I sleep.\n")
    ours, theirs = pty.openpty()
    words = command("--model", trial, "--posts", "posts.csv", "--to", "-")
    with subprocess.Popen(words, cwd=tmp_path, stdout=theirs, stderr=subprocess.DEVNULL) as running:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                shown += piece
        assert running.wait(timeout=60) == 0
    os.close(ours)
    assert b"owned" in shown
    assert b"\x1b" not in shown


def test_to_import_redsm5_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, redsm5; redsm5.load; assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.long
def test_memory_does_not_grow_with_the_posts(trial: Path, tmp_path: Path) -> None:
    peaks = []
    for name, count in (("few", 1000), ("many", 8000)):
        posts_of(tmp_path / f"{name}.csv", count)
        words = command("--model", trial, "--posts", f"{name}.csv", "--to", f"{name}.out.csv")
        running = subprocess.Popen(words, cwd=tmp_path)
        _, status, usage = os.wait4(running.pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 40, peaks


def test_no_post_is_cached(trial: Path) -> None:
    model, cache = redsm5.load(trial), Path(os.environ["REDSM5_CACHE"])
    before = sorted(cache.rglob("*"))
    began = time.time_ns()
    assert len(model.predict(["a text that nobody has written before"])) == 1
    assert sorted(cache.rglob("*")) == before
    assert all(path.stat().st_mtime_ns < began for path in before)


@pytest.mark.parametrize("text", ["", " \n", 7, "\ud800"])
def test_what_is_no_post_is_refused(text: Any, trial: Path) -> None:
    with pytest.raises(InputError, match="post 2"):
        redsm5.load(trial).predict(["I sleep.", text])


def test_averaged_models_say_the_mean(uninterrupted: Path) -> None:
    folders = [uninterrupted / f"trial_{record['trial_id']}" for record in records(uninterrupted)]
    texts = ["I cannot sleep.", "I feel worthless. " * 60]
    each = [redsm5.load(folder).predict(texts) for folder in folders]
    for p, together in enumerate(redsm5.load(*folders).predict(texts)):
        for c, found in enumerate(together.symptoms):
            mean = sum(predictions[p].symptoms[c].probability for predictions in each) / len(each)
            assert found.probability == pytest.approx(mean, abs=1e-12)
