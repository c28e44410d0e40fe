"""A cleanup that dies at its n-th change of a folder: python cleaner.py EXPERIMENTS N. Without N, it ends."""

import os
import sys
from pathlib import Path
from typing import Any

from redsm5.engine.storage.cleanup import cleanup

DIED = 9


def die_at(count: int) -> None:
    calls = 0

    def dying(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == count:
                os._exit(DIED)
            return real(*args, **kwargs)

        return call

    for name in ("rename", "unlink", "rmdir"):
        setattr(os, name, dying(getattr(os, name)))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        die_at(int(sys.argv[2]))
    cleanup(Path(sys.argv[1]), execute=True, evict=True)
