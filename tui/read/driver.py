"""Whether a driver runs a study now: its workers share a lock, which the kernel releases when the last one ends."""

import fcntl
import os
from pathlib import Path

from redsm5.engine import paths
from redsm5.engine.records import StudyRecord


def driven(experiments: Path, study: StudyRecord) -> bool:
    """Whether a worker holds the study's lock; if that cannot be told, whether its record says so.

    The lock is not kept: of a study without a worker it is taken and released at once, and nothing is written.
    """
    if study.state == "completed":
        return False
    path = paths.study_dir(experiments, study.study_id) / paths.CLAIMS / paths.WORKERS_LOCK
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return study.state == "running"
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: a mark stands for one (redsm5/engine/files.py)
        return path.with_name(f"{path.name}.held").exists()
    finally:
        os.close(fd)
    return False
