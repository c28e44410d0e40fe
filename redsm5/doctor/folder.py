"""Checks of the experiments folder's disk: free space, speed, and what the storage guarantees depend on."""

import fcntl
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redsm5.doctor import Finding
from redsm5.engine import files
from redsm5.engine.installed import command
from redsm5.engine.surroundings import open_to_all

LOW_PERCENT, LOW_BYTES = 10.0, 100_000_000_000  # below both, trials are refused (redsm5/engine/storage/budget.py)
PROBE_BYTES, PIECE_BYTES = 64 << 20, 8 << 20
WRITE_S = 3.0  # the most time spent on writing; on a slow disk less is written
SLOW_BYTES_PER_S = 20e6  # a state of BERT-base, 1.3 GB, would take more than a minute
SLOW_FSYNC_S = 0.1
FSYNCS = 20
CHILD_S = 5.0
ELSEWHERE = "Choose another experiments folder: --experiments DIR, or REDSM5_EXPERIMENTS."
ONE_WORKER = "Run one worker at a time here, or put the experiments folder on a file system with locks."

# Network file systems, with the mount options that make locks local to each machine.
_LOCAL_LOCKS = {
    "nfs": r"nolock|local_lock=(all|flock)",
    "nfs4": r"local_lock=(all|flock)",
    "lustre": r"localflock|noflock",
    "cifs": r"nobrl|nolock",
    "smb3": r"nobrl|nolock",
}
_NO_SHARED_LOCKS = {"fuse.sshfs", "9p", "ncpfs", "afs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse"}

_TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("held")
    else:
        print("free")
"""


@dataclass(frozen=True)
class Mount:
    """A file system's mount point, its type as the kernel names it, and its options, including those of
    the superblock.
    """

    point: str
    kind: str
    options: str


def nearest_folder(experiments: Path) -> Path:
    """The experiments folder, or its nearest existing parent: the doctor does not create it."""
    folder = experiments.resolve()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


@contextmanager
def scratch(experiments: Path) -> Iterator[Path]:
    """A temporary folder on the file system of the experiments.

    Raises:
        OSError: nothing can be written there.
    """
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=nearest_folder(experiments)) as folder:
        yield Path(folder)


def check_folder(experiments: Path) -> Finding:
    """Whether files can be created in the experiments folder."""
    folder = nearest_folder(experiments)
    if experiments.exists() and not experiments.is_dir():
        return Finding("fail", f"{experiments} is a file", ELSEWHERE)
    try:
        with scratch(experiments) as probe:
            files.write_durable(probe / "file", b"x")
    except OSError as error:
        return Finding("fail", f"cannot write to {folder}: {error.strerror}", f"Make it writable for you. {ELSEWHERE}")
    mount = mount_of(folder)
    if folder == experiments.resolve() and (remedy := open_to_all(experiments)):
        return Finding("warn", f"all users of this machine can write to {folder}", remedy)
    note = "" if folder == experiments.resolve() else f", of {experiments}, which the first study makes"
    return Finding("ok", f"{folder}{note}" + (f" ({mount.kind})" if mount else ""))


def where_writable(check: Callable[[Path], Finding], experiments: Path) -> Finding:
    """The check's finding; a note if no file can be created, for which `check_folder` gives the reason."""
    try:
        with scratch(experiments):
            pass
    except OSError:
        return Finding("note", "not checked, since nothing can be written there")
    return check(experiments)


def check_space(experiments: Path) -> Finding:
    """Whether the disk is too full for a trial under the default retention."""
    usage = shutil.disk_usage(nearest_folder(experiments))
    if not usage.total:
        return Finding("note", "the file system does not report its size")
    percent = 100 * usage.free / usage.total
    detail = f"{usage.free / 1e9:,.1f} GB of {usage.total / 1e9:,.1f} GB free ({percent:.0f} %)"
    if percent < LOW_PERCENT and usage.free < LOW_BYTES:
        shows = f"`{command('cleanup', experiments=experiments)}` shows reclaimable files"
        remedy = f"Free disk space ({shows}), or lower retention.min_free_disk_percent."
        return Finding("fail", f"{detail}; under {LOW_PERCENT:g} % no trial is started", remedy)
    return Finding("ok", detail)


def check_disk(experiments: Path) -> Finding:
    """How fast large files, such as checkpoints, become durable, and how long a line of a journal takes."""
    latency = check_fsync(experiments)
    speed = check_speed(experiments)
    worse = max(latency, speed, key=lambda finding: ("ok", "warn", "fail").index(finding.state))
    return Finding(worse.state, f"{speed.detail}; {latency.detail}", worse.remedy)


def check_speed(experiments: Path) -> Finding:
    """How fast large files become durable."""
    folder = nearest_folder(experiments)
    size = min(PROBE_BYTES, shutil.disk_usage(folder).free // 10)
    piece, written, began = os.urandom(PIECE_BYTES), 0, time.monotonic()
    try:
        with scratch(experiments) as probe, (probe / "file").open("wb", buffering=0) as file:
            while written < size and time.monotonic() - began < WRITE_S:
                written += file.write(piece[: size - written])
                os.fsync(file.fileno())
            seconds = max(time.monotonic() - began, 1e-9)
    except OSError as error:
        return Finding("fail", f"cannot write: {error.strerror}", ELSEWHERE)
    if written == 0:
        return Finding("fail", "the disk is full", ELSEWHERE)
    detail = f"{written / seconds / 1e6:,.0f} MB/s to the disk ({written / 1e6:.0f} MB written, fsync included)"
    if written / seconds < SLOW_BYTES_PER_S:
        return Finding("warn", detail, f"Saving will block training. {ELSEWHERE}")
    return Finding("ok", detail)


def check_fsync(experiments: Path) -> Finding:
    """How long a line of a journal takes to become durable."""
    latencies = []
    try:
        with scratch(experiments) as probe, (probe / "file").open("ab", buffering=0) as file:
            for _ in range(FSYNCS):
                file.write(b"x" * 512)
                began = time.monotonic()
                os.fsync(file.fileno())
                latencies.append(time.monotonic() - began)
            files.fsync_dir(probe)
    except OSError as error:
        return Finding("fail", f"fsync fails: {error.strerror}", f"Saved files may be lost. {ELSEWHERE}")
    median = statistics.median(latencies)
    detail = f"{1000 * median:.2f} ms per journal line (median of {FSYNCS}, at most {1000 * max(latencies):.1f} ms)"
    if median > SLOW_FSYNC_S:
        return Finding("warn", detail, f"Each write to a journal waits that long. {ELSEWHERE}")
    return Finding("ok", detail)


def check_rename(experiments: Path) -> Finding:
    """Whether files are replaced atomically while a reader has the old one open."""
    try:
        with scratch(experiments) as probe:
            files.write_atomic(probe / "file", b"old")
            with (probe / "file").open("rb") as reader:
                files.write_atomic(probe / "file", b"new")
                whole = (reader.read(), (probe / "file").read_bytes(), os.listdir(probe)) == (b"old", b"new", ["file"])
    except OSError as error:
        return Finding("fail", f"a file cannot replace another: {error.strerror}", ELSEWHERE)
    if not whole:
        return Finding("fail", "replacing a file is visible to its readers half-way", ELSEWHERE)
    return Finding("ok", "files are replaced atomically")


def check_locks(experiments: Path) -> Finding:
    """Whether a lock of one process excludes another and is released when the process exits; on a shared file system,
    also whether the mount options make locks local to this machine.
    """
    try:
        with scratch(experiments) as probe:
            path = probe / "lock"
            with path.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                while_held = _seen_by_another(path)
            afterwards = _seen_by_another(path)
    except OSError as error:
        return Finding("warn", f"no locks: {error.strerror}", ONE_WORKER)
    if (while_held, afterwards) != ("held", "free"):
        return Finding("warn", f"locks do not work between processes: {while_held}, then {afterwards}", ONE_WORKER)
    mount = mount_of(nearest_folder(experiments))
    if mount and (local := local_locks(mount)):
        return Finding("warn", f"locks work on this machine only: {local}", ONE_WORKER.replace("worker", "machine"))
    return Finding("ok", "locks work between processes" + (f" ({mount.kind})" if mount else ""))


def _seen_by_another(path: Path) -> str:
    """The state of the lock as a second process sees it: "held", "free", or its error.

    Raises:
        OSError: the second process took too long.
    """
    command = [sys.executable, "-I", "-S", "-c", _TRY_LOCK, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S)
    except subprocess.TimeoutExpired:
        raise TimeoutError(None, "a second process does not answer") from None
    return done.stdout.strip() or (done.stderr.strip().splitlines() or ["nothing"])[-1]


# ---------------------------------------------------------------------------------------------------------------------
# mounts


def mount_of(folder: Path, table: str | None = None) -> Mount | None:
    """The mount that a folder is on, from /proc/self/mountinfo (Linux); None if there is no such table."""
    if table is None:
        try:
            table = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return None
    best = None
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        *_, point, options = left.split()[:6]
        kind, *rest = right.split()
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), point)
        if folder.is_relative_to(point) and (best is None or len(point) >= len(best.point)):
            best = Mount(point, kind, ",".join([options, *rest[1:]]))
    return best


def local_locks(mount: Mount) -> str | None:
    """Why locks on this mount do not exclude other machines that share it; None if they do, or if it is not shared."""
    if mount.kind in _NO_SHARED_LOCKS:
        return f"{mount.point} is {mount.kind}"
    pattern = _LOCAL_LOCKS.get(mount.kind)
    option = next((o for o in mount.options.split(",") if pattern and re.fullmatch(pattern, o)), None)
    return option and f"{mount.point} is {mount.kind}, mounted with {option}"
