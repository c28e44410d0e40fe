"""A search with study.pruner=asha: trials pause at rungs and go on from their checkpoints, whatever is killed."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SMALL, all_metrics, mlflow_rows, records, reports, run, start, wait_for, weights
from tests.e2e.test_campaign import campaign
from tests.e2e.test_examples import kill_all

SCRIPT = ["study.script=examples/arrays/train.py", "study.space=examples/arrays/space.yaml"]
ASHA = [*SCRIPT, "study.pruner=asha", "study.trials=9", "train.epochs=9", "study.name=asha"]


def rungs(experiments: Path) -> list[dict[str, Any]]:
    """The decisions, but for their times."""
    path = next(experiments.glob("study_*/rungs.jsonl"))
    return [{k: v for k, v in json.loads(line).items() if k != "timestamp"} for line in path.read_text().splitlines()]


def outcome(experiments: Path) -> list[tuple[Any, ...]]:
    return [(r["number"], r["state"], r["epoch"], r["rung"], r["best"], r["parameters"]) for r in records(experiments)]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was left alone."""
    experiments: Path = tmp_path_factory.mktemp("asha") / "once"
    run("hpo.py", *ASHA, f"experiments={experiments}")
    return experiments


def test_trials_pause_are_promoted_and_end(once: Path) -> None:
    trained = [r["epoch"] for r in records(once)]
    assert sorted(trained, reverse=True)[:3] == [9, 3, 3]
    assert sorted(trained)[:6] == [1] * 6
    assert {r["state"] for r in records(once)} == {"completed", "pruned"}
    study = json.loads(next(once.glob("study_*/study.json")).read_bytes())
    assert study["trials"] == {"wanted": 9, "finished": 9, "running": 0, "paused": 0}
    events = [json.loads(line) for line in next(once.glob("study_*/events.jsonl")).read_text().splitlines()]
    told = [event["message"] for event in events if event["state"] == "pruned"]
    assert len(told) == 8
    assert all(" of " in message and "after epoch" in message for message in told)
    assert [event["state"] for event in events].count("paused") == 9 + 3
    for record in records(once):
        rows = mlflow_rows(once)[record["trial_id"]]
        assert sum(metric == "val_loss" for metric, *_ in rows) == record["epoch"]


def test_every_decision_is_confirmed(once: Path, tmp_path: Path) -> None:
    assert "decisions of study asha are confirmed" in run("replay.py", "asha", "--experiments", str(once))
    confirmed = tmp_path / "confirmed"
    shutil.copytree(once, confirmed)
    run("hpo.py", "study.name=asha", "study.confirm.top=2", "study.confirm.repeats=2", f"experiments={confirmed}")
    assert any(r["confirms"] for r in records(confirmed)), "its repeats have the numbers of what they repeat"
    assert "decisions of study asha are confirmed" in run("replay.py", "asha", "--experiments", str(confirmed))
    other = tmp_path / "other"
    run("hpo.py", *SCRIPT, "study.trials=1", "train.epochs=1", f"experiments={other}")
    assert "promotes no trials" in run("replay.py", "--experiments", str(other), expect=1)


def test_a_promoted_trial_is_what_it_would_have_been_without_pauses(tmp_path: Path) -> None:
    """And one that is not promoted is a prefix of it, though the learning rate falls over all four epochs."""
    paused, plain = tmp_path / "paused", tmp_path / "plain"
    words = [*SMALL, "study.trials=3"]
    run("hpo.py", *words, "study.pruner=asha", "study.reduction_factor=2", f"experiments={paused}")
    run("hpo.py", *words, f"experiments={plain}")
    trained = [r["epoch"] for r in records(paused)]
    assert (min(trained), max(trained)) == (1, 4)
    for number, twin in enumerate(records(paused)):
        assert twin["parameters"] == records(plain)[number]["parameters"]
        part, whole = all_metrics(paused)[number], all_metrics(plain)[number]
        assert part.items() <= whole.items()
        if twin["state"] == "completed":
            assert part == whole
            assert weights(paused)[number] == weights(plain)[number]
            told = [{**reports(folder)[number], "config": None} for folder in (paused, plain)]  # its pruner differs
            assert told[0] == told[1]


def test_a_search_that_is_killed_makes_the_same_decisions(once: Path, tmp_path: Path) -> None:
    often = tmp_path / "often"
    for state, count in (("paused", 2), ("paused", 4), ("completed", 1)):
        study = start("hpo.py", *ASHA, f"experiments={often}")

        def has_come(state: str = state, count: int = count, study: "subprocess.Popen[str]" = study) -> bool:
            return study.poll() is not None or sum(r["state"] == state for r in records(often)) >= count

        wait_for(has_come)
        kill_all(study, often)
    run("hpo.py", "study.name=asha", f"experiments={often}")
    assert rungs(often) == rungs(once)
    assert outcome(often) == outcome(once)
    assert all_metrics(often) == all_metrics(once)
    assert weights(often) == weights(once)


def test_what_is_evicted_is_trained_again_to_the_same_result(once: Path, tmp_path: Path) -> None:
    """A budget that holds few of the paused trials costs time, and no result."""
    tight = tmp_path / "tight"
    output = run("hpo.py", *ASHA, f"experiments={tight}", "retention.max_total_size=3020000")
    assert rungs(tight) == rungs(once)
    assert outcome(tight) == outcome(once)
    assert all_metrics(tight) == all_metrics(once)
    assert "its checkpoint was evicted" in output
    assert any(r["repeated_seconds"] > 0 for r in records(tight))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study.reduction_factor=1"], "study.reduction_factor=1"),
        (["study.min_epochs=9"], "no trial could be paused before its end"),
        (["study.min_epochs=0"], "study.min_epochs=0"),
        (["study.brackets=3"], "only 2 rungs, after 1, 3 of 9 epochs"),
    ],
)
def test_a_search_without_rungs_is_refused(words: list[str], said: str, tmp_path: Path) -> None:
    output = run("hpo.py", *ASHA, *words, f"experiments={tmp_path / 'e'}", expect=1)
    assert said in output
    assert "Traceback" not in output
    assert not (tmp_path / "e").exists()


def test_two_workers_draw_exactly_as_many_trials(tmp_path: Path) -> None:
    experiments = tmp_path / "e"
    run("hpo.py", *ASHA, "workers=2", f"experiments={experiments}")
    assert [r["number"] for r in records(experiments)] == list(range(9))
    assert {r["state"] for r in records(experiments)} == {"completed", "pruned"}
    run("replay.py", "--experiments", str(experiments))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_fifty_kills_over_searches(once: Path, tmp_path: Path) -> None:
    assert campaign(tmp_path, once, kills=50, seed=6, words=ASHA) >= 1
    for folder in tmp_path.iterdir():
        assert rungs(folder) == rungs(once)
