"""To import a module does no work: no thread, no process group, no CUDA context, no signal handler, no file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOOK = """
import importlib.util, os, pkgutil, signal, sys, threading
from pathlib import Path

root, before = Path(sys.argv[1]), {s: signal.getsignal(s) for s in signal.valid_signals()}
sys.path.insert(0, str(root))

def modules(name):
    package = importlib.import_module(name)
    yield name
    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(found.name)
        yield found.name

def scripts():
    for path in sorted(root.glob("scripts/*.py")):
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        yield f"scripts/{path.name}"

def of_python(thread):
    return thread is not threading.main_thread()

def look(name):
    found = [f"thread {t.name}" for t in threading.enumerate() if of_python(t)]
    found += [f"signal {s.name}" for s, was in before.items() if signal.getsignal(s) != was]
    if torch := sys.modules.get("torch"):
        found += ["a process group"] * torch.distributed.is_initialized() + ["CUDA"] * torch.cuda.is_initialized()
    found += [f"file {p}" for p in Path.cwd().rglob("*")]
    if found:
        sys.exit(f"{name}: {', '.join(found)}")

count = 0
for source in sys.argv[2:]:
    for name in scripts() if source == "scripts" else modules(source):
        look(name)
        count += 1
print(count)
"""


@pytest.mark.parametrize("source", ["redsm5", "tui", "scripts"])
def test_to_import_a_module_does_no_work(source: str, tmp_path: Path) -> None:
    empty, caches = tmp_path / "empty", tmp_path / "caches"
    empty.mkdir()
    places = {name: str(empty) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME")}
    # What libraries keep for themselves when they are imported: a list of fonts, a folder for compiled kernels.
    places |= {name: str(caches) for name in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")}
    environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LOOK, str(ROOT), source]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    files = [*(ROOT / source).rglob("*.py")] if source != "scripts" else [*(ROOT / source).glob("*.py")]
    assert int(done.stdout.split()[-1]) == len(files)
