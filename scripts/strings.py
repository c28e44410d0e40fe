"""List every user-visible string as `file:line  text`, and count them: `just strings [--docstrings] [WORD ...]`.

User-visible are string literals with two words or more, and any letters in a call that shows or reports text: errors,
log messages, terminal output, argparse help, labels and notifications of the terminal app. The text of the pages'
templates is listed as well. `{...}` stands for a value. Use it to review wording; it changes nothing.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from redsm5.errors import exit_with_message
from redsm5.terminal import Parser, show

ROOT = Path(__file__).parents[1]
FOLDERS = ("redsm5", "tui", "scripts")
INVENTED = {ROOT / "redsm5/data/phrases.py"}  # the sentences of synthetic posts
SHOWN_BY = re.compile(
    r"Error|Interrupted|Finding|Binding|Static|Label|Text|Column|Card|show|refuse|notify|add_argument"
)
LOGGED_BY = {"debug", "info", "warning", "error", "critical", "log", "append", "head"}
TWO_WORDS = re.compile(r"[^\W\d_]{2,}[,;:.)]? \S*[^\W_]")
MARKUP = re.compile(r"{#.*?#}|{%.*?%}|<style>.*?</style>|</?(?!b>|i>|strong>|code>)[a-z!][^>]*>", re.DOTALL)


def text_of(node: ast.expr) -> str | None:
    """A literal's text, or an f-string's with `{...}` for its values; None for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join("{...}" if isinstance(part, ast.FormattedValue) else text_of(part) or "" for part in node.values)
    return None


def is_shown(call: ast.Call) -> bool:
    """Whether the call's name says that its arguments are shown to a person."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in LOGGED_BY or bool(SHOWN_BY.search(name))


def strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every string literal that a person may see."""
    owners = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef))]
    hidden = {
        id(node.body[0].value) for node in owners if ast.get_docstring(node) and isinstance(node.body[0], ast.Expr)
    }
    hidden |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
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
        if text and (TWO_WORDS.search(text) or (id(node) in shown and re.search(r"[^\W\d_]{2}", text))):
            yield node.lineno, text


def docstrings(tree: ast.Module, *, all_of_them: bool) -> Iterator[tuple[int, str]]:
    """(line, text) of the module's docstring, or of all in it."""
    for node in ast.walk(tree) if all_of_them else [tree]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
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


exit_with_message(main)
