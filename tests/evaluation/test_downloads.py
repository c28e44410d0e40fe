"""A page's downloads are in the page: tables with all digits as CSV, as LaTeX, figures as SVG that stand alone."""

import csv
import io
import re
from base64 import b64decode
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from redsm5.engine import paths
from redsm5.engine.study.ids import find_study
from redsm5.evaluation.downloads import LIGHT, csv_address, file_name, latex_address
from redsm5.evaluation.page import render_page
from redsm5.evaluation.rendering import short_names
from redsm5.evaluation.summary import write_summary
from tests.evaluation.conftest import (
    STUDY,
    SYMPTOMS,
    MakeTrial,
    Page,
    calibration_of,
    id_of,
    report_of,
    study_of,
    trial_of,
    write_study,
)

EVIL = "=1+1;</text></svg><script>alert(1)</script>&%$#_{}~^\\\"'\n\x00é名"


def files_of(html: str) -> dict[str, str]:
    """The files that a page offers, by name."""
    links = [attrs for tag, attrs in Page(html).elements if tag == "a" and "download" in attrs]
    found = {}
    for attrs in links:
        address = unquote(attrs["href"] or "")
        assert re.match(r"data:[a-z+/-]+(;charset=utf-8)?;base64,", address), "in the page itself"
        assert attrs["aria-label"], "what it is, for who hears the page"
        found[attrs["download"] or ""] = b64decode(address.partition(",")[2], validate=True).decode()
    assert len(found) == len(links), "two files of one name"
    return found


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_report_offers_each_table_and_each_figure(make_trial: MakeTrial) -> None:
    html = render_page(make_trial("t" * 8, report=report_of("t" * 8, calibration=calibration_of(*SYMPTOMS))))
    found = files_of(html)
    tables, figures = html.count("<table") - html.count('<table class="confusion"') + 1, html.count("<svg ")
    assert sum(name.endswith(".csv") for name in found) == sum(name.endswith(".tex") for name in found) == tables
    assert sum(name.endswith(".svg") for name in found) == figures == 8
    rows = rows_of(found["trial-0-of-study-night-criteria.csv"])
    assert rows[0] == {"Metric": "F1, macro", "Value": "0.612", "Value low": "0.533", "Value high": "0.687"}
    assert rows[1]["Value low"] == ""
    by_symptom = rows_of(found["trial-0-of-study-night-by-symptom.csv"])
    assert [row["Support"] for row in by_symptom] == ["17", "17", "0"]
    assert (by_symptom[0]["F1"], by_symptom[2]["F1"]) == ("0.741", ""), "undefined is empty"
    confusion = rows_of(found["trial-0-of-study-night-confusion.csv"])
    assert list(confusion[0].values()) == ["Depressed mood", "63", "0", "7", "10"]
    assert r"F1, macro & 0.612 [0.533, 0.687] \\" in found["trial-0-of-study-night-criteria.tex"]


def test_a_study_offers_all_parameters_with_all_digits(tmp_path: Path, make_trial: MakeTrial) -> None:
    for number, rate in enumerate((1.2345678912e-05, 2e-5)):
        parameters = {"train.learning_rate": rate, "train.loss_function": EVIL}
        best = {"epoch": 1, "value": 0.123456789 + number}
        make_trial(id_of(number), record=trial_of(id_of(number), number, parameters=parameters, best=best))
    folder = write_study(tmp_path, study_of())
    write_summary(tmp_path, find_study(tmp_path, STUDY))
    found = files_of((folder / paths.SUMMARY_PAGE).read_text())
    assert sorted(found) == [
        "study-night-optimization-history.svg",
        "study-night-parallel-coordinates.svg",
        "study-night-trials.csv",
        "study-night-trials.tex",
    ]
    rows = rows_of(found["study-night-trials.csv"])
    assert [row["train.learning_rate"] for row in rows] == ["2e-05", "1.2345678912e-05"]
    assert [row["Validation"] for row in rows] == ["1.123456789", "0.123456789"]
    assert rows[0]["train.loss_function"].startswith("'=1+1"), "no spreadsheet computes it"


@pytest.mark.parametrize("name", ["plain", EVIL])
def test_a_figure_is_a_file_of_its_own(make_trial: MakeTrial, name: str) -> None:
    report = report_of("t" * 8, optimization_metric_name=name)
    found = files_of(render_page(make_trial("t" * 8, report=report, curves={"val_loss": [1.0, 0.5], name: [0.1, 0.2]})))
    figures = {file: text for file, text in found.items() if file.endswith(".svg")}
    assert len(figures) == 4
    for file, text in figures.items():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg", file
        assert float((root.get("width") or "").removesuffix("pt")) > 100
        assert "var(--" not in text, "its colours are its own"
        assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_its_colours_are_those_of_a_light_page(make_trial: MakeTrial) -> None:
    html = render_page(make_trial("t" * 8, report=report_of("t" * 8)))
    first = re.search(r":root \{(.*?)\}", html, re.DOTALL)
    assert first
    assert LIGHT.items() <= dict(re.findall(r"--(\w+): (#\w{6})", first[1])).items()


def test_what_latex_and_spreadsheets_would_obey_is_text() -> None:
    text = b64decode(latex_address(["a_b", "–"], [[EVIL, "50 %"]], [False, True]).partition(",")[2]).decode()
    assert text.splitlines()[1:4] == [r"\begin{tabular}{lr}", r"\toprule", r"a\_b & -- \\"]
    (row,) = [line for line in text.splitlines() if "alert" in line]
    assert r"\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in row
    assert row.endswith(r"& 50 \% \\")
    rows = rows_of(b64decode(csv_address(["a"], [{"a": "-1+2"}]).partition(",")[2]).decode())
    assert rows == [{"a": "'-1+2"}]


def test_names_of_files_hold_nothing_that_a_system_obeys() -> None:
    assert file_name("Study ../../x", "F1: é/名") == "study-x-f1"
    assert file_name("名") == "redsm5"
    assert len(file_name("x" * 1000)) == 100


def test_short_names_are_told_apart() -> None:
    keys = ["model.evidence_head_type", "train.task_weights.evidence", "a.x", "b.x", "train.learning_rate"]
    assert list(short_names(keys).values()) == ["evidence_head_type", "evidence", "a.x", "b.x", "lr"]
