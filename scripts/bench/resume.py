"""Time from the start of an interrupted trial to its next optimizer step: `just bench resume`.

The model is BERT-base with random weights, 1.31 GB of training state. The trial is stopped in mid-epoch by SIGTERM and
started again with the same command as by hand, round after round. The clock runs from that start until the next step's
loss is on disk, so it includes all imports, building the model, reading and verifying the checkpoint, and the step
itself. For comparison: the same trial's first start, which has nothing to read.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import Result, arguments_of, digits, finish
from transformers import BertConfig, BertModel

from redsm5.config import compose
from redsm5.data import load_splits
from redsm5.data.tokenize import build_tokenizer
from redsm5.engine import files, paths
from redsm5.engine.errors import InputError, TrainingError, exit_with_message
from redsm5.engine.terminal import show

LAUNCH = Path(__file__).parent.parent / "launch.py"
SMALL = ["data.posts=60", "model.max_length=64", "train.batch_size=2", "train.epochs=50"]


def make_model(folder: Path) -> None:
    """BERT-base as `save_pretrained` leaves it, with a tokenizer for the invented posts."""
    tokenizer = build_tokenizer("tiny", load_splits(compose(SMALL).data).train)
    tokenizer.save_pretrained(folder)
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)


def start(experiments: Path, model: Path, trial_id: str | None) -> tuple[float, str]:
    """Start or resume the trial, and stop it after its next step; return the seconds until that step was on disk, and
    the trial's id.
    """
    words = [f"trial.id={trial_id}"] if trial_id else [*SMALL, "model=bert_base", f"model.model_id={model}"]
    words += [] if trial_id else ["train.checkpoint_every_steps=1"]  # writes each step's loss at once
    before = {path: lines(path) for path in experiments.glob(f"trial_*/{paths.METRICS}")}
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(LAUNCH), *words, f"experiments={experiments}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (new := [p for p in experiments.glob(f"trial_*/{paths.METRICS}") if lines(p) > before.get(p, 0)]):
        if process.poll() is not None:
            raise TrainingError(f"the trial ended with code {process.returncode}", where=str(experiments))
        time.sleep(0.005)
    seconds = time.perf_counter() - begin
    os.kill(process.pid, signal.SIGTERM)
    process.wait()
    return seconds, new[0].parent.name.removeprefix("trial_")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def main() -> int:
    parser = arguments_of("resume", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is to be measured")
    arguments = parser.parse_args()
    if shutil.disk_usage(arguments.folder).free < 8e9:
        raise InputError(f"{arguments.folder.resolve()} has less than 8 GB free", remedy="Name another --folder.")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix=".bench-") as scratch:
        folder = Path(scratch).resolve()
        make_model(folder / "bert")
        first, trial_id = start(folder / "experiments", folder / "bert", None)
        checkpoints = folder / "experiments" / f"trial_{trial_id}" / paths.CHECKPOINTS
        size = files.tree_bytes(checkpoints)
        again = []
        for turn in range(1, arguments.rounds + 1):
            again.append(start(folder / "experiments", folder / "bert", trial_id)[0])
            show(f"round {turn} of {arguments.rounds}: {again[-1]:.1f} s", error=True)
    median = statistics.median(again)
    rows = [
        {"from the command to the next step": "first start, nothing to read", "s": digits(first), "ratio": "1"},
        {
            "from the command to the next step": f"resumed, {size / 1e9:.2f} GB of state",
            "s": digits(median),
            "ratio": digits(median / first),
        },
    ]
    measured = {"first": first, "resumed": again, "bytes": size}
    return finish(Result("Resuming BERT-base in mid-epoch", rows, measured=measured), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
