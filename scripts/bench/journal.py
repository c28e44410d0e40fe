"""What a metric costs the training that logs it, beside MLflow's own calls: `just bench journal`.

An epoch of 200 steps is logged again and again, in turn, in one run: into our journal, which is durable at the epoch's
end; by MLflow's `log_metric`, step by step; and by one `log_batch` an epoch, both into a SQLite database as
`mlflow ui` reads it. The table shows the median and the 95th percentile of a value, and of the epoch as a whole.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from redsm5.errors import exit_with_message
from redsm5.tables import Row, as_table
from redsm5.tracking.journal import Journal

STEPS = 200
Log = Callable[[int, float], object]


def seconds(log: Log, end: Callable[[], object], epoch: int) -> list[float]:
    """Log an epoch: what each value took, and then the end."""
    times = []
    for step in range(epoch * STEPS, (epoch + 1) * STEPS):
        began = time.perf_counter()
        log(step, 1 / (1 + step))
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    end()
    return [*times, time.perf_counter() - began]


def main() -> int:
    parser = argparse.ArgumentParser(prog="just bench journal", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    found: dict[str, list[list[float]]] = {"ours": [], "MLflow, log_metric": [], "MLflow, log_batch": []}
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
            found["ours"].append(ours)
            found["MLflow, log_metric"].append(seconds(one_by_one, int, turn))
            found["MLflow, log_batch"].append(seconds(together, end_together, turn))
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    least = statistics.median(map(sum, found["ours"]))
    rows: list[Row] = []
    for name, epochs in found.items():
        values = [1000 * value for epoch in epochs for value in epoch[:-1]]
        whole = statistics.median(map(sum, epochs))
        rows.append(
            {
                "": name,
                "value, median ms": round(statistics.median(values), 3),
                "value, p95 ms": round(statistics.quantiles(values, n=20)[18], 3),
                f"epoch of {STEPS} steps, ms": round(1000 * whole, 1),
                "times ours": round(whole / least, 1),
            }
        )
    print(as_table([*rows[0]], rows))
    return 0


exit_with_message(main)
