"""Run or resume a study: `just hpo [overrides]`; with `workers=4`, by four workers on this machine.

just hpo                                        a small study on synthetic posts
just hpo study.name=night study.trials=100      a study of a name of its own, with the small model
just hpo study.name=night                       resumes it, with its own configuration
just hpo workers=4, or workers=auto             several trials at a time; workers_per_gpu=2 of them on each GPU
"""

import sys
from pathlib import Path

from redsm5.engine.errors import exit_with_message
from redsm5.engine.files import make_private
from redsm5.engine.study import workers
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.launch import dry_run
from redsm5.engine.study.registry import study_config
from redsm5.engine.study.standby import Standby
from redsm5.engine.terminal import help_asked
from redsm5.task import task_of


def main() -> int:
    if help_asked(sys.argv[1:], "just hpo", __doc__):
        return 0
    make_private()
    asked, words = workers.asked_for(sys.argv[1:])
    task, words = task_of(words)
    config, kept = study_config(task.spec, words)
    if config.dry_run:
        return dry_run(task, config)
    if dealt := workers.shares(asked, config):
        return workers.supervise(config, [sys.executable, str(Path(__file__).absolute()), *words], dealt)
    with Standby(config) as standby:  # its imports take seconds, while the driver checks the data
        Driver(task, config, kept).run(standby)
    return 0


if __name__ == "__main__":
    exit_with_message(main)
