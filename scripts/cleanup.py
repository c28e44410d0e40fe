"""Show reclaimable disk space; with --execute, delete it: `just cleanup [--execute [--evict]]`."""

import argparse
import os
from pathlib import Path
from typing import Any

from redsm5.engine import files
from redsm5.engine.errors import InputError, exit_with_message
from redsm5.engine.installed import command
from redsm5.engine.storage.cleanup import KINDS, Found, cleanup
from redsm5.engine.study.registry import read_studies
from redsm5.engine.tables import add_format, as_csv, as_json, as_table
from redsm5.engine.terminal import Parser, one_line, show

COLUMNS = ("kind", "order", "study", "bytes", "path", "reason")


def document(arguments: argparse.Namespace, found: Found) -> dict[str, Any]:
    """The findings and deletions, for programs."""
    names = {study.study_id: study.name for study in read_studies(arguments.experiments)[0]}
    items = [
        {
            **{name: getattr(item, name) for name in COLUMNS},
            "study": names.get(item.study or "", item.study),
            "path": str(item.path),
            "deleted": item.deleted,
        }
        for item in found.items
    ]
    return {
        "experiments": str(arguments.experiments),
        "executed": arguments.execute,
        "evicted": arguments.execute and arguments.evict,
        "items": items,
        "totals": {
            kind: {
                "items": sum(item["kind"] == kind for item in items),
                "bytes": sum(item["bytes"] for item in items if item["kind"] == kind),
                "deleted_bytes": sum(item["bytes"] for item in items if item["kind"] == kind and item["deleted"]),
            }
            for kind in KINDS
        },
        "skipped": [{"path": str(path), "reason": reason} for path, reason in found.skipped],
    }


def text(told: dict[str, Any]) -> str:
    """The same as text for display."""
    lines = (
        [as_table(COLUMNS, told["items"]), ""]
        if told["items"]
        else [f"Nothing to clean up in {one_line(told['experiments'])}."]
    )
    lines += [f"skipped: {one_line(row['path'])}: {one_line(row['reason'])}" for row in told["skipped"]]
    for kind, total in told["totals"].items():
        if total["items"]:
            lines.append(
                f"{kind}: {total['items']} found, {total['bytes']:,} bytes; {total['deleted_bytes']:,} deleted"
            )
    totals = told["totals"]
    if not told["executed"] and totals["litter"]["items"] + totals["orphan"]["items"]:
        execute = command("cleanup", "--execute", experiments=told["experiments"])
        lines.append(f"Nothing was deleted: `{execute}` deletes litter and orphans.")
    if not told["evicted"] and totals["evictable"]["items"]:
        evict = command("cleanup", "--execute", "--evict", experiments=told["experiments"])
        lines.append(f"Evictable checkpoints stay until the budget needs space; `{evict}` deletes them.")
    return "\n".join(lines)


def main() -> int:
    parser = Parser(prog="just cleanup", description=__doc__)
    parser.add_argument("--execute", action="store_true", help="delete litter and orphans")
    parser.add_argument(
        "--evict", action="store_true", help="with --execute: also delete what the budget would evict next"
    )
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    add_format(parser)
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    files.make_private()
    if not experiments.is_dir():
        raise InputError(f"there is no folder {experiments}", remedy="Name the experiments folder with --experiments.")
    told = document(arguments, cleanup(experiments, execute=arguments.execute, evict=arguments.evict))
    if arguments.format == "csv":
        show(as_csv([*COLUMNS, "deleted"], told["items"]))
    else:
        show(as_json(told) if arguments.format == "json" else text(told))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
