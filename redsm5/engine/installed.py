"""Where the files that are no Python modules lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
LAUNCH_DIR = ROOT / "accelerate_configs"
