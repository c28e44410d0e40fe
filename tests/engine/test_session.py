"""The protocol of a trial: what a script may call when, and what a wrong call leaves."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.compose import compose as compose_for
from redsm5.engine.errors import Interrupted
from redsm5.engine.records import Decision
from redsm5.engine.script import ScriptSpec
from redsm5.engine.session import Session, SessionError, train
from redsm5.engine.spec import StudySpec
from redsm5.engine.storage.checkpoint import Identity, Saver, TrainingState, seed_everything
from redsm5.engine.storage.store import DamagedCheckpoint, read_verified
from redsm5.engine.study.trial import create_trial, read_record
from redsm5.engine.study.trial_run import TrialRun
from redsm5.engine.tracking.journal import read_metrics
from redsm5.engine.tracking.system import Usage

STEPS = 3
METRIC = "val_f1_macro"
STUDY = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def trial(tmp_path: Path) -> TrialRun:
    config = compose([f"experiments={tmp_path}", "train.epochs=2", "retention.min_free_disk_percent=0"])
    record = create_trial(config)
    return TrialRun.open(config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})}))


@pytest.fixture
def session(trial: TrialRun) -> Iterator[Session]:
    with Saver() as saver:
        yield Session(trial, saver)


class Model:
    """A linear layer, and what trains it."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Linear(2, 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.schedule = LambdaLR(self.optimizer, lambda step: 1.0)

    def track(self, session: Session, kept: dict[str, torch.Tensor] | None = None) -> None:
        identity = Identity(session.trial.record.trial_id, "linear", {}, "ab" * 32, 1)
        usage = Usage({}, {"system_memory_bytes": 1.0})
        session.track(self.model, self.optimizer, self.schedule, identity, kept=kept, usage=lambda: usage)

    def loss(self) -> torch.Tensor:
        loss = (self.model(torch.ones(1, 2)) ** 2).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def epoch(self, session: Session) -> None:
        for _ in session.batches(range(STEPS)):
            session.step(self.loss())


def tracked(session: Session) -> Model:
    model = Model()
    model.track(session)
    return model


def whole(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        session.report({METRIC: 0.5, "val_loss": 1.0})
    session.finish(lambda: files.write_atomic(session.trial.folder / paths.REPORT, b"{}"))


def test_a_trial_in_order(trial: TrialRun) -> None:
    with pytest.raises(SystemExit) as ended, trial.outcome(), Saver() as saver:
        train(whole, trial, saver)
    assert ended.value.code == 0
    record = read_record(trial.folder)
    assert record is not None
    assert (record.state, record.epoch, record.step) == ("completed", 2, 2 * STEPS)
    assert [row.step for row in read_metrics(trial.folder) if row.metric == METRIC] == [STEPS, 2 * STEPS]
    assert sorted(p.name for p in (trial.folder / paths.CHECKPOINTS).iterdir()) == ["epoch-0001", "epoch-0002"]


def test_numbers_of_numpy_and_tensors_are_metrics(trial: TrialRun) -> None:
    def main(session: Session) -> None:
        model = tracked(session)
        for _ in session.epochs():
            model.epoch(session)
            session.report({METRIC: np.float32(0.5), "val_loss": torch.tensor(0.25)}, also={"count": np.int64(3)})
        session.finish(lambda: {"test_f1": torch.tensor(1)})

    with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
        train(main, trial, saver)
    values = {row.metric: row.value for row in read_metrics(trial.folder)}
    assert (values[METRIC], values["val_loss"], values["count"], values["test_f1"]) == (0.5, 0.25, 3, 1)


# ---------------------------------------------------------------------------------------------------------------------
# out of order


def test_an_epoch_whose_batches_are_not_the_session_s_is_one_step(trial: TrialRun) -> None:
    def main(session: Session) -> None:
        tracked(session)
        for epoch in session.epochs():
            session.report({METRIC: epoch / 2})
        session.finish(lambda: {"test_f1": 0.25})

    with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
        train(main, trial, saver)
    record = read_record(trial.folder)
    assert record is not None
    assert (record.state, record.epoch, record.step) == ("completed", 2, 2)
    rows = [(row.metric, row.step, row.epoch, row.value) for row in read_metrics(trial.folder)]
    assert [row for row in rows if not row[0].startswith("system_")] == [
        (METRIC, 1, 1, 0.5),
        (METRIC, 2, 2, 1.0),
        ("test_f1", 2, 2, 0.25),
    ]


def track_twice(session: Session) -> None:
    model = tracked(session)
    model.track(session)


def finish_early(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        session.report({METRIC: 0.5})
        session.finish(lambda: None)


def finish_without_epochs(session: Session) -> None:
    tracked(session)
    session.finish(lambda: None)


def report_early(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        for _ in session.batches(range(STEPS)):
            session.step(model.loss())
            break
        session.report({METRIC: 0.5})


def report_twice(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        session.report({METRIC: 0.5})
        session.report({METRIC: 0.5})


def report_something_else(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        session.report({"accuracy": 0.5})


def no_report(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)


def no_step(session: Session) -> None:
    tracked(session)
    for _ in session.epochs():
        for _ in session.batches(range(STEPS)):
            pass


def step_after_the_batches(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        session.step(model.loss())


def batches_twice(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        model.epoch(session)


def report_no_number(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        session.report({METRIC: None})  # type: ignore[dict-item]


def report_the_training_loss(session: Session) -> None:
    model = tracked(session)
    for _ in session.epochs():
        model.epoch(session)
        session.report({METRIC: 0.5, "train_loss": 1.0})


def endless(session: Session) -> None:
    tracked(session)
    for _ in session.epochs():
        for _ in session.batches(iter(range(STEPS))):  # type: ignore[arg-type]
            pass


def exit_early(session: Session) -> None:
    tracked(session)
    sys.exit("done")


def plateau(session: Session) -> None:
    model = Model()
    session.track(model.model, model.optimizer, ReduceLROnPlateau(model.optimizer))


WRONG: dict[Callable[[Session], None], str] = {
    lambda s: next(s.epochs()): r"session\.epochs\(\) before session\.track",
    lambda s: next(s.batches(range(2))): r"session\.batches\(\.\.\.\) before session\.track",
    lambda s: s.step(torch.tensor(1.0)): r"session\.step\(\.\.\.\) before session\.track",
    lambda s: s.report({METRIC: 1.0}): r"session\.report\(\.\.\.\) before session\.track",
    lambda s: s.finish(lambda: None): r"session\.finish\(\.\.\.\) before session\.track",
    lambda s: print(s.store): r"session\.store before session\.track",
    lambda s: next(tracked(s) and s.batches(range(2))): r"once in each epoch of session\.epochs",
    lambda s: tracked(s) and s.step(torch.tensor(1.0)): r"outside of session\.batches",
    track_twice: r"a second time",
    finish_early: r"after 1 of 2 epochs",
    finish_without_epochs: r"after 0 of 2 epochs",
    report_early: r"before the epoch's batches were all done: 1 of 3",
    report_twice: r"before the epoch's batches were all done",
    report_something_else: r"lacks val_f1_macro",
    no_report: r"epoch 1 ended without session\.report",
    no_step: r"batch 1 of 3 ended without session\.step",
    step_after_the_batches: r"outside of session\.batches",
    batches_twice: r"once in each epoch",
    report_no_number: r"val_f1_macro=None is not a number",
    report_the_training_loss: r"train_loss, which session\.step records",
    endless: r"number of batches is not known",
    exit_early: r"sys\.exit\('done'\) before session\.finish",
    plateau: r"ReduceLROnPlateau, which needs a metric",
    tracked: r"ended without session\.finish",  # type: ignore[dict-item]
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_call_out_of_order_is_an_error_with_a_sentence_and_no_damage(
    wrong: Callable[[Session], None], trial: TrialRun
) -> None:
    with pytest.raises(SystemExit) as ended, trial.outcome(), Saver() as saver:
        train(wrong, trial, saver)
    assert ended.value.code == 2
    record = read_record(trial.folder)
    assert record is not None
    assert record.error is not None
    assert record.state == "failed"
    assert record.error.kind == "session"
    with pytest.raises(SessionError, match=WRONG[wrong]):
        raise SessionError(record.error.message)
    assert not (trial.folder / paths.REPORT).exists()
    done = len({row.step for row in read_metrics(trial.folder) if row.metric == METRIC})
    checkpoints = [*(trial.folder / paths.CHECKPOINTS).glob("epoch-*")]
    assert len(checkpoints) == done == record.epoch, "what is half told is in no checkpoint and no record"


def test_what_follows_an_interruption_is_what_would_have_been(tmp_path: Path) -> None:
    """Stopped in the middle of the second epoch, and resumed in another session: the same metrics to the bit."""
    rows = []
    for stop_at in (None, STEPS + 1):
        words = [f"experiments={tmp_path / str(stop_at)}", "train.epochs=2", "retention.min_free_disk_percent=0"]
        config = compose(words)
        record = create_trial(config)
        config = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
        trial = TrialRun.open(config)

        def stopped(session: Session, at: int | None = stop_at) -> None:
            model = tracked(session)
            for _ in session.epochs():
                for _ in session.batches(range(STEPS)):
                    if at == session.progress.step + 1:
                        os.kill(os.getpid(), signal.SIGTERM)
                    session.step(model.loss())
                session.report({METRIC: float(model.model.weight.sum())})
            session.finish(lambda: files.write_atomic(session.trial.folder / paths.REPORT, b"{}"))

        with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
            train(stopped, trial, saver)
        if stop_at:
            assert json.loads((trial.folder / paths.TRIAL).read_bytes())["state"] == "interrupted"
            trial = TrialRun.open(config)
            with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
                train(lambda session: stopped(session, None), trial, saver)
        done = read_metrics(trial.folder)
        rows.append([(r.metric, r.step, r.value) for r in done if not r.metric.startswith("system_")])
    assert rows[0] == rows[1]


FOLDS, EACH = 3, 2


def fold_by_fold(session: Session) -> None:
    """A model for each fold; the score is the sum of what the folds so far have come to."""
    for fold in session.folds():
        seed_everything(fold)
        model = Model(seed=fold)
        sums = torch.zeros(FOLDS, dtype=torch.float64)
        model.track(session, kept={"sums": sums})
        assert sums[fold:].sum() == 0 or session.progress.epochs_done > fold * EACH
        for _ in session.epochs():
            model.epoch(session)
            sums[fold] = model.model.weight.double().sum() + torch.rand(1).double()
            session.report({METRIC: float(sums[: fold + 1].sum())})
    session.finish(lambda: files.write_atomic(session.trial.folder / paths.REPORT, b"{}"))


def interrupting(at: int | None) -> Callable[[Session], None]:
    """`fold_by_fold`, asked to stop before the step `at`."""

    def main(session: Session) -> None:
        step = session.step

        def stepped(loss: torch.Tensor) -> None:
            if at == session.progress.step + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            step(loss)

        session.step = stepped  # type: ignore[assignment, method-assign]
        fold_by_fold(session)

    return main


def fold_trial(folder: Path, *words: str) -> tuple[TrialRun, StudySpec]:
    base = [f"experiments={folder}", f"train.epochs={EACH}", f"data.folds={FOLDS}"]
    config = compose([*base, "retention.min_free_disk_percent=0", "train.checkpoint_every_steps=2", *words])
    record = create_trial(config)
    config = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
    return TrialRun.open(config), config


def end_of(trial: TrialRun, main: Callable[[Session], None]) -> list[tuple[str, int, float]]:
    """The metrics of a trial once it has ended, but for those of the machine."""
    with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
        train(main, trial, saver)
    return [(r.metric, r.step, r.value) for r in read_metrics(trial.folder) if not r.metric.startswith("system_")]


@pytest.mark.parametrize("interval", [1, 4])
def test_folds_are_trained_one_after_the_other_wherever_a_trial_is_interrupted(interval: int, tmp_path: Path) -> None:
    words = [f"retention.min_interval_epochs={interval}"]
    trial, _ = fold_trial(tmp_path / "once", *words)
    whole = end_of(trial, fold_by_fold)
    record = read_record(trial.folder)
    assert record is not None
    scores = [value for metric, _, value in whole if metric == METRIC]
    assert (record.state, record.epoch, record.epochs, len(scores)) == ("completed", 6, 6, 6)
    assert record.best is not None
    assert (record.best.epoch, record.best.value) == (6, scores[-1]), "the score of all folds is the last, not the best"
    kept = weights_of(trial)
    for at in range(1, FOLDS * EACH * STEPS):
        trial, config = fold_trial(tmp_path / str(at), *words)
        end_of(trial, interrupting(at))
        assert end_of(TrialRun.open(config), fold_by_fold) == whole
        assert weights_of(trial) == kept


def weights_of(trial: TrialRun) -> bytes:
    (best,) = (trial.folder / paths.CHECKPOINTS).glob("epoch-*")
    assert best.name == f"epoch-{FOLDS * EACH:04}"
    return bytes(read_verified(best)[paths.WEIGHTS])


def test_a_fold_begins_with_a_model_of_its_own_shape_after_a_kill(tmp_path: Path) -> None:
    """Each fold's vocabulary, and so its model, may have another size than the one whose checkpoint is there."""

    def main(session: Session, dies: bool) -> None:
        for fold in session.folds():
            model = nn.Linear(2, 2 + fold)
            kept = {"done": torch.zeros(FOLDS)}
            session.track(model, torch.optim.SGD(model.parameters(), lr=0.1), kept=kept, usage=lambda: Usage({}, {}))
            if fold and dies:
                raise KeyboardInterrupt  # as after a kill, no outcome is written
            for _ in session.epochs():
                kept["done"][fold] += 1
                session.report({METRIC: float(kept["done"].sum())})
        session.finish(lambda: files.write_atomic(session.trial.folder / paths.REPORT, b"{}"))

    trial, config = fold_trial(tmp_path)
    with pytest.raises(KeyboardInterrupt), Saver() as saver:
        train(partial(main, dies=True), trial, saver)
    trial._lock.release()  # type: ignore[union-attr]
    trial = TrialRun.open(config)
    rows = end_of(trial, partial(main, dies=False))
    assert [value for metric, _, value in rows if metric == METRIC] == [1, 2, 3, 4, 5, 6]


def test_a_damaged_checkpoint_at_a_fold_s_begin_sends_the_trial_back(tmp_path: Path) -> None:
    words = ["retention.keep_all=true"]
    trial, _ = fold_trial(tmp_path / "once", *words)
    whole = end_of(trial, fold_by_fold)
    trial, config = fold_trial(tmp_path / "again", *words)
    end_of(trial, interrupting(2 * STEPS + 1))
    for newest in sorted((trial.folder / paths.CHECKPOINTS).iterdir())[-2:]:
        damaged = bytearray((newest / paths.STATE_TENSORS).read_bytes())
        damaged[-1] ^= 1
        (newest / paths.STATE_TENSORS).write_bytes(damaged)
    assert end_of(TrialRun.open(config), fold_by_fold) == whole


def test_a_checkpoint_that_turns_out_damaged_interrupts_a_trial_that_has_begun_another_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, _ = fold_trial(tmp_path / "once")
    whole = end_of(trial, fold_by_fold)
    trial, config = fold_trial(tmp_path / "again")
    with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
        train(interrupting_after_fold, trial, saver)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "unpack_progress", malformed)
        end_of(TrialRun.open(config), fold_by_fold)
    record = read_record(trial.folder)
    assert record is not None
    assert record.state == "interrupted"
    assert end_of(TrialRun.open(config), fold_by_fold) == whole


def malformed(*_: object) -> None:
    raise DamagedCheckpoint("it is malformed")


def interrupting_after_fold(session: Session) -> None:
    """`fold_by_fold`, interrupted where the second fold begins."""
    track = session.track

    def tracked_once(*arguments: Any, **named: Any) -> None:
        if session._fold:
            session._saver.wait()
            raise Interrupted("between folds")
        track(*arguments, **named)

    session.track = tracked_once  # type: ignore[method-assign]
    fold_by_fold(session)


def test_a_fold_that_is_left_early_is_an_error(tmp_path: Path) -> None:
    def main(session: Session) -> None:
        for _ in session.folds():
            tracked(session)

    trial, _ = fold_trial(tmp_path)
    end_of(trial, main)
    record = read_record(trial.folder)
    assert record is not None
    assert record.error is not None
    assert "fold 0 ended before its epochs were all trained" in record.error.message


@pytest.mark.parametrize("prune", [True, False])
def test_the_pruner_is_asked_after_the_checkpoint_and_again_after_a_crash(prune: bool, tmp_path: Path) -> None:
    """The trial dies while it waits for the decision: the epoch is not trained again, and the decision is heard."""
    words = [f"experiments={tmp_path}", "train.epochs=2", "retention.min_free_disk_percent=0", "study.pruner=median"]
    config = compose(words)
    record = create_trial(config, study_id=STUDY, number=0)
    config = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
    trained, asked = [], []

    def main(session: Session) -> None:
        model = tracked(session)
        for epoch in session.epochs():
            trained.append(epoch)
            model.epoch(session)
            session.report({METRIC: 0.5})
        session.finish()

    def dies(epoch: int) -> Decision:
        asked.append(epoch)
        raise KeyboardInterrupt

    def decides(epoch: int) -> Decision:
        asked.append(epoch)
        return Decision(epoch=epoch, prune=prune and epoch == 1, reason="too low")

    trial = TrialRun.open(config)
    trial.decision = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), trial.outcome(), Saver() as saver:
        train(main, trial, saver)
    assert (trained, asked) == ([1], [1])
    assert [p.name for p in (trial.folder / paths.CHECKPOINTS).glob("epoch-*")] == ["epoch-0001"]
    assert trial._lock is not None
    trial._lock.release()  # as its death would

    trial = TrialRun.open(config)
    trial.decision = decides  # type: ignore[method-assign]
    with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
        train(main, trial, saver)
    after = read_record(trial.folder)
    assert after is not None
    assert after.state == ("pruned" if prune else "completed")
    assert trained == ([1] if prune else [1, 2])
    assert asked == ([1, 1] if prune else [1, 1, 2])


@pytest.mark.parametrize("every", [1, 3])
def test_a_trial_that_pauses_at_a_rung_goes_on_as_if_it_had_not(every: int, tmp_path: Path) -> None:
    """Killed while it pauses, too. A rung that is not due to be saved is saved, and is never the best by that."""
    after = []
    for name, pauses in (("plain", False), ("asha", True)):
        words = [f"experiments={tmp_path / name}", "train.epochs=4", "retention.min_free_disk_percent=0"]
        config = compose([*words, "study.pruner=asha", f"retention.min_interval_epochs={every}"])
        record = create_trial(config, study_id=STUDY, number=0, trial_id=STUDY)
        config = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
        trained: list[int] = []

        def main(session: Session, trained: list[int] = trained) -> None:
            model = tracked(session)
            for epoch in session.epochs():
                trained.append(epoch)
                model.epoch(session)
                session.report({METRIC: [0.1, 0.9, 0.5, 0.6][epoch - 1]})
            session.finish(lambda: files.write_atomic(session.trial.folder / paths.REPORT, b"{}"))

        promoted = False
        states = []
        while (before := read_record(tmp_path / name / f"trial_{STUDY}")) and before.state != "completed":
            trial = TrialRun.open(config)
            trial.decision = lambda epoch, goes_on=promoted, pauses=pauses: Decision(  # type: ignore[method-assign,misc]
                epoch=epoch, prune=False, rung=0 if pauses and epoch == 2 and not goes_on else None
            )
            with pytest.raises(SystemExit) as ended, trial.outcome(), Saver() as saver:
                train(main, trial, saver)
            assert ended.value.code == 0
            done = read_record(trial.folder)
            assert done is not None
            states.append((done.state, done.rung, done.epoch))
            promoted = len(states) == 2  # started once more before that, it pauses again
        assert states == ([("paused", 0, 2)] * 2 if pauses else []) + [("completed", 0 if pauses else None, 4)]
        assert trained == [1, 2, 3, 4]
        rows = [(r.metric, r.step, r.value) for r in read_metrics(trial.folder) if not r.metric.startswith("system_")]
        kept = {p.parent.name: p.read_bytes() for p in trial.folder.glob("checkpoints/*/model.safetensors")}
        after.append((rows, kept, done.best))
    assert after[0] == after[1]
    assert after[1][2] is not None
    assert after[1][2].epoch == (2 if every == 1 else 4)


class Counter:
    """A model that is no module: an array, and a number."""

    def __init__(self) -> None:
        self.sums, self.batches = np.zeros(3), 0

    def state_dict(self) -> dict[str, object]:
        return {"sums": self.sums, "batches": self.batches}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.sums, self.batches = state["sums"], state["batches"]  # type: ignore[assignment]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_model_of_arrays_resumes_and_its_best_epoch_is_the_one_of_the_direction(
    direction: str, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("lr: 0.5\nstudy.metric: score\ntrain.epochs: 3\n")
    words = [f"experiments={tmp_path}", "retention.min_free_disk_percent=0", "study.script=train.py"]
    config = compose_for(ScriptSpec, [*words, f"study.space={space}", f"study.direction={direction}"])
    record = create_trial(config)
    config = config.model_copy(update={"trial": config.trial.model_copy(update={"id": record.trial_id})})
    scores, loaded = [0.2, 0.9, 0.1], []

    def main(session: Session, stop_at: int = 0) -> None:
        model = Counter()
        session.track(model)
        for epoch in session.epochs():
            for batch in session.batches(range(STEPS)):
                model.sums, model.batches = model.sums + batch * session.parameters["lr"], model.batches + 1
                if model.batches == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                session.step(0.0)
            session.report({"score": scores[epoch - 1]})

        def report() -> None:
            loaded.append((session.load_best(), model.batches, model.sums.tolist()))

        session.finish(report)

    for stop_at in (STEPS + 2, 0):
        trial = TrialRun.open(config)
        with pytest.raises(SystemExit), trial.outcome(), Saver() as saver:
            train(partial(main, stop_at=stop_at), trial, saver)
    best = 2 if direction == "maximize" else 3
    assert loaded == [(best, best * STEPS, [best * 1.5] * 3)]
    after = read_record(trial.folder)
    assert after is not None
    assert after.best is not None
    assert (after.state, after.best.epoch, after.best.value) == ("completed", best, scores[best - 1])
    assert [p.name for p in (trial.folder / paths.CHECKPOINTS).glob("epoch-*")] == [f"epoch-000{best}"]
