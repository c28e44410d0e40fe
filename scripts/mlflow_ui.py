"""Open MLflow's own UI on the experiments folder's database: `just mlflow [flags of mlflow ui]`, on localhost."""

import os
import sqlite3
import sys
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.errors import InputError, LockedError, exit_with_message
from redsm5.engine.files import make_private
from redsm5.engine.installed import command, typed
from redsm5.engine.terminal import one_line, show
from redsm5.engine.tracking import local

SWITCHES = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main() -> int:
    experiments = Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments"))
    database, artifacts = experiments / paths.MLFLOW_DB, experiments.resolve() / paths.MLFLOW_ARTIFACTS
    if not database.is_file() and {"-h", "--help"}.intersection(sys.argv[1:]):  # else it is MLflow's own
        show(typed(f"{__doc__}\n\nThe flags are those of `mlflow ui --help`, such as --port 5001."))
        return 0
    if not database.is_file():
        raise InputError(
            f"{database} does not exist", remedy=f"Run `{command('hpo')}` first, or set REDSM5_EXPERIMENTS."
        )
    make_private()
    try:
        local.settle(database, artifacts)
    except (sqlite3.Error, OSError, LockedError) as error:  # for example, a read-only folder: the rest can be shown
        show(f"warning: if the folder was moved, reports may be missing: {one_line(error)}", error=True)
    words = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", local.own_uri(experiments)]
    words += ["--default-artifact-root", artifacts.as_uri()]  # else artifacts go to the current folder
    words += ["--host", "127.0.0.1", "--workers", "1", *sys.argv[1:]]
    return os.execve(sys.executable, words, {**os.environ, **SWITCHES})


if __name__ == "__main__":
    exit_with_message(main)
