"""data.folds=K: a trial trains K models, one fold after the other, and its score is that of all their predictions."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import (
    all_metrics,
    kill_group,
    mlflow_rows,
    records,
    reports,
    run,
    start,
    trial_at,
    wait_for,
    weights,
    without_what_varies,
)

FOLDS, EACH = 3, 2
FOLDED = ["data.posts=200", "model.max_length=64", f"train.epochs={EACH}", f"data.folds={FOLDS}", "study.name=folds"]
ASHA = [*FOLDED, "study.trials=3", "study.pruner=asha", "study.rungs=folds"]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiments: Path = tmp_path_factory.mktemp("folds") / "once"
    run("hpo.py", *FOLDED, "study.trials=3", f"experiments={experiments}")
    return experiments


def test_the_score_is_that_of_the_last_fold_s_last_epoch(once: Path) -> None:
    for record, metrics in zip(records(once), all_metrics(once), strict=True):
        scores = [value for (metric, _), value in metrics.items() if metric == "val_f1_macro"]
        assert (record["state"], record["epoch"], record["epochs"]) == ("completed", FOLDS * EACH, FOLDS * EACH)
        assert len(scores) == FOLDS * EACH
        last = max(step for metric, step in metrics if metric == "val_f1_macro")
        assert record["best"] == {"epoch": FOLDS * EACH, "value": metrics["val_f1_macro", last]}
        rows = [row for row in mlflow_rows(once)[record["trial_id"]] if row[0] == "val_f1_macro"]
        assert len(rows) == FOLDS * EACH
    for report in reports(once):
        assert report["best_validation_score"] is not None
        assert report["split"] == "test"


def test_a_trial_killed_in_its_second_fold_ends_as_one_that_was_not(once: Path, tmp_path: Path) -> None:
    often = tmp_path / "often"
    for epoch in (EACH, EACH + 1, 2 * EACH):  # between folds, within the second, and before the last
        study = start("hpo.py", *FOLDED, "study.trials=3", f"experiments={often}")
        wait_for(lambda epoch=epoch: trial_at(often, number=0, epoch=epoch))  # type: ignore[misc]
        kill_group(study)
    run("hpo.py", "study.name=folds", f"experiments={often}")
    assert records(often)[0]["resumes"] >= 1
    assert all_metrics(often) == all_metrics(once)
    assert weights(often) == weights(once)
    assert without_what_varies(reports(often)) == without_what_varies(reports(once))


def test_evaluating_and_training_again_give_the_same(once: Path) -> None:
    trial_id = records(once)[0]["trial_id"]
    before = reports(once)[0]
    run("evaluate.py", "--trial-id", trial_id, "--experiments", str(once))
    assert without_what_varies(reports(once)[0]) == without_what_varies(before)
    told = json.loads(
        run("reproduce.py", trial_id, "--json", "--experiments", str(once)).partition("\n{")[2].join(["{", ""])
    )
    assert told["identical"]


def test_rungs_are_folds(once: Path, tmp_path: Path) -> None:
    """A promoted trial has the metrics and weights of one without pauses; one that is not is a prefix of it."""
    paused = tmp_path / "paused"
    run("hpo.py", *ASHA, f"experiments={paused}")
    assert sorted(r["epoch"] for r in records(paused)) == [EACH, EACH, FOLDS * EACH]
    assert "are confirmed" in run("replay.py", "folds", "--experiments", str(paused))
    rows = [json.loads(line) for line in next(paused.glob("study_*/rungs.jsonl")).read_text().splitlines()]
    assert {row["epoch"] for row in rows if row["action"] == "pause"} == {EACH}
    for number, record in enumerate(records(paused)):
        part, whole = all_metrics(paused)[number], all_metrics(once)[number]
        assert part.items() <= whole.items()
        if record["state"] == "completed":
            assert part == whole
            assert weights(paused)[number] == weights(once)[number]
        else:
            assert record["best"] is None, "the score of some folds is no result"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*FOLDED, "data.folds=1"], "data.folds=1"),
        ([*FOLDED, "data.posts=90"], "data.folds=3 is more than some symptoms have posts"),
        ([*FOLDED, "train.patience=1"], "train.patience=1 with data.folds=3"),
        ([*ASHA, "data.folds=null"], "study.rungs=folds, but trials have no folds"),
        ([*ASHA, "study.min_epochs=3"], "study.min_epochs=3 with data.folds=3: no trial could be paused"),
        ([*ASHA, "search.space={train.epochs: {type: int, low: 1, high: 2}}"], "but train.epochs is searched"),
    ],
)
def test_folds_that_cannot_be_are_refused(words: list[str], said: str, tmp_path: Path) -> None:
    output = run("hpo.py", *words, f"experiments={tmp_path / 'e'}", expect=1)
    assert said in output
    assert "Traceback" not in output


def test_a_trial_with_folds_is_given_no_more_epochs(once: Path) -> None:
    trial_id = records(once)[0]["trial_id"]
    output = run("launch.py", f"trial.id={trial_id}", "train.epochs=9", f"experiments={once}", expect=1)
    assert "With folds, train.epochs stays too." in output
