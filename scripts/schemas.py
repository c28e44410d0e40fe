"""Write redsm5/schemas/ from redsm5/engine/records.py and redsm5/reports.py, or compare: `just schemas [--check]`."""

import sys
from pathlib import Path

from redsm5 import reports
from redsm5.engine.terminal import Parser, show

SCHEMAS_DIR = Path(reports.__file__).parent / "schemas"


def differing(wanted: dict[Path, str]) -> list[Path]:
    """The schema files that are missing, out of date or without a model."""
    stale = set(SCHEMAS_DIR.glob("*.json")) - set(wanted)
    return sorted(stale | {path for path, text in wanted.items() if not path.exists() or path.read_text() != text})


def main() -> int:
    parser = Parser(prog="just schemas", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and name the files that differ")
    arguments = parser.parse_args()
    wanted = {SCHEMAS_DIR / f"{name}.json": reports.schema(name) for name in reports.SCHEMAS}
    paths = differing(wanted)
    if arguments.check:
        for path in paths:
            show(f"{path} differs from the models in redsm5: run `just schemas`", error=True)
        return int(bool(paths))
    SCHEMAS_DIR.mkdir(exist_ok=True)
    for path in paths:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
