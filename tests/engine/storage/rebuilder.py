"""Puts back a trial's weights, as `just rebuild` does: python rebuilder.py EXPERIMENTS AGAIN.

Both are of `compactor.make_study`; the first trial's checkpoints in EXPERIMENTS are gone.
"""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

from redsm5.config import compose
from redsm5.engine import paths
from redsm5.engine.study.trial import read_record
from tests.engine.storage.compactor import TRIALS, silent

if __name__ == "__main__":
    experiments, again = map(Path, sys.argv[1:])
    put_back = runpy.run_path("scripts/rebuild.py", run_name="rebuild")["put_back"]
    folder = paths.trial_dir(experiments, TRIALS[0])
    if not list(folder.glob(f"{paths.CHECKPOINTS}/*/{paths.SUMS}")):
        config = compose([f"experiments='{experiments}'"])
        log = SimpleNamespace(info=silent)
        put_back(folder, read_record(folder), config, paths.trial_dir(again, TRIALS[0]), log)
