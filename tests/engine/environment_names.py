"""Which environment variables accelerate, transformers, torch and MLflow read, by their installed sources.

    .venv/bin/python -m tests.engine.environment_names >tests/engine/environment_names.txt

renews the list that tests/engine/test_environment.py holds against them. A line: name, what becomes of it, who reads
it. What is read under a name that is put together at run time has its pattern in redsm5/engine/environment.py.
"""

import importlib.util
import re
from pathlib import Path

from redsm5.engine.environment import became

LIST = Path(__file__).with_suffix(".txt")
# Tests, what the packages are built and released with, and the Trainer, which is not used here.
ELSEWHERE = re.compile(
    r"/(tests?|testing|test_utils|_strobelight|cli|commands/(?!launch)|benchmark)/|testing_utils|/testing_\w+\.py"
    r"|/trainer\w*\.py|/training_args\w*\.py|integration_utils\.py|_ci_|/dependency_versions"
)
_NAME = r"""[rbf]?["']([A-Za-z_][A-Za-z0-9_]*)["']"""
READ = re.compile(
    rf"""(?:
        environ(?:\.\w+)?\s*[\[(]\s*{_NAME}                            # os.environ["X"], .get("X"), .pop("X")
      | [eE]nv\w*\(\s*\[((?:\s*["'][A-Z0-9_]+["']\s*,?)+)\]           # get_int_from_env(["X", "Y"])
      | [eE]nv(?:_\w+|[A-Z]\w*)?\s*\(\s*(?:\w+=)?\[?\s*{_NAME}           # getenv("X"), parse_flag_from_env("X")
      | EnvironmentVariable\(\s*{_NAME}                                # MLflow's
      | env_name_\w+\s*=\s*\[?\s*{_NAME}                              # torch's configuration modules
    )""",
    re.VERBOSE,
)
ASKED = re.compile(rf"{_NAME}\s+(?:not\s+)?in\s+(?:os\.)?environ")  # "X" in os.environ


def names_of(package: str) -> set[str]:
    """The names that a package's Python files read."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    found = set()
    for path in root.rglob("*.py"):
        if ELSEWHERE.search("/" + str(path.relative_to(root))) or b"env" not in (content := path.read_bytes()):
            continue
        text = content.decode(errors="replace")
        asked = ASKED.findall(text) if b"in os.environ" in content or b"in environ" in content else []
        groups = [group for match in READ.finditer(text) for group in match.groups() if group]
        found.update(word for group in (*groups, *asked) for word in re.findall(r"\w+", group))
    return {name for name in found if re.fullmatch(r"_?[A-Z][A-Z0-9_]{2,}", name)}


def rows() -> list[str]:
    """A line for each variable."""
    readers: dict[str, list[str]] = {}
    for package in ("accelerate", "transformers", "torch", "mlflow"):
        for name in names_of(package):
            readers.setdefault(name, []).append(package)
    return [f"{name} {became(name)} {' '.join(readers[name])}" for name in sorted(readers)]


if __name__ == "__main__":
    print("\n".join(rows()))
