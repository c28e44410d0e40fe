"""Forks processes that each run or continue a study: python server.py SCRATCH.

Everything is imported once, so that a process costs milliseconds. For each line FOLDER on standard input it forks one,
prints {"pid": ..., "threads": {"main": TID, "checkpoint": TID}} and has it wait; the next line lets it go, and when it
has ended, its exit code (or minus the signal) is printed.
"""

import json
import multiprocessing
import os
import sys
import threading
from multiprocessing.synchronize import Semaphore
from pathlib import Path

from redsm5.engine.files import make_private
from redsm5.engine.spec import StudySpec
from tests.crash import study


def child(config: StudySpec, experiments: Path, go: Semaphore) -> None:
    saver = study.OneThread()
    saver.submit(lambda: None)  # the thread that saves is there before the study begins
    saver.wait()
    (checkpoint,) = [t for t in threading.enumerate() if t.name.startswith("checkpoint")]
    threads = {"main": threading.get_native_id(), "checkpoint": checkpoint.native_id}
    print(json.dumps({"pid": os.getpid(), "threads": threads}), flush=True)
    # No call on a file: such a one, begun before strace came, would be counted in some runs only.
    assert go.acquire(timeout=600), "nobody waits for this process any more"
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    code = study.run(config, experiments, saver)
    os._exit(code)


def main() -> None:
    make_private()
    config = study.warm(Path(sys.argv[1]))
    go = multiprocessing.get_context("fork").Semaphore(0)
    print("ready", flush=True)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            try:
                child(config, Path(line.strip()), go)
            finally:
                os._exit(99)
        sys.stdin.readline()
        go.release()
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
