"""Where this installation has its scripts and launch configurations, and how its commands are typed.

In a checkout they lie beside the package, and `just` runs the commands; a wheel has them inside the package, and the
command `redsm5` runs them (see pyproject.toml). This is the only module that knows. It needs only the standard library.

Every command that a person is told to run comes from `command`, so that it works when it is pasted.
"""

import os
import re
import shlex
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
CHECKOUT = None if (_PACKAGE / "scripts").is_dir() else _PACKAGE.parent  # None: installed from a wheel
_PARENT = CHECKOUT or _PACKAGE

SCRIPTS = _PARENT / "scripts"
LAUNCH_DIR = _PARENT / "accelerate_configs"
APP = "tui" if CHECKOUT else "redsm5.tui"  # the terminal app's module
REPAIR = "Run `just setup`." if CHECKOUT else "Install redsm5's wheel again with pip: that adds missing packages."


def typed(text: str) -> str:
    """A text of ours with its commands, `just sync`, as they are typed here: from a wheel, `redsm5 sync`.

    A command begins the text or follows a backtick.
    """
    return text if CHECKOUT else re.sub(r"(^|`)just ", r"\1redsm5 ", text)


WITH_OVERRIDES = ("hpo", "train", "baseline", "protocol")  # commands that take key=value


def command(name: str, *words: str, experiments: Path | str | None = None) -> str:
    """A command as it can be pasted into a shell: its words quoted, and the experiments folder named, unless it is the
    default.
    """
    folder = []
    if experiments is not None and os.path.abspath(experiments) != os.path.abspath(default_experiments()):
        where = str(experiments)
        folder = [setting("experiments", where)] if name in WITH_OVERRIDES else ["--experiments", where]
    return shlex.join(["just" if CHECKOUT else "redsm5", name, *words, *folder])


def default_experiments() -> str:
    """The experiments folder of a command that names none."""
    return os.environ.get("REDSM5_EXPERIMENTS") or "experiments"


def setting(key: str, text: str) -> str:
    """The override that sets a text field to this text, not yet quoted for a shell."""
    special = text != text.strip() or text[:1] in ("", "'", '"') or "${" in text or text.lower() == "null"
    return f"{key}={quoted(text) if special else text}"


def quoted(value: str) -> str:
    """Quote any value for Hydra's grammar."""
    return between_quotes(re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value))


def between_quotes(value: str) -> str:
    """Text in quotes, in which ${...} is resolved. A backslash is literal, except before a quote."""
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), value) + "'"
