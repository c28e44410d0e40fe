"""Checks of network services: the Hugging Face Hub and MLflow. Tokens are used, but never shown."""

import importlib.metadata
import importlib.util
import sqlite3
import warnings
from pathlib import Path

from redsm5.doctor import Finding
from redsm5.engine import files, paths
from redsm5.engine.installed import REPAIR, command
from redsm5.engine.redaction import REDACTED, redact_address
from redsm5.engine.tracking.access import NOT_TRUSTED, REFUSED, remedy, request_arguments

REQUEST_S = 5.0
MLFLOW_MISSING = Finding("fail", "mlflow is not installed", REPAIR)


def check_hub() -> Finding:
    """Whether there is a valid token for the Hugging Face Hub; with HF_HUB_OFFLINE no request is sent."""
    try:
        from huggingface_hub import constants, get_session, get_token
    except ImportError as error:
        return Finding("fail", f"huggingface_hub cannot be imported: {error}", REPAIR)
    token = get_token()
    have = "a token is set" if token else "no token"
    if constants.HF_HUB_OFFLINE:
        return Finding(
            "ok", f"offline (HF_HUB_OFFLINE), only what is in the cache is used; {have}, no request was sent"
        )
    if token is None:
        return Finding("note", have, "Needed only for gated data and models (data=hub, mental_bert): `hf auth login`.")
    try:  # not HfApi.whoami, which has no timeout
        address, headers = f"{constants.ENDPOINT}/api/whoami-v2", {"Authorization": f"Bearer {token}"}
        answer = get_session().get(address, headers=headers, timeout=REQUEST_S)
    except Exception as error:  # the errors of its HTTP client are not huggingface_hub's own
        advice = "Check the network and its proxies; with HF_HUB_OFFLINE=1 only the cache is used."
        return Finding("warn", f"{have}; {constants.ENDPOINT} does not answer: {type(error).__name__}", advice)
    if answer.status_code in (401, 403):
        return Finding("warn", f"{have}, and the Hub refuses it ({answer.status_code})", "Renew it: `hf auth login`.")
    if answer.status_code != 200:
        return Finding(
            "warn", f"{have}; the Hub answers with {answer.status_code}", "Cached files are used; try again later."
        )
    return Finding("ok", f"logged in as {answer.json()['name']}")


# ---------------------------------------------------------------------------------------------------------------------
# MLflow


def check_mlflow(experiments: Path, uri: str | None = None) -> Finding:
    """Whether the metrics of this experiments folder can be shipped to MLflow.

    Args:
        experiments: the folder; it need not exist.
        uri: MLflow's address; None: the addresses of the studies in the folder, else the database in the folder.
    """
    if importlib.util.find_spec("mlflow") is None:
        return MLFLOW_MISSING
    addresses = [uri] if uri else _addresses(experiments)
    findings = [_look(address, experiments) for address in addresses]
    return max(findings, key=lambda f: ("ok", "note", "warn", "fail").index(f.state))


def _addresses(experiments: Path) -> list[str]:
    """The MLflow addresses of the studies' last runs; the database in the folder if they name none."""
    found = []
    for folder in paths.study_dirs(experiments):
        document = files.read_json(folder / paths.STUDY) or {}
        config = paths.moved(document.get("config") or {}, experiments)
        found.append((config.get("study") or {}).get("tracking_uri"))
    return list(dict.fromkeys(address or "" for address in found)) or [""]


def _look(address: str, experiments: Path) -> Finding:
    if REDACTED in address:
        remedy = f"Pass the address: `{command('doctor', '--tracking-uri', 'URI', experiments=experiments)}`."
        return Finding("note", f"the password of {address} is not saved with the study", remedy)
    if address.startswith(("http://", "https://")):
        return _look_at_server(address.rstrip("/"))
    if not address or address.startswith("sqlite:///"):
        return _look_at_file(Path(address.removeprefix("sqlite:///")) if address else experiments / paths.MLFLOW_DB)
    return Finding("note", f"{redact_address(address)}: neither a server nor a local file, not checked")


def _look_at_file(database: Path) -> Finding:
    version = importlib.metadata.version("mlflow")
    if not database.exists():
        return Finding("ok", f"MLflow {version}; the first study creates {database}")
    try:
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True, timeout=REQUEST_S)
        try:
            ((schema,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        finally:
            connection.close()
    except (sqlite3.Error, ValueError) as error:
        again = command("sync", experiments=database.parent)
        remedy = f"Move it away: metrics stay in the journals, and `{again}` ships them to a new one."
        return Finding("fail", f"{database} is not an MLflow database: {error}", remedy)
    spec = importlib.util.find_spec("mlflow")
    package = Path(spec.origin).parent if spec and spec.origin else Path()
    if not list((package / "store" / "db_migrations" / "versions").glob(f"{schema}_*.py")):
        detail = f"{database} has schema {schema}, which MLflow {version} does not know"
        return Finding("fail", detail, "A newer MLflow created it: install that version, or move the file away.")
    size = database.stat().st_size / 1e6
    return Finding("ok", f"MLflow {version}, {database} ({size:.1f} MB, schema {schema})")


def _look_at_server(address: str) -> Finding:
    """Send a request to a server as MLflow's client does: with the same library, credentials and certificates, all from
    the environment.

    A problem that does not resolve itself is a failure; a server that does not answer is a warning, since metrics stay
    in the journals until it does.
    """
    try:
        import requests
    except ImportError:
        return MLFLOW_MISSING
    shown = redact_address(address)
    try:
        with warnings.catch_warnings(action="ignore"):  # about MLFLOW_TRACKING_INSECURE_TLS, which was set on purpose
            health, version = (
                requests.get(f"{address}{path}", timeout=REQUEST_S, **request_arguments())
                for path in ("/health", "/version")
            )
    except OSError as error:  # the errors of requests are OSErrors
        if remedy(str(error)) == NOT_TRUSTED:
            return Finding("fail", f"the certificate of {shown} is not trusted", _sentence(NOT_TRUSTED))
        away = "Start the server, or fix the address. Until then metrics wait in the journals; none is lost."
        return Finding("warn", f"{shown} does not answer: {type(error).__name__}", away)
    status = max(health.status_code, version.status_code)
    if status in (401, 403):
        return Finding("fail", f"{shown} refuses access ({status})", _sentence(REFUSED))
    if status != 200:
        return Finding("warn", f"{shown} answers with {status}", "Check the log of the server, and of its proxy.")
    return Finding("ok", f"{shown} answers: MLflow {version.text.strip()[:40]}")


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
