"""A study of many small trials from end to end: `just bench soak [--trials 1000]`, about a second per trial.

Measured is the driver, from outside: CPU time per trial, of its main thread and of the threads that write reports'
pages and ship metrics to MLflow, and memory, up to 10, 100 and 1,000 trials; the whole time from trial to trial,
training included; and afterwards the time of `just summary` and the terminal app on that folder.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from results import Result, arguments_of, digits, finish

from redsm5.engine import paths
from redsm5.engine.errors import TrainingError, exit_with_message
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show

SMALL = ["data.posts=60", "model.max_length=32", "train.epochs=1", "study.sampler=random"]


def finished(root: Path) -> int:
    """The number of finished trials in the study's record."""
    for folder in paths.study_dirs(root):
        if (folder / paths.STUDY).exists():
            return int(json.loads((folder / paths.STUDY).read_bytes())["trials"]["finished"])
    return 0


def soak(root: Path, marks: list[int]) -> list[Row]:
    """Run a study with as many trials as the last mark; return the driver's figures between marks."""
    command = [sys.executable, str(SCRIPTS / "hpo.py"), *SMALL, f"study.trials={marks[-1]}", f"experiments={root}"]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows: list[Row] = []
    before = (0, 0.0, 0.0, 0.0)
    for mark in [1, *marks]:
        while (done := finished(root)) < mark and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.1)
            spent = {thread.id: thread.user_time + thread.system_time for thread in process.threads()}
            memory = process.memory_info().rss
        if done < mark:
            raise TrainingError(f"the study ended after {done} trials", where=str(root))
        own = spent[process.pid]
        after = (done, own, sum(spent.values()) - own, time.monotonic())
        count, own, others, wall = (b - a for a, b in zip(before, after, strict=True))
        if before[0]:  # the time before the first trial's end is start-up
            rows.append(
                {
                    "trials": f"{before[0] + 1} to {done}",
                    "driver, ms a trial": digits(1000 * own / count),
                    "pages and MLflow, ms a trial": digits(1000 * others / count),
                    "driver, MB": digits(memory / 1e6),
                    "in all, s a trial": digits(wall / count),
                }
            )
        before = after
    process.wait()
    return rows


def main() -> int:
    parser = arguments_of("soak", __doc__)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    trials = arguments.trials
    with tempfile.TemporaryDirectory(prefix="redsm5-soak-") as folder:
        root = Path(folder) / "experiments"
        rows = soak(root, [*(mark for mark in (10, 100, 300) if mark < trials), trials])
        after = {}
        for name, words in {
            "just summary": [str(SCRIPTS / "summarize.py"), "--experiments", str(root)],
            "just tui --once": ["-m", "tui", "--once", "--experiments", str(root)],
        }.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=SCRIPTS.parent)
            after[name] = time.perf_counter() - began
            show(f"{name}: {after[name]:.2f} s")
    return finish(Result(f"A study of {trials:,} small trials", rows, measured={"seconds": after}), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
