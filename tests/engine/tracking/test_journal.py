"""No metric is lost, doubled or changed by an interruption, and a loss that is not finite stops the training."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from redsm5.engine import paths
from redsm5.engine.errors import NotFiniteError
from redsm5.engine.records import MetricRow
from redsm5.engine.tracking import journal as journal_module
from redsm5.engine.tracking.journal import Journal, StepLosses, read_metrics


def open_journal(folder: Path, said: list | None = None) -> Journal:
    sink = [] if said is None else said
    return Journal(folder, "trial-1", log=lambda sentence, **facts: sink.append((sentence, facts)))


def values(folder: Path) -> dict[tuple[str, int], float]:
    return {(row.metric, row.step): row.value for row in read_metrics(folder)}


def test_what_was_committed_is_read_back_in_its_order(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.add("train_loss", 0.7, step=1, epoch=0)
    journal.add("val_loss", 0.6, step=1, epoch=1)
    journal.commit()
    first, second = read_metrics(tmp_path)
    assert (first.trial_id, first.metric, first.value, first.step, first.epoch) == ("trial-1", "train_loss", 0.7, 1, 0)
    assert (second.metric, second.value, second.epoch) == ("val_loss", 0.6, 1)


def test_nothing_is_written_before_the_commit(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.add("train_loss", 0.7, step=1, epoch=0)
    assert read_metrics(tmp_path) == []
    journal.commit()
    assert len(read_metrics(tmp_path)) == 1


def test_a_torn_last_line_is_cut_and_the_stretch_written_again(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for step in (1, 2):
        journal.add("train_loss", 0.7, step=step, epoch=0)
    journal.commit()
    path = tmp_path / paths.METRICS
    whole = path.read_bytes()
    for length in range(whole.index(b"\n") + 2, len(whole), 7):
        path.write_bytes(whole[:length])
        assert set(values(tmp_path)) == {("train_loss", 1)}, "a reader does not count it"
        journal = open_journal(tmp_path)
        journal.add("train_loss", 0.7, step=2, epoch=0)
        journal.commit()
        assert [json.loads(line)["step"] for line in path.read_bytes().splitlines()] == [1, 2]


def test_the_first_line_of_a_metric_and_step_wins(tmp_path: Path) -> None:
    row = {"trial_id": "trial-1", "epoch": 0, "timestamp": "2026-01-31T12:00:00.000Z", "metric": "train_loss"}
    lines = [row | {"step": 1, "value": 0.5}, row | {"step": 2, "value": 0.4}, row | {"step": 1, "value": 9.0}]
    (tmp_path / paths.METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert values(tmp_path) == {("train_loss", 1): 0.5, ("train_loss", 2): 0.4}


def test_a_replay_adds_nothing_and_says_nothing(tmp_path: Path) -> None:
    said: list = []
    for _ in range(3):
        journal = open_journal(tmp_path, said)
        for step in range(1, 6):
            journal.add("train_loss", 1 / step, step=step, epoch=0)
            journal.add("val_f1_macro", math.nan, step=step, epoch=0)
        journal.commit()
    assert len((tmp_path / paths.METRICS).read_bytes().splitlines()) == 10
    assert said == []


def test_a_replayed_value_that_differs_is_a_determinism_fault_and_the_first_stays(tmp_path: Path) -> None:
    said: list = []
    journal = open_journal(tmp_path, said)
    journal.add("train_loss", 0.5, step=3, epoch=0)
    journal.commit()
    journal = open_journal(tmp_path, said)
    journal.add("train_loss", 0.5000001, step=3, epoch=0)
    journal.commit()
    [(sentence, facts)] = said
    assert "determinism fault" in sentence
    assert facts == {"metric": "train_loss", "step": 3, "first": 0.5, "now": 0.5000001}
    assert values(tmp_path) == {("train_loss", 3): 0.5}


def test_a_value_that_became_nan_is_a_determinism_fault(tmp_path: Path) -> None:
    said: list = []
    journal = open_journal(tmp_path, said)
    journal.add("val_loss", 0.5, step=3, epoch=1)
    journal.add("val_loss", math.nan, step=3, epoch=1)
    assert len(said) == 1


def test_what_depends_on_the_clock_may_differ(tmp_path: Path) -> None:
    said: list = []
    journal = open_journal(tmp_path, said)
    journal.add("system_steps_per_second", 5.0, step=3, epoch=0)
    journal.add("system_steps_per_second", 6.0, step=3, epoch=0)
    journal.commit()
    assert said == []
    assert values(tmp_path) == {("system_steps_per_second", 3): 5.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1 + 0.2, 5e-324, -0.0])
def test_every_float_survives_as_strict_json(tmp_path: Path, value: float) -> None:
    journal = open_journal(tmp_path)
    journal.add("val_loss", value, step=1, epoch=1)
    journal.commit()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads((tmp_path / paths.METRICS).read_bytes(), parse_constant=refuse)
    [row] = read_metrics(tmp_path)
    assert repr(row.value) == repr(value)
    assert isinstance(row, MetricRow)


# ---------------------------------------------------------------------------------------------------------------------
# the loss of each step


def test_a_step_s_loss_is_the_mean_over_its_batches(tmp_path: Path) -> None:
    losses = StepLosses(open_journal(tmp_path), epochs_done=2)
    for batch in (0.25, 0.75):
        losses.add(torch.tensor(batch))
    losses.end_of_step(11)
    losses.add(torch.tensor(2.0))  # the last group of an epoch may be smaller
    losses.end_of_step(12)
    losses.commit()
    assert values(tmp_path) == {("train_loss", 11): 0.5, ("train_loss", 12): 2.0}
    assert {row.epoch for row in read_metrics(tmp_path)} == {2}
    assert losses.last == 2.0


def test_a_step_s_loss_has_the_time_at_which_the_step_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that at which it was fetched from the device, or written."""
    times = iter(f"2026-11-25T16:00:{second:02}.000Z" for second in range(60))
    monkeypatch.setattr(journal_module, "now", lambda: next(times))
    losses = StepLosses(open_journal(tmp_path), epochs_done=0)
    for step in (1, 2, 3):
        losses.add(0.5)
        losses.end_of_step(step)
    losses.commit()
    assert [row.timestamp[17:19] for row in read_metrics(tmp_path)] == ["00", "01", "02"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path, bad: float) -> None:
    losses = StepLosses(open_journal(tmp_path), epochs_done=0)
    for step in (1, 2, 3):
        losses.add(torch.tensor(bad if step == 2 else 0.5))
        losses.end_of_step(step)
    with pytest.raises(NotFiniteError, match=f"{bad} at step 2") as caught:
        losses.commit()
    assert caught.value.exit_code == 2
    assert caught.value.remedy


def test_a_loss_that_is_not_finite_is_noticed_within_twenty_steps(tmp_path: Path) -> None:
    losses = StepLosses(open_journal(tmp_path), epochs_done=0)
    losses.add(torch.tensor(math.nan))
    losses.end_of_step(1)

    def go_on() -> None:
        for step in range(2, 21):
            losses.add(torch.tensor(0.5))
            losses.end_of_step(step)

    with pytest.raises(NotFiniteError, match="at step 1"):
        go_on()


# ---------------------------------------------------------------------------------------------------------------------
# kills

WRITER = """
import sys
from pathlib import Path
from redsm5.engine.tracking.journal import Journal

folder = Path(sys.argv[1])
journal = Journal(folder, "trial-1", log=lambda *_, **facts: print("fault", facts, flush=True))
step = 0
while True:  # each life begins anew: all that is there is a replay
    step += 1
    for metric in ("train_loss", "val_loss", "val_f1_macro"):
        journal.add(metric, 1 / step, step=step, epoch=0)
    journal.commit()
    if step % 20 == 0:
        print(step, flush=True)
"""


def test_a_killed_writer_loses_no_committed_row_and_doubles_none(tmp_path: Path) -> None:
    committed = 0
    for life in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for line in process.stdout:
            assert "fault" not in line
            if int(line) >= 100 * (life + 1):
                break
        process.send_signal(signal.SIGKILL)
        committed = max([int(line), *map(int, process.stdout)])
        assert process.wait() == -signal.SIGKILL
        found = values(tmp_path)
        steps = {step for _, step in found}
        assert set(range(1, committed + 1)) <= steps
        assert all(value == 1 / step for (_, step), value in found.items())
    open_journal(tmp_path).commit()
    keys = [(row["metric"], row["step"]) for row in map(json.loads, (tmp_path / paths.METRICS).open())]
    assert len(keys) == len(set(keys)) >= 3 * committed
