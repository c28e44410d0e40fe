"""List a trial's checkpoints, kept or gone, and why: `just checkpoints ID [--format table|json|csv]`."""

import os
from dataclasses import asdict, fields
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.storage.history import CheckpointHistory, checkpoint_history
from redsm5.engine.study.ids import HELP, trial_folder
from redsm5.engine.study.trial import read_record
from redsm5.engine.tables import add_format, render
from redsm5.engine.terminal import Parser, show

COLUMNS = tuple(field.name for field in fields(CheckpointHistory))
SHOWN = {"set_aside": "quarantine"}  # the displayed word for an action, if it differs from the one on disk


def main() -> int:
    parser = Parser(prog="just checkpoints", description=__doc__)
    parser.add_argument("id", metavar="ID", help=f"the trial: {HELP}")
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    add_format(parser)
    arguments = parser.parse_args()
    folder = trial_folder(arguments.experiments, arguments.id)
    trial_id = folder.name.removeprefix("trial_")
    rows = [asdict(checkpoint) for checkpoint in checkpoint_history(folder)]
    if arguments.format == "table":  # JSON and CSV have the action as in retention.jsonl
        rows = [row | {"action": SHOWN.get(row["action"], row["action"])} for row in rows]
    empty = f"Trial {trial_id} has had no checkpoints: the first comes after an epoch, unless retention.enabled=false."
    show(render(arguments.format, COLUMNS, rows, empty=empty))
    if arguments.format == "table" and (said := price(folder)):
        show(said)
    return 0


def price(folder: Path) -> str | None:
    """What the weights of a trial cost in seconds, if it has a receipt; and, if they are gone, how to get them back."""
    try:
        record = read_record(folder)
    except InputError:
        return None
    if record is None or record.receipt is None:
        return None
    said = f"trained in {record.receipt.seconds:,.0f} s; SHA-256 of its weights: {record.receipt.weights_sha256}"
    if not list(folder.glob(f"{paths.CHECKPOINTS}/*/{paths.SUMS}")):
        again = command("rebuild", record.trial_id, experiments=folder.parent)
        said += f"\nThe weights are gone: `{again}` trains them again."
    return said


if __name__ == "__main__":
    exit_with_message(main)
