"""The checks of `just doctor`. They are independent: a check that hangs or fails is reported and hides no other.

This package imports nothing but the standard library, since the doctor must run when the environment is broken.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from redsm5.engine.installed import REPAIR
from redsm5.engine.redaction import redact

DEADLINE_S = 20.0  # for all checks together; importing PyTorch alone may take ten seconds from a cold disk

State = Literal["ok", "note", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        state: "ok"; "note": something optional is missing; "warn": it works, with a drawback; "fail": something that
            redsm5 needs does not work.
        detail: what the check found, in one line.
        remedy: what the user can do; empty if there is nothing to do.
    """

    state: State
    detail: str
    remedy: str = ""


Check = Callable[[], Finding]


def examine(checks: Mapping[str, Check], deadline_s: float = DEADLINE_S) -> dict[str, Finding]:
    """The findings of the checks by name, in order. The checks run concurrently; each must finish within `deadline_s`,
    and fails if it raises. Secrets are redacted.
    """
    found: dict[str, Finding] = {}
    threads = [
        threading.Thread(target=partial(_note, found, name, check), name=name, daemon=True)
        for name, check in checks.items()
    ]
    deadline = time.monotonic() + deadline_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = Finding("fail", f"no answer within {deadline_s:g} s", "Check what it waits for: a disk, or the network.")
    return {name: found.get(name, silent) for name in checks}


def _note(found: dict[str, Finding], name: str, check: Check) -> None:
    try:
        seen = check()
    except Exception as error:  # a broken environment may raise anything, and the doctor reports it
        seen = Finding("fail", _first_line(error), f"This is unexpected. {REPAIR}")
    found[name] = Finding(seen.state, redact(seen.detail), seen.remedy)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
