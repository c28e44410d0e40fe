"""The sample study as shipped, from the command to the last report: `just bench sample`.

`just hpo` without arguments, in an empty experiments folder, after set-up; every other run starts with an empty cache
of posts, like the first run on a machine.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import Result, arguments_of, digits, finish

from redsm5.engine import paths
from redsm5.engine.errors import exit_with_message
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.tables import Row


def run(root: Path, cache: Path) -> tuple[int, float]:
    """The number of trials with a report, and the seconds until the command ended."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, str(SCRIPTS / "hpo.py"), f"experiments={root}"],
        check=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "REDSM5_CACHE": str(cache)},
    )
    seconds = time.perf_counter() - began
    return sum((folder / paths.REPORT).exists() for folder in paths.trial_dirs(root)), seconds


def main() -> int:
    parser = arguments_of("sample", __doc__)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[int, float]]] = {"the first on a machine": [], "with the posts in the cache": []}
    with tempfile.TemporaryDirectory(prefix="redsm5-sample-") as scratch:
        for turn in range(arguments.rounds):
            for name, runs in found.items():
                runs.append(run(Path(scratch) / f"{turn} {name}", Path(scratch) / f"cache {turn}"))
    rows: list[Row] = [
        {
            "just hpo": name,
            "trials with a report": runs[0][0],
            "s, median": digits(statistics.median(seconds for _, seconds in runs)),
        }
        for name, runs in found.items()
    ]
    return finish(Result("The sample study as shipped", rows, measured=found), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
