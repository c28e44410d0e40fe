"""List a trial's checkpoints, kept or gone, and why: `just checkpoints UUID [--format table|json|csv]`."""

import os
import re
from dataclasses import asdict, fields
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.storage.history import CheckpointHistory, checkpoint_history
from redsm5.engine.tables import add_format, render
from redsm5.engine.terminal import Parser, show

COLUMNS = tuple(field.name for field in fields(CheckpointHistory))
SHOWN = {"set_aside": "quarantine"}  # the displayed word for an action, if it differs from the one on disk


def main() -> int:
    parser = Parser(prog="just checkpoints", description=__doc__)
    parser.add_argument("trial_id", metavar="UUID", help="the trial's UUID, as in the name of its folder")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    add_format(parser)
    arguments = parser.parse_args()
    experiments, trial_id = arguments.experiments, arguments.trial_id
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
    folder = paths.trial_dir(experiments, trial_id)
    if not re.fullmatch(r"[0-9a-f-]{36}", trial_id) or not folder.is_dir():
        raise InputError(
            f"there is no trial {trial_id} in {experiments}", remedy="The trials are the folders trial_<uuid> there."
        )
    rows = [asdict(checkpoint) for checkpoint in checkpoint_history(folder)]
    if arguments.format == "table":  # JSON and CSV have the action as in retention.jsonl
        rows = [row | {"action": SHOWN.get(row["action"], row["action"])} for row in rows]
    empty = f"Trial {trial_id} has had no checkpoints: the first comes after an epoch, unless retention.enabled=false."
    show(render(arguments.format, COLUMNS, rows, empty=empty))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
