"""What is typed finds what it says: words anywhere, comparisons in a column, patterns, either of two, the opposite."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.read.query import Query, matcher, words

ROW = {
    "#": 7,
    "state": "failed",
    "objective": 0.412,
    "head": "Gated",
    "train.learning_rate": 2e-5,
    "lr": 2e-5,
    "x": None,
    "model": "mental bert (base)",
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
        "~^gat",
        "~^GAT.*d$",
        "head~^g",
        "head~ted$",
        "head!~^mlp",
        "!~mlp",
        "~^(mlp|gated)$",
        '~"l b.r"',
        'model~"^mental bert"',
        "gat*",
        "head=g?ted",
        "head!=mlp_*",
        "lr=2*",
        "mlp or gated",
        "mlp | gated",
        "mlp|gated",
        "gated or mlp completed",
        "(mlp or gated) failed",
        "failed and gated",
        "((gated))",
        "!(mlp or linear)",
        "!mlp",
        "!head=mlp",
        "!!gated",
        '"mental bert"',
        'model="mental bert"',
        '"(base)"',
        '!"bert mental"',
        "(lr~e-05 or x) gated",
        '"or" or gated',
        "gated ~^fail",
        "gated !~mlp",
    ],
)
def test_it_finds(query):
    assert matcher(query)(ROW) == (query != "!")


@pytest.mark.parametrize(
    "query",
    [
        *(
            "mlp",
            "gated mlp",
            "head=mlp",
            "head!=gated",
            "!failed",
            "lr>1",
            "objective<0.412",
            "none=1",
            "x<1",
            "state<3",
        ),
        *("~^ated", "head~^mlp", "head!~gated", "!~gated", "none~.", "none!~.", "~(mlp|linear)", '~"bert  b"', "ga*t"),
        *("head=ate*", "head!=g*", "mlp or linear", "(mlp or gated) completed", "!(mlp or gated)", "!head=gated"),
        *('"bert mental"', '"gat*"', '"or"', "mlp gated or mlp failed"),
    ],
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


@pytest.mark.parametrize(
    ("half", "whole"),
    [
        ("gated or", "gated"),
        ("gated |", "gated"),
        ("or gated", "gated"),
        ("gated (", "gated"),
        ("gated (mlp or", "gated mlp"),
        ("gated)", "gated"),
        ("()", ""),
        ("gated !(", "gated"),
        ('gated "', "gated"),
        ('"mental be', "mental"),
        ("gated ~", "gated"),
        ("gated lr<", "gated"),
        ("gated head=", "gated"),
        ("gated head!~", "gated"),
        ("(" * 200 + "mlp", "mlp"),
    ],
)
@pytest.mark.parametrize("other", [ROW, ROW | {"head": "mlp"}, {"x": 1}])
def test_what_is_half_typed_asks_for_nothing_yet(half, whole, other):
    assert matcher(half)(other) == matcher(whole)(other)


def test_or_binds_less_than_what_stands_side_by_side():
    query = Query("a b or c d | e")
    asked = {word: query({"": word}) for word in ("ab", "ac", "bd", "cd", "e", "f")}
    assert asked == {"ab": True, "ac": False, "bd": False, "cd": True, "e": True, "f": False}


@pytest.mark.parametrize("query", ["", "loss", "LOSS val", "~^val", "~loss$ val", '"val loss"', '"val lo', "~"])
def test_the_words_are_in_a_text(query):
    assert words(query)("Val loss")


@pytest.mark.parametrize("query", ["train", "val train", "~^loss", '"loss val"', "~[", "!loss", "val=1"])
def test_the_words_are_not_in_a_text(query):
    assert not words(query)("Val loss")


# ---------------------------------------------------------------------------------------------------------------------
# patterns


@pytest.mark.parametrize("typed", ["[a", "(", "*", "a{1,2}{3}", "(?P<x", "\\", "head~[a", "!~(", "(?<"])
def test_what_is_no_pattern_is_said_and_looked_for_as_it_stands(typed):
    query = Query(typed if "~" in typed else f"~{typed}")
    literal = typed.rsplit("~", 1)[-1]
    assert query.told.startswith(f"{literal} is not a regex (")
    assert query.told.endswith("searched for literally")
    assert query({"head": f"x{literal.upper()}y"}) != typed.startswith("!")
    assert query({"head": "x"}) == typed.startswith("!")


def test_of_a_right_pattern_nothing_is_said():
    assert Query("~^a head~b|c (x~(d) or !~e)").told == ""


@pytest.mark.parametrize("pattern", ["(?:a{999}){999}", "a{99999999}", "((((a{99}){99}){99}){99})"])
def test_a_pattern_that_fills_the_memory_is_refused(pattern):
    assert Query(f"~{pattern}").told == f"{pattern} repeats too often: searched for literally"


@pytest.mark.parametrize("pattern", ["(a|aa)+$", "(?R)", "(((a|a)+)+)+c"])
def test_a_pattern_that_would_never_end_is_given_up_and_then_all_is_looked_for_alike(pattern):
    table = [{"x": "aa"}, {"x": "a" * 60 + "b"}, {"x": f"-{pattern}-"}, {"x": "a" * 59 + "c"}] * 500
    query = Query(f"~{pattern}")
    assert query.those(table, lambda row: row) == [table[2]] * 500
    assert query.told == f"{pattern} takes too long: searched for literally"


def test_a_pattern_that_is_slow_on_every_cell_is_given_up(monkeypatch):
    monkeypatch.setattr("tui.read.query.ALL_S", 0.0)
    monkeypatch.setattr("tui.read.query.EACH_S", 0.0)
    query = Query("~^b")
    assert query.those(["abc", "b", "^b"], lambda cell: {"x": cell}) == ["^b"]
    assert "takes too long" in query.told


def test_a_long_cell_and_a_long_pattern_are_cut():
    assert Query("~b")({"x": "a" * 499 + "b"})
    assert not Query("~b")({"x": "a" * 500 + "b"})
    assert Query("~" + "a" * 150)({"x": "a" * 100})


patterns = st.text(st.sampled_from('ab()[]{}|*+?\\^$.,-:<>=!PRi0123456789 "~'), max_size=60)


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(st.sampled_from(["", "~", "head~", "!~", '~"', "("]), patterns, rows)
def test_whatever_pattern_is_typed_is_answered(before, pattern, row):
    query = Query(before + pattern)
    assert query(row) in (True, False)
    assert query.told == "" or query.told.endswith("searched for literally")


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(st.text(max_size=300), rows)
def test_whatever_is_typed_is_answered(query, row):
    assert matcher(query)(row) in (True, False)


def test_what_is_pasted_by_accident_is_answered_at_once():
    for query in ("a" * 100_000, "a=" * 50_000, ". " * 50_000, "#" * 100_000 + "<", "!" * 100_000):
        assert matcher(query)(ROW) in (True, False)
