"""`just doctor` says what does not work and what to do, whatever is broken, and never a secret."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from redsm5.doctor import Finding, examine

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "doctor.py"
NAMES = ["python", "packages", "variables", "cuda", "hub", "mlflow", "folder", "space", "disk", "rename", "locks"]
NAMES += ["containers", "slurm", "just"]


def doctor(*arguments: object, python: tuple[str, ...] = (sys.executable,), **env: str) -> tuple[int, str]:
    """The exit code and all that is printed."""
    command = [*python, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_json_has_each_check_with_its_state_detail_and_remedy(tmp_path: Path) -> None:
    code, output = doctor("--json", "--experiments", tmp_path / "new", HF_HUB_OFFLINE="1", HF_TOKEN="hf_secretsecret")
    document = json.loads(output)
    assert (code, document["ok"]) == (0, True), output
    assert [check["name"] for check in document["checks"]] == NAMES
    assert all(set(check) == {"name", "state", "detail", "remedy"} for check in document["checks"])
    assert {check["state"] for check in document["checks"]} <= {"ok", "note", "warn"}
    assert not list(tmp_path.iterdir()), "it leaves nothing and makes no folder"
    assert "secretsecret" not in output


def test_without_any_package_it_still_says_what_is_broken(tmp_path: Path) -> None:
    """A Python with the standard library alone, on a terminal with ASCII alone: remedies, no traceback, code 1."""
    bare = {"PYTHONPATH": "", "PYTHONIOENCODING": "ascii"}
    code, output = doctor("--experiments", tmp_path, python=(sys.executable, "-S"), **bare)
    assert code == 1
    assert "Traceback" not in output
    failed = [line.split()[2] for line in output.splitlines() if line.startswith("? fail")]
    assert failed == ["packages", "hub", "mlflow"]
    assert "just setup" in output
    assert "locks work between processes" in output


@pytest.mark.parametrize("old", [name for name in ("python3.8", "python3.10") if shutil.which(name)])
def test_a_python_that_is_too_old_is_told_so(old: str) -> None:
    if subprocess.run([old, "--version"], capture_output=True).returncode:
        pytest.skip(f"{old} does not run")
    code, output = doctor(python=(old,))
    assert code == 1
    assert "is too old" in output
    assert "Traceback" not in output


def test_a_check_that_hangs_or_raises_hides_no_other() -> None:
    released = threading.Event()

    def hangs() -> Finding:
        released.wait()
        return Finding("ok", "")

    def raises() -> Finding:
        raise RuntimeError("Bearer abcdefgh1234 was refused\nand more")

    found = examine({"hangs": hangs, "raises": raises, "works": lambda: Finding("ok", "fine")}, deadline_s=0.2)
    released.set()
    assert [f.state for f in found.values()] == ["fail", "fail", "ok"]
    assert "no answer within 0.2 s" in found["hangs"].detail
    assert found["raises"].detail == "RuntimeError: Bearer [redacted] was refused"
