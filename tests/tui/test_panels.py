"""The overview says how the search stands, what it costs, when it is done, and what to do where nothing runs."""

import pytest

from redsm5.engine import paths
from redsm5.engine.records import BudgetEntry, BudgetLedger
from tui.panels import overview, storage, text
from tui.panels.study import empty, orders, status
from tui.read.detail import TrialReader
from tui.read.reader import Reader, Snapshot
from tui.read.storage import StorageReader, StorageView
from tui.read.view import View


def look(root):
    """What the app would look at on its overview."""
    snapshot = Reader(root).read()
    study = snapshot.study.study_id if snapshot.study else None
    active = snapshot.trials.active[:1]
    return View(
        snapshot,
        storage=StorageReader(root).look(study, snapshot.trials, 60),
        details={t.trial_id: TrialReader(root, t.trial_id).read(t) for t in active},
    )


def test_the_overview_says_it_all(frozen):
    frozen.whole()
    page = overview.page(look(frozen.root), 30)
    for part in (
        "night-search   ● running   trial 8 of 20",
        "val_f1_macro: best 0.487 · #6",
        "5.7 GB of 10.0 GB",
        "weights 3.9 GB  resume 1.8 GB  reserved 2.2 GB",
        "disk 41.2 GB free of 250.0 GB (16%)",
        "keep-all would hold 67.0 GB: 91.5% less",
        "4 ✔ completed   1 ✂ pruned   1 ✗ failed   1 ⊘ interrupted",
        "12.9 trials/h",  # six in 7 * 240 s of work, the interrupted trial's included
        "in 58:00",  # 12 trials of 240 s, the one that begins, and six of ten epochs of the interrupted one
        "last save stalled 0.14 s",
        "● #7  running  epoch 4 of 10",
        "val_f1_macro 0.355 at epoch 4, 0:12 ago · best here 0.432, epoch 3",
        "✗ failed: loss is NaN at [red]step[/red] 212",
        "#7  epoch-0004 full: last 1",
    ):
        assert part in page


@pytest.mark.parametrize(
    ("states", "state", "says"),
    [
        (("completed",) * 3, "completed", "The study is done. 4 shows the report of its best trial"),
        (
            ("completed", "interrupted"),
            "running",
            "1 interrupted. To resume it:\n    just hpo study.name=night-search ",
        ),
        (("completed",), "stopped", "  just hpo study.name=night-search experiments=/"),
        ((), "running", "Nothing is running. To resume it:"),
    ],
)
def test_where_nothing_runs_it_says_how_to_go_on(folder, states, state, says):
    folder.study(states=states, state=state, wanted=3, driven=False)
    assert says in overview.page(look(folder.root))


@pytest.mark.parametrize(
    ("order", "state", "said"),
    [
        ("pause", "running", "pausing"),
        ("stop", "running", "stops after this trial"),
        ("stop-now", "running", "stopping now"),
        ("prune-abc", "running", "pruning"),
        ("something else", "running", ""),
        ("stop", "completed", ""),
    ],
)
def test_what_was_ordered_is_told(folder, order, state, said):
    study = folder.study(state=state)
    control = paths.study_dir(folder.root, study) / paths.CONTROL
    control.mkdir()
    (control / order).touch()
    snapshot = Reader(folder.root).read()
    assert orders(snapshot) == said
    assert (f"· {said}" in status(snapshot).plain) == bool(said)


def test_a_pause_that_has_been_obeyed_says_how_to_go_on(folder):
    study = folder.study(states=("completed", "interrupted"), state="paused", driven=True)
    control = paths.study_dir(folder.root, study) / paths.CONTROL
    control.mkdir()
    (control / "pause").touch()
    page = overview.page(look(folder.root))
    assert "⏸ paused · as requested" in page
    assert "Paused as requested: p resumes it." in page


def test_many_at_work_have_a_line_each(folder):
    folder.study(states=("running",) * 5)
    lines = overview.happening(look(folder.root)).plain.split("\n")
    assert len(lines) == 4
    assert lines[-1] == "and 2 more running"


def test_trials_that_have_not_begun_have_no_score_and_no_time(folder):
    folder.study(states=("preparing", "queued"))
    view = look(folder.root)
    assert "no score yet" in overview.page(view)
    assert "no trial completed yet" in overview.page(view)
    assert text.running_time(view.snapshot.trials[1], view.now) == "–"


def test_a_broken_time_in_a_record_does_not_break_the_page(folder):
    folder.ago = lambda minutes: "yesterday"
    folder.study()
    assert "night-search" in overview.page(look(folder.root))


@pytest.mark.parametrize(
    ("held", "reserved", "drawn"),
    [
        (0, 0, "░░░░░░░░░░  0 B of 10 kB"),
        (1, 0, "█░░░░░░░░░  1 B of 10 kB"),
        (5000, 8000, "█████▓▓▓░░  5 kB of 10 kB"),
        (20_000, 30_000, "██████████  20 kB of 10 kB"),
    ],
)
def test_the_gauge_stays_within_its_width(folder, held, reserved, drawn):
    study = folder.study(states=("running",))
    trial = paths.trial_dir(folder.root, folder.of(0)) / paths.TRIAL
    folder.rewrite(trial, bytes=held)
    ledger = BudgetLedger(max_total_size=10_000, entries={folder.of(0): BudgetEntry(reserved=reserved, bytes=held)})
    (paths.study_dir(folder.root, study) / paths.BUDGET).write_bytes(ledger.to_json())
    assert storage.gauge(Reader(folder.root).read(), StorageView(), 10).plain == drawn


def test_without_a_budget_the_gauge_says_what_is_there(folder):
    folder.study(states=("completed",))
    assert storage.gauge(Reader(folder.root).read(), StorageView(), 10).plain == "438 MB of checkpoints, no budget"


def test_an_empty_folder_says_what_to_do_next(tmp_path):
    assert (
        overview.page(View(Snapshot(tmp_path, exists=True)))
        == f"No experiments in {tmp_path} yet: run `just hpo experiments={tmp_path}`"
    )


def test_a_folder_that_cannot_be_read_says_what_to_do_next(tmp_path):
    said = empty(Snapshot(tmp_path, exists=True, error="Permission denied")).plain
    assert said.startswith(f"{tmp_path} cannot be read: Permission denied.")
    assert "just tui --experiments DIR" in said
