"""A worker whose trials end as soon as they begin: `python -m tests.e2e.quick_worker HANG OVERRIDES`.

Its driver, its study and its locks are real. It waits for a line on its standard input before it looks at the study,
says `trained NUMBER` of each trial, and hangs in its HANGth one, where that is not 0, until SIGUSR1.
"""

import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from redsm5.config import Config, compose
from redsm5.engine.documents import now
from redsm5.engine.errors import exit_with_message
from redsm5.engine.files import Lock
from redsm5.engine.paths import LOCK
from redsm5.engine.records import Best
from redsm5.engine.study import driver, outcomes
from redsm5.engine.study.access import CheckedData
from redsm5.engine.study.trial import read_record, write_record
from redsm5.task import ReDSM5

HANG = int(sys.argv[1])


class QuickDriver(driver.Driver):

    def __init__(self, config: Config) -> None:
        super().__init__(ReDSM5(), config)

    trained = 0

    def run(self, standby: Any = None) -> None:
        super().run(standby)

    def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        with Lock(folder / LOCK):
            record = read_record(folder)
            assert record is not None
            resumes = record.resumes + (record.started_at is not None)
            changes: dict[str, Any] = {"started_at": record.started_at or now(), "state": "running", "resumes": resumes}
            record = record.model_copy(update=changes)
            write_record(folder, record)
            self.trained += 1
            if self.trained == HANG:
                signal.signal(signal.SIGUSR1, lambda *_: None)
                print(f"hangs {number}", flush=True)
                signal.pause()
            changes = {"state": "completed", "exit_code": 0, "finished_at": now(), "epoch": 1}
            changes["best"] = Best(epoch=1, value=record.parameters.get("train.learning_rate", 0.5))
            write_record(folder, record.model_copy(update=changes))
        print(f"trained {number}", flush=True)
        return False


def quick(module: Any) -> None:
    """Leave out what reads posts, ships metrics and draws pages."""
    shipper = SimpleNamespace(start=int, watch=id, name_winner=id, close=lambda hurried: 0, failing=False)
    module.check_data = lambda task, config, stop: CheckedData({}, "ab" * 32, ())
    outcomes.draw_report = lambda folder, log: None
    module.Shipper = lambda *_: shipper


def main() -> int:
    quick(driver)
    print("ready", flush=True)
    sys.stdin.readline()
    QuickDriver(compose(sys.argv[2:])).run()
    return 0


if __name__ == "__main__":
    exit_with_message(main)
