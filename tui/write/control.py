"""Control files for the study's driver, and the commands that clean up and summarize."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from redsm5.engine import paths
from redsm5.engine.documents import parse
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.jsonio import loads

from ..read.reports import Importance

MOST = 200  # the most items of a kind to show


def writable(experiments: Path, study_id: str | None) -> bool:
    """Whether orders can be given: there is a study, and its folder is writable."""
    if study_id is None:
        return False
    folder = paths.study_dir(experiments, study_id)
    control = folder / paths.CONTROL
    place = control if control.is_dir() else folder
    return os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def give(experiments: Path, study_id: str, name: str) -> None:
    """Give an order: create its file in the study's control folder.

    Raises:
        OSError: it cannot be written.
    """
    folder = paths.study_dir(experiments, study_id) / paths.CONTROL
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / name).touch(mode=0o600)


def take_back(experiments: Path, study_id: str, name: str) -> None:
    """Remove an order that has not been carried out yet, or that stays in force."""
    (paths.study_dir(experiments, study_id) / paths.CONTROL / name).unlink(missing_ok=True)


def cleanup(experiments: Path, *flags: str) -> dict[str, Any]:
    """The output of `just cleanup`, with --execute if asked for; see scripts/cleanup.py for the document.

    Raises:
        OSError: it refused, or could not be run; the message says why.
    """
    said = _run("cleanup", "--experiments", str(experiments), "--format", "json", *flags)
    try:
        document = loads(said)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise OSError("cleanup printed no result")
    return summed(document)


def importance(experiments: Path, study_id: str) -> Importance:
    """The parameter importance that `just summary` computes now; writes nothing.

    Raises:
        OSError: it refused, or could not be run; the message says why.
    """
    said = _run("summarize", "--format", "json", "--experiments", str(experiments), "--", study_id)
    try:
        return parse(said, Importance)
    except ValueError as error:
        raise OSError("summarize printed no result") from error


def _run(script: str, *arguments: str) -> bytes:
    """The output of one of our commands, run at low priority in a separate process."""
    command = ["nice", sys.executable, str(SCRIPTS / f"{script}.py"), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=600, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{script} took more than 10 minutes") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").split("\n")[-5:]  # problem, place and remedy have a line each
        raise OSError(" ".join(" ".join(said).split()) or f"{script} ended with {done.returncode}")
    return done.stdout


def summed(document: dict[str, Any]) -> dict[str, Any]:
    """A summary for the screen: the first items of each kind, and their number."""
    items = [item for item in document.get("items", []) if isinstance(item, dict)]
    left = [item for item in items if item.get("kind") in ("litter", "orphan")]
    evictable = [item for item in items if item.get("kind") == "evictable"]
    return document | {
        "items": left[:MOST] + evictable[: 10 * MOST],
        "freed": sum(item.get("bytes", 0) for item in left),
    }
