"""A study that is stopped, or told of an error, at any system call on its folder ends as one that was not.

Each run forks a process with everything imported and has strace wait for one call of one thread: there the process is
killed, or the call fails. Then the same study is run again, without strace: it must end, and leave what an
uninterrupted one leaves, every metric once. All calls that change something are taken with `just test-long`; one in
STRIDE, another one every time in turn, with `just test`.
"""

import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.crash import strace
from tests.crash.conftest import Server, serving
from tests.crash.strace import Call
from tests.crash.study import check_resume_points, outcome

FAULTS = {"kill": "signal=SIGKILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
MAY_LACK_ROOM = ("openat", "write", "fsync", "rename", "mkdir")
STRIDE = 16
ATTEMPTS = 3

pytestmark = [
    pytest.mark.skipif(strace.MISSING is not None, reason=str(strace.MISSING)),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def recorded(server: Server) -> list[Call]:
    """All calls of an uninterrupted study on its folder."""
    return calls_of(server)


def calls_of(server: Server) -> list[Call]:
    folder, output = server.scratch / "recorded", server.scratch / "recorded.strace"
    threads = server.fork(folder)
    tracer = strace.attach(threads, output, "-e", "trace=%file,%desc")
    assert server.go() == 0
    tracer.wait()
    return strace.calls(output, threads, folder)


class AnotherCall(Exception):
    """The fault fired at another call than the one that was meant."""


def inject(server: Server, call: Call, fault: str, experiments: Path) -> int:
    """Run the study with this fault at this call, and see that it happened there; the exit code."""
    output = experiments.with_suffix(".strace")
    threads = server.fork(experiments)
    thread = {call.thread: threads[call.thread]}
    options = ["-e", f"trace={call.name}", "-e", f"inject={call.name}:{FAULTS[fault]}:when={call.n}"]
    tracer = strace.attach(thread, output, *options)
    code = server.go()
    tracer.wait()
    hit = strace.calls(output, thread, experiments)
    fired = [c for c in hit if c.n == call.n]
    if [c.what for c in fired] != [call.what]:
        raise AnotherCall(f"it fired at {[c.what for c in fired]}")
    if fault == "kill":
        assert code == -9, f"the kill did not happen: {call}"
    else:
        assert "(INJECTED)" in fired[0].line, f"the error did not happen: {call}"
    return code


def sweep(server: Server, expected: Mapping[str, Any], calls: Iterator[Call], fault: str) -> int:
    """Each call once, with the fault; how many it were."""
    done, failures = 0, []
    for call in calls:
        experiments = server.scratch / "swept"
        for attempt in range(ATTEMPTS):
            shutil.rmtree(experiments, ignore_errors=True)
            try:
                code = inject(server, call, fault, experiments)
                assert code in ((-9,) if fault == "kill" else (0, 3)), f"it ended with code {code}"
                check_resume_points(experiments)
                assert server.finish(experiments) == 0, "the next run did not end"
                assert outcome(experiments) == expected, "what it left differs"
                break
            except AnotherCall as error:  # the process did one call more or less than when it was recorded
                if attempt == ATTEMPTS - 1:
                    failures.append(f"{call}\n    {error}")
            except Exception as error:  # it may leave what cannot even be read
                failures.append(f"{call}\n    {[*str(error).splitlines(), ''][0] or repr(error)}")
                break
        done += 1
    shutil.rmtree(experiments, ignore_errors=True)
    assert not failures, f"{len(failures)} of {done} with {fault}:\n" + "\n".join(failures)
    return done


def of_interest(calls: list[Call], fault: str) -> list[Call]:
    """A kill at a call that changes nothing leaves what a kill at the next one leaves that does."""
    return [c for c in calls if c.changes and (fault != "ENOSPC" or c.name in MAY_LACK_ROOM)]


def test_the_calls_are_the_same_in_each_run_and_of_all_kinds(server: Server, recorded: list[Call]) -> None:
    again, output = server.scratch / "again", server.scratch / "again.strace"
    threads = server.fork(again)
    tracer = strace.attach(threads, output, "-e", "trace=%file,%desc")
    assert server.go() == 0
    tracer.wait()
    names = [str(call) for call in recorded]
    assert [str(call) for call in strace.calls(output, threads, again)] == names
    assert {c.thread for c in recorded if c.changes} == {"main", "checkpoint"}
    assert {c.name for c in recorded if c.changes} >= {
        "openat",
        "write",
        "fsync",
        "rename",
        "mkdir",
        "unlink",
        "rmdir",
    }
    subjects = " ".join(c.what for c in recorded if c.changes)
    for part in ("optuna.journal", "budget.json", "metrics.jsonl", "retention.jsonl", "events.jsonl", "trial.json"):
        assert part in subjects


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_a_system_call_changes_no_result(
    server: Server, expected: Mapping[str, Any], recorded: list[Call], fault: str
) -> None:
    first = list(FAULTS).index(fault) * STRIDE // len(FAULTS)
    assert sweep(server, expected, islice(of_interest(recorded, fault), first, None, STRIDE), fault) > 20


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_system_call_changes_no_result(
    server: Server, expected: Mapping[str, Any], recorded: list[Call], fault: str
) -> None:
    done = sweep(server, expected, iter(of_interest(recorded, fault)), fault)
    print(f"{fault}: {done} of {done} system calls")


def test_a_fault_in_a_script_s_study_changes_no_result() -> None:
    """The same for examples/digits, whose calls differ only in the training: some of them."""
    with serving("digits") as server:
        sweep_script(server, STRIDE * len(FAULTS))


@pytest.mark.long
def test_a_fault_at_every_system_call_of_a_script_s_study_changes_no_result() -> None:
    with serving("digits") as server:
        sweep_script(server, 1)


def sweep_script(server: Server, stride: int) -> None:
    recorded = calls_of(server)
    assert server.finish(server.scratch / "uninterrupted") == 0
    expected = outcome(server.scratch / "uninterrupted")
    assert [trial["record"]["state"] for trial in expected["trials"]] == ["pruned", "completed", "completed"]
    for fault in FAULTS:
        done = sweep(server, expected, islice(of_interest(recorded, fault), 0, None, stride), fault)
        print(f"{fault}: {done} system calls")


@pytest.mark.long
def test_a_read_that_fails_changes_no_result(server: Server, expected: Mapping[str, Any], recorded: list[Call]) -> None:
    sweep(server, expected, islice((c for c in recorded if c.reads), 0, None, 4), "EIO")
