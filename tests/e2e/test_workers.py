"""Many workers on one study: no trial twice, none lost, one budget, and the study ends at exactly n.

Where a test says so, the workers' trials end as soon as they begin (quick_worker.py): what they do together is real.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import optuna
import psutil
import psycopg
import pytest

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.errors import ConfigError
from redsm5.engine.study.search import open_storage
from tests.crash import strace
from tests.e2e import postgresql
from tests.e2e.conftest import ROOT, environment, records, start, wait_for

CHECK_CONTRACT = ROOT.parent / "shared" / "tools" / "check-contract"


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    if postgresql.MISSING:
        pytest.skip(postgresql.MISSING)
    server = postgresql.Server()
    yield server
    server.remove()


@pytest.fixture
def database(server: postgresql.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a running server, whose password is in PGPASSWORD."""
    monkeypatch.setenv("PGPASSWORD", postgresql.PASSWORD)
    return server.url()


class Worker:
    """A quick worker, once it is ready to look at the study."""

    def __init__(self, *overrides: str, hang: int = 0, before: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.e2e.quick_worker", str(hang), *overrides],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self.wait_for("ready")

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait_for(self, word: str) -> str:
        """The rest of the first line that begins with this word, or has it in its middle."""
        for line in self._output():
            self.lines.append(line)
            if line.startswith(word) or f" {word}" in line:
                return line.partition(word)[2].strip()
        raise AssertionError("".join(self.lines))

    def end(self) -> int:
        self.lines += self._output()
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def trained(self) -> list[int]:
        return [int(line.split()[1]) for line in self.lines if line.startswith("trained ")]

    def said(self) -> str:
        return "".join(self.lines)

    def _output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


def hanging(*study: str) -> Worker:
    """A worker that hangs in its first trial."""
    worker = Worker(*study, hang=1)
    worker.go()
    worker.wait_for("hangs")
    return worker


def optuna_states(overrides: list[str]) -> list[str]:
    """The states of all trials as Optuna's storage has them."""
    storage = open_storage(compose(overrides))
    (study,) = optuna.get_all_study_names(storage)[-1:]
    return [t.state.name for t in optuna.load_study(study_name=study, storage=storage).get_trials()]


def study_here(experiments: Path, *more: str) -> list[str]:
    return [f"experiments={experiments}", *more]


def assert_complete(experiments: Path, trials: int) -> None:
    """Each number has one trial, which is completed; the study's own files say so too."""
    found = records(experiments)
    assert [r["number"] for r in found] == list(range(trials))
    assert {r["state"] for r in found} == {"completed"}
    (folder,) = experiments.glob("study_*")
    study, index = (json.loads((folder / name).read_bytes()) for name in (paths.STUDY, paths.INDEX))
    assert (study["state"], study["trials"]["finished"], study["trials"]["running"]) == ("completed", trials, 0)
    assert sorted(r["trial_id"] for r in index["trials"]) == sorted(r["trial_id"] for r in found)


# ---------------------------------------------------------------------------------------------------------------------
# together


def test_four_workers_on_postgresql_of_which_two_are_killed_finish_each_trial_once(
    tmp_path: Path, database: str
) -> None:
    study = study_here(tmp_path / "e", f"study.storage={database}", "study.trials=24")
    doomed, steady = ([Worker(*study, hang=hang) for _ in range(2)] for hang in (2, 0))
    for worker in [*doomed, *steady]:
        worker.go()
    left = [int(worker.wait_for("hangs")) for worker in doomed]
    ids = {r["number"]: r["trial_id"] for r in records(tmp_path / "e")}
    for worker in doomed:
        worker.kill()
    assert [worker.end() for worker in steady] == [0, 0], steady[0].said() + steady[1].said()
    assert_complete(tmp_path / "e", 24)
    trained = Counter(number for worker in [*doomed, *steady] for number in worker.trained())
    assert trained == Counter(range(24)), "none twice"
    for record in records(tmp_path / "e"):
        assert record["resumes"] == (record["number"] in left)
    assert [r["trial_id"] for r in records(tmp_path / "e") if r["number"] in left] == [ids[n] for n in sorted(left)]
    assert optuna_states(study) == ["COMPLETE"] * 24


def test_three_workers_that_begin_a_study_at_once_make_one(tmp_path: Path) -> None:
    study = study_here(tmp_path / "e", "study.trials=12")
    workers = [Worker(*study) for _ in range(3)]
    for worker in workers:
        worker.go()
    assert [worker.end() for worker in workers] == [0, 0, 0], "".join(worker.said() for worker in workers)
    assert_complete(tmp_path / "e", 12)
    assert Counter(n for worker in workers for n in worker.trained()) == Counter(range(12))
    assert optuna_states(study) == ["COMPLETE"] * 12


# ---------------------------------------------------------------------------------------------------------------------
# a database that does not answer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("redsm5@", "redsm5:hunter22@"), "password authentication failed"),
        (lambda url: url.replace("redsm5@", "nobody:hunter22@"), "password authentication failed"),
        (lambda url: url.replace("/optuna", "/missing"), 'database "missing" does not exist'),
        (lambda url: re.sub(r":\d+/", f":{postgresql.free_port()}/", url), "Connection refused"),
        (lambda url: url.replace("127.0.0.1", "no-such-host.invalid"), "no-such-host.invalid"),
        (lambda url: url.replace("postgresql:", "mysql:"), "driver of this database is not installed: MySQLdb"),
        (lambda url: url.replace("://redsm5", ":redsm5:hunter22"), "not a database URL"),
    ],
    ids=["password", "user", "database", "port", "host", "driver", "url"],
)
def test_a_database_that_cannot_be_opened_is_said_in_one_message_without_the_password(
    tmp_path: Path, database: str, change: Callable[[str], str], words: str
) -> None:
    url = change(database)
    with pytest.raises(ConfigError) as caught:
        open_storage(compose([f"experiments={tmp_path}", f"study.storage='{url}'"]))
    said = str(caught.value)
    assert words in said
    if "URL" not in words:
        assert said.startswith(f"study.storage, {url[: url.index(':')]} at {url.partition('@')[2]}: ")
    assert caught.value.remedy
    assert "hunter22" not in said
    assert postgresql.PASSWORD not in said


def test_a_server_that_goes_away_in_mid_trial_is_waited_for(
    tmp_path: Path, database: str, server: postgresql.Server
) -> None:
    worker = hanging(*study_here(tmp_path / "e", f"study.storage={database}", "study.trials=3"))
    server.stop("immediate")
    worker.process.send_signal(signal.SIGUSR1)
    worker.wait_for("the database does not answer")
    server.start()
    assert worker.end() == 0, worker.said()
    assert_complete(tmp_path / "e", 3)
    assert sorted(worker.trained()) == [0, 1, 2]
    assert "the database answers again" in worker.said()


@pytest.mark.long
def test_a_study_that_waits_for_its_database_can_be_stopped_and_goes_on_later(
    tmp_path: Path, database: str, server: postgresql.Server
) -> None:
    study = study_here(tmp_path / "e", f"study.storage={database}", "study.trials=3")
    worker = hanging(*study)
    server.stop()
    worker.process.send_signal(signal.SIGUSR1)
    worker.wait_for("the database does not answer")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 75, worker.said()
    assert "Traceback" not in worker.said()
    server.start()
    second = Worker(*study)
    second.go()
    assert second.end() == 0, second.said()
    assert_complete(tmp_path / "e", 3)
    assert sorted([*worker.trained(), *second.trained()]) == [0, 1, 2]


@pytest.mark.long
def test_a_server_that_dies_in_the_middle_of_an_operation_ends_the_worker_and_the_next_goes_on(
    tmp_path: Path, database: str, server: postgresql.Server
) -> None:
    """The worker is held in a statement by a lock on its table while the server is killed."""
    study = study_here(tmp_path / "e", f"study.storage={database}", "study.trials=3")
    worker = hanging(*study)
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(database, autocommit=True) as watcher:
        other = psycopg.connect(database)
        other.execute("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE")
        worker.process.send_signal(signal.SIGUSR1)
        wait_for(lambda: (watcher.execute(blocked).fetchone() or [0])[0])
        server.stop("immediate")
    assert worker.end() == 75, worker.said()
    assert "the connection to the study.storage database was lost" in worker.said()
    assert "Traceback" not in worker.said()
    server.start()
    second = Worker(*study)
    second.go()
    assert second.end() == 0, second.said()
    assert_complete(tmp_path / "e", 3)
    assert sorted([*worker.trained(), *second.trained()]) == [0, 1, 2]


# ---------------------------------------------------------------------------------------------------------------------
# other machines, other file systems

OTHER_MACHINE = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", 'hostname other; exec "$@"', "sh")
NO_LOCKS = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK")


@pytest.mark.long
@pytest.mark.skipif(
    subprocess.run([*OTHER_MACHINE, "true"], capture_output=True).returncode != 0, reason="cannot make namespaces"
)
def test_a_trial_of_another_machine_is_waited_for_and_taken_over_once_its_lock_is_free(tmp_path: Path) -> None:
    """The other one has a name and processes of its own, of which only its locks can be seen from here."""
    study = study_here(tmp_path / "e", "study.trials=4")
    other = Worker(*study, hang=1, before=OTHER_MACHINE)
    other.go()
    number = int(other.wait_for("hangs"))
    here = Worker(*study)
    here.go()
    here.wait_for("other workers are running the last trials")
    assert sorted(here.trained()) == [n for n in range(4) if n != number]
    other.kill()
    assert here.end() == 0, here.said()
    assert_complete(tmp_path / "e", 4)
    assert [r["resumes"] for r in records(tmp_path / "e")] == [n == number for n in range(4)]


@pytest.mark.skipif(strace.MISSING is not None, reason=strace.MISSING or "")
def test_where_the_file_system_has_no_locks_a_second_worker_is_refused_and_a_dead_one_is_followed(
    tmp_path: Path,
) -> None:
    study = study_here(tmp_path / "e", "study.trials=3")
    first = Worker(*study, hang=2, before=NO_LOCKS)
    first.go()
    first.wait_for("hangs")
    assert "this file system has no locks: a second worker will be refused" in first.said()
    second = Worker(*study, before=NO_LOCKS)
    second.go()
    assert second.end() == 1, second.said()
    assert "another worker is running this study, and a file system without locks allows only one" in second.said()
    assert "Traceback" not in second.said()

    (victim,) = psutil.Process(first.process.pid).children()
    victim.kill()
    first.end()
    third = Worker(*study, before=NO_LOCKS)
    third.go()
    assert third.end() == 0, third.said()
    assert_complete(tmp_path / "e", 3)
    assert sorted([*first.trained(), *third.trained()]) == [0, 1, 2]
    assert not list((tmp_path / "e").rglob("*.held"))


# ---------------------------------------------------------------------------------------------------------------------
# real trials

CAMPAIGN, BUDGET = 40, 14_000_000
SMALLEST = ["data.posts=60", "model.max_length=48", "train.epochs=1", f"study.trials={CAMPAIGN}"]
SMALLEST += ["study.metric=val_macro_pr_auc", f"retention.max_total_size={BUDGET}"]


def kill_at_work(worker: "subprocess.Popen[str]", experiments: Path) -> list[str]:
    """Kill a worker if it is at a trial that has begun and is not yet evaluated: the trial's id, or nothing."""
    id_of: dict[psutil.Process, str] = {}
    with suppress(psutil.Error):
        for process in psutil.Process(worker.pid).children(recursive=True):
            for word in process.cmdline():
                if word.startswith("trial.id="):
                    id_of[process] = word.removeprefix("trial.id=")
    for process in id_of:  # while it stands still, it stays where it is
        with suppress(psutil.Error):
            process.suspend()
    begun = {r["trial_id"] for r in records(experiments) if r["state"] in ("preparing", "running")}
    at_work = sorted(set(id_of.values()) & begun)
    if at_work:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    for process in id_of:
        with suppress(psutil.Error):
            process.resume()
    return at_work


def follow(worker: "subprocess.Popen[str]", log: Path) -> "subprocess.Popen[str]":
    """The worker, whose output goes to a file as it comes, so that it never waits for a reader."""
    assert worker.stdout is not None
    with log.open("w") as file:
        return subprocess.Popen(["cat"], stdin=worker.stdout, stdout=file, text=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_four_workers_on_postgresql_of_which_two_are_killed_in_mid_trial_keep_one_budget(
    tmp_path: Path, database: str
) -> None:
    """Real trials. The killed workers are not started again: the others take up their trials and end the study."""
    experiments = tmp_path / "e"
    study = study_here(experiments, f"study.storage={database}", *SMALLEST)
    began = time.monotonic()
    workers = [start("hpo.py", *study) for _ in range(4)]
    logs = [tmp_path / f"worker-{n}.log" for n in range(4)]
    followers = [follow(worker, log) for worker, log in zip(workers, logs, strict=True)]
    killed: list[str] = []
    highest = 0
    while any(worker.poll() is None for worker in workers):
        highest = max(highest, sum(files.tree_bytes(f) for f in experiments.glob("trial_*/checkpoints")))
        finished = sum(r["state"] == "completed" for r in records(experiments))
        if len(killed) < 2 and finished >= 8 * (len(killed) + 1):
            killed += kill_at_work(workers[len(killed)], experiments)
        time.sleep(0.05)
    seconds = time.monotonic() - began
    for follower in followers:
        follower.wait()
    said = [log.read_text() for log in logs]
    assert [worker.returncode for worker in workers] == [-9, -9, 0, 0], said
    assert_complete(experiments, CAMPAIGN)
    assert optuna_states(study) == ["COMPLETE"] * CAMPAIGN

    ended = [[int(n) for n in re.findall(r" trial (\d+) completed", text)] for text in said]
    assert Counter(n for numbers in ended for n in numbers) == Counter(range(CAMPAIGN)), "told once each"
    resumed = {r["trial_id"]: r["number"] for r in records(experiments) if r["resumes"]}
    print(
        f"{seconds:.0f} s; trials per worker {[len(numbers) for numbers in ended]}; taken over: "
        f"{sorted(resumed.values())}; at most {highest:,} of {BUDGET:,} bytes"
    )
    assert set(resumed) == set(killed), "the same trials went on elsewhere, and no other was begun again"
    assert highest <= BUDGET
    evicted = [p for p in experiments.glob("trial_*/retention.jsonl") if '"budget: ' in p.read_text()]
    assert evicted, "the budget was never short"
    if CHECK_CONTRACT.exists():
        subprocess.run([str(CHECK_CONTRACT), str(experiments)], check=True)
