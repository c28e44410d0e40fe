"""Whether training waits for MLflow: one study with MLflow running, silent and unreachable: `just bench shipping`.

The same small study runs with the local database, with a server that accepts connections but never answers, and with an
unreachable server, round after round in one run. An epoch's time is the time between the first validation metrics of
two epochs in the journal. The table shows medians, and their ratios to the study whose MLflow is running.
"""

import itertools
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from results import Result, arguments_of, digits, finish

from redsm5.engine import paths
from redsm5.engine.documents import milliseconds
from redsm5.engine.errors import TrainingError, exit_with_message
from redsm5.engine.terminal import show
from redsm5.engine.tracking.journal import read_metrics

HPO = Path(__file__).parent.parent / "hpo.py"
SMALL = ["data.posts=200", "model.max_length=64", "train.epochs=15", "study.trials=1"]


def epoch_seconds(experiments: Path, tracking_uri: str | None) -> list[float]:
    """Run the study; return the seconds of each of its epochs except the first."""
    words = [*SMALL, f"experiments={experiments}"] + ([f"study.tracking_uri={tracking_uri}"] if tracking_uri else [])
    done = subprocess.run([sys.executable, str(HPO), *words], capture_output=True, text=True)
    if done.returncode:
        raise TrainingError(f"the study ended with code {done.returncode}", where=str(experiments))
    (trial,) = paths.trial_dirs(experiments)
    ends = [milliseconds(row.timestamp) for row in read_metrics(trial) if row.metric == "val_loss"]
    return [(b - a) / 1000 for a, b in itertools.pairwise(ends)]


def main() -> int:
    parser = arguments_of("shipping", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        away = f"http://127.0.0.1:{gone.getsockname()[1]}"
        gone.close()
        ways = {"there": None, "silent": f"http://127.0.0.1:{silent.getsockname()[1]}", "away": away}
        times: dict[str, list[float]] = {name: [] for name in ways}
        with tempfile.TemporaryDirectory(prefix="redsm5-") as folder:
            for turn in range(1, arguments.rounds + 1):
                for name, uri in ways.items():
                    times[name] += epoch_seconds(Path(folder) / f"{name}-{turn}", uri)
                show(f"round {turn} of {arguments.rounds}", error=True)
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    rows = [
        {"MLflow is": name, "an epoch, s": digits(seconds), "ratio": digits(seconds / median["there"])}
        for name, seconds in median.items()
    ]
    return finish(Result("Training while MLflow is silent or away", rows, measured=times), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
