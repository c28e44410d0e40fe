"""Experiments folders as the driver and the trials leave them, made of the records that they write."""

import json
import math
import shutil
import time
import uuid
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from redsm5.engine import paths
from redsm5.engine.documents import timestamp
from redsm5.engine.files import Lock
from redsm5.engine.records import (
    Best,
    BudgetEntry,
    BudgetLedger,
    Decision,
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
from tests.tui.reports import evaluation_report
from tests.tui.searched import machine
from tui.read.machine import Machine

NOW = datetime(2026, 3, 14, 7, 41, 12, tzinfo=UTC)

# What happened to the trials of the sample study, by number.
STATES = ("completed", "completed", "pruned", "failed", "completed", "interrupted", "completed", "running")


class Folder:
    """Writes an experiments folder, piece by piece."""

    def __init__(self, root, now=None):
        self.root, self.now = root, now or datetime.now(UTC)
        self.drivers = {}

    def id(self, *parts):
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))

    def ago(self, minutes):
        return timestamp(self.now - timedelta(minutes=minutes))

    def study(
        self, name="night-search", *, wanted=20, states=STATES, state="running", created=60.0, index=True, driven=None
    ):
        """`driven`: whether a driver holds the study's lock; by default, if it is running."""
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
        if state != "completed" and (state == "running" if driven is None else driven):
            self.drive(study_id)
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

    def drive(self, study_id):
        """Hold the lock of the study's driver, as long as the folder is in use."""
        claims = paths.study_dir(self.root, study_id) / paths.CLAIMS
        self.drivers[study_id] = Lock(claims / paths.WORKERS_LOCK, shared=True)
        assert self.drivers[study_id].acquire()

    def leave(self):
        """All drivers end, or are killed."""
        while self.drivers:
            self.drivers.popitem()[1].release()

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

    # -----------------------------------------------------------------------------------------------------------------
    # all that the screens show

    def whole(self, name="night-search", **more):
        """A study whose trials have all that trials leave: configuration, checkpoints, log, report, reasons."""
        study_id = self.study(name, **more)
        folder = paths.study_dir(self.root, study_id)
        self.rewrite(folder / paths.STUDY, config={"model": "tiny", "retention": {"max_total_size": 10_000_000_000}})
        entries = {}
        for path in sorted(self.root.glob("trial_*/trial.json")):
            trial = TrialRecord.model_validate_json(path.read_bytes())
            if trial.study_id == study_id:
                self.fill(trial)
                reserved = 2_600_000_000 if trial.state == "running" else 0
                entries[trial.trial_id] = BudgetEntry(reserved=reserved, bytes=trial.bytes)
        ledger = BudgetLedger(max_total_size=10_000_000_000, entries=entries)
        (folder / paths.BUDGET).write_bytes(ledger.to_json())
        return study_id

    def fill(self, trial):
        """What one trial's folder holds besides trial.json, as if it had been at work."""
        folder = paths.trial_dir(self.root, trial.trial_id)
        self.config(trial)
        self.metrics(trial)
        self.retention(trial)
        self.log(trial)
        if trial.state == "completed":
            self.report(trial)
        decided = [Decision(epoch=e, prune=False) for e in range(1, trial.epoch)]
        if trial.state == "pruned":
            decided.append(Decision(epoch=trial.epoch, prune=True, reason="0.318 under the median 0.402 at epoch 3"))
        self.lines(folder / paths.DECISIONS, decided)

    def config(self, trial):
        config = {
            "experiments": "experiments",
            "trial": {"id": trial.trial_id, "epochs": trial.epochs},
            "model": {"model_id": "mental-bert", "criteria_pooling": "attention"},
            "data": {"max_length": 512, "fold": 0},
            "retention": {"keep_last_n": 1, "keep_best_k": 1, "max_total_size": 10_000_000_000},
            "train": {"seed": trial.number, "mixed_precision": "bf16"},
        }
        for key, value in trial.parameters.items():
            section, name = key.split(".")
            config[section][name] = value
        (paths.trial_dir(self.root, trial.trial_id) / paths.CONFIG).write_text(json.dumps(config))

    def metrics(self, trial):
        best, rows = trial.best.value if trial.best else 0.0, []
        ended = 0.2 if trial.state == "running" else (8 - trial.number) * 5 - 4

        def row(metric, step, epoch, value):
            at = self.ago(ended + (trial.step - step) * 4 / 300)
            rows.append(
                MetricRow(trial_id=trial.trial_id, metric=metric, step=step, epoch=epoch, value=value, timestamp=at)
            )

        for step in range(5, trial.step + 1, 5):
            row("train_loss", step, (step - 1) // 30, 0.2 + math.exp(-step / 60) + 0.05 * math.sin(step * 1.7))
            row("train_lr", step, (step - 1) // 30, 2e-5 * (1 - step / 300))
            row("system_gpu_percent", step, (step - 1) // 30, 80 + 15 * math.sin(step))
            row("system_gpu_memory_bytes", step, (step - 1) // 30, 21.4e9)
            row("system_cpu_percent", step, (step - 1) // 30, 130 + 40 * math.cos(step))
            row("system_memory_bytes", step, (step - 1) // 30, 3.1e9)
            row("system_disk_write_bytes_per_second", step, (step - 1) // 30, 1.2e8 * (step % 3))
            row("system_steps_per_second", step, (step - 1) // 30, 5.5 + math.sin(step / 9))
        for epoch in range(1, trial.epoch + 1):
            near = 1 - math.exp(-epoch / 2)
            row("val_f1_macro", epoch * 30, epoch, best if epoch == trial.best.epoch else best * near * 0.95)
            row("val_f1_micro", epoch * 30, epoch, best * near + 0.08)
            row("val_loss", epoch * 30, epoch, 0.9 - 0.5 * near)
            row("val_evidence_f1", epoch * 30, epoch, 0.5 * near)
            row("system_save_stall_seconds", epoch * 30, epoch, 0.1 + epoch / 100)
        self.lines(paths.trial_dir(self.root, trial.trial_id) / paths.METRICS, rows)

    def retention(self, trial):
        """The best epoch's weights, the last epoch whole while it is at work; the files are sparse."""
        rows = []
        if trial.epoch == 0:
            return self.lines(paths.trial_dir(self.root, trial.trial_id) / paths.RETENTION, rows)
        began = 60.0 - trial.number * 5

        def row(action, epoch, minutes, size, why):
            score = trial.best.value if epoch == trial.best.epoch else round(trial.best.value * 0.9, 3)
            rows.append(
                RetentionRow(
                    timestamp=self.ago(minutes),
                    action=action,
                    checkpoint=f"epoch-{epoch:04d}",
                    epoch=epoch,
                    step=epoch * 30,
                    score=score,
                    bytes=size,
                    reason=why,
                )
            )

        ended = trial.state in ("completed", "pruned")
        for epoch in range(1, trial.epoch + 1):
            minutes = began - epoch * 0.4
            row("keep", epoch, minutes, 1_314_000_000, "last 1")
            if epoch > 1:
                if epoch - 1 == trial.best.epoch:
                    row("strip", epoch - 1, minutes, 876_000_000, f"best 1: {trial.best.value}; weights suffice")
                else:
                    row("delete", epoch - 1, minutes, 1_314_000_000, "neither last nor best")
        if ended and trial.epoch != trial.best.epoch:
            row(
                "delete",
                trial.epoch,
                began - 4.4,
                1_314_000_000,
                "the trial is finished, and this is not its best checkpoint",
            )
        self.lines(paths.trial_dir(self.root, trial.trial_id) / paths.RETENTION, rows)
        self.checkpoint(trial, trial.best.epoch)
        if not ended:
            self.checkpoint(trial, trial.epoch, state=876_000_000)
        return None

    def checkpoint(self, trial, epoch, weights=438_000_000, state=0):
        place = paths.trial_dir(self.root, trial.trial_id) / paths.CHECKPOINTS / f"epoch-{epoch:04d}"
        place.mkdir(parents=True, exist_ok=True)
        for name, size in ((paths.WEIGHTS, weights), (paths.STATE_TENSORS, state)):
            if size:
                with (place / name).open("wb") as file:
                    file.truncate(size)

    def log(self, trial):
        said = [("INFO", "trial begins", {}), ("DEBUG", "tokenizer loaded", {"vocabulary": 30522})]
        said += [("INFO", "epoch done", {"epoch": e, "val_f1_macro": 0.3}) for e in range(1, trial.epoch + 1)]
        said.append(("WARNING", "the disk is slow", {"seconds": 1.4}))
        if trial.state == "failed":
            said.append(("ERROR", trial.error.message, {"step": 212}))
        logs = paths.trial_dir(self.root, trial.trial_id) / paths.LOGS
        logs.mkdir(exist_ok=True)
        lines = [
            {"timestamp": self.ago(30 - n), "severity": s, "message": m, "context": c}
            for n, (s, m, c) in enumerate(said)
        ]
        (logs / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def report(self, trial):
        report = evaluation_report(trial, self.ago(1))
        (paths.trial_dir(self.root, trial.trial_id) / paths.REPORT).write_bytes(report.to_json())

    def rewrite(self, path, **changes):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def of(self, number, name="night-search"):
        """The id of a trial of the study of this name."""
        return self.id(self.id(name), number)

    def lines(self, path, records):
        path.write_bytes(b"".join(r.model_dump_json().encode() + b"\n" for r in records))


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    """Where the app remembers: never in the real home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "redsm5" / "terminal.json"


@pytest.fixture
def folder(tmp_path):
    """An empty experiments folder to write to."""
    root = tmp_path / "experiments"
    root.mkdir()
    folder = Folder(root)
    yield folder
    folder.leave()


@pytest.fixture
def sample(folder):
    """One study with a trial in every state."""
    folder.study()
    return folder.root


@pytest.fixture
def night(folder):
    """One study with all that its trials leave."""
    folder.whole()
    return folder.root


@pytest.fixture
def frozen(monkeypatch, tmp_path):
    """A folder to write to while the clock stands still, the disk stays as full as it is, and the machine as busy."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW.astimezone(tz) if tz else NOW.replace(tzinfo=None)

    for module in ("tui.read.view", "tui.widgets.header"):
        monkeypatch.setattr(f"{module}.datetime", Frozen)
    clock = SimpleNamespace(time=NOW.timestamp, monotonic=time.monotonic)
    monkeypatch.setattr("tui.read.storage.time", clock)
    usage = namedtuple("usage", "total used free")(250_000_000_000, 208_800_000_000, 41_200_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    root = tmp_path / "experiments"
    root.mkdir()
    folder = Folder(root, NOW)
    looked_at = machine(frozenset([folder.of(7)]))
    monkeypatch.setattr(Machine, "look", lambda self, seen, at_work=(): looked_at)
    yield folder
    folder.leave()
    monkeypatch.undo()
    time.tzset()
