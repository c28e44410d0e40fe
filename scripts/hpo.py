"""Run or resume a study: `just hpo [overrides]`."""

import sys

from redsm5.engine.errors import exit_with_message
from redsm5.engine.files import make_private
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.launch import dry_run
from redsm5.engine.study.registry import study_config
from redsm5.engine.study.standby import Standby


def main() -> int:
    make_private()
    config, kept = study_config(sys.argv[1:])
    if config.dry_run:
        return dry_run(config)
    with Standby(config) as standby:  # its imports take seconds, while the driver checks the data
        Driver(config, kept).run(standby)
    return 0


if __name__ == "__main__":
    exit_with_message(main)
