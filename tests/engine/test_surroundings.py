"""Whatever a command is started with, it does its work or says in one message what is wrong: never a traceback."""

import errno
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redsm5.doctor.folder import check_folder
from redsm5.engine import paths
from redsm5.engine.errors import DISK_FAULTS, exit_with_message
from redsm5.engine.surroundings import open_to_all

EXITS = "from redsm5.engine.errors import *; exit_with_message(main)"


def python(code: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """A command of this code, whose `main` is run as our scripts run theirs."""
    script = f"import os, sys, warnings\n{code}\n{EXITS}"
    options.setdefault("stdin", subprocess.DEVNULL)
    options["env"] = {**os.environ, **options.get("env", {})}
    command = [sys.executable, *options.pop("flags", []), "-c", script]
    return subprocess.run(command, capture_output="stdout" not in options, text=True, timeout=60, **options)


def closed(*numbers: int) -> Callable[[], None]:
    return lambda: [os.close(number) for number in numbers] and None  # type: ignore[func-returns-value]


def test_closed_standard_streams_are_open_and_lead_nowhere(tmp_path: Path) -> None:
    """The next file would get the number of one, and what is printed would be written into it."""
    code = f"""def main():
        file = open({str(tmp_path / "file")!r}, "w+")
        print("lost"); print("lost", file=sys.stderr); os.write(2, b"lost"); os.write(1, b"lost")
        assert sys.stdin.read() == "" and not sys.stderr.isatty() and file.fileno() > 2
        return 7"""
    for numbers in ((0,), (1,), (2,), (0, 1, 2)):
        done = python(code, stdout=None, preexec_fn=closed(*numbers))
        assert done.returncode == 7
        assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("full", [False, True])
def test_standard_error_that_takes_nothing_ends_nothing(full: bool) -> None:
    """A terminal that has gone (EIO), a log on a full disk (ENOSPC)."""
    code = """def main():
        for _ in range(3): print("x" * 10000, file=sys.stderr, flush=True)
        raise Interrupted("stopped")"""
    if full:
        with open("/dev/full", "w") as sink:
            done = python(code, stdout=subprocess.DEVNULL, stderr=sink)
    else:
        ours, theirs = pty.openpty()
        os.close(ours)
        done = python(code, stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
    assert done.returncode == 75


def test_output_that_nobody_reads_on_is_no_error_and_on_a_full_disk_is_one() -> None:
    code = "def main():\n    print('x' * 10**6)\n    return 0"
    reads, writes = os.pipe()
    os.close(reads)
    done = python(code, stdout=writes, stderr=subprocess.PIPE)
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")
    with open("/dev/full", "w") as sink:
        done = python(code, stdout=sink, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert done.stderr.startswith("error: No space left on device\n  Make room")


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_names_beyond_ascii_are_read_as_utf8_whatever_the_locale(environment: dict[str, str]) -> None:
    code = r"""import subprocess
def main():
    assert sys.argv[1] == "\xfc\U0001f600", ascii(sys.argv)
    print(sys.argv[1])
    child = r"import sys; assert sys.argv[1] == '\xfc\U0001f600'"
    return subprocess.run([sys.executable, "-c", child, sys.argv[1]]).returncode"""
    command = [sys.executable, "-c", f"import sys\n{code}\n{EXITS}", "ü😀"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, **environment}, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.strip() in ("ü😀".encode(), rb"\xfc\U0001f600")


@pytest.mark.parametrize("how", [{"env": {"PYTHONWARNINGS": "error"}}, {"flags": ["-W", "error"]}])
def test_a_warning_is_no_error_here_nor_in_children(how: dict[str, Any]) -> None:
    code = """import subprocess
def main():
    warnings.warn("one", DeprecationWarning); warnings.warn("two", UserWarning)
    return subprocess.run([sys.executable, "-c", "import warnings; warnings.warn('three', UserWarning)"]).returncode"""
    done = python(code, **how)
    assert done.returncode == 0, done.stderr
    assert "two" in done.stderr
    assert "three" in done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# what the system refuses


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/x"), 2, "ulimit -n"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), 2, "ulimit -u"),
        (RuntimeError("can't start new thread"), 2, "ulimit -u"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "ulimit -v"),
        (MemoryError(), 2, "ulimit -v"),
        (OSError(errno.EFBIG, "File too large", "/x/metrics.jsonl"), 3, "ulimit -f"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 3, "name another folder"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), 1, "Name another folder"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/trial.json"), 1, "/x/trial.json"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 1, "TMPDIR"),
    ],
)
def test_what_the_system_refuses_is_one_message_with_a_remedy(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        exit_with_message(main)
    assert ended.value.code == code
    what, remedy = capsys.readouterr().err.splitlines()
    assert what.startswith("error: ")
    assert len(what) < 400
    assert remedy.startswith("  ")
    assert words in f"{what}\n{remedy}"


def test_a_file_larger_than_the_limit_is_a_full_disk() -> None:
    code = """import resource, tempfile
def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    tempfile.TemporaryFile(buffering=0).write(b"x" * 999 + b"y" * 10)
    with tempfile.TemporaryFile(buffering=0) as file:
        while True: file.write(b"x" * 600)"""
    done = python(code)
    assert done.returncode == 3, done.stderr
    assert "ulimit -f" in done.stderr
    assert errno.EFBIG in DISK_FAULTS


def test_the_folder_that_one_is_in_is_gone(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = python("def main():\n    os.rmdir(os.getcwd())\n    return len(os.getcwd())", cwd=here)
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: the current folder no longer exists\n  Change to an existing folder and run the command there.\n"
    )


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    for fault in ("RuntimeError('ours')", "OSError(71, 'Protocol error')"):
        done = python(f"def main():\n    raise {fault}")
        assert done.returncode == 1
        assert "Traceback" in done.stderr


def test_a_hangup_of_what_has_not_begun_ends_it() -> None:
    done = python("import signal\ndef main():\n    signal.raise_signal(signal.SIGHUP)")
    assert done.returncode == -signal.SIGHUP


@pytest.fixture
def another_user() -> Iterator[None]:
    """Root may read anything: then another user looks."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    yield
    os.seteuid(me)


@pytest.mark.usefixtures("another_user")
def test_a_file_of_another_user_is_named_with_its_owner(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        exit_with_message(lambda: len(Path("/etc/shadow").read_bytes()))
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: Permission denied: /etc/shadow\n  It belongs to root: ask for access, or name another folder.\n"
    )


def test_a_folder_that_cannot_be_read_is_not_empty() -> None:
    closed, me = Path(tempfile.mkdtemp()), os.geteuid()
    closed.chmod(0)
    try:
        if me == 0:
            os.seteuid(65534)
        for look in (paths.study_dirs, paths.trial_dirs):
            with pytest.raises(PermissionError):
                look(closed)
            assert look(closed.parent / "nowhere") == []
    finally:
        os.seteuid(me)
        closed.rmdir()


def test_a_folder_that_everybody_can_write_to_has_a_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "my experiments"
    assert open_to_all(folder) is None
    folder.mkdir(mode=0o755)
    assert open_to_all(folder) is None
    folder.chmod(0o1777)
    remedy = open_to_all(folder)
    assert remedy is not None
    assert (check_folder(folder).state, check_folder(folder).remedy) == ("warn", remedy)
    subprocess.run(remedy, shell=True, check=True)
    assert open_to_all(folder) is None
    assert check_folder(folder).state == "ok"
