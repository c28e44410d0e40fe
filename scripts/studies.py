"""List the studies: `just studies [--experiments DIR] [--format table|json|csv]`."""

import os
from contextlib import suppress
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.records import StudyIndex, StudyRecord
from redsm5.engine.study.registry import list_studies, read_studies
from redsm5.engine.tables import Row, add_format, duration_text, render
from redsm5.engine.terminal import Parser, one_line, show
from redsm5.engine.timeline import TimeLeft, time_left

LEFT = ("seconds_left", "seconds_left_low", "seconds_left_high")
COLUMNS: tuple[str, ...] = ("name", "study_id", "state", "finished", "wanted", "best", "best_trial", "bytes", "logs")
COLUMNS += (*LEFT, "created_at")


def row(study: StudyRecord, size: int, logs: int, left: TimeLeft | None) -> Row:
    """A study as a row. `bytes`: size of its checkpoints; `logs`: size of its own logs and its trials'; `seconds_left`:
    what it still takes, running or once it is resumed.
    """
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
        **dict(zip(LEFT, (round(seconds, 1) for seconds in left[:3]) if left else (None,) * 3, strict=True)),
        "created_at": study.created_at,
    }


def _left(experiments: Path, study: StudyRecord) -> TimeLeft | None:
    """The time left of a study, from its index; None if that cannot be read."""
    with suppress(InputError):
        index = load(paths.study_dir(experiments, study.study_id) / paths.INDEX, StudyIndex)
        return time_left(study, index.trials if index else [])
    return None


def _shown(row: Row, name: str) -> str | float | None:
    seconds = row[name]
    return duration_text(seconds) if name == LEFT[0] and isinstance(seconds, float) else seconds


def main() -> int:
    parser = Parser(prog="just studies", description=__doc__)
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    add_format(parser)
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
    rows = [row(*listed, _left(experiments, listed[0])) for listed in list_studies(experiments)]
    for damaged in read_studies(experiments)[1]:
        show(f"skipped: {one_line(damaged.error.where)}: {one_line(damaged.error.what)}", error=True)
    empty = f"No studies in {one_line(experiments)} yet: " + f"run `{command('hpo', experiments=experiments)}`."
    columns = COLUMNS
    if arguments.format == "table":
        columns = tuple(name for name in COLUMNS if name not in LEFT[1:])
        rows = [{name: _shown(each, name) for name in columns} for each in rows]
    show(render(arguments.format, columns, rows, empty=empty))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
