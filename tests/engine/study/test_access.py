"""A study whose token expires: refused before it has begun, waited for after; with a real driver and no training."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from redsm5.config import Config, compose
from redsm5.engine import paths
from redsm5.engine.documents import now
from redsm5.engine.errors import ConfigError, HubAccessError, HubError, Interrupted
from redsm5.engine.records import Best, ErrorRecord, TrialRecord
from redsm5.engine.study.driver import Driver
from redsm5.engine.study.trial import read_record, write_record
from redsm5.task import ReDSM5
from tests.hub_server import Fault, HubServer

BERT, TOKEN = "lab/bert", "hf_good"
LOOK = rf"HEAD /{BERT}/resolve"
Outcome = Callable[[TrialRecord], TrialRecord]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with a gated model, to which this process has access."""
    server = HubServer()
    server.take_over(monkeypatch, tmp_path / "home")
    server.add("model", BERT, {"config.json": b"{}"}, gated=True)
    server.tokens, server.granted = {TOKEN}, {TOKEN}
    (tmp_path / "home").mkdir()
    Path(constants.HF_TOKEN_PATH).write_text(TOKEN)
    monkeypatch.setenv("REDSM5_HUB_POLL_S", "0.01")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield server
    for number, handler in handlers.items():
        signal.signal(number, handler)
    server.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return compose(["model=bert_base", f"model.model_id={BERT}", "data.posts=60", f"experiments={tmp_path / 'e'}"])


def completed(record: TrialRecord) -> TrialRecord:
    best = Best(epoch=1, value=0.5)
    return record.model_copy(update={"state": "completed", "exit_code": 0, "best": best, "finished_at": now()})


def denied(record: TrialRecord) -> TrialRecord:
    error = ErrorRecord(kind="hub_access", message="the token has expired\n  log in")
    return record.model_copy(update={"state": "interrupted", "exit_code": 1, "error": error})


def run_trial(driver: Driver, monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome | None) -> TrialRecord:
    """Run the driver's next trial, whose process ends so at its first start, its second, ...; None: it is killed before
    it has written anything. How the trial stands then.
    """
    left = list(outcomes)

    def train(self: Driver, number: int, trial_id: str, folder: Path, seconds: float) -> bool:
        before = read_record(folder)
        assert before is not None
        started = {"started_at": before.started_at or now(), "resumes": before.resumes + bool(before.started_at)}
        if outcome := left.pop(0):
            write_record(folder, outcome(before.model_copy(update={"error": None, "state": "preparing", **started})))
        return False

    monkeypatch.setattr(Driver, "_train", train)
    claimed = driver._next_trial()
    assert claimed is not None
    claim, number, trial_id = claimed
    try:
        driver._run_trial(number, trial_id)
    finally:
        claim.release()
    record = read_record(paths.trial_dir(driver.experiments, trial_id))
    assert record is not None
    assert not left
    return record


def state(driver: Driver) -> str:
    return str(json.loads((driver.folder / paths.STUDY).read_bytes())["state"])


def warnings(driver: Driver) -> list[dict[str, str]]:
    lines = (driver.folder / paths.LOGS / "log.jsonl").read_text().splitlines()
    return [line["context"] for line in map(json.loads, lines) if "paused" in line["message"]]


def test_a_study_that_has_no_access_is_refused_before_anything_is_written(server: HubServer, config: Config) -> None:
    server.tokens.clear()
    with pytest.raises(HubAccessError, match=r"model lab/bert .* expired or been revoked") as caught:
        Driver(ReDSM5(), config)
    assert caught.value.exit_code == 1
    assert not Path(config.experiments).exists()


def test_each_model_of_the_search_space_is_looked_at(server: HubServer, tmp_path: Path) -> None:
    space = "search.space={model.model_id:{type:categorical,choices:[tiny,lab/bert,lab/gone]}}"
    with pytest.raises(HubError, match="model lab/gone at revision main: there is no such repository"):
        Driver(ReDSM5(), compose(["data.posts=60", space, f"experiments={tmp_path / 'e'}"]))
    assert len(server.asked(LOOK)) == 1


def test_a_token_that_expires_pauses_the_study_which_goes_on_with_the_same_trial(
    server: HubServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(ReDSM5(), config)
    assert run_trial(driver, monkeypatch, completed).state == "completed"
    seen = []

    def answer(line: str) -> Fault | None:
        seen.append(state(driver))
        return Fault(LOOK, status=401) if len(seen) <= 3 else None

    monkeypatch.setattr(server, "take_fault", answer)
    record = run_trial(driver, monkeypatch, denied, denied, completed)
    assert (record.number, record.state, record.resumes) == (1, "completed", 2)
    assert seen == ["paused"] * 5  # three looks in vain, and one before each of the two starts
    assert state(driver) == "running"
    assert [t.state.name for t in driver.optuna.get_trials()] == ["COMPLETE", "COMPLETE"]
    reasons = [context["reason"] for context in warnings(driver)]
    assert reasons[0] == "the token has expired\n  log in"
    assert "hf auth login" in reasons[1]
    assert len(reasons) == 3, "the same reason is said once a pause"


def test_a_signal_ends_the_wait_at_once(server: HubServer, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(ReDSM5(), config)
    run_trial(driver, monkeypatch, completed)
    monkeypatch.setenv("REDSM5_HUB_POLL_S", "3600")

    def denied_and_stopped(record: TrialRecord) -> TrialRecord:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        return denied(record)

    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted) as caught:
        run_trial(driver, monkeypatch, denied_and_stopped)
    assert caught.value.exit_code == 75
    assert state(driver) == "paused"


def test_a_first_trial_without_access_is_refused_with_the_remedy(
    server: HubServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(ReDSM5(), config)
    with pytest.raises(ConfigError, match="log in") as caught:
        run_trial(driver, monkeypatch, denied)
    assert caught.value.exit_code == 1


def test_what_is_gone_from_the_hub_is_not_waited_for(
    server: HubServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(ReDSM5(), config)
    run_trial(driver, monkeypatch, completed)
    server.repos.clear()
    with pytest.raises(HubError, match="no such repository"):
        run_trial(driver, monkeypatch, denied)


def test_a_driver_that_finds_its_study_begun_waits_too(
    server: HubServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Driver(ReDSM5(), config)
    run_trial(first, monkeypatch, completed)
    server.faults.append(Fault(LOOK, times=3, status=403, headers={"X-Error-Code": "GatedRepo"}))
    driver = Driver(ReDSM5(), config)
    assert state(driver) == "running"
    assert "accept its terms" in warnings(driver)[0]["reason"]
    assert driver.data.counts["posts"] == 60
    assert run_trial(driver, monkeypatch, completed).number == 1


def test_a_trial_that_does_not_even_start_is_no_case_of_access(
    server: HubServer, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed, after a pause, before it has touched its record, which must not speak of the time before."""
    driver = Driver(ReDSM5(), config)
    run_trial(driver, monkeypatch, completed)
    looks = len(server.asked(LOOK))
    record = run_trial(driver, monkeypatch, denied, None, None, None)
    assert record.error is not None
    assert (record.state, record.error.kind) == ("failed", "killed")
    assert len(server.asked(LOOK)) == looks + 1
