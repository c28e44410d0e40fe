"""python -m tui [--experiments DIR] [--read-only] [--once]: the terminal app, or its overview printed as plain text."""

import os
from collections.abc import Sequence
from pathlib import Path

from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.terminal import Parser, show

from .panels import overview
from .read.reader import Reader
from .read.storage import StorageReader
from .read.view import View

ONCE_S = 0.5  # time for counting bytes before the overview is printed


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="just tui", description="Monitor an experiments folder while studies run.")
    parser.add_argument(
        "--experiments",
        type=Path,
        default=Path(os.environ.get("REDSM5_EXPERIMENTS") or "experiments"),
        metavar="DIR",
        help="the experiments folder (default: %(default)s; environment REDSM5_EXPERIMENTS)",
    )
    parser.add_argument("--once", action="store_true", help="print the overview as plain text and exit")
    parser.add_argument("--read-only", action="store_true", help="disable pause, stop, prune and cleanup")
    args = parser.parse_args(argv)
    if args.once:
        return print_once(args.experiments)

    from .app import TerminalApp  # imported here, since --once needs no Textual

    app = TerminalApp(args.experiments, read_only=args.read_only)
    app.run()
    return app.return_code or 0


def print_once(experiments: Path) -> int:
    """Print the overview.

    Raises:
        InputError: the experiments folder does not exist.
    """
    snapshot = Reader(experiments).read()
    if not snapshot.exists:
        raise InputError(
            "no such folder",
            where=str(experiments),
            remedy=f"Pass another folder with --experiments, or run `{command('hpo', experiments=experiments)}`.",
        )
    study = snapshot.study.study_id if snapshot.study else None
    counted = StorageReader(experiments).look(study, snapshot.trials, ONCE_S)
    show(overview.page(View(snapshot, storage=counted)))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
