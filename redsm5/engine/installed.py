"""Where this installation has its scripts and launch configurations, and how its commands are typed.

In a checkout they lie beside the package, and `just` runs the commands; a wheel has them inside the package, and the
command `redsm5` runs them (see pyproject.toml). This is the only module that knows. It needs only the standard library.
"""

import re
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
