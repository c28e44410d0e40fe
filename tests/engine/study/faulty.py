"""A trial of two processes of which one ends by what it is told: accelerate launch faulty.py RANK FAULT trial.id=..."""

import os
import signal
import sys

from accelerate import Accelerator

from redsm5.config import Config
from redsm5.engine.distributed import ProcessGroup
from redsm5.engine.errors import NotFiniteError
from redsm5.engine.study.resuming import trial_config
from redsm5.engine.study.signals import die_with_parent
from redsm5.engine.study.trial_run import TrialRun

FAULTS = {
    "not_finite": NotFiniteError("the loss is nan at step 3"),
    "memory": MemoryError("no room"),
}

die_with_parent()
who, fault, *words = sys.argv[1:]
trial = TrialRun.open(trial_config(Config, words))
with trial.outcome():
    accelerator = Accelerator(cpu=True)
    trial.peers = group = ProcessGroup.current()
    trial.update(state="running")
    assert group.gathered(group.rank) == [0, 1]
    assert group.of_first(f"from {group.rank}") == "from 0"
    if group.rank == int(who):
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FAULTS[fault]
    while True:
        group.any(trial.stop.requested)
