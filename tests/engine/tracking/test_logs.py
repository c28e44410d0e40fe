"""The log tells people and programs what happened, tells nobody a secret, and fails nobody."""

import errno
import json
import logging
import os
import re
import stat
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from redsm5.engine import files
from redsm5.engine.documents import TIME_PATTERN
from redsm5.engine.redaction import redact
from redsm5.engine.tracking import logs
from redsm5.engine.tracking.logs import open_logs


@pytest.fixture(autouse=True)
def _give_libraries_back():
    root, show = logging.getLogger(), warnings.showwarning
    handlers = [*root.handlers]
    yield
    root.handlers[:], warnings.showwarning = handlers, show


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------------------------------------------------------
# redaction

SECRETS = {
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH": "hf_",
    "hf_Ab12": "hf_",
    "sk-proj-abc123DEF456_ghi": "sk-",
    "AKIAIOSFODNN7EXAMPLE": "AKIA",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789": "ghp_",
    "github_pat_11ABCDEFG0abcdefghij_klmnop": "github_pat_",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF_123": "eyJ",
    "someone.else+tag@mail.example.org": "someone",
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "around", ["{}", "got {}, gone", "({})", "'{}'", "x={}", "https://host/a?b={}", "line\n{}\nline"]
)
def test_secrets_go_wherever_they_stand(secret, around):
    got = redact(around.format(secret))
    assert secret not in got
    assert SECRETS[secret] not in got
    assert "[redacted]" in got


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("api_key: 1234abcd", "api_key: [redacted]"),
        ("api-key=1234abcd more", "api-key=[redacted] more"),
        ("OPENAI_API_KEY=1234", "OPENAI_API_KEY=[redacted]"),
        ('{"api_key": "two words"}', '{"api_key": [redacted]}'),
        ("{'apikey': 'x', 'lr': 1}", "{'apikey': [redacted], 'lr': 1}"),
        ("https://host/v1?key=AbC123&page=2", "https://host/v1?key=[redacted]&page=2"),
        ("aws_secret_access_key = wJalr/XUtn+FEMI", "aws_secret_access_key = [redacted]"),
        ("AWS_ACCESS_KEY_ID=abc", "AWS_ACCESS_KEY_ID=[redacted]"),
        ("HF_TOKEN=abc", "HF_TOKEN=[redacted]"),
        ("password=hunter2;", "password=[redacted];"),
        ("Authorization: Bearer abc.def-123", "Authorization: [redacted]"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: [redacted]"),
        ("header bearer abc.def-123 sent", "header bearer [redacted] sent"),
        ("postgresql://me:pa55@db:5432/optuna", "postgresql://me:[redacted]@db:5432/optuna"),
        ("postgresql+psycopg2://me:p@ss/w@db.host.org/x", "postgresql+psycopg2://me:[redacted]@db.host.org/x"),
        ("redis://:secret@host", "redis://:[redacted]@host"),
        ("http://a:b@h and https://c:d@i", "http://a:[redacted]@h and https://c:[redacted]@i"),
        ("https://t0ken-0f-mine@host:5000/x", "https://[redacted]@host:5000/x"),
        ("postgresql://me@db/optuna", "postgresql://me@db/optuna"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[redacted]"),
    ],
)
def test_secrets_with_a_name_or_a_place_go_and_the_rest_stays(text, left):
    assert redact(text) == left


def test_what_the_environment_holds_as_a_secret_goes_wherever_it_is_repeated(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "plain-words-of-mine")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "mlflow")  # too short to be told from a word
    assert redact("mlflow refuses plain-words-of-mine") == "mlflow refuses [redacted]"


@pytest.mark.parametrize(
    "text",
    [
        "trial 3 of 20: val_f1_macro 0.512 at epoch 4, task-1234567 risk-averse",
        "http://127.0.0.1:5000/api?max_tokens=512",
        "install hf_transfer, set HF_HUB_OFFLINE",
        "mental/mental-bert-base-uncased at 1a2b3c4d5e6f",
        "7f3c0000-0000-4000-8000-000000000001/checkpoints/epoch-0003",
        "/home/someone/experiments/study_x: 12.5 GB of 40 GB",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


@pytest.mark.parametrize("text", ["a" * 200_000, "a." * 100_000, "://" * 60_000, "key" * 60_000, "a:" * 100_000])
def test_long_text_is_redacted_in_no_time(text):
    start = time.perf_counter()
    redact(text)
    assert time.perf_counter() - start < 2


def test_neither_output_holds_a_secret(tmp_path, capsys):
    log = open_logs(tmp_path)

    class Client:
        def __str__(self):
            return "Client(token=t0psecret)"

    try:
        raise RuntimeError("401 for hf_abcdefgh12345678 of me@mail.org")
    except RuntimeError:
        log.exception(
            "refused: Bearer abcdefgh.1234",
            url="https://me:pa55@host/x",
            nested={"list": ["sk-abcdef123456", {"deep": "x@mail.org"}], "t@mail.org": 1},
            password="short",
            hub={"access_token": "plain", "tokens": 12},
            client=Client(),
        )
    both = (tmp_path / "log.jsonl").read_text() + capsys.readouterr().err
    for secret in ("hf_abc", "mail.org", "abcdefgh.1234", "pa55", "sk-abc", "short", "plain", "t0psecret"):
        assert secret not in both
    context = lines(tmp_path)[0]["context"]
    assert context["nested"] == {"list": ["[redacted]", {"deep": "[redacted]"}], "[redacted]": 1}
    assert context["hub"] == {"access_token": "[redacted]", "tokens": 12}
    assert "401 for [redacted] of [redacted]" in context["exception"]


# ---------------------------------------------------------------------------------------------------------------------
# the two outputs


def test_a_line_for_people_and_a_line_for_programs(tmp_path, capsys):
    log = open_logs(tmp_path / "logs").bind(trial=3)
    log.info("epoch done", epoch=2, loss=0.123456789, note="two words", path=tmp_path)
    log.debug("never seen")
    shown = capsys.readouterr()
    assert shown.out == ""
    pattern = (
        rf'\d\d:\d\d:\d\d  INFO      epoch done  trial=3  epoch=2  loss=0.123457  note="two words"  path={tmp_path}\n'
    )
    assert re.fullmatch(pattern, shown.err)
    (line,) = lines(tmp_path / "logs")
    assert list(line) == ["timestamp", "severity", "message", "context", "schema"]
    assert re.fullmatch(TIME_PATTERN, line["timestamp"])
    assert (line["severity"], line["message"]) == ("INFO", "epoch done")
    assert line["context"]["loss"] == 0.123456789
    assert line["context"]["path"] == str(tmp_path)


def test_a_traceback_is_in_the_file_and_not_on_the_terminal(tmp_path, capsys):
    log = open_logs(tmp_path)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        log.error("failed", exc_info=True)
        log.warning("again", exc_info=error)
    assert "Traceback" not in capsys.readouterr().err
    for line in lines(tmp_path):
        assert line["context"]["exception"].startswith("Traceback")
        assert "ZeroDivisionError" in line["context"]["exception"]


def test_every_line_is_json_whatever_is_logged(tmp_path):
    log = open_logs(tmp_path, terminal=False)

    class Broken:
        def __str__(self):
            raise RuntimeError("no")

    circle: dict[str, object] = {}
    circle["self"] = circle
    log.info("not finite", value=float("nan"), other=[float("inf")], flag=True, none=None)
    log.info("line\nbreak \ud800 \x00 \u2028", value=b"bytes", many={1})
    log.info("broken", value=Broken())
    log.info("circle", value=circle)
    log.info("percent % s stays")
    first, second, *_, last = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / "log.jsonl").read_text().split("\n")
        if line
    ]
    assert first["context"] == {"value": "NaN", "other": ["Infinity"], "flag": True, "none": None}
    assert second["message"].startswith("line\nbreak")
    assert last["message"] == "percent % s stays"
    assert len(lines(tmp_path)) == 5


def test_escape_sequences_do_not_reach_the_terminal(capsys):
    open_logs(None).info("\x1b[2Jgone", name="\x1b]0;x")
    assert "\x1b" not in capsys.readouterr().err


def test_terminal_only_and_file_only(tmp_path, capsys):
    open_logs(None).warning("for people")
    assert "for people" in capsys.readouterr().err
    open_logs(tmp_path, terminal=False).warning("for programs")
    assert capsys.readouterr().err == ""
    assert lines(tmp_path)[0]["message"] == "for programs"


# ---------------------------------------------------------------------------------------------------------------------
# rotation


def test_the_file_is_private(tmp_path):
    umask = os.umask(0)
    try:
        open_logs(tmp_path / "a" / "logs", terminal=False).info("x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a" / "logs").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "logs" / "log.jsonl").stat().st_mode) == 0o600


def test_rotated_by_size_no_line_is_lost_within_the_bound(tmp_path):
    log = open_logs(tmp_path, terminal=False, max_bytes=3000)
    for n in range(80):
        log.info("x", n=n)
    found = [*sorted(tmp_path.glob("log.jsonl.*")), tmp_path / "log.jsonl"]
    assert len(found) == 3
    assert all(path.stat().st_size <= 3000 for path in found)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in found)
    assert [json.loads(line)["context"]["n"] for path in found for line in path.open()] == list(range(80))


def test_a_folder_of_logs_never_takes_more_than_three_files_of_50_mb(tmp_path):
    """Measured after every line; the newest lines are there, without a gap."""
    assert logs.MAX_BYTES == 50_000_000
    log = open_logs(tmp_path, terminal=False, max_bytes=1000)
    for n in range(200):
        log.info("x", n=n)
        assert files.tree_bytes(tmp_path) <= 3 * 1000
    found = [*sorted(tmp_path.glob("log.jsonl.*")), tmp_path / "log.jsonl"]
    assert len(found) == 3
    kept = [json.loads(line)["context"]["n"] for path in found for line in path.open()]
    assert kept == list(range(kept[0], 200))
    assert len(kept) > 15


def test_quiet_days_are_kept_for_two_weeks(tmp_path, monkeypatch):
    log = open_logs(tmp_path, terminal=False)
    for day in range(1, 31):
        with monkeypatch.context() as patch:
            patch.setattr(logs, "now", lambda day=day: f"2020-01-{day:02d}T12:00:00.000Z")
            log.info("x", day=day)
    rotated = sorted(tmp_path.glob("log.jsonl.*"))
    assert [json.loads(path.read_text())["context"]["day"] for path in rotated] == list(range(16, 30))


def trial_logs(tmp_path):
    folder = tmp_path / "trial_00000000-0000-4000-8000-000000000001" / "logs"
    folder.mkdir(parents=True)
    return folder


def test_what_a_trial_prints_counts_and_is_cut_while_the_trial_still_prints(tmp_path):
    """As the driver starts it: what is printed is appended to output.log, which the trial keeps open."""
    folder = trial_logs(tmp_path)
    log = open_logs(folder, terminal=False, max_bytes=1000)
    with (folder / "output.log").open("ab", buffering=0) as printed:
        for n in range(300):
            printed.write(b"printed %d\n" % n)
            log.info("x", n=n)
            assert files.tree_bytes(folder) <= 3 * 1000
    assert sorted(path.name for path in folder.iterdir())[::2] == ["log.jsonl", "output.log"]
    numbers = [int(line.split()[1]) for line in (folder / "output.log").read_text().splitlines()]
    assert numbers == list(range(numbers[0], 300))
    assert len(numbers) > 30


def test_what_an_older_version_left_beyond_the_bound_goes_with_the_first_line(tmp_path):
    """Files of up to 1 GB, and 14 of them: the newest lines stay, and what is not ours does."""
    folder = trial_logs(tmp_path)
    line = '{"timestamp": "2026-01-%02dT12:00:00.000Z", "severity": "INFO", "message": "x", "context": {"n": %d}}\n'
    for day in range(1, 15):
        (folder / f"log.jsonl.2026-01-{day:02d}.001").write_text("".join(line % (day, n) for n in range(100)))
    (folder / "log.jsonl").write_text("".join(line % (15, n) for n in range(100)))
    (folder / "output.log").write_text("".join(f"printed {n}\n" for n in range(1000)))
    others = [folder / name for name in ("mine.log", "log.jsonl.bak", "log.jsonl.2026-01-01.001.gz")]
    for other in others:
        other.write_text("x" * 5000)
    (tmp_path / "precious").write_text("x" * 5000)
    (folder / "log.jsonl.2026-01-01.002").symlink_to(tmp_path / "precious")
    open_logs(folder, terminal=False, max_bytes=4000).info("x")
    own = [path for path in folder.iterdir() if path not in others and not path.is_symlink()]
    assert sum(path.stat().st_size for path in own) <= 3 * 4000
    assert [json.loads(row)["context"] for row in (folder / "log.jsonl").open()] == [{}]
    rows = [json.loads(row) for row in (folder / "log.jsonl.2026-01-15.001").open()]
    assert [row["context"]["n"] for row in rows] == list(range(100 - len(rows), 100))
    assert len(rows) >= 15
    assert (folder / "output.log").read_text().endswith("printed 998\nprinted 999\n")
    assert all(other.stat().st_size == 5000 for other in others)
    assert (tmp_path / "precious").stat().st_size == 5000
    assert (folder / "log.jsonl.2026-01-01.002").is_symlink()


def test_older_files_go_without_a_gap_though_nothing_is_rotated_today(tmp_path):
    """A short old one does not outlive a newer one that has no room."""
    sizes = {"2020-01-01.001": 10, "2020-01-02.001": 1500, "2020-01-02.002": 900, "2020-01-10.001": 1000}
    for name, size in sizes.items():
        (tmp_path / f"log.jsonl.{name}").write_text("x" * (size - 1) + "\n")
    open_logs(tmp_path, terminal=False, max_bytes=1000).info("x")
    left = {path.name.removeprefix("log.jsonl."): path.stat().st_size for path in tmp_path.glob("log.jsonl.*")}
    assert left == {"2020-01-02.002": 900, "2020-01-10.001": 1000}
    (tmp_path / "log.jsonl.2020-01-02.002").write_text("x" * 1000 + "\n" + "x" * 100 + "\n")
    (tmp_path / "log.jsonl.2020-01-01.001").write_text("x")
    open_logs(tmp_path, terminal=False, max_bytes=1000).info("x")
    left = {path.name.removeprefix("log.jsonl."): path.stat().st_size for path in tmp_path.glob("log.jsonl.*")}
    assert left == {"2020-01-01.001": 1, "2020-01-02.002": 101, "2020-01-10.001": 1000}


def test_what_is_named_as_output_in_a_study_s_folder_is_somebody_s(tmp_path):
    (tmp_path / "output.log").write_text("x\n" * 5000)
    open_logs(tmp_path, terminal=False, max_bytes=1000).info("x")
    assert (tmp_path / "output.log").stat().st_size == 10_000


def test_a_process_that_is_killed_as_it_cuts_a_log_loses_no_line_that_was_to_stay(tmp_path, monkeypatch):
    """Dies at each write and at the cut itself; the next one finishes, and every line that stays is whole."""
    folder = trial_logs(tmp_path)
    newest = [f"printed {n}" for n in range(900, 1000)]
    for call in ("pwrite", "ftruncate"):
        (folder / "output.log").write_text("".join(f"printed {n}\n" for n in range(1000)))
        pid = os.fork()
        if pid == 0:
            setattr(logs.os, call, lambda *_: os._exit(9))
            open_logs(folder, terminal=False, max_bytes=4000).info("x")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert (folder / "output.log").read_text().splitlines()[-100:] == newest
        open_logs(folder, terminal=False, max_bytes=4000).info("x")
        assert (folder / "output.log").read_text().splitlines()[-100:] == newest
        assert (folder / "output.log").stat().st_size <= 4000


def test_rotated_at_midnight(tmp_path, monkeypatch):
    log = open_logs(tmp_path, terminal=False)
    with monkeypatch.context() as patch:
        patch.setattr(logs, "now", lambda: "2026-01-31T23:59:59.999Z")
        log.info("of yesterday")
        log.info("of yesterday too")
    log.info("of today")
    assert [line["message"] for line in lines(tmp_path)] == ["of today"]
    assert len((tmp_path / "log.jsonl.2026-01-31.001").read_text().splitlines()) == 2


@pytest.mark.parametrize("server", ["2020-01-01", "2090-01-01"])
def test_clocks_that_jump_and_disagree_rotate_nothing_away(tmp_path, monkeypatch, server):
    """A clock that is set back over midnight, two machines on either side of it, and a file server on another day."""
    log = open_logs(tmp_path, terminal=False)
    for n in range(60):
        with monkeypatch.context() as patch:
            if n % 2:
                patch.setattr(logs, "now", lambda: "2099-12-31T00:10:00.000Z")
            log.info("x", n=n)
        seconds = datetime.fromisoformat(server).timestamp()
        os.utime(tmp_path / "log.jsonl", (seconds, seconds))
    found = [*tmp_path.glob("log.jsonl.*"), tmp_path / "log.jsonl"]
    assert len(found) == 2
    assert [json.loads(line)["context"]["n"] for path in found for line in path.open()] == list(range(60))


@pytest.mark.parametrize(("before", "after"), [("2099-12-31", None), (None, "1970-01-01")])
def test_a_clock_that_jumped_and_came_back_costs_no_new_line_its_place(tmp_path, monkeypatch, before, after):
    """Files that say a day to come are as old as can be: else they would outlive all that is written from now on."""
    log = open_logs(tmp_path, terminal=False, max_bytes=1000)
    for day in (before, after):
        with monkeypatch.context() as patch:
            if day:
                patch.setattr(logs, "now", lambda day=day: f"{day}T12:00:00.000Z")
            for n in range(40):
                log.info("x", n=n, of=day)
    found = [json.loads(line)["context"] for path in tmp_path.iterdir() for line in path.open()]
    assert sorted(line["n"] for line in found if line["of"] == after)[-15:] == list(range(25, 40))


def test_other_files_in_the_folder_stay(tmp_path):
    others = [tmp_path / name for name in ("output.log", "log.jsonl.bak", "other.jsonl.2020-01-01.001")]
    for path in others:
        path.write_text("x")
    log = open_logs(tmp_path, terminal=False, max_bytes=200)
    for _ in range(20):
        log.info("x")
    assert all(path.read_text() == "x" for path in others)


def test_many_writers_lose_no_line(tmp_path):
    """Each thread has its own logger, as each process would: they share nothing but the file."""

    def write(worker):
        log = open_logs(tmp_path, terminal=False, max_bytes=14_000)
        for n in range(40):
            log.info("x" * 50, worker=worker, n=n)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    lines = [json.loads(line) for path in tmp_path.glob("log.jsonl*") for line in path.open()]
    found = [line for line in lines if "worker" in line["context"]]  # what libraries say comes out here too
    assert {(line["context"]["worker"], line["context"]["n"]) for line in found} == {
        (worker, n) for worker in range(4) for n in range(40)
    }
    assert len(found) == 160


# ---------------------------------------------------------------------------------------------------------------------
# what goes wrong


def test_a_full_disk_does_not_reach_the_caller_and_is_said_once(tmp_path, capsys, monkeypatch):
    def full(fd, line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(logs.os, "write", full)
    log = open_logs(tmp_path)
    log.info("one")
    log.info("two")
    shown = capsys.readouterr().err
    assert "one" in shown
    assert "two" in shown
    assert shown.count("No space left on device") == 1


def test_a_line_that_does_not_fit_leaves_no_half(tmp_path):
    """A limit on the file's size makes the kernel write half a line, as a disk that fills up does."""
    script = (
        "import resource, sys, pathlib; from redsm5.engine.tracking.logs import open_logs\n"
        "log = open_logs(pathlib.Path(sys.argv[1]), terminal=False); log.info('fits')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY)); log.info('x' * 300)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, ) * 2); log.info('fits again')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert [line["message"] for line in lines(tmp_path)] == ["fits", "fits again"]


def test_a_torn_line_spoils_only_itself(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"timestamp": "20')
    open_logs(tmp_path, terminal=False).info("whole")
    torn, whole = (tmp_path / "log.jsonl").read_text().splitlines()
    assert torn == '{"timestamp": "20'
    assert json.loads(whole)["message"] == "whole"


def test_a_folder_that_cannot_be_made_and_a_closed_terminal_do_not_reach_the_caller(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with open(os.devnull, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    open_logs(tmp_path / "file" / "logs").info("x")


# ---------------------------------------------------------------------------------------------------------------------
# libraries


def test_what_libraries_warn_of_comes_out_here_redacted(tmp_path, capsys):
    library = logging.getLogger("some.library")
    library.addHandler(own := logging.StreamHandler(sys.stderr))
    library.propagate = False
    open_logs(tmp_path)
    library.info("too chatty")
    library.warning("retry %s with hf_abcdefgh12345678", 2)
    library.log(35, "between")
    library.error("%s of %s", 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old: me@mail.org", DeprecationWarning, stacklevel=1)
    first, second, third, fourth = lines(tmp_path)
    assert first["message"] == "retry 2 with [redacted]"
    assert first["context"]["library"] == "some.library"
    assert (second["severity"], third["severity"]) == ("WARNING", "ERROR")
    assert fourth["message"] == "old: [redacted]"
    assert fourth["context"]["category"] == "DeprecationWarning"
    assert own not in library.handlers
    assert capsys.readouterr().err.count("retry") == 1


def test_the_logger_opened_last_gets_them(tmp_path):
    open_logs(tmp_path / "a", terminal=False)
    open_logs(tmp_path / "b", terminal=False)
    logging.getLogger("x").warning("for b")
    assert not (tmp_path / "a").exists()
    assert len(lines(tmp_path / "b")) == 1
    assert sum(isinstance(h, logs._FromLibraries) for h in logging.getLogger().handlers) == 1
