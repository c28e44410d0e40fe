"""The version of this code, as files and reports name it."""

import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from redsm5.engine.installed import CHECKOUT

try:
    __version__ = version("redsm5")
except PackageNotFoundError:  # a checkout before `just setup`, where `just doctor` runs already
    __version__ = "0+unknown"


@cache
def code_version() -> str:
    """The version of this code, with the commit if known: 1.2.3+g1a2b3c4. A checkout gets it from git, an image from
    REDSM5_REVISION, which its build sets.
    """
    if CHECKOUT is None or not (CHECKOUT / ".git").exists():
        revision = os.environ.get("REDSM5_REVISION")
        return f"{__version__}+g{revision}" if revision else __version__
    try:
        described = subprocess.run(
            ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+g{described.stdout.strip()}"
