"""A report's table shows calibration and ranking where the report has them."""

from redsm5.evaluation.table import report_table
from tests.evaluation.conftest import SYMPTOMS, report_of
from tests.evaluation.test_page import calibration_of, ranking_of


def test_the_table_shows_calibration_and_the_ranking_of_sentences() -> None:
    report = report_of(
        "0b5c",
        calibration=calibration_of(*SYMPTOMS),
        sentence_ranking=ranking_of(*SYMPTOMS),
        confidence_intervals={"sentence_ranking.ndcg_at_10_macro": [0.7, 0.8]},
    )
    lines = [" ".join(line.split()) for line in report_table(report).splitlines()]
    for line in (
        "criteria Brier score, macro 0.142",
        "calibration error, macro 0.163",
        "sentences average precision, macro 0.656",
        "nDCG@10, macro 0.767 [0.700, 0.800]",
        "SLEEP_ISSUES 0.132 0.153 17 0.654 0.765",
        "PSYCHOMOTOR 0.132 0.153 0 – –",
    ):
        assert line in lines


def test_a_report_of_an_older_version_has_its_table() -> None:
    table = report_table(report_of("0b5c"))
    assert "nDCG" not in table
    assert "Brier" not in table
