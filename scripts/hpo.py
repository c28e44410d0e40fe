"""Run or continue a study: `just hpo [overrides]`."""

import sys

from redsm5.config import compose
from redsm5.errors import exit_with_message
from redsm5.files import make_private
from redsm5.study.driver import Driver


def main() -> int:
    make_private()
    Driver(compose(sys.argv[1:])).run()
    return 0


exit_with_message(main)
