"""MLflow in the experiments folder: its database and artifacts, which move with the folder.

MLflow stores artifact locations as absolute paths, for each experiment and run. `settle` updates those that were in
this folder before it moved, and leaves other locations alone. Our own files store MLflow's address relative to the
folder if it is inside. This module needs only the standard library.
"""

import os
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from redsm5.engine import files, paths
from redsm5.engine.redaction import redact_address

SQLITE = "sqlite:///"
# The experiment's tag that says where we let its artifacts lie. One whose location is another was moved by a person.
TAG = "redsm5.artifacts"
BUSY_S = 30.0
# Where MLflow writes such paths down; what a person logs into our experiments goes with them.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
    ("experiment_tags", "value"),
)


# ---------------------------------------------------------------------------------------------------------------------
# addresses


def own_uri(experiments: Path) -> str:
    """The address of the database in the experiments folder."""
    return f"{SQLITE}{experiments.resolve() / paths.MLFLOW_DB}"


def database_of(uri: str) -> Path | None:
    """The file of a local database; None where the address is another."""
    path = uri.removeprefix(SQLITE)
    if not Path(path).parent.is_dir():  # else a ? is part of a folder's name
        path = path.partition("?")[0]
    return Path(path) if uri.startswith(SQLITE) and path else None


def as_url(uri: str) -> str:
    """An address as MLflow takes it, as a URL, in which % and ? are no part of a name. In that of a folder that is
    there they are meant; were they quoted, MLflow would make a folder of the quoted name: so it goes by its descriptor.
    """
    path = Path(uri.removeprefix(SQLITE))
    if str(path) == uri or not re.search("[%?]", str(path.parent)) or not path.parent.is_dir():
        return uri
    return f"{SQLITE}/proc/self/fd/{_opened(path.parent)}/{path.name}"


@cache
def _opened(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


@lru_cache(maxsize=64)
def written(uri: str, experiments: Path) -> str:
    """An address as the folder's files store it: without a password; a database in the folder is relative to it."""
    database, folder = database_of(uri), experiments.resolve()
    if database and database.resolve().is_relative_to(folder):
        return f"{SQLITE}{database.resolve().relative_to(folder)}"
    return redact_address(uri)


def is_meant(said: str, uri: str, trial: Path) -> bool:
    """Whether what a trial's shipped.json says is this address.

    Before addresses were relative, that of the folder's own database was absolute: it may have moved since. One that
    has this trial beside it is the folder that this one was copied from.
    """
    if said in (written(uri, trial.parent), redact_address(uri)):
        return True
    before = database_of(said)
    if written(uri, trial.parent) != f"{SQLITE}{paths.MLFLOW_DB}" or before is None or not before.is_absolute():
        return False
    return before.name == paths.MLFLOW_DB and (not before.exists() or (before.parent / trial.name).exists())


# ---------------------------------------------------------------------------------------------------------------------
# where artifacts lie


def root_of(location: str | None) -> Path | None:
    """The folder of artifacts that a location is in, if it is one of an experiments folder on this machine."""
    found = re.fullmatch(rf"(file://.*/{paths.MLFLOW_ARTIFACTS})(/.*)?", location or "")
    return Path(unquote(urlsplit(found[1]).path)) if found else None


def artifact_folder(location: str | None) -> Path | None:
    """The local folder that a run's artifacts are in; None where they are not in one."""
    parts = urlsplit(location or "")
    return Path(unquote(parts.path)) if parts.scheme in ("file", "") and parts.path.startswith("/") else None


def settle(database: Path, artifacts: Path) -> None:
    """Point MLflow's artifact locations of this folder to `artifacts`, whatever paths they had before the folder moved.

    It is one transaction, and none if nothing needs to change.

    Raises:
        sqlite3.Error: the database cannot be read, or not written where it must be.
    """
    here = artifacts.resolve().as_uri()
    with closing(sqlite3.connect(database, timeout=BUSY_S, isolation_level=None)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"experiments", "runs", "experiment_tags", "params", "tags"} <= tables:
            return  # none of MLflow's, or one of a version that it refuses
        ours = [root for root in _roots_elsewhere(db, here) if _was_ours(db, root, database, artifacts)]
        if not ours and not _untagged(db, here):
            return
        with files.Lock(database.with_name(f"{database.name}.lock")):
            db.execute("BEGIN IMMEDIATE")
            for root in ours:
                for table, column in _PLACES:
                    if table in tables:
                        _replace(db, table, column, root, here)
            db.executemany(
                "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)",
                [(TAG, here, experiment_id) for experiment_id in _untagged(db, here)],
            )
            db.execute("COMMIT")


def _replace(db: sqlite3.Connection, table: str, column: str, root: str, here: str) -> None:
    if column not in [row[1] for row in db.execute(f"PRAGMA table_info({table})")]:
        return
    db.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
        (here, len(root) + 1, root, len(root) + 1, f"{root}/"),
    )


def _roots_elsewhere(db: sqlite3.Connection, here: str) -> list[str]:
    """The addresses of folders of artifacts, as experiments folders have them, that are not this one's."""
    roots = set()
    for table, column in _PLACES[:2]:
        outside = f"SELECT DISTINCT {column} FROM {table} WHERE {column} != ? AND substr({column}, 1, ?) != ?"
        for (location,) in db.execute(outside, (here, len(here) + 1, f"{here}/")):
            if root := root_of(location):
                roots.add(root.as_uri())
    return sorted(roots)


def _untagged(db: sqlite3.Connection, here: str) -> list[int]:
    """The experiments whose artifacts lie here without that it says that this is our doing."""
    said = "SELECT 1 FROM experiment_tags t WHERE t.experiment_id = e.experiment_id AND t.key = ? AND t.value = ?"
    query = f"SELECT e.experiment_id FROM experiments e WHERE e.artifact_location = ? AND NOT EXISTS ({said})"
    return [experiment_id for (experiment_id,) in db.execute(query, (here, TAG, here))]


def _was_ours(db: sqlite3.Connection, root: str, database: Path, artifacts: Path) -> bool:
    """Whether a folder of artifacts is what this one was, in another place.

    It is, if the artifacts of one of its runs lie here; or if the place is gone, and a trial of one of its runs is
    here. For the folder's own database it is enough that the tag, a run's parameters or a shipped.json name the place.
    """
    place, experiments = root_of(root), artifacts.parent
    assert place is not None
    own = database.resolve().parent == experiments.resolve()
    runs = db.execute("SELECT run_uuid FROM runs WHERE substr(artifact_uri, 1, ?) = ?", (len(root) + 1, f"{root}/"))
    run_ids = [run_id for (run_id,) in runs]
    if any((artifacts / run_id).is_dir() and (own or not (place / run_id).exists()) for run_id in run_ids):
        return True
    if not place.parent.exists():
        trials = db.execute("SELECT run_uuid, value FROM tags WHERE key = 'trial_id'")
        known = set(run_ids)
        if any(run_id in known and paths.trial_dir(experiments, value).exists() for run_id, value in trials):
            return True
    return own and place.parent in _places_named(db, experiments)


def _places_named(db: sqlite3.Connection, experiments: Path) -> Iterable[Path]:
    """The places in which the folder's own documents say that it has been."""
    tags = db.execute("SELECT DISTINCT value FROM experiment_tags WHERE key = ?", (TAG,))
    yield from (root.parent for (value,) in tags if (root := root_of(value)))
    yield from (Path(value) for (value,) in db.execute("SELECT DISTINCT value FROM params WHERE key = 'experiments'"))
    for folder in paths.trial_dirs(experiments):
        said = (files.read_json(folder / paths.SHIPPED) or {}).get("tracking_uri")
        if isinstance(said, str) and (before := database_of(said)):
            yield before.parent


def create(database: Path) -> None:
    """Make a local MLflow database as a whole or not at all: MLflow refuses one that a kill left half migrated."""
    from mlflow.tracking import MlflowClient

    with files.Lock(database.with_name(f"{database.name}.lock")):
        if database.exists():
            return
        temporary = database.with_name(f".{database.name}.tmp")
        temporary.unlink(missing_ok=True)
        MlflowClient(tracking_uri=as_url(f"{SQLITE}{temporary}")).search_experiments(max_results=1)
        temporary.rename(database)
        files.fsync_dir(database.parent)
