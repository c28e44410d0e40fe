"""What a person types to filter trials: words and comparisons, all of which must hold.

`gated` finds it in any cell; `head=gated` in one column; `lr<5e-5`, `val_f1>=0.4` compare numbers; `!failed` and
`state!=failed` exclude. A column's name may be cut short, and a full key's last part serves as well.
"""

import re
from collections.abc import Callable, Mapping

TERM = re.compile(r"(?P<name>[\w.#]+)\s*(?P<op>!=|<=|>=|=|<|>)\s*(?P<value>\S+)|(?P<word>\S+)")
NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}

Row = Mapping[str, object]


def matcher(query: str) -> Callable[[Row], bool]:
    """Whether a row, its values by column, is what the query asks for. An empty query takes all."""
    tests = [_test(found) for found in TERM.finditer(query[:200].lower())]
    return lambda row: all(test(row) for test in tests)


def _test(found: "re.Match[str]") -> Callable[[Row], bool]:
    if word := found["word"]:
        if word.startswith("!") and len(word) > 1:
            return lambda row: not _contains(row, word[1:])
        return lambda row: _contains(row, word)
    name, op, wanted = found["name"], found["op"], found["value"]
    number = _number(wanted)

    means: dict[str, bool] = {}  # of each key that was seen, whether the name means it

    def test(row: Row) -> bool:
        for key, value in row.items():
            if key not in means:
                means[key] = key.lower().startswith(name) or key.lower().endswith(f".{name}")
            if means[key] and _holds(value, op, wanted, number):
                return True
        return False

    return test


def _holds(value: object, op: str, wanted: str, number: float | None) -> bool:
    there = _number(value)
    if number is not None and there is not None:
        return NUMBERS[op](there, number)
    text = str(value).lower()
    return {"=": wanted in text, "!=": wanted not in text}.get(op, False)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _contains(row: Row, word: str) -> bool:
    return any(word in str(value).lower() for value in row.values())
