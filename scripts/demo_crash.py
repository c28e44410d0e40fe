"""Kill a study with SIGKILL repeatedly, and compare its results with an uninterrupted study: `just demo-crash`.

Two small studies run in a temporary folder. The first is not interrupted. All processes of the second are killed at
random moments, and the same command is run again, until it is done. Then every metric except `system_*`, the kept
weights and the test scores are compared, bit by bit.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from redsm5.engine import files, paths
from redsm5.engine.errors import TrainingError, exit_with_message
from redsm5.engine.jsonio import loads
from redsm5.engine.terminal import Parser, show
from redsm5.evaluation.reproduction import metrics_of, weights_of

SMALL = ("data.posts=90", "model.max_length=64", "train.epochs=12", "study.trials=2")
HPO = Path(__file__).with_name("hpo.py")


def main() -> int:
    parser = Parser(prog="just demo-crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=None, help="seed of the random kill times")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="redsm5-") as folder:
        alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        show("Running a study without interruption …")
        finish(alone)
        show(f"Running the same study, to be killed {arguments.kills} times …")
        for turn in range(1, arguments.kills + 1):
            study = start(killed)
            wait_for_training(killed, study)
            time.sleep(dice.uniform(0, 4))
            over = study.poll() is not None
            count = kill_all(killed)
            study.wait()
            if over:
                show("  it finished before the next kill")
                break
            show(f"  {turn}: kill -9 of {count} processes; {standing(killed)}")
        finish(killed)
        return compare(outcome(alone), outcome(killed))


def start(experiments: Path) -> "subprocess.Popen[bytes]":
    """Start the command, and discard its output."""
    command = [sys.executable, str(HPO), *SMALL, f"experiments={experiments}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)


def finish(experiments: Path) -> None:
    """Run the command to its end."""
    if code := start(experiments).wait():
        raise TrainingError(f"the study ended with exit code {code}", where=str(experiments))


def wait_for_training(experiments: Path, study: "subprocess.Popen[bytes]") -> None:
    """Wait until a trial trains its epochs, since its start takes longer than they do, or until the study has ended."""
    begin = time.time()
    while study.poll() is None:
        for folder, record in records(experiments):
            if record["state"] == "running" and (folder / paths.TRIAL).stat().st_mtime > begin:
                return
        time.sleep(0.05)


def kill_all(experiments: Path) -> int:
    """Send SIGKILL to every process with the folder on its command line; return their number."""
    count = 0
    for entry in Path("/proc").iterdir():
        try:
            ours = entry.name.isdigit() and str(experiments).encode() in (entry / "cmdline").read_bytes()
            if ours and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
                count += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    return count


def records(experiments: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Each trial's folder and record, by number."""
    found = [(folder, files.read_json(folder / paths.TRIAL)) for folder in paths.trial_dirs(experiments)]
    return sorted(((f, r) for f, r in found if r), key=lambda pair: pair[1]["number"])


def standing(experiments: Path) -> str:
    """The progress of the study."""
    trials = [f"trial {r['number']} {r['state']}, epoch {r['epoch']} of {r['epochs']}" for _, r in records(experiments)]
    return "; ".join(trials) or "no trial had started"


def outcome(experiments: Path) -> dict[str, list[Any]]:
    """What two studies are compared on: each metric by step, the hashes of the kept weights, the test scores."""
    rows, weights, scores = [], [], []
    for folder, _ in records(experiments):
        rows.append(metrics_of(folder))
        weights.append(weights_of(folder))
        scores.append(loads((folder / paths.REPORT).read_bytes())["test_metrics"])
    return {"metrics": rows, "weights": weights, "test scores": scores}


def compare(alone: dict[str, list[Any]], killed: dict[str, list[Any]]) -> int:
    """Print what is equal; return exit code 2 if something differs."""
    show(f"metrics in the journals: {sum(map(len, alone['metrics']))} and {sum(map(len, killed['metrics']))}")
    for name, expected in alone.items():
        show(f"{name}: {'identical' if killed[name] == expected else 'DIFFERENT'}")
    return 0 if alone == killed else 2


if __name__ == "__main__":
    exit_with_message(main)
