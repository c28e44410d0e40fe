"""Experiments folders as the driver and the trials leave them, made of the records that they write."""

import math
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from redsm5 import paths
from redsm5.documents import timestamp
from redsm5.records import (
    Best,
    ErrorRecord,
    Event,
    MetricRow,
    RetentionRow,
    StudyBest,
    StudyIndex,
    StudyRecord,
    TrialCounts,
    TrialRecord,
)

# What happened to the trials of the sample study, by number.
STATES = ("completed", "completed", "pruned", "failed", "completed", "interrupted", "completed", "running")


class Folder:
    """Writes an experiments folder, piece by piece."""

    def __init__(self, root, now=None):
        self.root, self.now = root, now or datetime.now(UTC)

    def id(self, *parts):
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))

    def ago(self, minutes):
        return timestamp(self.now - timedelta(minutes=minutes))

    def study(self, name="night-search", *, wanted=20, states=STATES, state="running", created=60.0, index=True):
        study_id = self.id(name)
        folder = paths.study_dir(self.root, study_id)
        folder.mkdir(parents=True)
        trials = [self.trial(study_id, n, s, len(states)) for n, s in enumerate(states)]
        best = max((t for t in trials if t.state == "completed"), key=lambda t: t.best.value, default=None)
        record = StudyRecord(
            study_id=study_id,
            name=name,
            state=state,
            created_at=self.ago(created),
            metric="val_f1_macro",
            trials=TrialCounts(wanted=wanted, finished=len(states) - 2, running=1),
            best=best and StudyBest(trial_id=best.trial_id, number=best.number, value=best.best.value),
            config={"model": "tiny"},
        )
        (folder / paths.STUDY).write_bytes(record.to_json())
        if index:
            table = StudyIndex(study_id=study_id, updated_at=self.ago(0), trials=trials)
            (folder / paths.INDEX).write_bytes(table.to_json())
        events = [
            Event(
                timestamp=self.ago((len(trials) - t.number) * 5 - (0 if s == "running" else 4)),
                trial_id=t.trial_id,
                number=t.number,
                state=s,
                message=t.error.message if s == "failed" else None,
            )
            for t in trials
            for s in (["running"] if t.state == "running" else ["running", t.state])
        ]
        self.lines(folder / paths.EVENTS, events)
        return study_id

    def trial(self, study_id, number, state, of=8):
        trial_id = self.id(study_id, number)
        epochs = 10
        epoch = {"completed": epochs, "pruned": 3, "failed": 0, "queued": 0, "preparing": 0}.get(state, 4)
        score = 0.3 + 0.2 * (1 - math.exp(-number / 5)) + 0.05 * math.sin(number * 2.3)
        ended = state in ("completed", "pruned", "failed", "interrupted")
        trial = TrialRecord(
            trial_id=trial_id,
            study_id=study_id,
            number=number,
            state=state,
            created_at=self.ago((of - number) * 5),
            started_at=None if state == "queued" else self.ago((of - number) * 5),
            finished_at=self.ago((of - number) * 5 - 4) if ended else None,
            epoch=epoch,
            epochs=epochs,
            step=epoch * 30,
            best=Best(epoch=max(1, epoch - 1), value=score) if epoch else None,
            bytes=438_000_000 if epoch else 0,
            resumes=int(state == "interrupted"),
            exit_code={"completed": 0, "failed": 2, "interrupted": 75}.get(state),
            error=(
                ErrorRecord(kind="not_finite", message="loss is NaN at [red]step[/red] 212")
                if state == "failed"
                else None
            ),
            parameters={
                "train.learning_rate": 2.1e-05 * (number + 1),
                "train.batch_size": 16,
                "model.criteria_head_type": "mlp_residual",
            },
        )
        folder = paths.trial_dir(self.root, trial_id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / paths.TRIAL).write_bytes(trial.to_json())
        self.lines(
            folder / paths.METRICS,
            [
                MetricRow(
                    trial_id=trial_id,
                    metric=metric,
                    step=e * 30,
                    epoch=e,
                    value=score * e / epoch if metric == "val_f1_macro" else 1 / e,
                    timestamp=self.ago(0.2),
                )
                for e in range(1, epoch + 1)
                for metric in ("val_f1_macro", "train_loss")
            ],
        )
        self.lines(
            folder / paths.RETENTION,
            [
                RetentionRow(
                    timestamp=self.ago(1),
                    action="keep",
                    checkpoint=f"epoch-{e:04d}",
                    epoch=e,
                    step=e * 30,
                    score=None,
                    bytes=438_000_000,
                    reason="last 1",
                )
                for e in range(1, epoch + 1)
            ],
        )
        return trial

    def lines(self, path, records):
        path.write_bytes(b"".join(r.model_dump_json().encode() + b"\n" for r in records))


@pytest.fixture
def folder(tmp_path):
    """An empty experiments folder to write to."""
    root = tmp_path / "experiments"
    root.mkdir()
    return Folder(root)


@pytest.fixture
def sample(folder):
    """One study with a trial in every state."""
    folder.study()
    return folder.root
