"""`accelerate launch` of several processes for one trial, which tells in a line how they ended, without a traceback.

Asked to stop, it passes that on and waits for them, and that is no failure: the trial's record says what became of it.
Where one of them dies, it ends the others.
"""

import logging
import os
import sys

from accelerate.commands.launch import main
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from redsm5 import environment
from redsm5.terminal import show

environment.clean(os.environ)  # a scheduler's step adds rank and size to what the driver, or the job file, has set
logging.getLogger("torch").setLevel(logging.CRITICAL)
try:
    main()
except SignalException:
    sys.exit(0)
except ChildFailedError as error:
    rank, failure = error.get_first_failure()
    show(f"process {rank} of the trial ended with exit code {failure.exitcode}", error=True)
    sys.exit(1)
