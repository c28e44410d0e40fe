"""A power failure at any moment loses nothing that was said to be durable, and the study resumes.

SIGKILL leaves what the process wrote in the system's cache; a power failure does not. All calls of a study on its
folder are recorded, and after each of them the folder is made what the disk would hold: what was not synced is dropped,
or some of it kept. From every such state the study must go on and end as one that was never interrupted. The same for
the calls of a study that goes on after a kill, when what the killed process wrote may still be in the cache alone.
"""

import os
import random
import shutil
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.crash import power, strace
from tests.crash.conftest import Server
from tests.crash.strace import Call
from tests.crash.study import check_resume_points, outcome

STRIDE = 16
EVERYTHING = ["-s", "1000000", "-e", "trace=%file,%desc"]

pytestmark = [
    pytest.mark.skipif(strace.MISSING is not None, reason=str(strace.MISSING)),
    pytest.mark.timeout(3600),
]


def record(server: Server, folder: Path, kill: Call | None = None) -> list[Call]:
    """The calls of a study in this folder, with their data; with `kill`, until one of its threads would do such a call
    that often.
    """
    output = folder.with_suffix(".strace")
    threads = server.fork(folder)
    inject = [] if kill is None else ["-e", f"inject={kill.name}:signal=SIGKILL:when={kill.n}"]
    tracer = strace.attach(threads, output, *EVERYTHING, *inject)
    assert server.go() == (-9 if kill else 0)
    tracer.wait()
    return strace.calls(output, threads, folder)


def recover(
    server: Server, expected: Mapping[str, Any], images: Iterable[tuple[str, dict[str, bytes | None]]], folder: Path
) -> int:
    """From each image the study must end as expected; how many it were."""
    done, wrong = 0, []
    for after, image in images:
        shutil.rmtree(folder, ignore_errors=True)
        power.write_image(image, folder)
        try:
            check_resume_points(folder)
            assert server.finish(folder) == 0, "the next run did not end"
            assert outcome(folder) == expected, "what it left differs"
        except Exception as error:  # it may leave what cannot even be read
            wrong.append(f"after {after}:\n    {[*str(error).splitlines(), ''][0] or repr(error)}")
        done += 1
    assert not wrong, f"{len(wrong)} of {done}:\n" + "\n".join(wrong)
    return done


@pytest.fixture(scope="module")
def recorded(server: Server) -> list[Call]:
    return record(server, server.scratch / "failed")


def test_the_model_of_the_disk_holds_what_the_disk_holds(server: Server, recorded: list[Call]) -> None:
    """Without a failure, the calls give the very bytes that stand in the folder."""
    folder = server.scratch / "failed"
    disk = power.Disk(folder)
    for call in recorded:
        disk.apply(call)
    found = {}
    for parent, names, files in os.walk(folder):
        below = os.path.relpath(parent, folder) + "/"
        found |= {f"{below}{name}".removeprefix("./"): None for name in names}
        found |= {f"{below}{name}".removeprefix("./"): (Path(parent) / name).read_bytes() for name in files}
    disk.sync()
    assert disk.image() == found


def test_a_power_failure_changes_no_result(server: Server, expected: Mapping[str, Any], recorded: list[Call]) -> None:
    images = power.failures(recorded, server.scratch / "failed", random.Random(5))
    assert recover(server, expected, islice(images, 0, None, STRIDE), server.scratch / "failed") > 20


@pytest.mark.long
def test_a_power_failure_after_every_call_changes_no_result(
    server: Server, expected: Mapping[str, Any], recorded: list[Call]
) -> None:
    images = power.failures(recorded, server.scratch / "failed", random.Random(7))
    print(f"{recover(server, expected, images, server.scratch / 'failed')} states of the disk")


def failures_after(server: Server, kill: Call) -> list[tuple[str, dict[str, bytes | None]]]:
    """The states after a power failure while a study goes on that was killed: what the killed process wrote and did not
    sync is in the folder that the next one finds, and not on the disk.
    """
    folder = server.scratch / "failed"
    shutil.rmtree(folder)
    before = record(server, folder, kill)
    images = list(power.failures([*before, *record(server, folder)], folder, random.Random(3)))
    return images[len(list(power.failures(before, folder, random.Random(3)))) :]


def test_a_power_failure_after_a_kill_changes_no_result(
    server: Server, expected: Mapping[str, Any], recorded: list[Call]
) -> None:
    """Killed before rows of the journal were synced: the next process finds them, and must not take them for safe."""
    kill = next(c for c in recorded if c.name == "fsync" and "metrics.jsonl" in c.what and c.n > 40)
    images = failures_after(server, kill)
    assert recover(server, expected, images[::STRIDE], server.scratch / "failed") > 10


@pytest.mark.long
def test_a_power_failure_after_each_of_many_kills_changes_no_result(
    server: Server, expected: Mapping[str, Any], recorded: list[Call]
) -> None:
    syncs = [c for c in recorded if c.name in ("fsync", "rename")]
    done = 0
    for kill in random.Random(11).sample(syncs, 12):
        done += recover(server, expected, failures_after(server, kill)[::4], server.scratch / "failed")
    print(f"{done} states of the disk after 12 kills")
