"""python -m tui [--experiments DIR] [--once]: the terminal app, or its overview printed as plain text."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from redsm5.errors import InputError, exit_with_message
from tui import text
from tui.reader import Reader


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="just tui", description="Look at an experiments folder while it is written.")
    parser.add_argument(
        "--experiments",
        type=Path,
        default=Path(os.environ.get("REDSM5_EXPERIMENTS") or "experiments"),
        metavar="DIR",
        help="the experiments folder (default: %(default)s; environment REDSM5_EXPERIMENTS)",
    )
    parser.add_argument("--once", action="store_true", help="print the overview as plain text and exit")
    args = parser.parse_args(argv)
    if args.once:
        return print_once(args.experiments)

    from tui.app import TerminalApp  # only here: --once needs no Textual

    app = TerminalApp(args.experiments)
    app.run()
    return app.return_code or 0


def print_once(experiments: Path) -> int:
    """Print the overview.

    Raises:
        InputError: there is no such folder.
    """
    snapshot = Reader(experiments).read()
    if not snapshot.exists:
        raise InputError(
            "no such folder", where=str(experiments), remedy="Name another with --experiments, or run `just hpo`."
        )
    shown = text.overview(snapshot, datetime.now(UTC))
    encoding = sys.stdout.encoding or "utf-8"
    print(shown.encode(encoding, errors="replace").decode(encoding))  # a terminal without UTF-8 gets "?"
    return 0


if __name__ == "__main__":
    exit_with_message(main)
