"""Disk usage of checkpoints over a study, compared with Trainer's search: `just bench storage`.

Contenders train the same small model (`model=tiny`; Trainer's has one head, so it is a little smaller) for as many
trials and epochs, saving after each epoch, one study after the other in one run. The folder is measured every few
milliseconds to find the peak. What is left when the study has ended is given per trial in units of the model's weights,
so that it applies to any model: 1 is the best weights of each trial and nothing else. `model=tiny` has no pretrained
weights, to which those of a fine-tuned model would be stored as the difference.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from between import run_trainer
from results import Result, arguments_of, digits, finish

from redsm5.engine import paths
from redsm5.engine.errors import exit_with_message
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.storage.delta import read_header
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show

LOOK_S = 0.01
WEIGHTS = "model.safetensors"


def ours(root: Path, trials: int, epochs: int, *words: str) -> None:
    command = [sys.executable, str(SCRIPTS / "hpo.py"), f"study.trials={trials}", f"train.epochs={epochs}", *words]
    subprocess.run([*command, f"experiments={root}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def sizes(root: Path) -> Iterator[tuple[Path, int]]:
    """The files of checkpoints and their bytes; files that vanish meanwhile are skipped."""
    for folder, _, names in os.walk(root):
        if "checkpoint" in folder.removeprefix(str(root)):  # trial_*/checkpoints/*, or run-*/checkpoint-*
            for name in names:
                path = Path(folder) / name
                try:
                    yield path, path.stat().st_size
                except FileNotFoundError:
                    continue


def uncompacted(file: tuple[Path, int]) -> tuple[Path, int]:
    """A file of weights as it was before it was stored in fewer bytes."""
    path, _ = file
    if path.name != paths.WEIGHTS_DELTA:
        return file
    with path.open("rb") as stored:
        return path.with_name(WEIGHTS), read_header(stored.readline())[0].bytes


@contextmanager
def watched(root: Path) -> Iterator[list[int]]:
    """The bytes on disk, sampled while the block runs."""
    seen, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            seen.append(sum(size for _, size in sizes(root)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def main() -> int:
    parser = arguments_of("storage", __doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--budget", type=int, default=8_000_000, help="bytes, of redsm5 with a budget")
    arguments = parser.parse_args()
    trials, epochs = arguments.trials, arguments.epochs
    with_budget = f"redsm5 within {arguments.budget / 1e6:g} MB"
    ways: dict[str, Callable[[Path], object]] = {
        "redsm5": lambda root: ours(root, trials, epochs),
        with_budget: lambda root: ours(root, trials, epochs, f"retention.max_total_size={arguments.budget}"),
        "HF Trainer, save_total_limit=1": lambda root: run_trainer(root, trials, epochs=epochs, limit=1),
        "HF Trainer, all kept": lambda root: run_trainer(root, trials, epochs=epochs, limit=None),
    }
    most, left, weights = dict[str, int](), dict[str, int](), dict[str, int]()
    with tempfile.TemporaryDirectory(prefix="redsm5-storage-") as scratch:
        for name, way in ways.items():
            root = Path(scratch) / name.replace(" ", "-").replace(",", "")
            show(name, error=True)
            with watched(root) as seen:
                way(root)
            files = list(sizes(root))
            most[name], left[name] = max(seen), sum(size for _, size in files)
            weights[name] = next(size for path, size in map(uncompacted, files) if path.name == WEIGHTS)
    if most[with_budget] > arguments.budget:
        show(f"the budget was exceeded: {most[with_budget]} bytes", error=True)
        return 1
    rows: list[Row] = [
        {
            "": name,
            "most at once, MB": digits(most[name] / 1e6),
            "left, MB": digits(left[name] / 1e6),
            "left a trial, in weights": digits(left[name] / trials / weights[name]),
            "most, times redsm5": digits(most[name] / most["redsm5"]),
            "left, times redsm5": digits(left[name] / left["redsm5"]),
        }
        for name in ways
    ]
    times_ours = {
        f"bytes, {what}": {name: found[name] / found["redsm5"] for name in ways if name.startswith("HF")}
        for what, found in (("most at once", most), ("left", left))
    }
    measured = {"most": most, "left": left, "weights": weights}
    title = f"Bytes of checkpoints over a study of {trials} trials of {epochs} epochs"
    return finish(Result(title, rows, times_ours, measured), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
