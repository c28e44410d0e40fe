"""Nothing reaches the terminal that it would obey, what its encoding lacks ends nothing, and all goes one way there."""

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from redsm5.engine.terminal import Parser, escaped, one_line, show

ROOT = Path(__file__).parents[2]
# Who may write to the terminal past redsm5/engine/terminal.py: the file, what it calls, and why.
APART = {
    ("redsm5/engine/terminal.py", "stream.write"): "it is the place",
    ("redsm5/engine/terminal.py", "argparse.ArgumentParser"): "likewise",
    ("redsm5/engine/study/status.py", "rich.console"): "rich draws the live line, of numbers and words of ours alone",
    ("redsm5/engine/tracking/progress.py", "rich.progress"): "likewise the bar",
    ("redsm5/engine/study/workers.py", "rich.progress"): "likewise the bar over the trials of all workers",
    ("redsm5/engine/study/workers.py", "rich.console"): "likewise",
    ("redsm5/engine/tracking/progress.py", "rich.console"): "likewise",
    ("scripts/predict_posts.py", "rich.progress"): "likewise the bar over the posts",
    ("scripts/predict_posts.py", "rich.console"): "likewise",
    (
        "scripts/predict_posts.py",
        "sys.stdout.buffer.write",
    ): "the rows as they are, for a pipe or a file, never a terminal",
    ("redsm5/engine/files.py", "os.fdopen"): "a file of ours",
    ("redsm5/engine/study/launch.py", "os.fdopen"): "a trial's log file",
    ("scripts/doctor.py", "sys.exit"): "too old a Python is told before anything of ours can be imported",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;title\x07b", "a\\u001b]0;title\\u0007b"),
        ("\x9b31m\x7f\x85", "\\u009b31m\\u007f\\u0085"),
        ("\u202eevil\u202c \u2066x\u2069", "\\u202eevil\\u202c \\u2066x\\u2069"),
        ("half \ud800 \udcff", "half \\ud800 \\udcff"),
        ("zero\u200bwidth \u2028 \ufeff \U000e0041", "zero\\u200bwidth \\u2028 \\ufeff \\udb40\\udc41"),
        ("back\rspace\x08", "back\\rspace\\b"),
    ],
)
def test_what_a_terminal_obeys_is_shown_as_json_writes_it(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_letters_of_all_scripts_spaces_and_joiners_stay() -> None:
    text = "André, 日本語\u3000x, \N{MAN}\u200d\N{WOMAN}, a\u00a0b, two\nlines\tand a tab"
    assert escaped(text) == text


def test_every_character_that_is_escaped_comes_back_from_json() -> None:
    every = "".join(map(chr, range(0x110000)))
    again = json.loads(f'"{one_line(every.replace(chr(34), "").replace(chr(92), ""))}"')
    assert again.encode("utf-16", "surrogatepass") == every.replace('"', "").replace("\\", "").encode(
        "utf-16", "surrogatepass"
    )


def test_json_stays_the_same_json() -> None:
    document = {"name\x7f": "\x1b\x9b\u202e\ud800\n", "list": ["é", 1.5, None]}
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=2)):
        assert json.loads(escaped(text)) == document


def test_a_value_stays_in_its_line() -> None:
    assert one_line("a\nerror: b\tc\r\u2028\x0b\x0c\x85d").splitlines() == [r"a\nerror: b\tc\r\u2028\u000b\f\u0085d"]
    assert one_line(Path("/a\nb")) == r"/a\nb"


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "✓ ok  André – ●", b"? ok  Andr\\u00e9 ? ?\n"),
        ("latin-1", "✓ André", b"? Andr\xe9\n"),
        ("utf-8", "✓ André \udcff", "✓ André \\udcff\n".encode()),
    ],
)
def test_what_the_encoding_lacks_is_no_error(
    monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, shown: bytes
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="surrogateescape"))
    show(text)
    assert raw.getvalue() == shown


def test_who_stops_reading_is_no_error() -> None:
    code = "from redsm5.engine.terminal import show\nfor _ in range(20_000): show('x' * 100)"
    reader = subprocess.Popen(["head", "-1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    done = subprocess.run([sys.executable, "-c", code], stdout=reader.stdin, stderr=subprocess.PIPE, check=False)
    reader.communicate()
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_parser_s_message_and_help_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="just x", description="with \x1b]0;x\x07")
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["\x1b]0;x\x07\udcff"])
    assert capsys.readouterr().err.endswith("just x: error: unrecognized arguments: \\u001b]0;x\\u0007\\udcff\n")
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["--help"])
    out, err = capsys.readouterr()
    assert ("with \\u001b]0;x\\u0007" in out, err) == (True, "")


def test_an_error_s_message_and_traceback_hold_neither_an_escape_nor_a_secret() -> None:
    for raised, starts in (("InputError", b"error: a\\u001b[31m"), ("RuntimeError", b"Traceback")):
        code = (
            "from redsm5.engine.errors import InputError, exit_with_message\n"
            f"def main(): raise {raised}('a\\x1b[31m hf_abcdefgh12345678\\nerror: forged')\n"
            "exit_with_message(main)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(starts)
        assert b"\x1b" not in done.stderr
        assert b"hf_abc" not in done.stderr
        assert raised == "RuntimeError" or b"\nerror: forged" not in done.stderr


# ---------------------------------------------------------------------------------------------------------------------
# one way to the terminal

CALLS = {"print", "input", "print_exc", "print_exception", "ArgumentParser", "StreamHandler"}
STREAMS = ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "stdout", "stderr", "stream")


def ways_to_the_terminal(tree: ast.AST) -> list[str]:
    """What in a module writes to the terminal: by name, by a stream, by an exit with a message, or with rich."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("rich.console", "rich.progress"):
            found.append(node.module)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        owner, _, last = name.rpartition(".")
        writes = last in ("write", "writelines") and owner.removesuffix(".buffer") in STREAMS
        exits = last in ("exit", "SystemExit", "fdopen") and isinstance(
            next(iter(node.args), None), ast.JoinedStr | ast.Constant | ast.Call
        )
        if exits and isinstance(node.args[0], ast.Constant):
            exits = isinstance(node.args[0].value, str)
        elif exits and isinstance(node.args[0], ast.Call):
            exits = ast.unparse(node.args[0].func) not in ("main", "int")
        raw = name == "os.write" and ast.unparse(node.args[0]) in ("1", "2")
        if last in CALLS or writes or exits or raw:
            found.append(name)
    return found


@pytest.mark.parametrize("part", ["redsm5", "scripts", "tui"])
def test_all_goes_to_the_terminal_one_way(part: str) -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / part).rglob("*.py")
        for name in ways_to_the_terminal(ast.parse(path.read_text()))
    }
    assert sorted(found - APART.keys()) == [], "write through redsm5/engine/terminal.py"


def test_the_search_finds_each_way() -> None:
    code = "print(1); sys.stderr.write('x'); sys.stdout.buffer.write(b''); sys.exit(f'e {1}'); traceback.print_exc()"
    assert len(ways_to_the_terminal(ast.parse(code))) == 5
    assert ways_to_the_terminal(ast.parse("sys.exit(0); sys.exit(code); file.write('x'); sys.exit(main())")) == []
