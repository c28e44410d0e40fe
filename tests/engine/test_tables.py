"""Rows are printed whole: as a table, as JSON, and as CSV that a spreadsheet reads."""

import csv
import io
import json

from redsm5.engine.tables import as_csv, as_json, as_table, render

COLUMNS = ("name", "on_disk", "score")
ROWS = [
    {"name": "epoch-0001", "on_disk": 1_310_000_000, "score": 0.5},
    {"name": 'said "so", twice\nover', "on_disk": 0, "score": None},
    {"name": "epoch-0003", "on_disk": 7, "score": float("nan")},
]


def test_a_table_stands_in_columns_with_numbers_to_the_right() -> None:
    assert as_table(COLUMNS, [ROWS[0], ROWS[2]]).splitlines() == [
        "name              on disk   score",
        "epoch-0001  1,310,000,000  0.5000",
        "epoch-0003              7     nan",
    ]


def test_no_cell_is_ever_cut() -> None:
    long = "x" * 500
    assert long in as_table(["a", "b"], [{"a": long, "b": 1}])


def test_json_has_the_values_as_they_are_and_a_word_for_what_is_not_finite() -> None:
    assert json.loads(as_json(ROWS)) == [*ROWS[:2], {**ROWS[2], "score": "NaN"}]


def test_csv_comes_back_as_it_was() -> None:
    back = list(csv.DictReader(io.StringIO(as_csv(COLUMNS, ROWS))))
    assert [row["name"] for row in back] == [row["name"] for row in ROWS]
    assert [row["score"] for row in back] == ["0.5", "", "NaN"]


def test_a_spreadsheet_takes_no_text_of_a_csv_for_a_formula() -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1"]
    rows = [
        {"name": text, "score": score} for text, score in zip([*texts, "a=1", "", "\r=1\x9b"], [-0.5] * 9, strict=True)
    ]
    back = list(csv.DictReader(io.StringIO(as_csv(["name", "score"], rows))))
    assert [row["name"] for row in back] == [*(f"'{text}" for text in texts), "a=1", "", r"\r=1\u009b"]
    assert {row["score"] for row in back} == {"-0.5"}, "a number stays one"
    assert as_csv(["score"], [{"score": float("-inf")}]).endswith("\n-Infinity")


def test_a_value_makes_no_row_of_its_own() -> None:
    assert len(as_table(["name"], [{"name": "a\nb\u2028c\x0bd\te"}]).splitlines()) == 2


def test_where_there_is_nothing_a_person_is_told_and_a_program_gets_an_empty_list() -> None:
    assert render("table", COLUMNS, [], empty="run it first") == "run it first"
    assert render("json", COLUMNS, [], empty="run it first") == "[]"
    assert render("csv", COLUMNS, [], empty="run it first") == "name,on_disk,score"
