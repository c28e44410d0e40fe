"""The database of study.storage: one error message if it cannot be opened, waiting if it goes away later.

If the database fails during a statement, the next run repeats it: results are read from the trials' own records, and a
trial that was already asked for is found again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)
from structlog.typing import FilteringBoundLogger
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from redsm5.engine.errors import ConfigError, Interrupted
from redsm5.engine.redaction import redact
from redsm5.engine.waiting import Stop, wait_until

POLL_S = 2.0
EXAMPLE = "postgresql://user@host/database"


def open_database(url: str) -> RDBStorage:
    """Optuna's tables in this database, made where they are not there yet.

    Raises:
        ConfigError: it cannot be opened.
    """
    try:
        return _open(url)
    except ArgumentError as error:
        remedy = f"Give one such as {EXAMPLE}, or leave study.storage out for a journal in the experiments folder."
        what = "study.storage is not a database URL"
        if isinstance(error, NoSuchModuleError):  # its text names the kind alone, that of others the whole URL
            what = f"study.storage names an unknown database: {error}"
        raise ConfigError(what, remedy=remedy) from None
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or "a package"
        raise ConfigError(
            f"the driver of this database is not installed: {missing}",
            where=address(url),
            remedy="`just setup` installs the driver for postgresql://; without just: pip install 'psycopg[binary]'.",
        ) from None
    except Exception as error:  # Optuna and the databases' drivers have no common base
        raise ConfigError(
            f"the database cannot be opened: {reason(error, url)}",
            where=address(url),
            remedy="Check that the server runs, that this machine can reach it, and that the database exists. "
            "For PostgreSQL the password comes from PGPASSWORD or ~/.pgpass.",
        ) from None


# Two studies may make the tables of a new database at once: the second attempt finds them.
@retry(
    retry=retry_if_exception_type((ProgrammingError, IntegrityError)),
    stop=stop_after_attempt(3),
    wait=wait_fixed(0.5),
    reraise=True,
)
def _open(url: str) -> RDBStorage:
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})  # reconnect after a lost connection


def address(url: str) -> str:
    """The name of the setting and the database's location, without user and password."""
    parts = make_url(url)
    server = f"{parts.host}:{parts.port}" if parts.port else parts.host or parts.query.get("host")
    return f"study.storage, {parts.get_backend_name()} at {'/'.join(str(p) for p in (server, parts.database) if p)}"


def reason(error: BaseException, url: str) -> str:
    """The database's error in its own words, on one line, without a password."""
    text = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
    password = make_url(url).password
    return redact(text.replace(str(password), "[redacted]") if password else text)


def wait_when_away(storage: RDBStorage, stop: Stop, log: FilteringBoundLogger) -> None:
    """From now on, a connection that cannot be made is retried until it can, or a stop is requested."""
    url = storage.url

    def connect(dialect: Any, _: object, args: Any, parameters: Any) -> Any:
        warned = False
        while True:
            try:
                connection = dialect.connect(*args, **parameters)
            except dialect.loaded_dbapi.OperationalError as error:
                if not warned:
                    why = {"database": address(url), "reason": reason(error, url)}
                    log.warning("the database does not answer: the study resumes by itself once it does", **why)
                    warned = True
            else:
                if warned:
                    log.info("the database answers again: the study resumes")
                return connection
            if wait_until(lambda: stop.requested, timeout=POLL_S):
                raise Interrupted("stopped while the database did not answer: run the same command again to resume")

    event.listen(storage.engine, "do_connect", connect)


@contextmanager
def breaking_off() -> Iterator[None]:
    """A context that turns a lost connection during an operation into an interruption.

    Raises:
        Interrupted: whether the operation was done, nobody knows; the next run finds out.
    """
    try:
        yield
    except StorageInternalError as error:
        cause = error.__cause__
        if not isinstance(cause, OperationalError | InterfaceError):
            raise
        raise Interrupted(
            f"the connection to the study.storage database was lost: {redact(' '.join(str(cause.orig).split()))}",
            remedy="No data is lost: once the database answers, run the same command again to resume.",
        ) from None
