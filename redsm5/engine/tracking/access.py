"""Credentials for an MLflow server, from the variables that MLflow's own client reads, and remedies for its errors.

Credentials and certificates are never part of a configuration, record or message. This module needs only the standard
library.
"""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from redsm5.engine import installed
from redsm5.engine.errors import UNUSABLE_PATH, RedSM5Error
from redsm5.engine.redaction import redact_address

REFUSED = "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, as the server requires"
NOT_TRUSTED = "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its CA certificate"
_REFUSALS = ("error code 401", "error code 403", "UNAUTHENTICATED", "PERMISSION_DENIED")
_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "TLS CA certificate bundle")
_FULL = (
    "database or disk is full",
    "No space left on device",
    "Disk quota exceeded",
    "error code 507",
    "Insufficient Storage",
)
_OUTDATED = "out-of-date database schema"
_FAILS = re.compile(r"error code 5\d\d|too many 5\d\d error responses|5\d\d Server Error|INTERNAL_ERROR")
_READ_ONLY = "readonly database"
# What MLflow says of what was asked, not of itself: it answers, and others may be served.
_OF_ONE = (
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "NOT_FOUND",
)


class NotTakenError(RedSM5Error):
    """MLflow does not take what one trial has, and says so."""

    kind = "mlflow"


def is_refusal(error: Exception) -> bool:
    """Whether MLflow rejects the request."""
    return getattr(error, "error_code", None) in _OF_ONE


def of_one_trial(error: Exception) -> bool:
    """Whether an error of shipping concerns its trial alone: MLflow refuses it, or a file of it cannot be read."""
    ours = isinstance(error, RedSM5Error | ValueError | KeyError | TypeError)
    return ours or isinstance(error, UNUSABLE_PATH) or is_refusal(error)


def command(uri: str, *words: str) -> str:
    """A line for a shell that runs MLflow's own command on this MLflow."""
    line = [sys.executable, "-m", "mlflow", *words]
    return f"MLFLOW_TRACKING_URI={shlex.quote(redact_address(uri))} {shlex.join(line)}"


def in_trash(uri: str, kind: str, identity: str, name: str) -> NotTakenError:
    """That the experiment or run of a trial was deleted, and the command that takes it back."""
    line = command(uri, f"{kind}s", "restore", f"--{kind}-id", identity)
    many = " (many at once: in its UI, State: Deleted)" if kind == "run" else ""
    return NotTakenError(
        f"{kind} {name!r} ({identity}) is deleted: it is in MLflow's trash",
        remedy=f"restore it, at least temporarily{many}:\n{line}",
    )


def remedy(error: str, uri: str = "", experiments: Path | None = None) -> str | None:
    """What to do about an error of MLflow's client, where that is known; `experiments` is the folder of the metrics."""
    if any(sign in error for sign in _REFUSALS):
        return REFUSED
    if any(sign in error for sign in _CERTIFICATE):
        return NOT_TRUSTED
    local = uri.startswith("sqlite:")
    if _OUTDATED in error:
        line = shlex.join([sys.executable, "-m", "mlflow", "db", "upgrade", redact_address(uri)])
        return (
            f"the database was created by an older MLflow; back it up, then run:\n{line}"
            if local
            else "upgrade the server"
        )
    again = f"`{installed.command('sync', experiments=experiments)}`"
    if any(sign in error for sign in _FULL):
        clean = installed.command("cleanup", "--execute", experiments=experiments)
        here = f"free disk space: `{clean}` deletes reclaimable files"
        there = f"free disk space on MLflow's server (`df -h` there shows which disk); then ship again: {again}"
        return here if local else there
    if local and _READ_ONLY in error:
        return f"make the folder writable:\nchmod -R u+w {shlex.quote(os.path.dirname(uri.removeprefix('sqlite:///')))}"
    if not local and _FAILS.search(error):  # MLflow's client does not pass on what a server says with most of these
        where = "its log shows the cause, and `df -h` there whether its disk is full"
        return f"check MLflow's server: {where}; then ship again: {again}"
    return None


def request_arguments() -> dict[str, Any]:
    """What MLflow's client would give `requests`, after the same variables of the environment."""
    get = os.environ.get
    user, password, token = (get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD", "TOKEN"))
    arguments: dict[str, Any] = {"verify": get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True}
    if (get("MLFLOW_TRACKING_INSECURE_TLS") or "").lower() in ("true", "1"):
        arguments["verify"] = False
    if certificate := get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        arguments["cert"] = certificate
    if user and password:
        arguments["auth"] = (user, password)
    elif token:
        arguments["headers"] = {"Authorization": f"Bearer {token}"}
    return arguments
