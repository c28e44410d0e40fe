"""The pages of a whole study lead to each other; in a browser nothing is cut on screens and on paper."""

import random
from pathlib import Path

import pytest

from redsm5.config import compose
from redsm5.data import SYMPTOMS
from redsm5.engine import paths
from redsm5.engine.sections import CategoricalParameter, Parameter
from redsm5.engine.study.ids import find_study
from redsm5.evaluation.page import write_page
from redsm5.evaluation.summary import write_summary
from tests.browser import cut, needs_chromium
from tests.evaluation.conftest import (
    STUDY,
    MakeTrial,
    Page,
    calibration_of,
    discrimination_of,
    id_of,
    metrics,
    ranking_of,
    report_of,
    study_of,
    trial_of,
    write_study,
)

TRIALS = 12
REPORTED = SYMPTOMS  # nine, as real reports have
BASELINE = "6ab2f921-68c5-51d7-bec2-fc608af98813"


def _drawn(parameter: Parameter, rng: random.Random) -> object:
    if isinstance(parameter, CategoricalParameter):
        return rng.choice(parameter.choices)
    return rng.uniform(parameter.low, parameter.high)


def whole_report(trial_id: str, **changes: object) -> dict[str, object]:
    """A report with all that a page can show."""
    scores = metrics()
    row, *_ = scores["criteria_matching"]["per_criterion"]
    scores["criteria_matching"]["per_criterion"] = [row | {"id": name} for name in REPORTED]
    curves = {name: [[0.0, 1.0], [0.5, 0.9], [1.0, 0.2]] for name in REPORTED}
    names = ("f1", "precision", "recall", "pr_auc", "roc_auc", "mcc", "brier")
    ends = {f"by_symptom.{symptom}.{name}": [0.123, 0.987] for symptom in REPORTED for name in names}
    told = {"discrimination": discrimination_of(*REPORTED), "confidence_intervals": ends}
    told |= {"calibration": calibration_of(*REPORTED), "sentence_ranking": ranking_of(*REPORTED), "pr_curves": curves}
    return {"report": report_of(trial_id, test_metrics=scores, **told, **changes)}


@pytest.fixture
def searched(tmp_path: Path, make_trial: MakeTrial) -> Path:
    """A study of the whole search space, with a confirmation and a baseline."""
    config = compose(["search=default"])
    space = config.search.space
    told = {"search": {"space": {key: value.model_dump() for key, value in space.items()}}}
    told["study"] = {"direction": "maximize", "confirm": {"top": 2, "repeats": 2}}
    write_study(tmp_path, study_of(name="a-study-of-many-parameters", config=told, data_fingerprint="f00d"))
    for number in range(TRIALS):
        rng = random.Random(number)
        parameters = {key: _drawn(parameter, rng) for key, parameter in space.items()}
        best = {"epoch": 3, "value": number / TRIALS}
        record = trial_of(id_of(number), number, parameters=parameters, best=best)
        told_of = whole_report(id_of(number)) if number == TRIALS - 1 else {"report": report_of(id_of(number))}
        make_trial(id_of(number), record=record, **told_of)
    for of in (TRIALS - 1, TRIALS - 2):
        for n in (1, 2):
            trial_id = id_of(100 * of + n)
            again = {"best": {"epoch": 3, "value": of / TRIALS}, "confirms": id_of(of), "repeat": n}
            record = trial_of(trial_id, of, active_seconds=9.0, **again)
            write_page(make_trial(trial_id, record=record, report=report_of(trial_id)))
    baseline = make_trial(BASELINE, **whole_report(BASELINE, study_id=None))
    (baseline / paths.TRIAL).unlink()
    baseline.rename(tmp_path / f"baseline_{BASELINE}")
    write_page(tmp_path / f"baseline_{BASELINE}")
    for number in (TRIALS - 2, TRIALS - 1):
        write_page(paths.trial_dir(tmp_path, id_of(number)))
    write_summary(tmp_path, find_study(tmp_path, None))
    return tmp_path


def test_repeats_lead_to_each_other_to_the_study_and_to_the_baseline(searched: Path) -> None:
    def told(trial_id: str) -> set[str]:
        page = Page((paths.trial_dir(searched, trial_id) / paths.REPORT_PAGE).read_text())
        return {value for value in page.values("href") if value.startswith("../")}

    everywhere = {f"../study_{STUDY}/{paths.SUMMARY_PAGE}", f"../baseline_{BASELINE}/{paths.REPORT_PAGE}"}
    first, second = (id_of(100 * (TRIALS - 1) + n) for n in (1, 2))
    assert told(first) == everywhere | {f"../trial_{second}/{paths.REPORT_PAGE}"}
    assert told(second) == everywhere | {f"../trial_{first}/{paths.REPORT_PAGE}"}
    assert told(id_of(TRIALS - 1)) == everywhere | {f"../trial_{id_of(TRIALS - 2)}/{paths.REPORT_PAGE}"}


@needs_chromium
def test_nothing_of_a_page_is_cut_on_any_screen_and_on_paper(
    searched: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pages = {
        "study": paths.study_dir(searched, STUDY) / paths.SUMMARY_PAGE,
        "report": paths.trial_dir(searched, id_of(TRIALS - 1)) / paths.REPORT_PAGE,
        "baseline": searched / f"baseline_{BASELINE}" / paths.REPORT_PAGE,
    }
    for name, page in pages.items():
        for dark in (False, True):
            found = cut(page, tmp_path_factory.mktemp("browser"), dark=dark)
            assert found == {where: [] for where in found}, name


@needs_chromium
def test_what_is_cut_is_seen(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    page = paths.study_dir(searched, STUDY) / paths.SUMMARY_PAGE
    page.write_text(
        page.read_text().replace("<h2>", '<p style="white-space:nowrap">' + 40 * "a long line " + "</p><h2>", 1)
    )
    assert all(cut(page, tmp_path_factory.mktemp("browser")).values())
