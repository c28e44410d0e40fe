"""Forks processes that each run or continue a study: python server.py SCRATCH.

Everything is imported once, so that a process costs milliseconds. For each line FOLDER on standard input it forks one,
prints {"pid": ..., "threads": {"main": TID, "checkpoint": TID}} and has it wait; the next line lets it go, and when it
has ended, its exit code (or minus the signal) is printed.
"""

import json
import os
import sys
import threading
from pathlib import Path

from redsm5.files import make_private
from redsm5.storage.checkpoint import Saver
from tests.crash import study


def child(config: study.Config, experiments: Path, go: int) -> None:
    saver = Saver()
    saver.submit(lambda: None)  # the thread that saves is there before the study begins
    saver.wait()
    (checkpoint,) = [t for t in threading.enumerate() if t.name.startswith("checkpoint")]
    threads = {"main": threading.get_native_id(), "checkpoint": checkpoint.native_id}
    print(json.dumps({"pid": os.getpid(), "threads": threads}), flush=True)
    os.read(go, 1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    code = study.run(config, experiments, saver)
    os._exit(code)


def main() -> None:
    make_private()
    config = study.warm(Path(sys.argv[1]))
    print("ready", flush=True)
    while line := sys.stdin.readline():
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(theirs)
            try:
                child(config, Path(line.strip()), ours)
            finally:
                os._exit(99)
        os.close(ours)
        sys.stdin.readline()
        os.write(theirs, b"g")
        os.close(theirs)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
