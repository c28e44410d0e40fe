"""python -m tui [--experiments DIR] [--read-only] [--once]: the terminal app, or its overview printed as plain text."""

import os
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.terminal import Parser, show

from .panels import overview
from .read.reader import Reader
from .read.standing import StandingReader
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
    if not args.once:
        require_terminal()
    if not args.experiments.is_dir():
        raise InputError(
            "no such folder",
            where=str(args.experiments),
            remedy=f"Pass another folder with --experiments, or run `{command('hpo', experiments=args.experiments)}`.",
        )
    if args.once:
        return print_once(args.experiments)

    from .app import TerminalApp  # imported here, since --once needs no Textual

    app = TerminalApp(args.experiments, read_only=args.read_only)
    Thread(target=await_hangup, args=(app.hang_up,), daemon=True).start()
    app.run()
    return app.return_code or 0


def require_terminal() -> None:
    """Raises: InputError: there is no terminal to draw on and to read keys from, nor a browser."""
    if os.environ.get("TEXTUAL_DRIVER"):  # set by `textual serve`
        return
    # Textual draws on standard error.
    for name, stream in (("input", sys.stdin), ("output", sys.stdout), ("error", sys.stderr)):
        if stream is None or not stream.isatty():
            raise InputError(
                f"the terminal app needs a terminal, but standard {name} is none",
                remedy=f"To print the overview as plain text: `{command('tui', '--once')}`.",
            )


def await_hangup(hang_up: Callable[[], None]) -> None:
    """Wait until the terminal is gone, and tell; in a thread of its own, as the app may be waiting to write to it.

    The kernel sends SIGHUP to the leader of the session only. If that is `just`, nobody else hears of it.
    """
    if sys.stdin is None:
        return
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)  # a hangup is always told
    poll.poll()
    hang_up()


def print_once(experiments: Path) -> int:
    """Print the overview."""
    snapshot = Reader(experiments).read()
    study = snapshot.study.study_id if snapshot.study else None
    counted = StorageReader(experiments).look(study, snapshot.trials, ONCE_S)
    standing = StandingReader(experiments).look(snapshot.study, snapshot.trials, ONCE_S)
    show(overview.page(View(snapshot, storage=counted, standing=standing)))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
