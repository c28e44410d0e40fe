"""List every user-visible string with its place, and count them: `just strings [--docstrings modules|all] [WORD ...]`.

User-visible are string literals of two words or more, and single words in calls that show text: errors, log messages,
terminal output, argparse help, labels and notifications of the terminal app. The text of the HTML templates is listed
as well. `{...}` stands for a value. Use it to review wording.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from redsm5.engine.errors import exit_with_message
from redsm5.engine.terminal import Parser, show

ROOT = Path(__file__).parents[1]
FOLDERS = ("redsm5", "tui", "scripts")
INVENTED = {ROOT / "redsm5/data/phrases.py"}  # the sentences of synthetic posts
SHOWN_BY = re.compile(
    r"Error|Interrupted|Finding|Binding|Static|Label|Text|Column|Card|show|refuse|notify|add_argument"
)
LOGGED_BY = {"debug", "info", "warning", "error", "critical", "log", "append"}
TWO_WORDS = re.compile(r"[^\W\d_]{2,}[,;:.)]? \S*[^\W_]")
# Names of actions, ids, flags and styles; SQL; code for a child process; lists of variables; patterns.
NOT_PROSE = re.compile(
    r"--?[a-z]|[a-z_.-]+(\(.*\))?$|(bold |italic )?\w*(yellow|cyan|green|magenta|red)$|offset points|\(\?s\)|\\s"
    r"|(SELECT|INSERT|UPDATE|PRAGMA|BEGIN) |\n(?:import| *def| {4}[A-Z_*]+ )|import \w"
)
MARKUP = re.compile(r"{#.*?#}|{%.*?%}|<style>.*?</style>|</?(?!b>|i>|strong>|code>)[a-z!][^>]*>", re.DOTALL)


def text_of(node: ast.expr) -> str | None:
    """A literal's text, or an f-string's with `{...}` for its values; None for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join("{...}" if isinstance(part, ast.FormattedValue) else text_of(part) or "" for part in node.values)
    return None


def is_shown(call: ast.Call) -> bool:
    """Whether the call, by its name, shows its arguments to the user."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in LOGGED_BY or bool(SHOWN_BY.search(name))


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every string literal that the user may see."""
    hidden = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            hidden |= {id(part) for part in ast.walk(node) if part is not node and isinstance(part, ast.Constant)}
    shown = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and is_shown(call)
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr) or id(node) in hidden:
            continue
        text = text_of(node)
        if not text or NOT_PROSE.match(text):
            continue
        prose = TWO_WORDS.search(text.replace("{...}", "0"))
        if prose or (id(node) in shown and re.search(r"[^\W\d_]{2}", text)):
            yield node.lineno, text


def docstrings(tree: ast.Module, *, all_of_them: bool) -> Iterator[tuple[int, str]]:
    """(line, text) of the module's docstring, or of all in it."""
    for node in ast.walk(tree) if all_of_them else [tree]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            text := ast.get_docstring(node)
        ):
            yield node.body[0].lineno, text


def template_texts(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of a template's text between tags."""
    blank = MARKUP.sub(lambda found: "\0" + "\n" * found[0].count("\n"), source)
    for number, line in enumerate(blank.splitlines(), start=1):
        for piece in re.sub(r"{{.*?}}", "{...}", line).split("\0"):
            if re.search(r"[^\W\d_]{2}", piece.replace("{...}", "")):
                yield number, piece.strip()


def main() -> int:
    parser = Parser(prog="just strings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORD", help="list only strings that contain one of these words")
    parser.add_argument("--docstrings", choices=["none", "modules", "all"], default="none", help="list docstrings too")
    arguments = parser.parse_args()
    found: list[tuple[Path, int, str]] = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path not in INVENTED):
        tree = ast.parse(path.read_bytes())
        found += [(path, *row) for row in strings(tree)]
        if arguments.docstrings != "none":
            found += [(path, *row) for row in docstrings(tree, all_of_them=arguments.docstrings == "all")]
    for path in sorted((ROOT / "redsm5").rglob("*.html")):
        found += [(path, *row) for row in template_texts(path.read_text())]
    wanted = [row for row in found if not arguments.words or any(word in row[2] for word in arguments.words)]
    for path, line, text in sorted(wanted):
        show(f"{path.relative_to(ROOT)}:{line}  {text}")
    show(f"{len(wanted)} strings")
    return 0


if __name__ == "__main__":
    exit_with_message(main)
