"""Storage over time is what the retention journals say."""

from pathlib import Path

from redsm5.engine import files, paths
from redsm5.engine.records import RetentionAction, RetentionRow
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import CheckpointStore
from redsm5.engine.timeline import storage_over_time
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
