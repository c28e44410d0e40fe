"""A study's summary: the best by validation whatever the test says, every trial told, what is damaged named."""

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from redsm5 import reports
from redsm5.engine import paths
from redsm5.engine.records import StudyRecord
from redsm5.engine.study.ids import find_study
from redsm5.engine.study.registry import Scoreboard
from redsm5.evaluation.summary import write_summary
from redsm5.reports import StudySummary
from tests.evaluation.conftest import (
    STUDY,
    TIME,
    MakeTrial,
    Page,
    check_self_contained,
    id_of,
    json_of,
    metrics,
    report_of,
    study_of,
    trial_of,
    write_study,
)
from tui.read.reader import Reader

EVIL = "x</table><script>alert(1)</script>$\\frac{"


T = [id_of(number) for number in range(6)]


RETENTION = (
    f'{{"timestamp":"{TIME}","action":"keep","checkpoint":"epoch-0001","epoch":1,"step":9,'
    '"score":0.1,"bytes":5000,"reason":"last 1"}\n'
)


@pytest.fixture
def experiments(tmp_path: Path, make_trial: MakeTrial) -> Path:
    """Six trials: 1 is best on validation, 0 on the test split; 2 repeats 1; 3 is pruned, 4 failed, 5 runs."""
    trials = [
        trial_of(
            T[0],
            0,
            best={"epoch": 3, "value": 0.5},
            started_at=TIME,
            finished_at="2026-01-31T12:01:30.000Z",
            parameters={"train.learning_rate": 2e-5, "train.loss_function": "bce"},
        ),
        trial_of(T[1], 1, best={"epoch": 3, "value": 0.7}, resumes=2),
        trial_of(T[2], 2, best={"epoch": 3, "value": 0.7}, duplicate_of=T[1]),
        trial_of(T[3], 3, state="pruned", best={"epoch": 1, "value": 0.9}),
        trial_of(T[4], 4, state="failed", error={"kind": "not_finite", "message": "the loss is nan"}),
        trial_of(T[5], 5, state="running", best={"epoch": 1, "value": 0.95}),
    ]
    for trial, test in zip(trials, (0.99, 0.4, None, None, None, None), strict=True):
        report = report_of(trial.trial_id, test_metrics=metrics(test)) if test else None
        folder = make_trial(trial.trial_id, record=trial, report=report)
        (folder / paths.RETENTION).write_text(RETENTION)
    (tmp_path / f"trial_{T[1]}" / paths.REPORT_PAGE).write_text("a page")
    write_study(tmp_path, study_of(), trials[:5])  # the index does not know the last one yet
    return tmp_path


def summarized(experiments: Path) -> StudySummary:
    return write_summary(experiments, find_study(experiments, None))


def test_the_best_is_chosen_by_validation_although_the_test_split_prefers_another(experiments: Path) -> None:
    summary = summarized(experiments)
    assert summary.best is not None
    assert (summary.best.trial_id, summary.best.number, summary.best.value) == (T[1], 1, 0.7)
    assert summary.best.chosen_by == "validation"
    assert summary.best.test_metrics is not None
    assert summary.best.test_metrics.criteria_matching.f1_macro == 0.4
    assert summary.best.report == f"trial_{T[1]}/evaluation_report.json"
    assert "never used to choose" in summary.note


def test_every_trial_is_told_best_first(experiments: Path) -> None:
    summary = summarized(experiments)
    rows = {row.trial_id: row for row in summary.trials}
    assert list(rows) == [T[1], T[2], T[0], T[5], T[3], T[4]]
    assert summary.counts == {"completed": 3, "pruned": 1, "failed": 1, "running": 1}
    assert (rows[T[0]].seconds, rows[T[0]].test_f1_macro, rows[T[1]].resumes) == (90.0, 0.99, 2)
    assert (rows[T[2]].duplicate_of, rows[T[2]].report, rows[T[2]].test_f1_macro) == (T[1], rows[T[1]].report, 0.4)
    assert (rows[T[4]].error, rows[T[4]].value, rows[T[4]].report) == ("not_finite", None, None)
    assert summary.parameter_importance["train.learning_rate"].trials == 2  # a repetition says nothing new
    assert summary.storage.model_dump() == {
        "now": 0,
        "highest": 30_000,
        "written": 30_000,
        "keep_all": 30_000,
        "budget": 10_000_000,
    }
    assert summary.problems == []


def test_both_files_say_the_same_and_the_json_satisfies_its_schema(experiments: Path) -> None:
    summary = summarized(experiments)
    folder = paths.study_dir(experiments, STUDY)
    document = json_of(folder / "summary.json")
    jsonschema.validate(document, json.loads(reports.schema("study_summary")))
    assert StudySummary.model_validate(document) == summary
    page = check_self_contained((folder / "summary.html").read_text())
    assert "Chosen by validation; test scores are shown, never used to choose." in page.text
    for words in (
        "Study night",
        "6 of 9 trials started: 3 completed, 1 running, 1 pruned, 1 failed",
        "1 completed 0.700 0.400",
        "2 completed duplicate of trial 1 0.700",
        "4 failed not_finite –",
        "fewer than 10 completed trials have it",
        "If every checkpoint had been kept: 30.0 kB",
    ):
        assert words in page.text
    titles = [attrs["aria-labelledby"] for tag, attrs in page.elements if tag == "svg"]
    assert titles == [f"{name}{of}-title" for name in ("history", "parallel", "storage") for of in ("", "-narrow")]
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_links_lead_to_the_trials_pages_or_to_their_reports(experiments: Path) -> None:
    summarized(experiments)
    folder = paths.study_dir(experiments, STUDY)
    links = {v for v in Page((folder / "summary.html").read_text()).values("href") if not v.startswith("data:")}
    assert links == {f"../trial_{T[1]}/evaluation_report.html", f"../trial_{T[0]}/evaluation_report.json"}
    assert all((folder / link).exists() for link in links)


def test_a_report_on_the_validation_split_is_no_test_score(experiments: Path) -> None:
    (experiments / f"trial_{T[1]}" / paths.REPORT).write_bytes(report_of(T[1], split="validation").to_json())
    summary = summarized(experiments)
    assert summary.best is not None
    assert (summary.best.trial_id, summary.best.test_metrics) == (T[1], None)
    assert summary.trials[0].test_f1_macro is None


def test_what_is_damaged_or_missing_is_named_and_the_rest_is_told(experiments: Path) -> None:
    (experiments / f"trial_{T[0]}" / paths.TRIAL).write_text("{")  # the index still knows it
    (experiments / f"trial_{T[1]}" / paths.REPORT).write_text("{}")
    (experiments / f"trial_{T[3]}" / paths.RETENTION).write_text(RETENTION + "{\n" + RETENTION)
    (experiments / f"trial_{T[4]}" / paths.RETENTION).write_text(RETENTION.replace(TIME, "noon"))
    (experiments / f"trial_{T[5]}" / paths.TRIAL).write_text("{")  # nobody knows whose it is
    shutil.rmtree(experiments / f"trial_{T[2]}")
    summary = summarized(experiments)
    assert {row.trial_id for row in summary.trials} == {T[0], T[1], T[2], T[3], T[4]}
    assert summary.best is not None
    assert (summary.best.trial_id, summary.best.test_metrics) == (T[1], None)
    assert summary.storage.written == 10_000
    named = {problem.partition(":")[0] for problem in summary.problems}
    assert named == {
        f"trial_{T[0]}/trial.json",
        f"trial_{T[1]}/evaluation_report.json",
        f"trial_{T[2]}",
        f"trial_{T[3]}/retention.jsonl",
        f"trial_{T[4]}/retention.jsonl",
    }
    page = Page((paths.study_dir(experiments, STUDY) / paths.SUMMARY_PAGE).read_text())
    assert all(problem in page.text for problem in summary.problems)


def test_a_damaged_index_is_named_and_the_trials_speak_for_themselves(experiments: Path) -> None:
    before = summarized(experiments)
    (paths.study_dir(experiments, STUDY) / paths.INDEX).write_text("{")
    after = summarized(experiments)
    assert after.trials == before.trials
    assert [problem.partition(":")[0] for problem in after.problems] == [f"study_{STUDY}/index.json"]


def test_a_copy_of_the_folder_says_the_same(experiments: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(experiments, copy)
    same = {"generated_at": TIME}
    assert summarized(copy).model_copy(update=same) == summarized(experiments).model_copy(update=same)


@pytest.mark.parametrize("config", [{}, {"search": {"space": {"train.x": {"type": "odd"}}}, "retention": None}])
def test_a_study_without_trials_or_with_a_configuration_of_another_version_has_a_page(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    folder = write_study(tmp_path, study_of(config=config))
    summary = summarized(tmp_path)
    assert (summary.best, summary.trials, summary.storage.budget) == (None, [], None)
    page = check_self_contained((folder / paths.SUMMARY_PAGE).read_text())
    assert "no completed trial" in page.text
    assert "The search space in the study" in page.text


def test_values_that_are_not_finite_choose_nothing_and_stop_nothing(tmp_path: Path, make_trial: MakeTrial) -> None:
    for number, value in enumerate(["NaN", "Infinity", 0.1]):
        make_trial(id_of(number), record=trial_of(id_of(number), number, best={"epoch": 1, "value": value}))
    folder = write_study(tmp_path, study_of())
    summary = summarized(tmp_path)
    assert summary.best is not None
    assert summary.best.value == 0.1
    assert "not finite" in Page((folder / paths.SUMMARY_PAGE).read_text()).text


def test_names_from_the_files_are_text_and_never_markup(tmp_path: Path, make_trial: MakeTrial) -> None:
    choice = {EVIL: {"type": "categorical", "choices": [EVIL, "b"]}}
    error = {"kind": EVIL, "message": EVIL}
    for number in range(12):
        values = {EVIL: EVIL if number % 2 else "b"}
        record = trial_of(
            id_of(number), number, parameters=values, best={"epoch": 1, "value": number / 12}, error=error
        )
        make_trial(id_of(number), record=record)
    folder = write_study(tmp_path, study_of(metric=EVIL, config={"search": {"space": choice}}))
    assert summarized(tmp_path).parameter_importance[EVIL].share is not None
    page = check_self_contained((folder / paths.SUMMARY_PAGE).read_text())
    assert "alert(1)" in page.text
    assert sum(tag == "table" for tag, _ in page.elements) == 2


# -- the confirmation


def page_of(experiments: Path) -> str:
    summarized(experiments)
    return (paths.study_dir(experiments, STUDY) / paths.SUMMARY_PAGE).read_text()


def confirm(experiments: Path, make_trial: MakeTrial, *, repeats: int = 2, done: int = 2) -> None:
    """Confirm the trials 1 and 0, of 0.7 and 0.5 in the search: so many repeats of each are done."""
    config = study_of().config | {"study": {"direction": "maximize", "confirm": {"top": 2, "repeats": repeats}}}
    (paths.study_dir(experiments, STUDY) / paths.STUDY).write_bytes(study_of(config=config).to_json())
    for of, value, test in ((1, 0.55, 0.3), (0, 0.45, 0.8)):
        for n in range(1, done + 1):
            trial_id = id_of(100 * (of + 1) + n)
            best = {"epoch": 3, "value": value + n / 100}
            record = trial_of(trial_id, of, best=best, confirms=T[of], repeat=n, active_seconds=9.0)
            make_trial(trial_id, record=record, report=report_of(trial_id, test_metrics=metrics(test + n / 100)))


def test_repeats_stand_in_the_confirmation_and_nowhere_else(experiments: Path, make_trial: MakeTrial) -> None:
    before = summarized(experiments)
    assert before.confirmation is None
    confirm(experiments, make_trial)
    summary = summarized(experiments)
    same = {"trials", "best", "counts", "parameter_importance"}
    assert summary.model_dump(include=same) == before.model_dump(include=same)
    found = summary.confirmation
    assert found
    assert (found.rounds, found.repeats, found.winner) == (2, 2, T[1])
    first, second = found.configurations
    assert (first.number, first.value, first.winner, second.number, second.winner) == (1, 0.7, True, 0, False)
    assert first.mean == pytest.approx(0.565)
    assert first.shrinkage == pytest.approx(0.7 - 0.565)
    # t(0.975, 1) = 12.7062, by the tables, of two values that are 0.01 apart
    assert [first.low, first.high] == pytest.approx([0.565 - 12.7062 * 0.005, 0.565 + 12.7062 * 0.005], abs=1e-5)
    assert second.test_f1_macro == pytest.approx(0.815), "the winner has the worse test scores: they choose nothing"
    assert first.test_f1_macro == pytest.approx(0.315)
    assert [(trial.repeat, trial.state, trial.report) for trial in first.trials] == [
        (n, "completed", f"trial_{id_of(200 + n)}/evaluation_report.json") for n in (1, 2)
    ]
    jsonschema.validate(
        json_of(paths.study_dir(experiments, STUDY) / paths.SUMMARY), json.loads(reports.schema("study_summary"))
    )


def test_the_page_marks_the_confirmed_winner_and_links_its_repeats(experiments: Path, make_trial: MakeTrial) -> None:
    assert "Is the winner luck?" not in page_of(experiments)
    confirm(experiments, make_trial)
    page = page_of(experiments)
    section = page.partition("Is the winner luck?")[2].partition("<h2>")[0]
    assert section.count("confirmed winner</small>") == 1
    assert "had 0.700 in the search and 0.565 when repeated: 0.135 was luck" in section
    assert f'href="../trial_{id_of(201)}/evaluation_report.json"' in section
    assert "never used to choose" in section


def test_a_confirmation_under_way_has_no_winner_yet(experiments: Path, make_trial: MakeTrial) -> None:
    confirm(experiments, make_trial, repeats=3, done=1)
    summary = summarized(experiments)
    assert summary.confirmation
    assert (summary.confirmation.rounds, summary.confirmation.winner) == (1, None)
    first = summary.confirmation.configurations[0]
    assert (first.repeats, first.sd, first.low, first.test_low) == (1, None, None, None)
    assert first.mean == pytest.approx(0.56)
    assert "1 of 3 rounds are done" in page_of(experiments)


def test_keys_of_another_version_confirm_nothing(experiments: Path) -> None:
    for section in ({"confirm": {"top": 3, "votes": 9}}, {"confirm": 7}, {"confirm": None}, {}, None):
        (paths.study_dir(experiments, STUDY) / paths.STUDY).write_bytes(study_of(config={"study": section}).to_json())
        assert summarized(experiments).confirmation is None


def test_the_time_left_is_the_same_in_the_summary_the_app_the_list_and_the_driver(experiments: Path) -> None:
    folder = paths.study_dir(experiments, STUDY)
    study = StudyRecord.model_validate_json((folder / paths.STUDY).read_bytes())
    board = Scoreboard(experiments, study)
    board.refresh(T)
    board.write()
    summary = write_summary(experiments, board.study)
    seen = Reader(experiments).read(STUDY).time_left
    counted = board.time_left()
    assert summary.time_left is not None
    assert counted == seen
    assert counted is not None
    assert summary.time_left.seconds == round(counted.seconds, 1) > 0
    assert str(summary.time_left) in (folder / paths.SUMMARY_PAGE).read_text()
