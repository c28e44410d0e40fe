"""`accelerate launch` of several processes for one trial; a failure is reported in one line, without a traceback.

A request to stop is passed on to the processes, and their exit is then no failure: the trial's record has the outcome.
If one of them dies, the others are terminated.
"""

import logging
import os
import sys

from accelerate.commands.launch import main
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from redsm5.engine import environment
from redsm5.engine.terminal import show

if __name__ == "__main__":
    environment.clean(os.environ)  # also the rank and size that a scheduler's step has added
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    try:
        main()
    except SignalException:
        sys.exit(0)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        show(f"process {rank} of the trial ended with exit code {failure.exitcode}", error=True)
        sys.exit(1)
