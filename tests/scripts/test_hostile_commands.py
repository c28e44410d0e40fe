"""Whatever stands in an experiments folder, no command sends the terminal what it obeys, and a line stays a line."""

import csv
import io
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from redsm5.engine import files, paths
from redsm5.engine.records import Best, ErrorRecord, StudyBest, StudyRecord, TrialCounts
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from redsm5.evaluation.reproduction import text as verdict_text
from redsm5.evaluation.table import report_table
from tests.engine.storage.saver import contents, manifest_of, record_of
from tests.scripts.conftest import ROOT
from tests.tui.hostile import evaluation, harmful

HARM = "e\x1b]0;pwned\x07v\x9b31m\u202ei\u2066l\x7f\nrow\r\tcell é"
SHOWN = r"e\u001b]0;pwned\u0007v\u009b31m\u202ei\u2066l\u007f\nrow\r\tcell é"
STUDY = "11111111-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
TRIAL = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
TRIAL_FAILED = "1b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"
NOT_UTF8 = os.fsdecode(b"\xff\xfe")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name, study, reasons, errors and file names were made to harm."""
    experiments = tmp_path_factory.mktemp("x") / f"e\x1b]0;x\x07\x9b{NOT_UTF8}"
    folder = paths.trial_dir(experiments, TRIAL)
    store = CheckpointStore(folder, Policy(), log=lambda *_, **__: None)
    for epoch in (1, 2):
        store.commit(manifest_of(TRIAL, epoch, score=epoch / 4), contents(epoch))
    rows = [{**json.loads(line), "reason": HARM} for line in (folder / paths.RETENTION).read_text().splitlines()]
    (folder / paths.RETENTION).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / paths.CHECKPOINTS / f".tmp-\x1b]0;x\x07{NOT_UTF8}").mkdir()
    best = Best(epoch=2, value=0.5)
    files.write_atomic(folder / paths.TRIAL, record_of(TRIAL, STUDY, state="completed", best=best).to_json())
    (folder / paths.REPORT).write_text("{")  # of which a warning tells
    (folder / paths.CONFIG).write_text(json.dumps({"retention": {"keep_last_n": 1}, HARM: HARM}))
    failed = paths.trial_dir(experiments, TRIAL_FAILED)
    files.make_dir(failed)
    error = ErrorRecord(kind=HARM, message=HARM)
    files.write_atomic(failed / paths.TRIAL, record_of(TRIAL_FAILED, STUDY, state="failed", error=error).to_json())
    study = StudyRecord(
        study_id=STUDY,
        name=HARM,
        state="completed",
        created_at="2026-01-31T12:00:00.000Z",
        metric="val_f1_macro",
        trials=TrialCounts(wanted=2, finished=2),
        best=StudyBest(trial_id=TRIAL, number=0, value=0.5),
        config={},
    )
    files.make_dir(paths.study_dir(experiments, STUDY))
    (paths.study_dir(experiments, STUDY) / paths.STUDY).write_bytes(study.to_json())
    return experiments


@dataclass
class Done:
    code: int
    stdout: bytes
    stderr: bytes


@pytest.fixture
def run(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Done]]:
    """Run a command in this process, where all is imported; the doctor, which ends its own, in one of its own."""
    root, show_warning, umask = logging.getLogger(), warnings.showwarning, os.umask(0o077)
    handlers = [*root.handlers]
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def run(name: str, *words: str, encoding: str = "utf-8") -> Done:
        words = (*words, "--experiments", str(hostile))
        script = ROOT / f"scripts/{name}.py"
        if name == "doctor":
            ended = subprocess.run([sys.executable, str(script), *words], capture_output=True, timeout=100, check=False)
            return Done(ended.returncode, ended.stdout, ended.stderr)
        printed, told = io.BytesIO(), io.BytesIO()
        out, err = (io.TextIOWrapper(kept, encoding=encoding) for kept in (printed, told))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(script), *words])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            start = partial(runpy.run_module, name) if name == "tui" else partial(runpy.run_path, str(script))
            with pytest.raises(SystemExit) as ended_by:
                start(run_name="__main__")
        return Done(int(ended_by.value.code or 0), printed.getvalue(), told.getvalue())

    yield run
    root.handlers[:], warnings.showwarning = handlers, show_warning
    os.umask(umask)
    for number, handler in signals.items():
        signal.signal(number, handler)


COMMANDS = {
    "studies": ("studies",),
    "studies as csv": ("studies", "--format", "csv"),
    "studies as json": ("studies", "--format", "json"),
    "summary": ("summarize",),
    "summary as json": ("summarize", "--json"),
    "summary of another": ("summarize", HARM + "x"),
    "checkpoints": ("checkpoints", TRIAL),
    "checkpoints as csv": ("checkpoints", TRIAL, "--format", "csv"),
    "checkpoints of another": ("checkpoints", HARM),
    "cleanup": ("cleanup",),
    "cleanup as json": ("cleanup", "--format", "json"),
    "evaluate": ("evaluate", "--trial-id", TRIAL),
    "reproduce": ("reproduce", TRIAL_FAILED),
    "sync": ("sync",),
    "doctor": ("doctor",),
    "the app, once": ("tui", "--once"),
    "an unknown flag": ("studies", f"--{HARM}"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_sends_what_a_terminal_obeys(run: Callable[..., Done], command: str) -> None:
    done = run(*COMMANDS[command])
    assert done.stdout + done.stderr != b""
    for output in (done.stdout, done.stderr):
        assert harmful(output.decode().replace("\t", "")) - ({"\n"} if "csv" in command else set()) == set()
        assert not output.decode().startswith("row") or "csv" in command
        assert b"\nrow" not in output or "csv" in command
        assert b"Traceback" not in output
    if "json" in command:
        json.loads(done.stdout)


@pytest.mark.parametrize("command", ["studies", "summary", "checkpoints", "cleanup", "the app, once", "sync"])
def test_what_the_encoding_lacks_changes_no_end(run: Callable[..., Done], command: str) -> None:
    done = run(*COMMANDS[command], encoding="ascii")
    assert done.code == run(*COMMANDS[command]).code
    assert [byte for byte in done.stdout + done.stderr if byte > 127] == []


def test_a_real_process_on_an_ascii_terminal_ends_well(hostile: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "studies.py"), "--experiments", str(hostile)]
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for env, encoding in (({"PYTHONIOENCODING": "ascii"}, "ascii"), (locale, "utf-8")):  # a locale becomes UTF-8
        done = subprocess.run(command, capture_output=True, env=os.environ | env, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert SHOWN.encode(encoding, "backslashreplace").replace(b"\\xe9", b"\\u00e9") in done.stdout


def test_names_stand_in_their_line_as_json_would_write_them(run: Callable[..., Done]) -> None:
    lines = run("studies").stdout.decode().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"{SHOWN}  {STUDY}  completed")
    assert run("summarize").stdout.decode().splitlines()[0].startswith(f"study {SHOWN} · completed")
    reasons = run("checkpoints", TRIAL).stdout.decode().splitlines()
    assert [line.count(SHOWN) for line in reasons] == [0, 1, 1]


def test_json_holds_the_very_names_and_csv_those_without_escapes(run: Callable[..., Done]) -> None:
    assert json.loads(run("studies", "--format", "json").stdout)[0]["name"] == HARM
    assert json.loads(run("summarize", "--json").stdout)["name"] == HARM
    rows = list(csv.reader(io.StringIO(run("studies", "--format", "csv").stdout.decode())))
    assert [len(row) for row in rows] == [13, 13]


def test_a_report_s_figures_and_a_verdict_stay_in_their_lines() -> None:
    report = evaluation(TRIAL, HARM).model_copy(update={"trial_id": HARM, "optimization_metric_name": HARM})
    clean = report_table(evaluation(TRIAL))
    assert len(report_table(report).splitlines()) == len(clean.splitlines())
    assert harmful(report_table(report)) == set()
    told = {
        "trial_id": TRIAL,
        "checkpoint": {"compared": False, "reason": HARM},
        "training": {"completed": False, "reason": HARM},
        "identical": False,
        "reproduced": False,
    }
    assert harmful(verdict_text(told)) == set()
    assert len(verdict_text(told).splitlines()) == 4
