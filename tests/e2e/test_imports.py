"""Who imports the datasets library: whoever reads tables with it, and nobody else, a driver or a trial least of all."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from redsm5.data.synthesize import write_csvs
from tests.e2e.conftest import ROOT, environment, records

SMALL = ["study.trials=1", "train.epochs=1", "model.max_length=64"]
# Stands before the library, writes down who imports it, and gives the library itself.
NOTING = """
import os, sys
with open(os.environ["NOTES"], "a") as notes:
    notes.write(os.path.basename(sys.argv[0]) + "\\n")
sys.path.remove(os.path.dirname(os.path.dirname(__file__)))
del sys.modules["datasets"]
import datasets
"""


def imports_of(script: str) -> str:
    """The import statements of a script."""
    found = ast.parse((ROOT / "scripts" / script).read_text()).body
    return "\n".join(ast.unparse(node) for node in found if isinstance(node, ast.Import | ast.ImportFrom))


@pytest.mark.parametrize(
    "code", ["import redsm5.data", "import redsm5.task, redsm5.engine.study.driver", "hpo.py", "launch.py", "train.py"]
)
def test_to_import_our_modules_imports_no_datasets(code: str) -> None:
    code = imports_of(code) if code.endswith(".py") else code
    code += "\nimport sys; assert 'redsm5.data' in sys.modules and 'datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)


@pytest.mark.parametrize("source", ["csv", "dataset"])
def test_a_study_imports_it_once_where_it_reads_tables_and_its_trials_never(source: str, tmp_path: Path) -> None:
    (tmp_path / "noting" / "datasets").mkdir(parents=True)
    (tmp_path / "noting" / "datasets" / "__init__.py").write_text(NOTING)
    write_csvs(tmp_path, 90, 42)
    where = f"data.dir={tmp_path}" if source == "csv" else f"data.path={tmp_path / 'tables'}"
    if source == "dataset":
        for name in ("posts", "annotations"):
            table = Dataset.from_csv(str(tmp_path / f"redsm5_{name}.csv"), cache_dir=str(tmp_path / "scratch"))
            table.save_to_disk(tmp_path / "tables" / name)
    notes = tmp_path / "notes"
    subprocess.run(
        [sys.executable, "scripts/hpo.py", *SMALL, f"data={source}", where, f"experiments={tmp_path / 'e'}"],
        cwd=ROOT,
        env={
            **environment(),
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "noting"), os.environ.get("PYTHONPATH", "")]),
            "NOTES": str(notes),
            "REDSM5_CACHE": str(tmp_path / "cache"),
        },
        check=True,
        capture_output=True,
        timeout=280,
    )
    assert [record["state"] for record in records(tmp_path / "e")] == ["completed"]
    assert (notes.read_text().split() if notes.exists() else []) == ([] if source == "csv" else ["hpo.py"])
