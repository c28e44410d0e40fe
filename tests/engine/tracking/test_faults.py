"""Whatever becomes of MLflow, every row arrives in it once, and nobody waits: over a real `mlflow server`."""

import functools
import hashlib
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from redsm5.config import compose
from redsm5.engine import files, paths
from redsm5.engine.records import MetricRow, TrialRecord
from redsm5.engine.study.trial import create_trial, read_record, write_record
from redsm5.engine.tracking import shipper as shipper_module
from redsm5.engine.tracking.journal import JournalReader
from redsm5.engine.tracking.shipper import FOUND, LOST, REPORT_FOUND, REPORT_LOST, Shipper, waiting, waiting_bytes
from tests.mlflow_server import FaultProxy, MlflowServer, all_is_well, check_arrived, free_port

STEPS = 2500  # three batches


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and an environment whose retries and asynchronous logging would break our promises."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    monkeypatch.setattr(shipper_module, "LAST_TRIES", 40)


def make_trial(tmp_path: Path, steps: int = STEPS, number: int = 0) -> Path:
    """A trial of a study of the test's own, in training."""
    config = compose([f"experiments={tmp_path / 'e'}", f"study.name={tmp_path.name}"])
    trial_id = create_trial(config, study_id="study-1", number=number).trial_id
    files.make_dir(tmp_path / "e" / "study_study-1")
    folder = paths.trial_dir(tmp_path / "e", trial_id)
    write_rows(folder, 1, steps)
    return folder


def write_rows(folder: Path, first: int, last: int) -> None:
    def row(step: int) -> bytes:
        time = f"2026-01-31T{step // 3600:02d}:{step // 60 % 60:02d}:{step % 60:02d}.{step % 1000:03d}Z"
        trial_id = folder.name.removeprefix("trial_")
        row = MetricRow(trial_id=trial_id, metric="train_loss", step=step, epoch=0, value=1 / step, timestamp=time)
        return row.model_dump_json().encode() + b"\n"

    files.append_durable(folder / paths.METRICS, b"".join(map(row, range(first, last + 1))))


def complete(folder: Path) -> None:
    (folder / paths.REPORT).write_text('{"report_id": "r"}\n')
    record = read_record(folder)
    assert record is not None
    changes = {"state": "completed", "exit_code": 0, "finished_at": "2026-01-31T13:00:00.000Z"}
    write_record(folder, TrialRecord.model_validate(record.model_copy(update=changes).model_dump()))


class Said(list):
    """What a shipper logged."""

    def __call__(self, sentence: str, **facts: object) -> None:
        self.append((sentence, facts))

    @property
    def sentences(self) -> list[str]:
        return [sentence for sentence, _ in self]


def make_shipper(uri: str, *folders: Path) -> tuple[Shipper, Said]:
    said = Said()
    shipper = Shipper(uri, folders[0].parent / "artifacts", said)
    shipper.INTERVAL_S, shipper.BACK_OFF_S = 0.02, 0.005
    for folder in folders:
        shipper.watch(folder)
    return shipper, said


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.005)


def test_a_server_killed_and_restarted_in_mid_shipping(server: MlflowServer, tmp_path: Path) -> None:
    folder = make_trial(tmp_path, steps=20_000)
    shipper, said = make_shipper(server.url, folder)
    shipper.start()
    wait_for(lambda: 3000 <= 20_000 - waiting(folder, server.url) < 15_000)
    server.kill()
    wait_for(lambda: said.sentences == [LOST])
    assert 0 < waiting(folder, server.url) < 20_000
    write_rows(folder, 20_001, 21_000)
    server.start()
    wait_for(lambda: said.sentences == [LOST, FOUND])
    complete(folder)
    assert shipper.close() == 0
    check_arrived(server, folder)


def fails_once(what: str) -> Callable[[str, str, bytes], str]:
    """Every request has this fate the first time that it is made."""
    known: set[str] = set()

    def fault(method: str, path: str, body: bytes) -> str:
        key = hashlib.sha256(f"{method} {path} ".encode() + body).hexdigest()
        if key in known:
            return "pass"
        known.add(key)
        return what

    return fault


@pytest.mark.parametrize(
    "what", ["lose", "500", "404 json", *(pytest.param(w, marks=pytest.mark.long) for w in ("403", "cut", "hang"))]
)
def test_every_single_request_fails_once(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str
) -> None:
    folder = make_trial(tmp_path)
    complete(folder)
    proxy.fault = fails_once(what)
    shipper, said = make_shipper(proxy.url.replace("//", "//me:hunter2@"), folder)
    shipper.start()
    assert shipper.close() == 0
    assert not shipper.failing
    check_arrived(server, folder)
    [run_id] = server.run_ids(folder.name.removeprefix("trial_"))
    run = MlflowClient(server.url).get_run(run_id)
    assert (run.info.status, run.data.tags["state"]) == ("FINISHED", "completed")
    assert run.data.params["study.name"] == tmp_path.name
    [report] = (server.folder / "artifacts").glob(f"*/{run_id}/artifacts/{paths.REPORT}")
    assert report.read_bytes() == (folder / paths.REPORT).read_bytes()
    metrics = [sentence for sentence in said.sentences if sentence in (LOST, FOUND)]
    assert metrics == [LOST, FOUND]
    assert set(said.sentences) == {LOST, FOUND, REPORT_LOST, REPORT_FOUND}
    assert "hunter2" not in str(said) + "".join(capfd.readouterr())
    failed = {line.split()[1].rpartition("2.0")[2] for line in proxy.asked if line.endswith(what)}
    calls = {"/mlflow/experiments/create", "/mlflow/runs/create", "/mlflow/runs/log-batch", "/mlflow/runs/update"}
    assert calls < failed, "the fault was where it was meant to be"
    assert any(path.endswith(paths.REPORT) for path in failed)


def test_a_create_that_a_stalled_server_did_late_leaves_one_run(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The first create_run is given up as lost, the second follows, and the server does both."""
    first, second = threading.Event(), threading.Event()
    folder = make_trial(tmp_path)
    trial_id = folder.name.removeprefix("trial_")

    def fault(method: str, path: str, body: bytes) -> str:
        if path.endswith("runs/create"):
            if not first.is_set():
                first.set()
                second.wait(30)
            else:
                second.set()
                wait_for(lambda: server.run_ids(trial_id))  # the late one is there before this one
        return "pass"

    proxy.fault = fault
    shipper, _ = make_shipper(proxy.url, folder)
    shipper.start()
    assert shipper.close() == 0
    assert len(server.run_ids(trial_id)) == 2
    check_arrived(server, folder)


def test_two_workers_make_one_experiment_and_one_run_a_trial(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # nobody is silent here, and a busy machine is slow
    folders = [make_trial(tmp_path, steps=1200, number=n) for n in range(4)]
    for folder in folders[:2]:
        complete(folder)
    both = threading.Barrier(2)

    def fault(method: str, path: str, body: bytes) -> str:
        if "experiments/create" in path:
            both.wait(30)  # both have looked for the experiment, and found none
        return "pass"

    proxy.fault = fault
    workers = [make_shipper(proxy.url, *folders) for _ in range(2)]
    for worker, _ in workers:
        worker.start()
    assert [worker.close() for worker, _ in workers] == [0, 0]
    assert [said for _, said in workers] == [[], []]
    assert sum("experiments/create" in line for line in proxy.asked) == 2, "they did race"
    assert server.query("SELECT COUNT(*) FROM experiments WHERE name = ?", tmp_path.name) == [(1,)]
    for folder in folders:
        check_arrived(server, folder)
        assert len(server.run_ids(folder.name.removeprefix("trial_"))) == 1


def test_a_trial_that_another_process_ships_is_left_to_it(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is slow
    folder, other = make_trial(tmp_path), make_trial(tmp_path, number=1)
    shipper, said = make_shipper(server.url, folder, other)
    with files.Lock(folder / paths.SHIPPING_LOCK):
        assert shipper._ship_all()
        assert not (folder / paths.SHIPPED).exists()
        check_arrived(server, other)
    assert shipper._ship_all()
    check_arrived(server, folder)
    assert said == []


def test_a_refused_trial_keeps_no_other_waiting(server: MlflowServer, proxy: FaultProxy, tmp_path: Path) -> None:
    folders = [make_trial(tmp_path, steps=1200, number=n) for n in range(3)]
    refused = folders[0].name.removeprefix("trial_").encode()
    proxy.fault = lambda method, path, body: "403" if path.endswith("runs/create") and refused in body else "pass"
    shipper, said = make_shipper(proxy.url, *folders)
    shipper.start()
    wait_for(lambda: not any(waiting(folder, proxy.url) for folder in folders[1:]))
    proxy.fault = all_is_well
    assert shipper.close() == 0
    assert said.sentences == [LOST, FOUND]
    assert said[0][1]["trial"] == folders[0].name
    for folder in folders:
        check_arrived(server, folder)


def test_a_deleted_experiment_is_said_once_and_once_restored_gets_the_rest(
    server: MlflowServer, tmp_path: Path
) -> None:
    folder, late = make_trial(tmp_path), make_trial(tmp_path, number=1)
    shipper, said = make_shipper(server.url, folder)
    assert shipper._ship_all()
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name(tmp_path.name)
    client.delete_experiment(experiment.experiment_id)
    write_rows(folder, STEPS + 1, STEPS + 5)
    shipper.watch(late)
    for _ in range(3):
        assert not shipper._ship_all()
    assert said.sentences == [LOST]
    assert "deleted" in str(said[0][1]["reason"])
    assert waiting(folder, server.url) == 5
    client.restore_experiment(experiment.experiment_id)
    assert shipper._ship_all()
    check_arrived(server, folder)
    check_arrived(server, late)


@pytest.mark.parametrize("hurried", [False, True])
def test_a_hanging_server_holds_up_the_end_for_a_bounded_time(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hurried: bool
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    proxy.fault = lambda *_: "hang"
    shipper, _ = make_shipper(proxy.url, make_trial(tmp_path))
    shipper.PATIENCE_S, shipper.HURRY_S = (60.0, 1.0) if hurried else (1.0, 60.0)
    shipper.start()
    wait_for(lambda: shipper._tracker is not None)
    before = time.monotonic()
    shipper.watch(tmp_path / "e" / "another")
    assert time.monotonic() - before < 0.1, "the driver waits for nothing"
    assert shipper.close(hurried=lambda: hurried) == STEPS
    assert shipper.failing
    assert time.monotonic() - before < 10
    proxy.recover()
    shipper.join()


def test_a_slow_server_that_gets_on_is_waited_for(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is for a server that confirms nothing, not for a long journal."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is slow
    proxy.fault = lambda *_: time.sleep(0.6) or "pass"
    folder = make_trial(tmp_path, steps=12_000)  # of which a request takes 1,000
    shipper, _ = make_shipper(proxy.url, folder)
    shipper.PATIENCE_S = 6.0  # each request takes far less, all of them more
    shipper.start()
    wait_for(lambda: waiting(folder, proxy.url) < 12_000)
    before = time.monotonic()
    assert shipper.close() == 0
    assert time.monotonic() - before > shipper.PATIENCE_S
    check_arrived(server, folder)


class Clock(threading.Event):
    """Notes how long it was to wait, does not, and is set after a while."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) == 9:
            self.set()
        return self.is_set()


def test_the_waits_grow_to_16_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_module, "LAST_TRIES", 1)
    said = Said()
    shipper = Shipper(f"http://127.0.0.1:{free_port()}", tmp_path, said)
    shipper.watch(make_trial(tmp_path))
    shipper._closing = clock = Clock()
    shipper.run()
    assert clock.waits[:9] == [1, 1, 2, 4, 8, 16, 16, 16, 16]
    assert said.sentences == [LOST]


def test_too_much_waiting_is_said_once_and_again_after_it_was_less(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipper_module.WARN_WAITING_BYTES == 100_000_000
    folder = make_trial(tmp_path, steps=1000)
    size = (folder / paths.METRICS).stat().st_size
    monkeypatch.setattr(shipper_module, "WARN_WAITING_BYTES", size)
    shipper, said = make_shipper(proxy.url, folder)
    refuse = functools.partial(setattr, proxy, "fault", lambda *_: "500")
    refuse()
    shipper._ship_all()
    assert said.sentences == [LOST], "not more than that"
    write_rows(folder, 1001, 1001)
    for _ in range(3):
        shipper._ship_all()
    assert [s for s in said.sentences if "MB" in s] == said.sentences[1:]
    assert len(said) == 2
    assert said[1][1] == {"bytes": waiting_bytes(folder, proxy.url)}
    proxy.fault = all_is_well
    shipper._ship_all()
    refuse()
    write_rows(folder, 1002, 2100)
    shipper._ship_all()
    assert ["MB" in s for s in said.sentences] == [False, True, False, False, True]
    proxy.fault = all_is_well
    shipper._ship_all()
    check_arrived(server, folder)


def test_a_long_journal_is_read_piece_by_piece_and_the_first_value_wins(tmp_path: Path) -> None:
    """Whatever the pieces' size, and with a line half written, the reader sees what `read_metrics` sees, once."""
    folder = make_trial(tmp_path, steps=50)
    write_rows(folder, 41, 60)  # 41 to 50 again
    with (folder / paths.METRICS).open("ab") as file:
        file.write(b'{"metric": "half')
    reader = JournalReader(folder)
    rows = []
    while reader.look(7):
        assert reader.look(7), "looking again sees the same"
        rows += reader.piece
        reader.advance()
        assert reader.rows == len(rows)
    assert [row.step for row in rows] == [*range(1, 61)]
    assert all(math.isclose(row.value, 1 / row.step) for row in rows)
    assert reader.bytes == (folder / paths.METRICS).stat().st_size - len(b'{"metric": "half')
