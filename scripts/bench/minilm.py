"""A pretrained encoder trained on synthetic posts, `model=minilm` with its own values: `just bench minilm`.

The seconds of an epoch are those between the ends of two epochs, validation and checkpoint included; of the first one,
from its first step on. The trial is launched as `just train` does.
"""

import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from results import Result, arguments_of, digits, finish

from redsm5 import sample_model
from redsm5.engine import files, paths
from redsm5.engine.errors import TrainingError, exit_with_message
from redsm5.engine.installed import SCRIPTS
from redsm5.engine.tables import Row


def train(scratch: Path, words: list[str]) -> list[dict[str, Any]]:
    """The lines of the journal of a trial with these overrides."""
    sample_model.unpack(scratch / "model")
    command = [
        sys.executable,
        str(SCRIPTS / "launch.py"),
        "model=minilm",
        f"model.model_id={scratch / 'model'}",
        *words,
    ]
    done = subprocess.run([*command, f"experiments={scratch / 'experiments'}"], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise TrainingError(f"the trial ended with code {done.returncode}", remedy="See above what it printed.")
    (folder,) = paths.trial_dirs(scratch / "experiments")
    return files.read_lines(folder / paths.METRICS)


def main() -> int:
    parser = arguments_of("minilm", __doc__)
    parser.add_argument("--posts", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=128, help="the window, in tokens")
    arguments = parser.parse_args()
    words = [f"data.posts={arguments.posts}", f"train.epochs={arguments.epochs}"]
    with tempfile.TemporaryDirectory(prefix="redsm5-minilm-") as scratch:
        journal = train(Path(scratch), [*words, f"model.max_length={arguments.max_length}"])
    at = [datetime.fromisoformat(line["timestamp"]) for line in journal]
    ends = [(time, line["value"]) for time, line in zip(at, journal, strict=True) if line["metric"] == "val_f1_macro"]
    begins = [at[0], *(time for time, _ in ends)]
    rows: list[Row] = [
        {"epoch": number, "s": digits((end - begin).total_seconds()), "val_f1_macro": digits(score)}
        for number, (begin, (end, score)) in enumerate(zip(begins, ends, strict=False), 1)
    ]
    title = f"minilm on {arguments.posts} synthetic posts, {arguments.max_length} tokens"
    return finish(Result(title, rows, measured=journal), arguments.json)


if __name__ == "__main__":
    exit_with_message(main)
