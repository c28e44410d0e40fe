"""Time from the end of one trial to the first step of the next, compared with alternatives: `just bench between`.

Contenders train the same small model (`model=tiny`) on the same synthetic posts, one epoch per trial, taking turns,
round after round, in one run. Measured is the time from a trial's last result (redsm5: its report is written; Trainer:
its last evaluation is done) until the next trial's first optimizer step is done.

- redsm5: `just hpo`, whose trials are forked from a standby process;
- a launch a trial: `accelerate launch scripts/train.py` for each, the next one started as soon as one has ended;
- HF Trainer: `Trainer.hyperparameter_search` with Optuna in one process, posts tokenized ahead, a checkpoint per epoch.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from results import Result, arguments_of, digits, finish
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.posts import SYMPTOMS, Post
from redsm5.data.tokenize import tokenizer_of
from redsm5.engine import files, paths
from redsm5.engine.errors import exit_with_message
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.records import TrialRecord
from redsm5.engine.study.launch import launch_trial
from redsm5.engine.study.signals import StopRequest
from redsm5.engine.study.trial import create_trial
from redsm5.engine.tables import Row
from redsm5.engine.terminal import show
from redsm5.model.encoder import TINY

WORDS = ["train.epochs=1", "search.space={train.learning_rate: {low: 0.001, high: 0.01, log: true}}"]


def ours(root: Path, trials: int, stop: StopRequest) -> list[float]:
    command = [sys.executable, str(SCRIPTS / "hpo.py"), *WORDS, f"study.trials={trials}", f"experiments={root}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return gaps(root)


def a_launch_a_trial(root: Path, trials: int, stop: StopRequest) -> list[float]:
    config = compose([*WORDS, f"experiments={root}"])
    for number in range(trials):
        record = create_trial(config, number=number)
        launch_trial(config, record.trial_id, output=root / f"printed-{number}").attend(stop)
    return gaps(root)


def trainer(root: Path, trials: int, stop: StopRequest) -> list[float]:
    found: list[float] = json.loads(run_trainer(root, trials, epochs=1, limit=1).splitlines()[-1])
    return found


def run_trainer(root: Path, trials: int, *, epochs: int, limit: int | None) -> bytes:
    """Trainer's search in a separate process, which prints the seconds between its trials."""
    command = [sys.executable, __file__, "--trainer", str(root), str(trials), str(epochs), str(limit or 0)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def gaps(root: Path) -> list[float]:
    """Seconds from each trial's report to the next one's first step."""
    records = {}
    for folder in paths.trial_dirs(root):
        record = TrialRecord.model_validate_json((folder / paths.TRIAL).read_bytes())
        records[record.number or 0] = folder
    found = []
    for number in range(1, len(records)):
        reported = (records[number - 1] / paths.REPORT).stat().st_mtime
        steps = (row for row in files.read_lines(records[number] / paths.METRICS) if row["metric"] == "train_loss")
        found.append(datetime.fromisoformat(next(steps)["timestamp"]).timestamp() - reported)
    return found


CONTENDERS = {"redsm5": ours, "HF Trainer": trainer, "a launch a trial": a_launch_a_trial}


def search(folder: Path, trials: int, epochs: int, limit: int | None) -> list[float]:
    """Trainer's search over `trials` trials, in this process, with at most `limit` checkpoints of each; return the
    seconds between them.
    """
    config = compose(WORDS)
    splits = load_splits(config.data)
    tokenizer = tokenizer_of(config, splits.train)
    shape = TINY | {"num_labels": len(SYMPTOMS), "max_position_embeddings": config.model.max_length}
    size = BertConfig(vocab_size=len(tokenizer), **shape)

    def rows(posts: Sequence[Post]) -> list[dict[str, Any]]:
        ids = tokenizer([post.text for post in posts], truncation=True, max_length=config.model.max_length)["input_ids"]
        return [{"input_ids": i, "labels": [float(x) for x in p.labels]} for i, p in zip(ids, posts, strict=True)]

    clock = Clock()
    Trainer(
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=config.train.batch_size,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=limit,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        model_init=lambda: BertForSequenceClassification(size),
        train_dataset=rows(splits.train),
        eval_dataset=rows(splits.validation),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[clock],
    ).hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)},
        n_trials=trials,
        direction="minimize",
        backend="optuna",
    )
    return [first - last for last, first in zip(clock.last_results, clock.first_steps[1:], strict=False)]


class Clock(TrainerCallback):
    """The times at which each trial's first step and its last evaluation ended."""

    def __init__(self) -> None:
        self.first_steps: list[float] = []
        self.last_results: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self.first_steps.append(time.perf_counter())

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.last_results[len(self.first_steps) - 1 :] = [time.perf_counter()]


def main() -> int:
    parser = arguments_of("between", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=4, help="of each contender in a round")
    parser.add_argument("--trainer", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trainer:
        trials, epochs, limit = map(int, arguments.trainer[1:])
        show(json.dumps(search(Path(arguments.trainer[0]), trials, epochs, limit or None)))
        return 0
    stop = StopRequest()
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="redsm5-between-") as scratch:
        for number in range(arguments.rounds):
            for name, contender in CONTENDERS.items():
                found[name] += contender(Path(scratch) / f"{number} {name}", arguments.trials, stop)
    medians = {name: statistics.median(times) for name, times in found.items()}
    times_ours = {name: median / medians["redsm5"] for name, median in medians.items()}
    rows: list[Row] = [
        {
            "": name,
            "median, s": digits(medians[name]),
            "worst, s": digits(max(times)),
            "times redsm5": digits(times_ours[name]),
        }
        for name, times in found.items()
    ]
    title = "From the end of one trial to the first step of the next"
    return finish(Result(title, rows, {"between trials": times_ours}, found), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
