"""Storage over time is what the retention journals say; the time left follows from how long trials really ran."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import files, paths
from redsm5.engine.records import RetentionAction, RetentionRow, StudyRecord, TrialCounts, TrialRecord
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from redsm5.engine.timeline import storage_over_time, time_left
from tests.engine.storage.saver import contents, manifest_of

TRIAL = "0b5c1d1e-2f3a-4b5c-8d7e-9f0a1b2c3d4e"


def row(second: int, action: RetentionAction, checkpoint: str, size: int) -> RetentionRow:
    time = f"2026-01-31T12:00:{second:02d}.000Z"
    return RetentionRow(
        timestamp=time, action=action, checkpoint=checkpoint, epoch=1, step=1, score=None, bytes=size, reason="r"
    )


def test_strips_and_deletions_give_back_and_a_checkpoint_that_comes_again_is_written_twice() -> None:
    one = [
        row(0, "keep", "epoch-0001", 100),
        row(2, "strip", "epoch-0001", 60),
        row(2, "keep", "epoch-0002", 100),
        row(4, "keep", "epoch-0001", 40),  # said again: nothing is written
        row(5, "set_aside", "epoch-0002", 100),
        row(7, "keep", "epoch-0002", 100),  # trained again
        row(8, "delete", "epoch-0001", 40),
    ]
    two = [row(1, "keep", "epoch-0001", 10), row(6, "delete", "epoch-0001", 10)]
    found = storage_over_time({"one": one, "two": two})
    assert [moment[1:] for moment in found] == [
        (100, 100, 100),
        (110, 110, 110),
        (210, 210, 210),  # the new one is saved, then the older one is stripped for it
        (150, 210, 210),
        (150, 210, 210),
        (50, 210, 210),
        (40, 210, 210),
        (140, 310, 210),
        (100, 310, 210),
    ]
    assert [moment.time - found[0].time for moment in found] == [0, 1000, 2000, 2000, 4000, 5000, 6000, 7000, 8000]
    assert storage_over_time({}) == []


def test_what_went_long_before_a_save_went_before_it() -> None:
    rows = [row(0, "keep", "epoch-0001", 100), row(1, "strip", "epoch-0001", 60)]
    later = row(2, "keep", "epoch-0002", 100).model_copy(update={"timestamp": "2026-01-31T12:05:00.000Z"})
    assert [moment.on_disk for moment in storage_over_time({"one": [*rows, later]})] == [100, 40, 140]


def test_a_real_store_s_journal_comes_to_what_lies_on_the_disk(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, Policy(), log=lambda *_, **__: None)
    sizes = []
    for epoch, score in enumerate([0.5, 0.9, 0.6, 0.7], start=1):
        name = store.commit(manifest_of(TRIAL, epoch, score=score), contents(epoch))
        sizes.append(files.tree_bytes(store.folder / name))
    beside = store.size()
    store.finish()
    rows = [RetentionRow.model_validate(line) for line in files.read_lines(tmp_path / paths.RETENTION)]
    moments = storage_over_time({TRIAL: rows})
    last = moments[-1]
    highest = max(moment.on_disk for moment in moments)
    assert beside + 0.6 * sizes[0] < highest < 2.5 * sizes[0]  # the best's weights, the last, and the new beside it
    assert min(moment.on_disk for moment in moments[:-3]) > 0.9 * sizes[0]
    assert abs(last.on_disk - store.size()) < 300  # the list of sums is shorter after a strip
    assert last.written == last.keep_all == sum(sizes)


# ---------------------------------------------------------------------------------------------------------------------
# time left


def study(wanted: int, **section: Any) -> StudyRecord:
    """A study that wants so many trials, with these settings."""
    return StudyRecord(
        study_id=str(uuid.uuid4()),
        name="night",
        state="running",
        created_at="2026-01-31T12:00:00.000Z",
        metric="val_f1_macro",
        trials=TrialCounts(wanted=wanted),
        config={"study": section, "train": {"epochs": 9}},
    )


def trial(state: str, epoch: int, active: float, **changes: Any) -> TrialRecord:
    """A trial of ten epochs: its record says when it began and ended, with a night in which nothing ran between."""
    ended = "2026-02-01T09:00:00.000Z" if state in ("completed", "pruned", "failed") else None
    values: dict[str, Any] = {
        "trial_id": str(uuid.uuid4()),
        "study_id": None,
        "number": 0,
        "created_at": "2026-01-31T12:00:00.000Z",
        "started_at": "2026-01-31T12:00:00.000Z",
        "finished_at": ended,
        "epochs": 10,
    }
    return TrialRecord.model_validate(
        {**values, "state": state, "epoch": epoch, "active_seconds": active, **changes}, strict=False
    )


def test_a_night_in_which_nothing_ran_is_no_work() -> None:
    left = time_left(study(4), [trial("completed", 10, 25.0), trial("interrupted", 4, 10.0)])
    assert left is not None
    assert left.seconds == pytest.approx(15.0 + 2 * 25.0)
    assert left.low < left.seconds < left.high
    assert left.high < 10 * 60, "not the 21 hours from the first start to the last end"
    assert left.trials_per_hour == pytest.approx(3600 / 35)


def test_of_a_running_trial_its_epochs_so_far_are_subtracted_from_the_first_on() -> None:
    assert time_left(study(3), [trial("running", 0, 4.0)]) is None, "nothing is known before the first epoch"
    seconds = []
    for epoch in range(1, 11):
        left = time_left(study(3), [trial("running", epoch, 6.0 * epoch)])
        assert left is not None
        assert left.low < left.seconds < left.high
        seconds.append(left.seconds)
    assert seconds == pytest.approx([2 * 60.0 + 60.0 - 6.0 * epoch for epoch in range(1, 11)])


def test_workers_share_what_is_left_and_no_trial_ends_before_its_own_epochs() -> None:
    trials = [trial("completed", 10, 30.0), *(trial("running", 5, 15.0) for _ in range(3))]
    left = time_left(study(7), trials)
    assert left is not None
    assert left.seconds == pytest.approx((3 * 15.0 + 3 * 30.0) / 3)
    assert left.trials_per_hour == pytest.approx(3600 * 3 / 75)
    last = time_left(study(4), [*(trial("completed", 10, 30.0) for _ in range(3)), trial("running", 5, 15.0)])
    assert last is not None
    assert last.seconds == pytest.approx(15.0)
    uneven = time_left(study(2), [trial("running", 9, 90.0), trial("running", 1, 30.0)])
    assert uneven is not None
    assert uneven.low >= 9 * 30.0, "the slower one trains its nine epochs, however many help"


def test_the_range_narrows_with_what_is_known_and_widens_with_how_much_trials_differ() -> None:
    def width(costs: list[float]) -> float:
        left = time_left(study(2 * len(costs)), [trial("completed", 10, cost) for cost in costs])
        assert left is not None
        assert left.seconds == pytest.approx(sum(costs))
        return left.high / left.low

    assert width([30.0] * 20) < width([30.0] * 4) < width([30.0])
    assert width([30.0] * 10) < width([10.0, 50.0] * 5)


def test_what_was_trained_again_and_what_older_versions_wrote_count_once() -> None:
    again = time_left(study(2), [trial("completed", 10, 50.0, repeated_seconds=20.0)])
    assert again is not None
    assert again.seconds == pytest.approx(30.0)
    old = trial("completed", 10, 0.0, finished_at="2026-01-31T12:00:40.000Z")
    before = time_left(study(2), [old])
    assert before is not None
    assert before.seconds == pytest.approx(40.0), "it noted no active seconds"


def test_a_study_that_is_done_takes_no_more_time() -> None:
    done = time_left(study(2), [trial("completed", 10, 30.0)] * 2)
    assert done is not None
    assert done[:3] == (0.0, 0.0, 0.0)


ASHA = {
    "pruner": "asha",
    "reduction_factor": 3,
    "min_epochs": 1,
    "brackets": 1,
    "seed": 42,
    "rungs": "epochs",
    "direction": "maximize",
}


def test_with_rungs_the_epochs_count_that_are_still_expected() -> None:
    paused = [trial("paused", 1, 5.0, epochs=9) for _ in range(9)]
    begun = time_left(study(9, **ASHA), paused)
    assert begun is not None
    # 9 trials to epoch 1, 3 of them to 3, one of those to 9: 9 + 3 * 2 + 6 epochs, of which 9 are done
    assert begun.seconds == pytest.approx(12 * 5.0)
    assert begun.low < begun.seconds < begun.high
    running = [trial("running", 1, 5.0, epochs=9), *paused[1:]]
    shared = time_left(study(9, **ASHA), [*running[:1], trial("running", 1, 5.0, epochs=9), *paused[2:]])
    assert shared is not None
    assert shared.seconds == pytest.approx(8 * 5.0), "two at work: the slower of them alone takes eight epochs at most"
    closed = [trial("completed", 9, 45.0, epochs=9), *(trial("pruned", 1, 5.0, epochs=9) for _ in range(8))]
    ended = time_left(study(9, **ASHA), closed)
    assert ended is not None
    assert ended.seconds == 0.0


def test_the_repeats_that_confirm_the_best_are_part_of_it() -> None:
    searched = [trial("completed", 10, 30.0) for _ in range(4)]
    wanted = study(4, confirm={"top": 2, "repeats": 5})
    left = time_left(wanted, searched)
    assert left is not None
    assert (left.low, left.high) == pytest.approx((7 * 30.0, 10 * 30.0)), "one configuration may be dropped after two"
    repeats = [trial("completed", 10, 30.0, confirms=searched[0].trial_id, repeat=1)] * 6
    later = time_left(wanted, [*searched, *repeats])
    assert later is not None
    assert (later.low, later.high) == pytest.approx((30.0, 4 * 30.0))


def test_a_configuration_that_no_version_wrote_is_no_error() -> None:
    for section in ({"pruner": "asha"}, {"confirm": {"top": "x"}}, {"confirm": {"top": 1}}, {"pruner": 7}):
        time_left(study(3, **section), [trial("completed", 10, 30.0)])
