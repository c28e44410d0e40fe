"""The filter language for trials: words, comparisons and patterns, with `or`, `!` and parentheses.

`gated` matches in any cell, `"two words"` a phrase; `head=gated` in one column; `lr<5e-5`, `val_f1>=0.4` compare
numbers; `mlp_*` and `head=mlp_*` match a whole cell; `~^mlp`, `head~^mlp`, `head!~^mlp` are regular expressions. `!`
negates what follows. Terms are joined by and, which binds tighter than `or` (or `|`). A column's name may be
abbreviated, and the last part of a full key works too. No input is an error: an incomplete term is ignored, and an
invalid pattern is searched for literally.
"""

import fnmatch
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TypeVar

LONGEST = 300  # characters of a query
LONGEST_PATTERN = 100
LONGEST_CELL = 500  # characters of a cell that a pattern searches
MOST_REPEATS = 1000  # (a{999}){999} would be expanded completely before the search
DEEPEST = 20  # nested parentheses
ONE_S = 0.05  # seconds per pattern and cell: (a+)+ would never end
ALL_S, EACH_S = 1.0, 20e-6  # after ALL_S seconds in total, a pattern must have taken less than EACH_S per cell

COUNT = re.compile(r"\d+(?=\s*(?:,\s*\d*\s*)?\})")
COMPARED = re.compile(r"([\w.#]+)(\s*(?:!=|<=|>=|=|<|>)|!?~)\s*")  # "mlp ~x" is a word and a pattern in any cell
WORD = re.compile(r"[^\s()|]+")
NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}

T = TypeVar("T")
Row = Mapping[str, object]
Test = Callable[[Row], bool]
Finds = Callable[[object], bool]


class Pattern:
    """A regular expression that ignores case; one that is invalid or takes too long is searched for literally."""

    def __init__(self, typed: str) -> None:
        import regex  # imported only when a pattern is typed; `re` has no time limit

        self.typed, self.told = typed[:LONGEST_PATTERN], ""
        self._literal = self.typed.lower()
        self._spent, self._cells = 0.0, 0
        self._search: Callable[..., object] | None = None
        if math.prod(int(count) or 1 for count in COUNT.findall(self.typed)) > MOST_REPEATS:
            self._give_up("repeats too often")
            return
        try:
            self._search = regex.compile(self.typed, regex.IGNORECASE).search
        except Exception as error:  # an incomplete pattern may raise any error
            self._give_up(f"is not a regex ({getattr(error, 'msg', '') or type(error).__name__})")

    def finds(self, value: object) -> bool:
        cell = str(value)[:LONGEST_CELL]
        if self._search is None:
            return self._literal in cell.lower()
        began = time.perf_counter()
        try:
            found = self._search(cell, timeout=ONE_S) is not None
        except (TimeoutError, MemoryError, RecursionError):
            self._give_up("takes too long")
            return self.finds(value)
        self._spent += time.perf_counter() - began
        self._cells += 1
        if self._spent > ALL_S and self._spent > self._cells * EACH_S:
            self._give_up("takes too long")
        return found

    def _give_up(self, why: str) -> None:
        self._search, self.told = None, f"{self.typed} {why}: searched for literally"


class Query:
    """A test of whether a row, its values by column, matches. An empty query matches all."""

    def __init__(self, typed: str) -> None:
        self._patterns: list[Pattern] = []
        self._tokens = [*self._tokenized(typed[:LONGEST])]
        self._at = 0
        self._test = self._either(0)

    @property
    def told(self) -> str:
        """The problem with the query; empty if there is none."""
        return next((pattern.told for pattern in self._patterns if pattern.told), "")

    def __call__(self, row: Row) -> bool:
        return self._test is None or self._test(row)

    def those(self, items: Iterable[T], row: Callable[[T], Row]) -> list[T]:
        """The items whose rows match; evaluated again if a pattern was given up meanwhile."""
        items = [*items]
        while True:
            before = self.told, [pattern.told for pattern in self._patterns]
            kept = [item for item in items if self(row(item))]
            if before == (self.told, [pattern.told for pattern in self._patterns]):
                return kept

    # -----------------------------------------------------------------------------------------------------------------
    # parsing

    def _tokenized(self, typed: str) -> Iterator[str | Test]:
        """The tokens: tests, and the signs `(`, `)`, `|` and `!`."""
        at = 0
        while at < len(typed):
            sign, after = typed[at], typed[at + 1 : at + 2]
            if sign.isspace():
                at += 1
            elif sign in "()|" or (sign == "!" and after.strip(" )|")):
                yield sign
                at += 1
            elif compared := COMPARED.match(typed, at):
                name, op = compared[1], compared[2].strip()
                wanted, quoted, at = _value(typed, compared.end(), pattern=op in ("~", "!~"))
                if wanted:
                    yield _compares(name.lower(), op, wanted.lower(), self._finder(op, wanted, quoted))
            elif sign == "~":
                wanted, _, at = _value(typed, at + 1, pattern=True)
                if wanted:
                    yield _anywhere(self._finder("~", wanted, quoted=False))
            else:
                wanted, quoted, at = _value(typed, at, pattern=False)
                if not quoted and wanted.lower() in ("or", "and"):
                    yield from "|" if wanted.lower() == "or" else ""
                elif wanted:
                    yield _anywhere(self._finder("=", wanted, quoted))

    def _finder(self, op: str, wanted: str, quoted: bool) -> Finds:
        """The function that searches one cell."""
        if op in ("~", "!~"):
            self._patterns.append(Pattern(wanted))
            return self._patterns[-1].finds
        wanted = wanted.lower()
        if not quoted and ("*" in wanted or "?" in wanted):
            whole = re.compile(fnmatch.translate(wanted)).match
            return lambda value: whole(str(value)[:LONGEST_CELL].lower()) is not None
        return _finds(wanted)

    def _either(self, depth: int) -> Test | None:
        found = [self._all(depth)]
        while self._at < len(self._tokens) and self._tokens[self._at] == "|":
            self._at += 1
            found.append(self._all(depth))
        tests = [test for test in found if test]
        return tests[0] if len(tests) == 1 else (lambda row: any(test(row) for test in tests)) if tests else None

    def _all(self, depth: int) -> Test | None:
        tests: list[Test] = []
        wanted = True
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token == "|" or (token == ")" and depth):
                break
            self._at += 1
            test: Test | None = None
            if token == "!":
                wanted = not wanted
                continue
            if token == "(" and depth < DEEPEST:
                test = self._either(depth + 1)
                self._at += 1  # skip the closing parenthesis
            elif callable(token):
                test = token
            if test:
                tests.append(test if wanted else _opposite(test))
            wanted = True
        return tests[0] if len(tests) == 1 else (lambda row: all(test(row) for test in tests)) if tests else None


@lru_cache(maxsize=16)
def matcher(query: str) -> Query:
    """The cached query, so that a pattern that took too long is not tried again at each look."""
    return Query(query)


@lru_cache(maxsize=16)
def words(query: str) -> Callable[[str], bool]:
    """A test of whether one text contains each of these words; `"two words"` count as one, and `~^val` is a regular
    expression.
    """
    typed = [found.strip('"') for found in re.findall(r'"[^"]*"?|\S+', query[:LONGEST])]
    finds: list[Finds] = [Pattern(word[1:]).finds if word[:1] == "~" else _finds(word.lower()) for word in typed]
    return lambda text: all(find(text) for find in finds)


def _finds(wanted: str) -> Finds:
    return lambda value: wanted in str(value).lower()


def _value(typed: str, at: int, *, pattern: bool) -> tuple[str, bool, int]:
    """The word, quoted words or pattern at this position, whether it is quoted, and its end."""
    if typed[at : at + 1] == '"':
        end = typed.find('"', at + 1)
        end = len(typed) if end < 0 else end
        return typed[at + 1 : end], True, end + 1
    if not pattern:
        word = WORD.match(typed, at)
        return (word[0], False, word.end()) if word else ("", False, at)
    end, depth, inside = at, 0, False
    while end < len(typed) and not typed[end].isspace():
        sign = typed[end]
        inside = sign != "]" if inside else sign == "["
        depth += 0 if inside else (sign == "(") - (sign == ")")
        if depth < 0:
            break  # it closes a parenthesis opened before the pattern
        end += 2 if sign == "\\" else 1
    end = min(end, len(typed))
    return typed[at:end], False, end


def _opposite(test: Test) -> Test:
    return lambda row: not test(row)


def _anywhere(finds: Finds) -> Test:
    return lambda row: any(finds(value) for value in row.values())


def _compares(name: str, op: str, wanted: str, finds: Finds) -> Test:
    number = _number(wanted)
    means: dict[str, bool] = {}  # by key, whether the name refers to it

    def test(row: Row) -> bool:
        for key, value in row.items():
            if key not in means:
                means[key] = key.lower().startswith(name) or key.lower().endswith(f".{name}")
            if means[key] and holds(value):
                return True
        return False

    def holds(value: object) -> bool:
        there = _number(value) if number is not None and op in NUMBERS else None
        if number is not None and there is not None:
            return NUMBERS[op](there, number)
        return finds(value) if op in ("=", "~") else not finds(value) if op in ("!=", "!~") else False

    return test


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
