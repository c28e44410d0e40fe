"""What the doctor says of an experiments folder, on real file systems with real faults."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5.doctor import folder
from redsm5.doctor.folder import Mount, local_locks, mount_of
from tests.crash import strace


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB in memory."""
    point = tmp_path / "a disk"
    point.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(point)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def check_elsewhere(check: str, path: Path, *before: str) -> str:
    """A check of the folder in a process of its own: its state and detail."""
    code = f"from pathlib import Path; from redsm5.doctor import folder; f = folder.{check}(Path({str(path)!r})); "
    code += "print(f.state, f.detail, f.remedy)"
    command = [*before, sys.executable, "-S", "-c", code]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=True)
    return done.stdout


def test_a_file_system_in_memory_is_fit_for_all(small_disk: Path) -> None:
    checks = [folder.check_folder, folder.check_space, folder.check_disk, folder.check_rename, folder.check_locks]
    findings = [check(small_disk / "experiments") for check in checks]
    assert [f.state for f in findings] == ["ok"] * 5, findings
    assert "(tmpfs)" in findings[0].detail
    assert not list(small_disk.iterdir())


def test_a_full_disk_is_a_failure_with_its_figures(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 7_600_000)
    found = folder.check_space(small_disk)
    assert found.state == "fail"
    assert "just cleanup" in found.remedy
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={small_disk / 'rest'}", "bs=4k"], capture_output=True
    )  # until it is full
    assert folder.check_disk(small_disk).state == "fail"


def test_a_disk_that_is_read_only_is_a_failure_said_once(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    found = folder.check_folder(small_disk)
    assert (found.state, found.detail) == ("fail", f"cannot write to {small_disk}: Read-only file system")
    assert "--experiments DIR" in found.remedy
    assert folder.where_writable(folder.check_locks, small_disk).state == "note"


def test_a_folder_without_the_permission_to_write_is_a_failure() -> None:
    closed = Path(tempfile.mkdtemp())  # not below tmp_path, which only its owner may enter
    closed.chmod(0o555)
    me = os.geteuid()
    try:
        if me == 0:
            os.seteuid(65534)  # root may write anywhere: another user looks
        found = folder.check_folder(closed)
    finally:
        os.seteuid(me)
        closed.rmdir()
    assert (found.state, found.detail) == ("fail", f"cannot write to {closed}: Permission denied")


def test_a_file_in_the_place_of_the_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("")
    assert folder.check_folder(tmp_path / "e").state == "fail"


@pytest.mark.skipif(strace.MISSING is not None, reason=strace.MISSING or "")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("flock:error=ENOLCK", "no locks: No locks available"),
        ("flock:error=ENOSYS", "no locks: Function not implemented"),
        ("flock:retval=0", "locks do not work between processes: free, then free"),  # as with `nolock`: all succeed
    ],
)
def test_locks_that_do_not_work_are_a_warning_to_run_one_worker(tmp_path: Path, fault: str, words: str) -> None:
    """The kernel's answer to flock, in both processes, is that of a file system without locks."""
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", f"inject={fault}"]
    said = check_elsewhere("check_locks", tmp_path, *traced)
    assert said.startswith(f"warn {words}")
    assert "one worker" in said


@pytest.mark.skipif(strace.MISSING is not None, reason=strace.MISSING or "")
def test_a_disk_whose_fsync_fails_or_takes_long_is_told(tmp_path: Path) -> None:
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e"]
    assert check_elsewhere("check_fsync", tmp_path, *traced, "inject=fsync:error=EIO").startswith("fail fsync fails")
    slow = check_elsewhere("check_fsync", tmp_path, *traced, "inject=fsync:delay_exit=120000")
    assert slow.startswith("warn "), slow


TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:50 / /nfs rw,relatime shared:9 - nfs4 host:/export rw,vers=4.2,local_lock=none,addr=10.0.0.1
41 22 0:51 / /nfs/old\\040one rw - nfs host:/old rw,vers=3,nolock,local_lock=all
42 22 0:52 / /lustre rw - lustre 10.0.0.2@tcp:/l rw,flock,lazystatfs
43 22 0:53 / /lustre/local rw - lustre 10.0.0.2@tcp:/l rw,localflock
44 22 0:54 / /share rw - cifs //host/share rw,nobrl
45 22 0:55 / /ssh rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "option"),
    [
        ("/home/me", "ext4", None),
        ("/nfs/me", "nfs4", None),
        ("/nfs/old one/me", "nfs", "nolock"),
        ("/nfs/older", "nfs4", None),
        ("/lustre/me", "lustre", None),
        ("/lustre/local/me", "lustre", "localflock"),
        ("/share", "cifs", "nobrl"),
        ("/ssh/me", "fuse.sshfs", "fuse.sshfs"),
    ],
)
def test_a_shared_file_system_whose_locks_stay_on_one_machine_is_known(
    path: str, kind: str, option: str | None
) -> None:
    mount = mount_of(Path(path), TABLE)
    assert isinstance(mount, Mount)
    assert mount.kind == kind
    said = local_locks(mount)
    assert said is None if option is None else said is not None and said.endswith(option)


def test_the_mount_of_a_real_folder_is_found(small_disk: Path) -> None:
    mount = mount_of(small_disk)
    assert mount is not None
    assert (mount.point, mount.kind) == (str(small_disk), "tmpfs")
    assert shutil.disk_usage(small_disk).total == 8 << 20
