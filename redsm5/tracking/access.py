"""Access to an MLflow server, from the environment, by the names that MLflow's own client reads.

Credentials and certificates are part of no configuration, record or message. The standard library is all it needs.
"""

import os
from typing import Any

REFUSED = (
    "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, to what the server asks for"
)
NOT_TRUSTED = "name the file of its authority's certificate in MLFLOW_TRACKING_SERVER_CERT_PATH"
_REFUSALS = ("error code 401", "error code 403", "UNAUTHENTICATED", "PERMISSION_DENIED")
_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "TLS CA certificate bundle")


def remedy(error: str) -> str | None:
    """What to do about an error of MLflow's client, where it is one of access."""
    if any(sign in error for sign in _REFUSALS):
        return REFUSED
    return NOT_TRUSTED if any(sign in error for sign in _CERTIFICATE) else None


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
