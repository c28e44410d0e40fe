"""The wheel works where there is no checkout: built, installed into a fresh environment, used from another folder."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tomllib
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from redsm5.config import Config
from redsm5.data import load_test
from redsm5.engine.spec import load_config
from tests.e2e.conftest import ROOT, records, trial_at, wait_for

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILD = PROJECT["build-system"]
VERSION = PROJECT["project"]["version"]
SMALL = ["data.posts=90", "model.max_length=64", "train.epochs=4", "study.trials=1"]
PREDICT = """
import json, pathlib, redsm5
texts = json.loads(pathlib.Path("texts.json").read_text())
predictions = redsm5.load("copied").predict(texts)
print(json.dumps([[each.probability for each in post.symptoms] for post in predictions]))
"""
OFFLINE = ("Could not find a version that satisfies", "No matching distribution", "Connection")


def python(*words: object, **env: str) -> None:
    """Run this Python in the checkout, and check its exit code."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode and "install" in words and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip(f"{BUILD['requires']} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@dataclass
class Installed:
    """A fresh environment with the wheel, and a folder far from the checkout."""

    python: Path
    folder: Path

    @property
    def packages(self) -> Path:
        return next(self.python.parents[1].glob("lib/python*/site-packages"))

    def start(self, *words: object) -> "subprocess.Popen[str]":
        """Start `redsm5` with these words, in a process group of its own, as a shell does."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.Popen(
            [str(self.python.with_name("redsm5")), *map(str, words)],
            cwd=self.folder,
            env=environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )

    def run(self, *words: object) -> str:
        """Run `redsm5` with these words to its end, which must be a success; what it printed."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return output

    def python_output(self, code: str) -> str:
        """What a Python program prints there, which must be a success."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [self.python, "-E", "-c", code]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment that sees what this one has installed, but not the checkout.

    The wheel is built from the source distribution, and has the same files as one that is built from the checkout.
    """
    scratch = tmp_path_factory.mktemp("wheel")
    backend = {"PYTHONPATH": str(scratch / "backend")}
    python("-m", "pip", "install", "-q", "--retries", "1", "--target", scratch / "backend", *BUILD["requires"])
    for kind in ("sdist", "wheel"):
        (scratch / kind).mkdir()
        backend_of = f"import {BUILD['build-backend']} as backend"
        python("-c", f"{backend_of}; backend.build_{kind}({str(scratch / kind)!r})", **backend)
    sdist, direct = next((scratch / "sdist").iterdir()), next((scratch / "wheel").iterdir())
    words = ("--no-deps", "--no-build-isolation", "--wheel-dir", scratch / "dist", sdist)
    python("-m", "pip", "wheel", "-q", *words, **backend)
    wheel = next((scratch / "dist").iterdir())
    assert names(wheel) == names(direct)

    new = Installed(scratch / "fresh" / "bin" / "python", scratch / "elsewhere")
    new.folder.mkdir()
    python("-m", "venv", "--without-pip", scratch / "fresh")
    # Lines of a .pth file are not searched for .pth files, such as the one that leads to the checkout.
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (new.packages / "dependencies.pth").write_text("\n".join(others))
    python("-m", "pip", "--python", new.python, "install", "-q", "--no-deps", "--no-index", wheel)
    # A repository of something else around it, whose commit is not this code's.
    git = ("git", "-C", str(new.packages), "-c", "user.name=x", "-c", "user.email=x@example.org")
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "of something else"]):
        subprocess.run([*git, *command], check=True)
    return new


def test_the_wheel_has_one_package_and_its_version_is_its_own(installed: Installed) -> None:
    assert installed.run("--version") == f"redsm5 {VERSION}\n"

    added = {path.name for path in installed.packages.iterdir()} - {".git", "dependencies.pth"}
    assert added == {"redsm5", f"redsm5-{VERSION}.dist-info"}
    assert (installed.packages / "redsm5" / "py.typed").exists()
    command = [installed.python, "-E", "-c", "import redsm5; print(redsm5.__file__)"]
    where = subprocess.run(command, cwd=installed.folder, capture_output=True, text=True, check=True).stdout
    assert where == f"{installed.packages / 'redsm5' / '__init__.py'}\n"


def test_a_study_is_interrupted_resumed_and_looked_at_without_a_checkout(installed: Installed) -> None:
    experiments = installed.folder / "experiments"
    study = installed.start("hpo", *SMALL)
    wait_for(lambda: study.poll() is not None or trial_at(experiments, number=0, epoch=1))
    with suppress(ProcessLookupError):  # it has ended, and its output says why
        os.killpg(study.pid, signal.SIGTERM)
    output, _ = study.communicate(timeout=60)
    assert study.returncode == 75, output
    output = installed.run("hpo", *SMALL)
    (trial,) = records(experiments)
    assert trial["state"] == "completed"
    report = json.loads((experiments / f"trial_{trial['trial_id']}" / "evaluation_report.json").read_bytes())
    assert report["code_version"] == VERSION
    assert "just " not in output

    # the command that the last line suggests
    suggested = shlex.split(output.partition('summary="')[2].partition('"')[0])
    assert suggested[:2] == ["redsm5", "summary"], output
    assert "summary.html" in installed.run(*suggested[1:])
    assert json.loads(installed.run("studies", "--format", "json"))[0]["state"] == "completed"
    assert "keep" in installed.run("checkpoints", trial["trial_id"])
    assert "Nothing to clean up" in installed.run("cleanup")
    assert "demo" in installed.run("tui", "--once")

    # the model, where there is neither a checkout nor the experiments: the same probabilities as on record
    installed.run("export", "best", "--to", "exported")
    recorded = json.loads((experiments / f"trial_{trial['trial_id']}" / "predictions.json").read_bytes())
    posts = load_test(load_config(Config, experiments / f"trial_{trial['trial_id']}").data).test
    (installed.folder / "texts.json").write_text(json.dumps([post.text for post in posts]))
    (installed.folder / "exported").rename(installed.folder / "copied")
    experiments.rename(installed.folder / "gone")
    found = json.loads(installed.python_output(PREDICT))
    for probabilities, expected in zip(found, recorded["probabilities"], strict=True):
        assert probabilities == pytest.approx(expected, abs=1e-6)
    (installed.folder / "gone").rename(experiments)


def test_messages_name_commands_as_they_are_typed_without_a_checkout(installed: Installed) -> None:
    (installed.folder / "empty").mkdir()
    assert "yet: run `redsm5 hpo experiments=empty`" in installed.run("studies", "--experiments", "empty")
    told = installed.run("sync", "--help")
    assert told.startswith("usage: redsm5 sync [-h]")
    assert "`redsm5 sync [--experiments DIR]" in " ".join(told.split())
    checks = json.loads(installed.run("doctor", "--json", "--experiments", "empty"))["checks"]
    assert not [check for check in checks if "just" in check["name"] + check["remedy"]]
    assert {check["name"]: check["state"] for check in checks}["packages"] in ("ok", "warn")
