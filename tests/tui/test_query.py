"""What is typed finds what it says: words anywhere, comparisons in a column, an exclamation mark the opposite."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.query import matcher

ROW = {
    "#": 7,
    "state": "failed",
    "objective": 0.412,
    "head": "Gated",
    "train.learning_rate": 2e-5,
    "lr": 2e-5,
    "x": None,
}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   ",
        "gated",
        "GAT",
        "fail ed",
        "head=gated",
        "he=gat",
        "learning_rate<1e-4",
        "train.learning_rate<1e-4",
        "lr = 2e-5",
        "lr<5e-5 lr>1e-5",
        "objective>=0.412",
        "objective<=0.412",
        "objective!=0.5",
        "#=7",
        "state!=completed",
        "!completed",
        "!",
        "x=none",
    ],
)
def test_it_finds(query):
    assert matcher(query)(ROW) == (query != "!")


@pytest.mark.parametrize(
    "query",
    ["mlp", "gated mlp", "head=mlp", "head!=gated", "!failed", "lr>1", "objective<0.412", "none=1", "x<1", "state<3"],
)
def test_it_does_not_find(query):
    assert not matcher(query)(ROW)


cells = st.one_of(
    st.sampled_from(["gated", "Mean", "1e-5", "nan", "failed", ""]),
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.0, math.nan, math.inf, 1e-5, 10**400]),
    st.none(),
    st.booleans(),
    st.just([1, 2]),
)
rows = st.dictionaries(st.sampled_from(["#", "state", "head", "a.head", "train.lr", "lr", "loss"]), cells)
names, operators = st.sampled_from(["#", "state", "head", "he", "lr", "l", "none"]), st.sampled_from(
    ["=", "!=", "<", "<=", ">", ">="]
)
wanted = st.sampled_from(["gated", "mean", "1e-5", "0.5", "-1", "0", "nan", "inf", "none", "e"])
terms = st.one_of(
    st.tuples(names, operators, wanted), st.sampled_from(["gated", "!gated", "1", "!none", "e-05", "!failed"])
)


def as_number(value):
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def holds(row, term):
    """The same, as plainly as it can be put."""
    if isinstance(term, str):
        found = any(term.lstrip("!") in str(value).lower() for value in row.values())
        return not found if term.startswith("!") else found
    name, op, value = term
    for key, cell in row.items():
        if not key.startswith(name) and not key.endswith("." + name):
            continue
        one, other = as_number(cell), as_number(value)
        if one is not None and other is not None:
            if eval(f"one {'==' if op == '=' else op} other"):
                return True
        elif (op == "=" and value in str(cell).lower()) or (op == "!=" and value not in str(cell).lower()):
            return True
    return False


@settings(deadline=None, max_examples=400, derandomize=True, database=None)
@given(st.lists(rows, max_size=4), st.lists(terms, max_size=3), st.sampled_from(["", " "]))
def test_it_is_what_plain_reading_would_make_of_it(table, query, gap):
    typed = " ".join(t if isinstance(t, str) else gap.join(t) for t in query)
    test = matcher(typed)
    assert [test(row) for row in table] == [all(holds(row, term) for term in query) for row in table]


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(st.text(max_size=300), rows)
def test_whatever_is_typed_is_answered(query, row):
    assert matcher(query)(row) in (True, False)


def test_what_is_pasted_by_accident_is_answered_at_once():
    for query in ("a" * 100_000, "a=" * 50_000, ". " * 50_000, "#" * 100_000 + "<", "!" * 100_000):
        assert matcher(query)(ROW) in (True, False)
