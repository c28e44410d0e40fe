"""Check that what a study needs works here: `just doctor [--format json] [--experiments DIR] [--tracking-uri URI]`.

The exit code is 1 if something required does not work, else 0. It must run on a broken installation: it needs only the
standard library, and runs on a Python that is too old for the rest.
"""

import os
import sys
from functools import partial
from pathlib import Path

SYMBOLS = {"ok": "✓", "note": "·", "warn": "!", "fail": "✗"}
if (Path(__file__).resolve().parent.parent / "redsm5").is_dir():  # a checkout, which may not be installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("✗ fail  python      {}.{} is too old: set PYTHON to 3.11 or newer".format(*sys.version_info))

from redsm5.doctor import Finding, examine, folder, services, software  # noqa: E402
from redsm5.engine.files import make_private  # noqa: E402
from redsm5.engine.installed import CHECKOUT  # noqa: E402
from redsm5.engine.surroundings import prepare  # noqa: E402
from redsm5.engine.tables import add_format, add_json, as_csv, as_json  # noqa: E402
from redsm5.engine.terminal import Parser, one_line, show  # noqa: E402


def main() -> int:
    make_private()
    parser = Parser(prog="just doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiments", type=Path, default=Path(os.environ.get("REDSM5_EXPERIMENTS", "experiments")))
    parser.add_argument("--tracking-uri", help="MLflow's address; default: the one that the studies used last")
    add_format(parser)
    add_json(parser)
    arguments = parser.parse_args()
    experiments: Path = arguments.experiments
    found = examine(
        {
            "python": software.check_python,
            "packages": partial(software.check_packages, CHECKOUT),
            "variables": software.check_variables,
            "cuda": software.check_cuda,
            "hub": services.check_hub,
            "mlflow": partial(services.check_mlflow, experiments, arguments.tracking_uri),
            "folder": partial(folder.check_folder, experiments),
            "space": partial(folder.check_space, experiments),
            "disk": partial(folder.where_writable, folder.check_disk, experiments),
            "rename": partial(folder.where_writable, folder.check_rename, experiments),
            "locks": partial(folder.where_writable, folder.check_locks, experiments),
            "containers": software.check_containers,
            "slurm": software.check_slurm,
            **({"just": software.check_just} if CHECKOUT else {}),
        }
    )
    fit = all(finding.state != "fail" for finding in found.values())
    checks = [{"name": name, **vars(finding)} for name, finding in found.items()]
    if arguments.format == "json":
        show(as_json({"ok": fit, "checks": checks}))
    elif arguments.format == "csv":
        show(as_csv([*checks[0]], checks))
    else:
        for name, finding in found.items():
            show(as_line(name, finding))
    return 0 if fit else 1


def as_line(name: str, finding: Finding) -> str:
    """The finding as a line, with a second line for the remedy, if there is one."""
    line = f"{SYMBOLS[finding.state]} {finding.state:<4}  {name:<10}  {one_line(finding.detail)}"
    return f"{line}\n{'':20}{one_line(finding.remedy)}" if finding.remedy and finding.state != "ok" else line


if __name__ == "__main__":
    prepare()
    os._exit(main())  # a check that hangs must not keep the process
