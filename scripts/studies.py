"""List the studies: `just studies [--experiments DIR] [--format table|json|csv]`."""

import os
from pathlib import Path

from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.records import StudyRecord
from redsm5.engine.study.registry import list_studies, read_studies
from redsm5.engine.tables import Row, add_format, render
from redsm5.engine.terminal import Parser, one_line, show

COLUMNS = ("name", "study_id", "state", "finished", "wanted", "best", "best_trial", "bytes", "logs", "created_at")


def row(study: StudyRecord, size: int, logs: int) -> Row:
    """A study as a row. `bytes`: size of its checkpoints; `logs`: size of its own logs and its trials'."""
    return {
        "name": study.name,
        "study_id": study.study_id,
        "state": study.state,
        "finished": study.trials.finished,
        "wanted": study.trials.wanted,
        "best": study.best.value if study.best else None,
        "best_trial": study.best.trial_id if study.best else None,
        "bytes": size,
        "logs": logs,
        "created_at": study.created_at,
    }


def main() -> int:
    parser = Parser(prog="just studies", description=__doc__)
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    add_format(parser)
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
    rows = [row(*listed) for listed in list_studies(experiments)]
    for damaged in read_studies(experiments)[1]:
        show(f"skipped: {one_line(damaged.error.where)}: {one_line(damaged.error.what)}", error=True)
    empty = f"No studies in {one_line(experiments)} yet: " + f"run `{command('hpo', experiments=experiments)}`."
    show(render(arguments.format, COLUMNS, rows, empty=empty))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
