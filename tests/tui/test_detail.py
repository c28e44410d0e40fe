"""A trial's folder is followed as it grows, and told as it stands."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from redsm5.engine import paths
from redsm5.engine.records import Decision, MetricRow, Receipt, RetentionRow
from tests.tui.conftest import NOW
from tests.tui.hostile import evaluation
from tui.panels.log import rows, said, whole
from tui.panels.trial import checkpoints, configuration
from tui.read import files
from tui.read.detail import LOG, LOG_LINES, MOST_METRICS, TrialReader, flatten, log_line


class Followed:
    """A trial that runs, and its folder to write to."""

    def __init__(self, folder):
        self.record = folder.trial(None, 0, "running")
        self.path = paths.trial_dir(folder.root, self.record.trial_id)
        self.reader = TrialReader(folder.root, self.record.trial_id)
        (self.path / paths.LOGS).mkdir()

    def read(self):
        return self.reader.read(self.record)

    def add(self, name, *rows):
        with (self.path / name).open("ab") as file:
            file.write(b"".join((r if isinstance(r, bytes) else r.model_dump_json().encode()) + b"\n" for r in rows))

    def anew(self, name, *rows):
        (self.path / name).unlink(missing_ok=True)
        self.add(name, *rows)


@pytest.fixture
def trial(folder):
    return Followed(folder)


def metric(step, value=0.5, name="loss", epoch=1):
    return MetricRow(trial_id="t", metric=name, step=step, epoch=epoch, value=value, timestamp="")


def retention(action, bytes, name="epoch-0001", **more):
    row = {"timestamp": "2026-01-01T00:00:00.000Z", "epoch": 1, "step": 1, "score": None, "reason": "last 1"} | more
    return RetentionRow(action=action, checkpoint=name, bytes=bytes, **row)


# ---------------------------------------------------------------------------------------------------------------------
# metrics


def test_for_each_metric_and_step_the_first_line_wins(trial):
    trial.anew(paths.METRICS, metric(1, 0.1), metric(2, 0.2), metric(1, 9.0), metric(2, 9.0), metric(3, float("nan")))
    trial.add(paths.METRICS, b"not json", metric(4, 0.4))
    series = trial.read().series["loss"]
    assert series.steps == [1, 2, 3, 4]
    assert series.values[:2] + series.values[3:] == [0.1, 0.2, 0.4]


def test_at_every_length_a_growing_journal_is_told_without_a_gap(trial):
    path = trial.path / paths.METRICS
    whole, found = path.read_bytes(), []
    for length in range(0, len(whole) + 1, 31):
        path.write_bytes(whole[:length])
        detail = trial.read()
        found.append(sum(len(series.steps) for series in detail.series.values()))
        assert all(len(s.steps) == len(s.epochs) == len(s.values) for s in detail.series.values())
    path.write_bytes(whole)
    trial.read()
    assert found == sorted(found)
    assert trial.read().series == TrialReader(trial.path.parent, trial.record.trial_id).read(trial.record).series


def test_a_journal_that_is_replaced_is_told_anew(trial):
    trial.read()
    trial.anew(paths.METRICS, metric(7))
    assert trial.read().series.keys() == {"loss"}


def test_what_was_told_does_not_gain_metrics_while_a_screen_goes_through_it(trial):
    trial.anew(paths.METRICS, metric(1))
    before = trial.read()
    trial.add(paths.METRICS, metric(1, name="another"))
    after = trial.read()
    assert before.series.keys() == {"loss"}
    assert after.series.keys() == {"loss", "another"}


def test_the_systems_metrics_stand_last(trial):
    trial.anew(paths.METRICS, metric(1, name="system_a"), metric(1, name="z"), metric(1, name="b"))
    assert [*trial.read().series] == ["b", "z", "system_a"]


def test_of_a_hundred_thousand_metrics_some_are_shown(trial):
    row = metric(1, name="@").model_dump_json().encode()
    trial.anew(paths.METRICS, *(row.replace(b"@", b"m%d" % n) for n in range(100_000)), metric(1))
    assert len(trial.read().series) == MOST_METRICS
    assert len(trial.read().series) == MOST_METRICS


def test_of_a_journal_too_long_the_end_is_shown_and_that_is_said(trial):
    trial.reader._metrics = files.Lines(trial.path / paths.METRICS, 500)
    trial.anew(paths.METRICS, *(metric(n) for n in range(100)))
    detail = trial.read()
    assert detail.series["loss"].steps[-1] == 99
    assert 1 < len(detail.series["loss"].steps) < 10
    assert detail.problems == ("metrics.jsonl is too long: only its end is shown",)


# ---------------------------------------------------------------------------------------------------------------------
# checkpoints


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("keep", 100)], (100, "full")),
        ([("keep", 100), ("strip", 70)], (30, "weights")),
        ([("keep", 100), ("strip", 70), ("keep", 30)], (30, "weights")),
        ([("keep", 100), ("strip", 700)], (0, "weights")),
        ([("keep", 100), ("delete", 100)], (0, "gone")),
        ([("keep", 100), ("delete", 100), ("keep", 50)], (50, "full")),
        ([("keep", 100), ("set_aside", 100)], (0, "quarantined")),
        ([("delete", 100)], (0, "gone")),
    ],
)
def test_what_became_of_a_checkpoint(trial, rows, told):
    (trial.path / paths.CHECKPOINTS / "epoch-0001").mkdir(parents=True)
    trial.anew(paths.RETENTION, *(retention(*row) for row in rows))
    (line,) = trial.read().checkpoints
    assert (line.bytes, line.state) == told


def test_a_checkpoint_whose_folder_is_not_there_is_gone(trial):
    trial.anew(paths.RETENTION, retention("keep", 100))
    assert [(line.bytes, line.state) for line in trial.read().checkpoints] == [(0, "gone")]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "../../..", "", "/etc", "."])
def test_a_checkpoint_may_be_called_anything(trial, name):
    trial.anew(paths.RETENTION, retention("keep", 100, name))
    assert [line.name for line in trial.read().checkpoints] == [name]


def test_the_score_is_the_last_that_was_told(trial):
    trial.anew(paths.RETENTION, retention("keep", 9, score=0.4), retention("keep", 9, score=0.5), retention("keep", 9))
    assert trial.read().checkpoints[0].score == 0.5


def test_why_the_driver_ended_it(trial):
    assert trial.read().pruned is None
    trial.add(paths.DECISIONS, Decision(epoch=1, prune=False), Decision(epoch=2, prune=True, reason="below the median"))
    assert trial.read().pruned == "below the median"


# ---------------------------------------------------------------------------------------------------------------------
# log, configuration, report


def test_a_line_of_the_log_with_its_context():
    raw = {"timestamp": "t", "severity": "warning", "message": "slow", "context": {"s": 3, "exception": "long"}}
    line = log_line(json.dumps(raw).encode())
    assert (line.timestamp, line.severity, line.message) == ("t", "WARNING", "slow")
    assert said(line) == "slow s=3"
    assert "exception  long" in whole(line, NOW).plain


def test_bytes_and_durations_in_the_log_are_for_people_and_whole_also_as_they_were_written():
    context = {"bytes": 461500, "seconds": 1.4, "train_seconds": 252, "minutes_left": 64.2, "on_disk": "2.8 MB",
               "epoch": 3, "val_f1_macro": 0.66666, "weights_only": True}  # fmt: skip
    line = log_line(json.dumps({"message": "told", "context": context}).encode())
    assert said(line) == (
        "told bytes=462 kB seconds=1.4 s train_seconds=4:12 minutes_left=1:04:12 on_disk=2.8 MB epoch=3"
        " val_f1_macro=0.6667 weights_only=True"
    )
    assert "bytes  462 kB  (461500)" in whole(line, NOW).plain


def test_a_wrapped_line_loses_nothing():
    line = log_line(json.dumps({"message": "word " * 100}).encode())
    found = rows([line], 60, wrapped=True)
    assert len(found) > 10
    assert " ".join(piece for _, piece in found.values()) == ("word " * 100).strip()
    assert all(len(piece) <= 60 - 23 for _, piece in found.values())
    assert len(rows([line], 60, wrapped=False)) == 1


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"[]", b"null", b"{}", b'{"severity": [], "context": [], "message": {}}', b'{"message": "\\ud800"}'],
)
def test_any_line_of_the_log_is_one_of_ours_or_none(raw):
    line = log_line(raw)
    assert line is None or line.severity == "INFO"


def test_a_line_of_any_depth_is_read_or_passed_over():
    for depth in (*range(850, 1000, 9), 30_000):
        for key in ("message", "severity", "timestamp"):
            log_line(f'{{"{key}": {"[" * depth}{"]" * depth}}}'.encode())
        log_line(f'{{"context": {{"a": {"[" * depth}{"]" * depth}}}}}'.encode())


def test_a_configuration_of_any_depth_is_shown(trial):
    for depth in range(850, 1000, 9):
        (trial.path / paths.CONFIG).write_text(f'{{"a": {"[" * depth}{"]" * depth}, "b": 1}}')
        reader = TrialReader(trial.path.parent, trial.record.trial_id)
        assert configuration(reader.read(trial.record), None)


def test_the_log_keeps_its_last_lines(trial):
    for start in (0, LOG_LINES):
        lines = [json.dumps({"message": str(n)}).encode() for n in range(start, start + LOG_LINES)]
        trial.add(f"{paths.LOGS}/{LOG}", *lines)
        assert [line.message for line in trial.read().log] == [str(n) for n in range(start, start + LOG_LINES)]
    trial.add(f"{paths.LOGS}/{LOG}", b"{")
    assert trial.read().log[-1].message == str(2 * LOG_LINES - 1)
    (trial.path / paths.LOGS / LOG).unlink()
    assert trial.read().log == ()


def test_a_configuration_by_dotted_keys():
    nested = {"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": [1, {"g": 2}]}
    assert flatten(nested) == {"a.b.c": 1, "a.d": [], "e": {}, "f": "[1, {'g': 2}]"}
    assert len(flatten({str(n): n for n in range(10_000)})) <= 10_000


def test_keys_that_only_the_best_trial_has(folder):
    mine, best = Followed(folder), folder.trial(None, 1, "completed")
    other = paths.trial_dir(folder.root, best.trial_id)
    (mine.path / paths.CONFIG).write_text('{"train.batch_size": 16}')
    (other / paths.CONFIG).write_text('{"none": null, "train": {"learning_rate": null}, "some": 1}')
    page = configuration(mine.read(), TrialReader(folder.root, best.trial_id).read(best)).plain
    assert "some" in page
    assert "none  " in page


def test_the_report_and_one_that_cannot_be_read(trial):
    path = trial.path / paths.REPORT
    assert trial.read().report is None
    path.write_bytes(evaluation("t").to_json())
    assert trial.read().report == evaluation("t")
    path.write_bytes(b"{")
    detail = trial.read()
    assert detail.report == evaluation("t")  # what it last was
    assert detail.problems == ("evaluation_report.json cannot be read",)


def test_the_version_changes_with_what_is_told_and_not_otherwise(trial):
    versions = [trial.read().version]
    assert trial.read().version == versions[0]
    for name, row in (
        (paths.METRICS, metric(999)),
        (paths.RETENTION, retention("keep", 5)),
        (f"{paths.LOGS}/{LOG}", b'{"message": "x"}'),
    ):
        trial.add(name, row)
        versions.append(trial.read().version)
        assert trial.read().version == versions[-1]
    (trial.path / paths.REPORT).write_bytes(evaluation("t").to_json())
    versions.append(trial.read().version)
    assert len(set(versions)) == 5


def test_a_folder_that_is_not_there_is_an_empty_trial(tmp_path, trial):
    detail = TrialReader(tmp_path / "none", "t").read(trial.record)
    assert (detail.series, detail.checkpoints, detail.config, detail.log) == ({}, (), {}, ())
    assert (detail.report, detail.problems, detail.pruned) == (None, (), None)


# ---------------------------------------------------------------------------------------------------------------------
# the receipt


def test_weights_that_are_gone_name_the_command_that_trains_them_again(trial):
    """The study's index, from which the record comes, has no receipts: trial.json has."""
    view = SimpleNamespace(
        now=datetime(2026, 1, 1, tzinfo=UTC), snapshot=SimpleNamespace(experiments=Path("experiments"))
    )
    receipt = Receipt(weights_sha256="ab" * 32, seconds=75.0, versions={}, data_fingerprint=None)
    done = trial.record.model_copy(update={"state": "completed", "receipt": receipt})
    folder = trial.path / paths.CHECKPOINTS / "epoch-0001"
    folder.mkdir(parents=True)
    (folder / paths.WEIGHTS_DELTA).write_bytes(bytes(500))
    trial.add(paths.RETENTION, retention("keep", 500))
    assert "trained in" not in checkpoints(view, trial.read()).plain
    (trial.path / paths.TRIAL).write_bytes(done.to_json())
    assert trial.read().record.receipt is None
    assert checkpoints(view, trial.read()).plain.endswith("trained in 1:15")
    (folder / paths.WEIGHTS_DELTA).unlink()
    folder.rmdir()
    trial.add(paths.RETENTION, retention("delete", 500))
    rebuild = f"just rebuild {trial.record.trial_id[:8]} trains it again"
    assert checkpoints(view, trial.read()).plain.endswith(f"trained in 1:15; {rebuild}")
