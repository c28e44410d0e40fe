"""The only module that writes to the terminal: control characters are shown escaped, never sent.

A study's name, a reason, a path or an error may come from a file that somebody else wrote. Escape sequences and other
control characters, invisible and direction-changing characters, and lone surrogates are written as JSON escapes
(`\\u001b`), so that JSON stays valid. Characters that the terminal's encoding lacks raise no error. This module needs
only the standard library.
"""

import argparse
import json
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, NoReturn

from redsm5.engine.installed import typed

# C0 but for tab and line feed, DEL and C1; lone surrogates; what is invisible, separates lines or orders them from
# right to left. Joiners (U+200C, U+200D) stay: scripts and emoji are written with them.
_OBEYED = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e0fff]"
)
_NEW_LINE_OR_TAB = re.compile(r"[\n\t]")


def _as_json(found: "re.Match[str]") -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code == 0x7F else json.dumps(found[0])[1:-1]


def escaped(text: str) -> str:
    """The text with its lines and tabs, and nothing else in it that a terminal obeys."""
    return _OBEYED.sub(_as_json, text)


def one_line(text: object) -> str:
    """A value that stays within its line: line feeds and tabs are escaped as well."""
    return _NEW_LINE_OR_TAB.sub(_as_json, escaped(str(text)))


def show(text: str, *, error: bool = False) -> None:
    """Print lines to standard output or, of an error, to standard error, at once.

    Of what the encoding lacks, a letter is escaped, and a symbol is a question mark, as wide as it.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is not None:  # Python was started with it closed
        try:
            stream.write(_encodable(escaped(text), stream.encoding or "utf-8") + "\n")
            stream.flush()
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe: drop the rest
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return re.sub(r"[^\x00-\x7f]", lambda found: _in_encoding(found, encoding), text)
    return text


def _in_encoding(found: "re.Match[str]", encoding: str) -> str:
    try:
        found[0].encode(encoding)
    except UnicodeEncodeError:
        return _as_json(found) if unicodedata.category(found[0])[0] in "LMN" else "?"
    return found[0]


def help_asked(words: Sequence[str], prog: str, doc: str | None) -> bool:
    """Print the help of a command that takes overrides, if a word asks for it: -h or --help."""
    if not {"-h", "--help"}.intersection(words):
        return False
    lines = [
        f"usage: {typed(prog)} [KEY=VALUE ...]",
        "",
        (doc or "").strip(),
        "",
        "KEY=VALUE sets a key (train.epochs=10), or chooses a group's file (model=bert_base).",
        "`just keys` lists all keys, `just keys WORD` those that have to do with a word; docs/reference.md has groups.",
    ]
    show("\n".join(map(typed, "\n".join(lines).splitlines())))
    return True


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that prints through this module, since its messages quote what was typed.

    What `prog` and `description` name as `just sync` is shown as it is typed in this installation.
    """

    def __init__(self, *, prog: str, description: str | None, **settings: Any) -> None:
        super().__init__(prog=typed(prog), description=typed(description or ""), **settings)

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            show(message.removesuffix("\n"), error=file is not sys.stdout)
