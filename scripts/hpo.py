"""Run or continue a study: `just hpo [overrides]`."""

import sys

from redsm5.config import compose
from redsm5.errors import exit_with_message
from redsm5.files import make_private
from redsm5.study.driver import Driver
from redsm5.study.launch import dry_run


def main() -> int:
    make_private()
    config = compose(sys.argv[1:])
    if config.dry_run:
        return dry_run(config)
    Driver(config).run()
    return 0


exit_with_message(main)
