"""Orders by file: what each does to a study, with a real driver and Optuna and trials that train nothing."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from redsm5.config import Config, compose
from redsm5.engine import files, paths, waiting
from redsm5.engine.documents import now
from redsm5.engine.errors import Interrupted, TrainingError
from redsm5.engine.records import Best, Decision, ErrorRecord, Event, TrialRecord
from redsm5.engine.study import outcomes
from redsm5.engine.study.control import Control
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.trial import read_record, write_record
from redsm5.task import ReDSM5

NOBODY = "00000000-0000-4000-8000-000000000000"
During = Callable[["QuickDriver", TrialRecord], object]


pytestmark = pytest.mark.usefixtures("no_posts_and_no_mlflow")


class QuickDriver(Driver):
    """Its trials do what `during` says at each of their starts, and are completed unless they are asked to stop then.

    Attributes:
        during: one for each start; after the last, trials just complete.
        started: the number of the trial at each start.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(ReDSM5(), config)

    during: list[During]
    started: list[int]

    def run(self, standby: Any = None) -> None:
        super().run(standby)

    def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        record = read_record(folder)
        assert record is not None
        self.started.append(number)
        record = record.model_copy(update={"started_at": now(), "epoch": 2, "best": Best(epoch=2, value=0.5 + number)})
        if self.during:
            self.during.pop(0)(self, record)
        if self.asked.requested:
            error = ErrorRecord(kind="interrupted", message="stopped at step 7")
            changes: dict[str, Any] = {"state": "interrupted", "exit_code": 75, "error": error, "active_seconds": 6.0}
        else:
            changes = {"state": "completed", "exit_code": 0, "error": None, "finished_at": now()}
        write_record(folder, record.model_copy(update=changes))
        return False


def driver_in(experiments: Path, *during: During, trials: int = 3, more: str = "study.pruner=none") -> QuickDriver:
    """A driver of a small study, newly started."""
    space = "search.space={train.learning_rate:{type:float,low:0.001,high:0.1}}"
    driver = QuickDriver(compose([f"experiments={experiments}", f"study.trials={trials}", space, more]))
    driver.during, driver.started = list(during), []
    return driver


def run(driver: QuickDriver) -> int:
    """Run it as a process of its own would, whose locks end with it; the exit code."""
    try:
        driver.run()
    except (Interrupted, TrainingError) as error:
        return error.exit_code
    finally:
        files._let_go_of_locks()
    return 0


def order(driver: Driver, name: str) -> None:
    (driver.folder / paths.CONTROL / name).touch()


def orders(driver: Driver) -> list[str]:
    return sorted(os.listdir(driver.folder / paths.CONTROL))


def ordering(*names: str) -> During:
    """What orders these while a trial runs; `prune-` alone means this trial."""
    return lambda driver, record: [order(driver, n + record.trial_id if n == paths.PRUNE else n) for n in names]


def state(driver: Driver) -> str:
    return str(json.loads((driver.folder / paths.STUDY).read_bytes())["state"])


def trials_of(driver: Driver) -> list[TrialRecord]:
    found = [read_record(folder) for folder in paths.trial_dirs(driver.experiments)]
    return sorted((record for record in found if record), key=lambda record: record.number or 0)


def states(driver: Driver) -> list[str]:
    return [trial.state for trial in trials_of(driver)]


def told(driver: Driver) -> list[str]:
    return [trial.state.name for trial in driver.optuna.get_trials()]


def at_each_look(monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], object]) -> None:
    """Between the looks of a paused driver somebody does these, one after another."""
    left = list(acts)
    monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=lambda seconds: left.pop(0)(), monotonic=time.monotonic))


# -- stop and stop-now


def test_stop_ends_the_study_after_the_trial_at_hand_and_the_next_run_proposes_as_ever(tmp_path: Path) -> None:
    straight = driver_in(tmp_path / "straight")
    assert run(straight) == 0
    driver = driver_in(tmp_path / "e", ordering(paths.STOP))
    assert run(driver) == 0
    assert (states(driver), state(driver), orders(driver)) == (["completed"], "stopped", [])
    again = driver_in(tmp_path / "e")
    assert run(again) == 0
    assert (again.started, state(again)) == ([1, 2], "completed")
    assert [t.parameters for t in trials_of(again)] == [t.parameters for t in trials_of(straight)]


def test_a_study_that_is_complete_when_it_is_to_stop_is_completed(tmp_path: Path) -> None:
    driver = driver_in(tmp_path, ordering(paths.STOP), trials=1)
    assert run(driver) == 0
    assert (state(driver), orders(driver)) == ("completed", [])


def test_stop_now_interrupts_the_trial_and_the_next_run_goes_on_with_it(tmp_path: Path) -> None:
    driver = driver_in(tmp_path, ordering(paths.STOP_NOW))
    assert run(driver) == 75
    assert (states(driver), state(driver), orders(driver)) == (["interrupted"], "stopped", [])
    again = driver_in(tmp_path)
    assert run(again) == 0
    assert (again.started, states(again)) == ([0, 1, 2], ["completed"] * 3)


def test_a_signal_leaves_the_study_as_before_there_were_orders(tmp_path: Path) -> None:
    driver = driver_in(tmp_path, lambda *_: signal.raise_signal(signal.SIGTERM))
    assert run(driver) == 75
    assert (states(driver), state(driver)) == (["interrupted"], "paused")


def test_orders_to_stop_that_are_older_than_the_only_worker_are_void(tmp_path: Path) -> None:
    driver = driver_in(tmp_path, trials=1)
    files._let_go_of_locks()  # it was killed
    for name in (paths.STOP, paths.STOP_NOW, paths.PRUNE + NOBODY, "notes.txt"):
        order(driver, name)
    again = driver_in(tmp_path, trials=1)
    assert orders(again) == ["notes.txt", paths.PRUNE + NOBODY]
    assert run(again) == 0
    assert orders(again) == ["notes.txt"]


def test_every_worker_obeys_stop_also_one_that_comes_late_and_the_last_takes_it_along(tmp_path: Path) -> None:
    driver = driver_in(tmp_path)
    other = Control(driver.folder, driver.stop, driver.log)
    other.enter()
    order(driver, paths.STOP)
    late = driver_in(tmp_path)
    for worker in (late, driver):
        worker.run()
        assert (worker.started, orders(worker)) == ([], [paths.STOP])
    other.leave()
    assert orders(driver) == []


# -- pause


def test_a_paused_study_goes_on_with_the_same_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is paused: neither its starts nor the time meanwhile are held against the trial."""
    driver = driver_in(tmp_path, *[ordering(paths.PAUSE)] * 5, trials=2, more="study.trial_timeout=7")
    seen = []

    def look_and_go_on() -> None:
        seen.append((state(driver), states(driver)))
        (driver.folder / paths.CONTROL / paths.PAUSE).unlink()

    at_each_look(monkeypatch, *[int, look_and_go_on] * 5)
    assert run(driver) == 0
    assert seen == [("paused", ["interrupted"])] * 5
    assert (driver.started, states(driver), state(driver)) == ([0] * 6 + [1], ["completed"] * 2, "completed")


def test_a_driver_that_starts_paused_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = driver_in(tmp_path, lambda *_: seen.append(state(driver)), trials=1)
    order(driver, paths.PAUSE)
    file = driver.folder / paths.CONTROL / paths.PAUSE
    seen: list[str] = []
    at_each_look(monkeypatch, lambda: seen.append(state(driver)), file.unlink)
    assert run(driver) == 0
    assert seen == ["paused", "running"]
    said = capsys.readouterr().err
    assert str(file) in said
    assert "press p in `just tui" in said


@pytest.mark.parametrize(
    ("by", "code", "then"), [("stop", 0, "stopped"), ("stop-now", 75, "stopped"), ("", 75, "paused")]
)
def test_a_paused_study_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str, code: int, then: str
) -> None:
    driver = driver_in(tmp_path, ordering(paths.PAUSE))
    at_each_look(monkeypatch, lambda: order(driver, by) if by else signal.raise_signal(signal.SIGTERM))
    assert run(driver) == code
    assert (states(driver), state(driver), orders(driver)) == (["interrupted"], then, [paths.PAUSE])


def test_a_trial_that_is_paused_before_it_has_begun_has_not_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its handler stands, a signal ends the process without a word; what its record said is no outcome."""
    driver = driver_in(tmp_path, trials=1)
    claimed = driver._next_trial()
    assert claimed is not None
    folder = paths.trial_dir(tmp_path, claimed[2])
    before = read_record(folder)
    assert before is not None
    error = ErrorRecord(kind="disk", message="no room")
    write_record(folder, before.model_copy(update={"state": "interrupted", "exit_code": 3, "error": error}))
    files._let_go_of_locks()
    at_start = []

    def train(number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        record = read_record(folder)
        assert record is not None
        at_start.append((record.exit_code, record.error))
        if len(at_start) <= 2:
            order(driver, paths.PAUSE)
        elif len(at_start) == 5:  # twice paused and twice killed, at the same place
            write_record(folder, record.model_copy(update={"state": "completed", "exit_code": 0, "finished_at": now()}))
        return False

    monkeypatch.setattr(driver, "_train", train)
    at_each_look(monkeypatch, *[(driver.folder / paths.CONTROL / paths.PAUSE).unlink] * 2)
    assert run(driver) == 0
    assert at_start == [(75, None)] * 5
    assert states(driver) == ["completed"]


# -- prune


def test_the_running_trial_is_pruned_and_the_study_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver = driver_in(tmp_path, ordering(paths.PRUNE))
    assert run(driver) == 0
    assert "too late" not in capsys.readouterr().err
    assert (driver.started, states(driver), orders(driver)) == ([0, 1, 2], ["pruned", "completed", "completed"], [])
    assert told(driver) == ["PRUNED", "COMPLETE", "COMPLETE"]
    pruned = trials_of(driver)[0]
    assert (pruned.exit_code, pruned.error, pruned.epoch) == (0, None, 2)
    assert pruned.finished_at
    lines = files.read_lines(paths.trial_dir(tmp_path, pruned.trial_id) / paths.DECISIONS)
    assert [Decision.model_validate(line) for line in lines] == [
        Decision(epoch=2, prune=True, reason="requested by the user")
    ]
    events = [Event.model_validate(line) for line in files.read_lines(driver.folder / paths.EVENTS)]
    assert [e.message for e in events if e.state == "pruned"] == ["requested by the user"]


def test_an_interrupted_trial_is_pruned_without_another_start(tmp_path: Path) -> None:
    """Also where the driver ended between the stop of the trial and the note of its end."""
    driver = driver_in(tmp_path, ordering(paths.STOP_NOW, paths.PRUNE))
    assert run(driver) == 75
    assert (states(driver), orders(driver)) == (["interrupted"], [paths.PRUNE + trials_of(driver)[0].trial_id])
    again = driver_in(tmp_path)
    assert run(again) == 0
    assert (again.started, states(again), orders(again)) == ([1, 2], ["pruned", "completed", "completed"], [])


def test_an_order_outlives_a_crash_before_the_trial_s_end_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object) -> None:
        raise Crash

    driver = driver_in(tmp_path, ordering(paths.PRUNE))
    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "write_record", crash)
        with pytest.raises(Crash):
            run(driver)
    again = driver_in(tmp_path)
    assert run(again) == 0
    assert (again.started, states(again), orders(again)) == ([1, 2], ["pruned", "completed", "completed"], [])
    (decision,) = files.read_lines(paths.trial_dir(tmp_path, trials_of(again)[0].trial_id) / paths.DECISIONS)
    assert decision["prune"]


def test_what_the_pruner_said_of_the_epoch_stands(tmp_path: Path) -> None:
    def decide_and_order(driver: QuickDriver, record: TrialRecord) -> None:
        folder = paths.trial_dir(tmp_path, record.trial_id)
        outcomes.append_decision(folder, Decision(epoch=2, prune=False))
        ordering(paths.PRUNE)(driver, record)

    driver = driver_in(tmp_path, decide_and_order, trials=1)
    assert run(driver) == 2, "no trial completed"
    assert (states(driver), state(driver)) == (["pruned"], "completed")
    assert len(files.read_lines(paths.trial_dir(tmp_path, trials_of(driver)[0].trial_id) / paths.DECISIONS)) == 1


def test_a_trial_that_is_at_hand_in_a_pause_is_pruned_and_the_pause_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = driver_in(tmp_path, ordering(paths.PAUSE), trials=2)
    at_each_look(
        monkeypatch,
        lambda: ordering(paths.PRUNE)(driver, trials_of(driver)[0]),
        lambda: seen.append((state(driver), states(driver))),
        (driver.folder / paths.CONTROL / paths.PAUSE).unlink,
    )
    seen: list[object] = []
    assert run(driver) == 0
    assert seen == [("paused", ["pruned", "queued"])]
    assert (driver.started, states(driver)) == ([0, 1], ["pruned", "completed"])


def test_orders_that_come_too_late_or_name_no_trial_are_removed_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def order_prunes(driver: QuickDriver, record: TrialRecord) -> None:
        if record.number == 1:
            order(driver, paths.PRUNE + trials_of(driver)[0].trial_id)
            order(driver, paths.PRUNE + NOBODY)
            order(driver, "prune-me")

    driver = driver_in(tmp_path, order_prunes, order_prunes, trials=2)
    assert run(driver) == 0
    assert (states(driver), orders(driver)) == (["completed"] * 2, ["prune-me"])
    said = capsys.readouterr().err
    assert said.count("the request to prune trial 0 came too late: it is completed") == 1
    assert said.count(f"control/prune-{NOBODY} does not name a trial of this study") == 1


# -- the folder


def test_a_folder_that_is_missing_holds_no_order(tmp_path: Path) -> None:
    driver = driver_in(tmp_path)
    (driver.folder / paths.CONTROL).rmdir()
    assert run(driver) == 0
    assert states(driver) == ["completed"] * 3


def test_an_order_that_cannot_be_removed_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver = driver_in(tmp_path)
    files._let_go_of_locks()
    (driver.folder / paths.CONTROL / paths.STOP).mkdir()
    again = driver_in(tmp_path)
    assert run(again) == 0
    assert states(again) == ["completed"] * 3
    assert "control/stop cannot be removed and is ignored from now on" in capsys.readouterr().err
