"""The output of each benchmark: a table, the ratios of its contenders, and all measured values."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from redsm5.engine.tables import Row, as_table
from redsm5.engine.terminal import Parser, show


@dataclass(frozen=True)
class Result:
    """The result of a benchmark.

    Attributes:
        title: what was measured.
        rows: the table, with a row per contender or figure, and values formatted for display.
        times_ours: by quantity and contender, the ratio of its figure to ours. Above 1, ours is better.
        measured: all raw figures.
    """

    title: str
    rows: Sequence[Row]
    times_ours: dict[str, dict[str, float]] = field(default_factory=dict)
    measured: Any = None


def arguments_of(name: str, doc: str | None, **options: Any) -> argparse.ArgumentParser:
    """A parser with the option for the file of figures."""
    parser = Parser(
        prog=f"just bench {name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )
    parser.add_argument("--json", type=Path, help="a file for all figures, for a program")
    return parser


def finish(result: Result, kept: Path | None) -> int:
    """Print the table and save the figures; return the exit code."""
    show(as_table([*result.rows[0]], result.rows))
    if kept:
        kept.write_text(json.dumps(asdict(result), indent=1, default=str) + "\n")
    return 0


def digits(value: float) -> str:
    """A figure for display: three digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
