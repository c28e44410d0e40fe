"""A whole study in one process and a fraction of a second, for tests that stop it at every place where it can stop.

The driver, Optuna's journal, the budget's ledger, the trial's record, the metric journal, the saver, the store and
the retention are the real ones. Only the model is a linear layer of 16 weights, and MLflow is left out. Its first trial
is pruned after an epoch, and the second one repeats it. The first one's checkpoint must give way to the third one,
which trains two epochs, with a checkpoint in the middle of the second, and ends with a report. What a study leaves is a
function of its seed alone.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import optuna
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine import session as session_module
from redsm5.engine.compose import compose as compose_for
from redsm5.engine.errors import exit_with_message
from redsm5.engine.records import Decision, Manifest
from redsm5.engine.script import ScriptSpec, ScriptTask
from redsm5.engine.session import Session, train
from redsm5.engine.spec import StudySpec, load_config
from redsm5.engine.storage.budget import reservation
from redsm5.engine.storage.checkpoint import Identity, Saver, seed_everything
from redsm5.engine.storage.retention import Policy
from redsm5.engine.storage.store import STATE_FILES, read_verified
from redsm5.engine.study import driver as driver_module
from redsm5.engine.study import outcomes, search, trial_run
from redsm5.engine.study.access import CheckedData
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.trial_run import TrialRun
from redsm5.engine.tracking.system import SystemMetrics, Usage
from redsm5.task import ReDSM5

EPOCHS, STEPS = 2, 2
SCORES = (0.9, 0.4)  # after each epoch: the last is not the best
MID_EPOCH = STEPS + 1  # the step at which the last trial saves in the middle of an epoch
OF_DIGITS = os.environ.get("CRASH_STUDY") == "digits"  # examples/digits is trained instead
DIGITS = Path(__file__).parents[2] / "examples" / "digits"
NO_FLOOR = "retention.min_free_disk_percent=0"
FULL, WEIGHTS = (50_000, 12_000) if OF_DIGITS else (12_000, 4_000)  # more than a checkpoint of this model takes
# Room for one trial's reservation and not for another's checkpoint beside it.
BUDGET = reservation(Policy(), full=FULL, weights=WEIGHTS, epochs=EPOCHS) + 100


def configuration(experiments: Path) -> StudySpec:
    """The study's configuration; the model that ReDSM5's names is not the one that is trained."""
    if OF_DIGITS:
        words = [f"experiments='{experiments}'", "study.name=crash", "study.trials=3", f"train.epochs={EPOCHS}"]
        words += [f"study.script='{DIGITS / 'train.py'}'", f"study.space='{DIGITS / 'space.yaml'}'", "channels=4"]
        words += ["batch_size=400", "study.pruner=median", "train.checkpoint_every_steps=4"]  # three steps an epoch
        return compose_for(ScriptSpec, [*words, f"retention.max_total_size={BUDGET}", NO_FLOOR])
    words = [f"experiments='{experiments}'", "study.name=crash", "study.trials=3", f"train.epochs={EPOCHS}"]
    words.append(f"study.enqueue='{Path(__file__).with_name('repeated.yaml')}'")
    space = "search.space={train.learning_rate:{type:float,low:0.001,high:0.1},train.accumulation_steps:"
    words += [space + "{type:int,low:1,high:8}}", f"retention.max_total_size={BUDGET}"]
    words += ["study.pruner=median", f"train.checkpoint_every_steps={MID_EPOCH}"]
    return compose([*words, NO_FLOOR])


class SmallStudy(Driver):
    """The driver of such a study; its trials run in its own process.

    Args:
        saver: the thread that commits checkpoints; the test has it before the study begins.
    """

    def __init__(self, config: StudySpec, saver: Saver) -> None:
        super().__init__(ScriptTask() if OF_DIGITS else ReDSM5(), config)
        self._saver = saver

    def run(self, standby: Any = None) -> None:
        super().run(standby)

    def _train(self, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        saved = load_config(type(self.config), folder)
        config = saved.model_copy(update={"experiments": str(folder.parent)})
        with suppress(SystemExit):
            trial = TrialRun.open(config)
            pruned = Decision(epoch=1, prune=number == 0, reason="as the test wants it")
            trial.decision = lambda epoch: pruned  # type: ignore[method-assign]
            with trial.outcome(), waited_for(self._saver):
                train(digits_main() if OF_DIGITS else main, trial, self._saver)
        return False


def main(session: Session) -> None:
    """What scripts/train.py does, with the smallest of models."""
    config, record = session.config, session.trial.record
    seed_everything(config.train.seed)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.train.learning_rate)
    schedule = LambdaLR(optimizer, lambda step: 0.9**step)
    identity = Identity(record.trial_id, "linear: 4 to 4", {"max_length": 4}, "ab" * 32, config.train.seed)
    session.track(model, optimizer, schedule, identity)
    for epoch in session.epochs():
        for _ in session.batches(range(STEPS)):
            loss = (model(torch.randn(2, 4)) ** 2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            session.step(loss.detach())
        session.report({"val_f1_macro": SCORES[epoch - 1]})

    def report() -> None:
        best = session.store.best()[0]
        weights = read_verified(session.store.folder / best.name)[paths.WEIGHTS]
        document = {"checkpoint": best.name, "weights": bytes(weights).hex()}
        files.write_atomic(session.trial.folder / paths.REPORT, json.dumps(document).encode())

    session.finish(report)


def digits_main() -> Callable[[Session], None]:
    """The training of examples/digits, as the process that stands ready imports it."""
    spec = spec_from_file_location("digits", DIGITS / "train.py")
    assert spec
    assert spec.loader
    if "digits" not in sys.modules:
        sys.modules["digits"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["digits"])
    run_one: Callable[[Session], None] = sys.modules["digits"].main
    return run_one


class OneThread(Saver):
    """Commits in its thread, and is waited for, so that each does the same calls in each run."""

    def submit(self, commit: Callable[[], object]) -> None:
        super().submit(commit)
        self.wait()


@contextmanager
def waited_for(saver: Saver) -> Iterator[None]:
    """As a `Saver` that ends: no save is in flight any more when the trial gives its lock away."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            saver.wait()
        raise


def warm(scratch: Path) -> StudySpec:
    """Have everything that a study imports and caches in this process, so that all that are forked do the same calls;
    the configuration for them.
    """
    outcomes.draw_report = lambda folder, task, log: None
    driver_module.check_data = lambda task, config, stop: CheckedData({}, "ab" * 32, ())
    driver_module.Shipper = lambda *_: SimpleNamespace(  # type: ignore[assignment,misc]
        start=lambda: None, watch=id, name_winner=id, close=lambda hurried: 0, failing=False
    )
    # No sample but at an epoch's end, however long a step takes here.
    session_module.SystemMetrics = partial(SystemMetrics, clock=lambda: 0.0)  # type: ignore[assignment,misc]
    session_module.meter = lambda device: lambda: Usage({}, {"system_memory_bytes": 1.0})
    trial_run.DiskMonitor = MagicMock()  # type: ignore[assignment,misc]  # its thread would come in between
    torch.set_num_threads(1)
    config = configuration(scratch / "warm")
    with OneThread() as saver:
        SmallStudy(config, saver).run()
    return config


def run(config: StudySpec, experiments: Path, saver: Saver) -> int:
    """Run or continue the study in this folder; its exit code, as `just hpo` returns it."""

    def main() -> int:
        SmallStudy(config.model_copy(update={"experiments": str(experiments)}), saver).run()
        return 0

    try:
        exit_with_message(main)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# what is left of it


def check_resume_points(experiments: Path) -> None:
    """Every epoch that a trial's record says was done is in a checkpoint to resume from: at most one is lost."""
    for folder in paths.trial_dirs(experiments):
        record = files.read_json(folder / paths.TRIAL)
        if record and record["state"] in ("running", "interrupted") and record["epoch"]:
            steps = []
            for checkpoint in (folder / paths.CHECKPOINTS).glob("[!.]*"):
                contents = read_verified(checkpoint)
                if contents.keys() >= STATE_FILES:
                    steps.append(Manifest.model_validate_json(contents[paths.MANIFEST]).step)
            assert max(steps, default=0) >= record["step"], f"the record has step {record['step']}, the disk {steps}"


def outcome(experiments: Path) -> Mapping[str, Any]:
    """All that a study leaves and that must not depend on how often it was interrupted.

    Raises:
        AssertionError: something is there twice, or there is litter.
    """
    config = configuration(experiments)
    (study,) = paths.study_dirs(experiments)
    record = files.read_json(study / paths.STUDY) or {}
    index = files.read_json(study / paths.INDEX) or {}
    trials = sorted(paths.trial_dirs(experiments), key=lambda f: (files.read_json(f / paths.TRIAL) or {})["number"])
    events = {line["trial_id"]: line["state"] for line in files.read_lines(study / paths.EVENTS)}
    storage = search.open_storage(config)
    (name,) = optuna.get_all_study_names(storage)
    told = optuna.load_study(study_name=name, storage=storage).get_trials()
    return {
        "study": (record["state"], record["trials"], record["best"]["value"], [t["state"] for t in index["trials"]]),
        "events": [events[folder.name.removeprefix("trial_")] for folder in trials],
        "told": [(t.number, t.params, t.value, t.state.name) for t in told],
        "trials": [trial_outcome(folder) for folder in trials],
    }


def trial_outcome(folder: Path) -> Mapping[str, Any]:
    record = files.read_json(folder / paths.TRIAL) or {}
    rows = files.read_lines(folder / paths.METRICS)
    metrics = {(row["metric"], row["step"]): row["value"] for row in rows}
    assert len(metrics) == len(rows), "a (metric, step) stands twice in the journal"
    metrics = {key: value for key, value in metrics.items() if not key[0].startswith("system_")}
    checkpoints = {}
    for checkpoint in (folder / paths.CHECKPOINTS).glob("*"):
        contents = read_verified(checkpoint)
        assert {p.name for p in checkpoint.iterdir()} == {*contents, paths.SUMS}, "litter in a checkpoint"
        manifest = Manifest.model_validate_json(contents.pop(paths.MANIFEST))
        checkpoints[checkpoint.name] = manifest.score, {n: bytes(c) for n, c in contents.items()}
    names = ("number", "state", "epoch", "epochs", "step", "best", "exit_code", "parameters")
    first = files.read_json(folder.parent / f"trial_{record['duplicate_of']}" / paths.TRIAL)
    return {
        "record": {name: record[name] for name in names},
        "repeats": first and first["number"],
        "metrics": metrics,
        "checkpoints": checkpoints,
        "report": files.read_json(folder / paths.REPORT),
    }
