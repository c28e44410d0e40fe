"""A trial of two processes of which one ends by what it is told: accelerate launch faulty.py RANK FAULT trial.id=..."""

import os
import signal
import sys

from accelerate import Accelerator

from redsm5.errors import NotFiniteError
from redsm5.ranks import Ranks
from redsm5.study.signals import die_with_parent
from redsm5.study.trial import TrialRun, trial_config

FAULTS = {
    "not_finite": NotFiniteError("the loss is nan at step 3"),
    "memory": MemoryError("no room"),
}

die_with_parent()
who, fault, *words = sys.argv[1:]
trial = TrialRun.open(trial_config(words))
with trial.outcome():
    accelerator = Accelerator(cpu=True)
    trial.peers = ranks = Ranks.met()
    trial.update(state="running")
    assert ranks.gathered(ranks.index) == [0, 1]
    assert ranks.of_first(f"from {ranks.index}") == "from 0"
    if ranks.index == int(who):
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FAULTS[fault]
    while True:
        ranks.any(trial.stop.requested)
