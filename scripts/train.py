"""Train one trial whose folder exists: accelerate launch scripts/train.py trial.id=UUID experiments=DIR.

`just train` and `just hpo` make the folder and launch this. The whole story of a trial is in redsm5/train.py.
"""

import sys

from redsm5.engine.session import run
from redsm5.train import SPEC, main

if __name__ == "__main__":
    run(main, sys.argv[1:], SPEC)
