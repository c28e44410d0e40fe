"""Prints rows as a table, as JSON or as CSV.

Nothing is truncated: an id can be copied from a narrow terminal, a pipe or a file, in every format.
"""

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from redsm5.engine.jsonio import dumps, finite
from redsm5.engine.terminal import escaped, one_line

FORMATS = ("table", "json", "csv")
GAP = "  "
COMPUTED = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")  # a spreadsheet takes these for a formula

# What columns and lines call the keys of these names.
SHORT_NAMES = {
    "model_id": "model",
    "criteria_head_type": "head",
    "criteria_pooling": "pooling",
    "criteria_hidden_dim": "hidden",
    "evidence_head_type": "evidence",
    "task_coupling": "coupling",
    "input_format": "format",
    "loss_function": "loss",
    "learning_rate": "lr",
    "batch_size": "batch",
    "accumulation_steps": "accumulate",
}

Row = Mapping[str, str | int | float | None]
"""A row's values by the names of their columns; every row has the same ones in the same order."""


def add_format(parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS) -> None:
    parser.add_argument("--format", choices=formats, default="table", help="how it is printed; default: table")


def as_json(document: Any) -> str:
    """JSON, indented; what is not finite becomes a string, as in our files."""
    return dumps(document, indent=True).decode()


def as_csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """CSV with its header, and an empty cell where there is no value.

    Text that a spreadsheet would compute begins with an apostrophe, which makes it text there; what a terminal obeys is
    escaped, but for the line feeds and tabs of a cell.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue().rstrip("\n")


def as_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns under their names, numbers to the right."""
    cells = [[name.replace("_", " ") for name in columns]] + [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [any(isinstance(row[name], int | float) for row in rows) for name in columns]
    lines = [
        GAP.join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)) for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def render(form: str, columns: Sequence[str], rows: Sequence[Row], *, empty: str) -> str:
    """The rows in one of FORMATS; as a table, `empty` says what to do where there are none."""
    if form == "json":
        return as_json(rows)
    if form == "csv":
        return as_csv(columns, rows)
    return as_table(columns, rows) if rows else empty


def duration_text(seconds: float) -> str:
    """A duration for a person: 2 h 05 min, 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if isinstance(value, float) else one_line(value)


def _csv_cell(value: str | float | None) -> Any:
    if not isinstance(value, str):
        return finite(value)
    return f"'{escaped(value)}" if value.startswith(COMPUTED) else escaped(value)
