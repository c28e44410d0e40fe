"""A trial's page shows what its files say, whole in itself, and nothing in them breaks it."""

import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from redsm5.engine import paths
from redsm5.engine.errors import InputError
from redsm5.evaluation.page import render_page, write_page
from redsm5.reports import EvaluationReport
from tests.evaluation.conftest import (
    CRITERIA,
    CURVES,
    EVIDENCE,
    NO_POSITIVES,
    SYMPTOMS,
    MakeTrial,
    Page,
    calibration_of,
    check_self_contained,
    discrimination_of,
    metrics,
    ranking_of,
    report_of,
    trial_of,
)

TRIAL = "0b5c1d1e"
OUT_OF_REACH = "since not finite or too large"
EVIL = "</title></svg>\"'><script>alert(1)</script><img src=x onerror=y>${{7*7}}{% raw %}$\\frac{1}$&\x00"


def page_of(make_trial: MakeTrial, **changes: Any) -> Page:
    return check_self_contained(render_page(make_trial(TRIAL, report=report_of(TRIAL, **changes))))


def test_the_page_shows_scores_intervals_thresholds_and_hard_negatives(make_trial: MakeTrial) -> None:
    page = page_of(make_trial)
    assert "Trial 0 of study night" in page.text
    assert "Trials are chosen by validation; test scores are shown, never used to choose." in page.text
    for words in (
        "F1, macro mean of the F1 of the symptoms that occur in the split 0.612 0.533 to 0.687",
        "Sleep issues 17 0.741 1.000 0.588 0.818 0.310",
        "min span score 0.125",
        "Of 71 post-symptom pairs",
        "predicts absent in 0.831",
        "as evidence in –",
        "absent 63 100 % 0 0 % present 7 41 % 10 59 %",
        "data fingerprint f00d",
        "code version 0.1.0",
        "seed 42",
        "80 posts",
    ):
        assert words in page.text
    titles = [attrs["aria-labelledby"] for tag, attrs in page.elements if tag == "svg"]
    assert titles == ["pr0-title", "pr1-title", "losses-title", "objective-title"]


def test_the_page_shows_calibration_and_the_ranking_of_sentences(make_trial: MakeTrial) -> None:
    intervals = {"calibration.brier_macro": [0.12, 0.16], "sentence_ranking.ndcg_at_10_macro": [0.7, 0.8]}
    page = page_of(
        make_trial,
        calibration=calibration_of(*SYMPTOMS),
        sentence_ranking=ranking_of(*SYMPTOMS),
        confidence_intervals=intervals,
    )
    for words in (
        "0 is best 0.142 0.120 to 0.160",
        "so it has no interval 0.163",
        "Sleep issues 0.132 0.153",
        "1 is best 0.767 0.700 to 0.800",
        "Sleep issues 17 0.654 0.765",
        "Psychomotor 0 – –",
        "Undefined (–), since no post has a sentence: Psychomotor.",
    ):
        assert words in page.text
    titles = [attrs["aria-labelledby"] for tag, attrs in page.elements if tag == "svg"]
    assert titles[2:6] == [f"rel{n}-title" for n in range(4)], "all symptoms together, and each of three"


def test_the_page_shows_discrimination_and_each_symptom_s_intervals(make_trial: MakeTrial) -> None:
    ends = {"f1": [0.1, 0.9], "roc_auc": [0.8, 0.95], "mcc": [-0.3, 0.2], "brier": [0.1, 0.2]}
    intervals = {f"by_symptom.SLEEP_ISSUES.{name}": both for name, both in ends.items()}
    page = page_of(
        make_trial,
        calibration=calibration_of(*SYMPTOMS),
        discrimination=discrimination_of(*SYMPTOMS),
        confidence_intervals=intervals | {"discrimination.mcc_macro": [-0.2, 0.1]},
    )
    for words in (
        "0.5 is guessing 0.913",
        "0 is guessing -0.124 -0.200 to 0.100",
        "Sleep issues 17 0.741 0.100 to 0.900 1.000 0.588 0.818 0.310",
        "Sleep issues 0.912 0.800 to 0.950 -0.123 -0.300 to 0.200",
        "Sleep issues 0.132 0.100 to 0.200 0.153",
        "Depressed mood 0.912 -0.123",
        f"Undefined (–), since {NO_POSITIVES}: Psychomotor (ROC AUC, MCC).",
    ):
        assert words in page.text


def test_a_report_of_an_older_version_has_neither(make_trial: MakeTrial) -> None:
    text = page_of(make_trial).text
    assert "Calibration" not in text
    assert "ROC AUC" not in text
    assert "Sentence ranking" not in text


def test_what_is_undefined_stands_there_with_its_reason(make_trial: MakeTrial) -> None:
    page = page_of(make_trial)
    assert f"Undefined (–), since {NO_POSITIVES}: Psychomotor (F1, precision, recall, PR AUC)." in page.text
    assert "Undefined (–), since there is no evidence: Exact match." in page.text
    assert "Psychomotor 0 – – – – 0.310" in page.text
    assert "present 0 – 0 –" in page.text


def test_every_co_best_checkpoint_stands_there_with_its_own_scores(make_trial: MakeTrial) -> None:
    row = report_of(TRIAL).evaluated_checkpoints[0]
    other = row.model_dump() | {"checkpoint_id": f"{TRIAL}/epoch-0004", "epoch": 4, "test_metrics": metrics(0.345)}
    page = page_of(make_trial, evaluated_checkpoints=[row.model_dump(), other])
    assert "epoch-0003 3 0.700 0.612" in page.text
    assert "epoch-0004 4 0.700 0.345" in page.text
    assert "Tied for best by val_f1_macro" in page.text


def test_what_the_search_set_is_marked_and_nothing_else(make_trial: MakeTrial) -> None:
    page = page_of(make_trial)
    marked = re.findall(r"(\w+) (\S+) \(set\)", page.text)
    assert marked == [("learning_rate", "1e-05"), ("loss_function", "bce"), ("focal_gamma", "–")]
    assert "space 3 parameters" in page.text


def test_of_a_trial_without_a_study_nothing_is_marked(make_trial: MakeTrial) -> None:
    record = trial_of(TRIAL, None, study_id=None, parameters={})
    page = Page(render_page(make_trial(TRIAL, record=record, report=report_of(TRIAL, study_id=None))))
    assert "Trial 0b5c1d1e" in page.text
    assert "(set)" not in page.text
    assert "night" not in page.words[:10]


def test_names_from_the_files_are_text_and_never_markup(make_trial: MakeTrial) -> None:
    def of(name: str, trial_id: str) -> Page:
        report = report_of(trial_id).model_dump()
        for scores in (report["test_metrics"], report["evaluated_checkpoints"][0]["test_metrics"]):
            scores["criteria_matching"]["per_criterion"][0]["id"] = name
            scores["criteria_matching"]["per_criterion"][2]["undefined"] = {"f1": name, "precision": name}
            scores["evidence_binding"]["undefined"] = {"exact_match": name}
        report["pr_curves"] = {name: [[0.0, 1.0], [1.0, 0.5]]}
        report["decision_thresholds"] = {name: 0.5, f"{name}2": 0.5}
        report["config"] |= {"study": {"name": name}, name: {name: [name, {name: name}]}}
        report |= {"optimization_metric_name": name, "data_counts": {name: 1}, "code_version": name, "report_id": name}
        report["evaluated_checkpoints"][0]["checkpoint_id"] = name
        record = trial_of(trial_id, parameters={name: name})
        curves = {name: [0.5, math.nan]}
        folder = make_trial(trial_id, record=record, report=EvaluationReport.model_validate(report), curves=curves)
        return check_self_contained(render_page(folder))

    plain, evil = of("name", "a" * 8), of(EVIL, "b" * 8)
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert "alert(1)" in evil.text
    assert "{{7*7}}" in evil.text


@pytest.mark.parametrize(
    "curves",
    [
        {},
        {"train_loss": [0.5]},
        {"val_loss": [math.inf, -math.inf], "val_f1_macro": [math.nan, math.nan]},
        {"train_loss": [1e308, -1e308, 5e-324], "val_loss": [math.nan], "val_f1_macro": [0.0]},
    ],
)
def test_odd_curves_never_stop_the_page(make_trial: MakeTrial, curves: Mapping[str, Sequence[float]]) -> None:
    page = check_self_contained(render_page(make_trial(TRIAL, report=report_of(TRIAL), curves=curves)))
    odd = [name for name, values in curves.items() if not all(abs(value) < 1e300 for value in values)]
    assert (f"Not drawn, {OUT_OF_REACH}: {', '.join(odd)}." in page.text) == bool(odd)


def test_a_report_of_nothing_but_nulls_is_a_page_too(make_trial: MakeTrial) -> None:
    nothing = metrics() | {"evidence_binding": dict.fromkeys(EVIDENCE)}
    nothing["criteria_matching"] = dict.fromkeys(CRITERIA) | {"per_criterion": []}
    empty = dict.fromkeys(("decision_thresholds", "hard_negatives", "best_validation_score"))
    empty |= {"confidence_intervals": {}, "pr_curves": {}, "evaluated_checkpoints": [], "data_counts": {}, "config": {}}
    page = page_of(make_trial, test_metrics=nothing, **empty)
    assert "0.5 for every symptom" in page.text
    assert "This report has no precision-recall curves." in page.text


def test_odd_figures_of_a_report_never_stop_the_page(make_trial: MakeTrial) -> None:
    page = page_of(
        make_trial,
        best_validation_score="NaN",
        confidence_intervals={"criteria_matching.f1_macro": [0.1], "evidence_binding.f1": []},
        pr_curves={SYMPTOMS[0]: [[0.5]], SYMPTOMS[1]: [[0.5, 1.0]]},
        hard_negatives={"pairs": 0, "criteria_specificity": None, "evidence_specificity": None},
    )
    assert "not finite" in page.text
    assert "no post-symptom pair that annotators checked" in page.text


def test_what_is_damaged_or_missing_beside_the_report_is_named(make_trial: MakeTrial) -> None:
    folder = make_trial(TRIAL, report=report_of(TRIAL))
    (folder / paths.METRICS).write_text("{}\n")
    (folder / paths.TRIAL).write_text("{")
    text = check_self_contained(render_page(folder)).text
    assert "metrics.jsonl: line 1 is damaged" in text
    assert "trial.json: the file is damaged" in text
    (folder / paths.METRICS).write_text("{\n")
    (folder / paths.TRIAL).unlink()
    text = Page(render_page(folder)).text
    assert "metrics.jsonl: line 1 is damaged" in text
    assert "trial.json is missing" in text


@pytest.mark.parametrize("content", [None, b"{}"])
def test_without_a_report_there_is_no_page_but_an_error_with_a_remedy(make_trial: MakeTrial, content: bytes) -> None:
    folder = make_trial(TRIAL)
    if content:
        (folder / paths.REPORT).write_bytes(content)
    with pytest.raises(InputError) as caught:
        write_page(folder)
    assert caught.value.remedy
    assert not (folder / paths.REPORT_PAGE).exists()


def test_the_page_is_made_from_the_folder_alone_and_twice_the_same(make_trial: MakeTrial, tmp_path: Path) -> None:
    folder = make_trial(TRIAL, report=report_of(TRIAL))
    page = write_page(folder)
    assert page == folder / "evaluation_report.html"
    first = page.read_bytes()
    elsewhere = folder.rename(tmp_path / "copied")
    assert write_page(elsewhere).read_bytes() == first
    assert [p.name for p in elsewhere.iterdir() if p.name.startswith(".")] == []


def test_of_a_step_that_was_trained_again_the_first_value_is_drawn(make_trial: MakeTrial) -> None:
    folder = make_trial(TRIAL, report=report_of(TRIAL))
    before = render_page(folder)
    journal = folder / paths.METRICS
    journal.write_bytes(journal.read_bytes() + journal.read_bytes().replace(b":0.5,", b":99.0,"))
    assert b":99.0," in journal.read_bytes()
    assert render_page(folder) == before


def test_thousands_of_steps_are_thinned(make_trial: MakeTrial) -> None:
    curves = CURVES | {"train_loss": [1 / step for step in range(1, 4001)]}
    html = render_page(make_trial(TRIAL, report=report_of(TRIAL), curves=curves))
    assert "training, means of 10 steps" in html
    assert len(html) < 200_000


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_text_has_the_contrast_that_wcag_asks_for_in_light_in_dark_and_on_paper(make_trial: MakeTrial) -> None:
    html = render_page(make_trial(TRIAL, report=report_of(TRIAL)))
    blocks = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in blocks]
    assert len(themes) == 3
    for theme in themes:
        for ink in ("ink", "muted", "accent", "second", "bad"):
            for ground in ("paper", "tint"):
                dark, light = sorted((luminance(theme[ink]), luminance(theme[ground])))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_pages_need_nothing_that_trains_and_no_pyplot() -> None:
    code = "import sys, redsm5.evaluation.page, redsm5.evaluation.summary; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformers", "accelerate", "mlflow", "matplotlib.pyplot"}
    assert "redsm5.evaluation.plots" in loaded
