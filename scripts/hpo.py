"""Run or resume a study: `just hpo [overrides]`."""

import sys

from redsm5.engine.errors import exit_with_message
from redsm5.engine.files import make_private
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.launch import dry_run
from redsm5.engine.study.registry import study_config
from redsm5.engine.study.standby import Standby
from redsm5.task import task_of


def main() -> int:
    make_private()
    task, words = task_of(sys.argv[1:])
    config, kept = study_config(task.spec, words)
    if config.dry_run:
        return dry_run(task, config)
    with Standby(config) as standby:  # its imports take seconds, while the driver checks the data
        Driver(task, config, kept).run(standby)
    return 0


if __name__ == "__main__":
    exit_with_message(main)
