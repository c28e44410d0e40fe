"""The output of each benchmark: a table, the ratios of its contenders, and all measured values."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from redsm5.tables import Row, as_table
from redsm5.terminal import Parser, show


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Attributes:
        title: what was measured, as a heading.
        rows: the table, a contender or a figure a row, each value as a person reads it.
        times_ours: what is compared, then each contender: how many times ours it takes. Above 1 ours is ahead.
        measured: all figures, as they were taken.
    """

    title: str
    rows: Sequence[Row]
    times_ours: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: Any = None


def arguments_of(name: str, doc: str | None, **options: Any) -> argparse.ArgumentParser:
    """A parser that knows where the figures are to be kept."""
    parser = Parser(
        prog=f"just bench {name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )
    parser.add_argument("--json", type=Path, help="a file for all figures, for a program")
    return parser


def finish(result: Result, kept: Path | None) -> int:
    """Print the table and keep the figures; the exit code."""
    show(as_table([*result.rows[0]], result.rows))
    if kept:
        kept.write_text(json.dumps(asdict(result), indent=1, default=str) + "\n")
    return 0


def digits(value: float) -> str:
    """A figure for a person: three digits, and no power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
