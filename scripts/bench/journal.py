"""Cost of logging a metric for the training, compared with MLflow's own calls: `just bench journal`.

An epoch of 200 steps is logged repeatedly, taking turns, in one run: into our journal, which is durable at the epoch's
end; by MLflow's `log_metric`, step by step; and by one `log_batch` per epoch, both into a SQLite database as `mlflow
ui` reads it. The table shows the median and the 95th percentile per value, and the time of the whole epoch.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from results import Result, arguments_of, digits, finish

from redsm5.engine.errors import exit_with_message
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show
from redsm5.engine.tracking.journal import Journal

STEPS = 200
Log = Callable[[int, float], object]


def seconds(log: Log, end: Callable[[], object], epoch: int) -> list[float]:
    """Log an epoch: the seconds per value, and for the end."""
    times = []
    for step in range(epoch * STEPS, (epoch + 1) * STEPS):
        began = time.perf_counter()
        log(step, 1 / (1 + step))
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    end()
    return [*times, time.perf_counter() - began]


def main() -> int:
    parser = arguments_of("journal", __doc__)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    rounds = arguments.rounds
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    found: dict[str, list[list[float]]] = {"redsm5": [], "MLflow, log_metric": [], "MLflow, log_batch": []}
    with tempfile.TemporaryDirectory(prefix="redsm5-") as folder:
        journal = Journal(Path(folder), "0", log=lambda *_, **__: None)
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        experiment = client.create_experiment("bench", artifact_location=folder)
        runs = [client.create_run(experiment).info.run_id for _ in range(2)]
        waiting: list[Metric] = []

        def one_by_one(step: int, value: float) -> None:
            client.log_metric(runs[0], "train_loss", value, step=step)

        def together(step: int, value: float) -> None:
            waiting.append(Metric("train_loss", value, int(time.time() * 1000), step))

        def end_together() -> None:
            client.log_batch(runs[1], metrics=waiting)
            waiting.clear()

        for turn in range(rounds):
            ours = seconds(
                lambda step, value: journal.add("train_loss", value, step=step, epoch=0), journal.commit, turn
            )
            found["redsm5"].append(ours)
            found["MLflow, log_metric"].append(seconds(one_by_one, int, turn))
            found["MLflow, log_batch"].append(seconds(together, end_together, turn))
            show(f"round {turn + 1} of {rounds}", error=True)
    epoch = {name: statistics.median(map(sum, epochs)) for name, epochs in found.items()}
    times_ours = {name: epoch[name] / epoch["redsm5"] for name in found}
    rows: list[Row] = []
    for name, epochs in found.items():
        values = [1000 * value for of_epoch in epochs for value in of_epoch[:-1]]
        rows.append(
            {
                "": name,
                "a value, median ms": digits(statistics.median(values)),
                "a value, p95 ms": digits(statistics.quantiles(values, n=20)[18]),
                f"an epoch of {STEPS} steps, ms": digits(1000 * epoch[name]),
                "times redsm5": digits(times_ours[name]),
            }
        )
    result = Result("What logging a metric costs the training", rows, {"logging a metric": times_ours}, found)
    return finish(result, arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
