"""What the driver decides by itself, with a real Optuna study and no process to train."""

import signal
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from redsm5 import files, paths
from redsm5.config import compose
from redsm5.records import Decision
from redsm5.study.driver import Driver
from redsm5.tracking.journal import Journal

SPACE = "search.space={train.weight_decay:{type:float,low:0.0,high:0.1}}"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    """A driver whose study has five completed trials with 0.5, 0.6, 0.7 after their epochs."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    driver = Driver(
        compose([f"experiments={tmp_path / 'e'}", "data.posts=60", SPACE, "study.pruner=median", "study.trials=9"])
    )
    for _ in range(5):
        driver.optuna.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=0.7,
                params={"train.weight_decay": 0.0},
                distributions={"train.weight_decay": FloatDistribution(0.0, 0.1)},
                intermediate_values={1: 0.5, 2: 0.6, 3: 0.7},
            )
        )
    yield driver
    for number, handler in handlers.items():
        signal.signal(number, handler)


def begin_trial(driver: Driver) -> tuple[int, str, Path, Journal]:
    """The driver's next trial: its number, id, folder and journal."""
    claimed = driver._next_trial()
    assert claimed is not None
    _, number, trial_id = claimed
    folder = paths.trial_dir(driver.experiments, trial_id)
    return number, trial_id, folder, Journal(folder, trial_id, log=lambda *_, **__: None)


def test_each_epoch_is_decided_once_and_what_falls_below_the_median_is_pruned(driver: Driver) -> None:
    number, trial_id, folder, journal = begin_trial(driver)

    def after(epoch: int, score: float) -> list[Decision]:
        journal.add("val_f1_macro", score, step=epoch, epoch=epoch)
        journal.add("val_loss", 0.0, step=epoch, epoch=epoch)
        journal.commit()
        for _ in range(2):  # again and again, while the trial runs
            driver._decide(number, trial_id, folder)
        return [Decision.model_validate(line) for line in files.read_lines(folder / paths.DECISIONS)]

    assert [(d.epoch, d.prune) for d in after(1, 0.55)] == [(1, False)]
    assert [(d.epoch, d.prune) for d in after(2, 0.56)] == [(1, False), (2, True)]
    last = after(2, 0.56)[-1]
    assert last.reason == "val_f1_macro 0.5600 is below the median of the trials before"
    assert driver.optuna.get_trials()[number].intermediate_values == {1: 0.55, 2: 0.56}


def test_a_decision_torn_by_a_kill_is_made_again(driver: Driver) -> None:
    number, trial_id, folder, journal = begin_trial(driver)
    journal.add("val_f1_macro", 0.1, step=1, epoch=1)
    journal.commit()
    driver._decide(number, trial_id, folder)
    whole = (folder / paths.DECISIONS).read_bytes()
    (folder / paths.DECISIONS).write_bytes(whole[:20])
    driver._decide(number, trial_id, folder)
    assert (folder / paths.DECISIONS).read_bytes() == whole
    assert Decision.model_validate_json(whole).prune
