"""What a page offers to download: its tables as CSV and LaTeX, its figures as SVG.

Each file is in the page itself, in the address of its link (`data:`), so that the page needs no script and no network.
"""

import re
from base64 import b64encode
from collections.abc import Sequence

from redsm5.engine.tables import Row, as_csv
from redsm5.engine.terminal import one_line

# The stylesheet's colours of a light page, by role; a figure outside of the page has no stylesheet.
LIGHT = {
    "ink": "#1b1f24",
    "muted": "#57606a",
    "line": "#d5d9df",
    "accent": "#1f5fae",
    "second": "#b04a00",
    "bad": "#b3261e",
}
_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
}


def csv_address(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A table as CSV, with all digits."""
    return _address("text/csv;charset=utf-8", as_csv(columns, rows) + "\n")


def latex_address(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table of texts as LaTeX's tabular with the rules of booktabs; the columns in `right` are flushed right."""
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    head = " & ".join(map(_latex, columns)) + r" \\"
    layout = "".join("r" if each else "l" for each in right)
    text = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{layout}}}", r"\toprule", head, r"\midrule"]
    return _address("application/x-tex", "\n".join([*text, *lines, r"\bottomrule", r"\end{tabular}"]) + "\n")


def svg_address(svg: str) -> str:
    """A figure of a page as a file of its own, in the colours of a light page."""
    svg = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", str(svg))  # XML refuses them; str, since Markup would escape
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0]
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    style = "<style>* { stroke-linejoin: round; stroke-linecap: butt; } text { font-family: sans-serif; }</style>"
    drawn = re.sub(
        r'<svg (viewBox="[^"]*") style="[^"]*"', rf'<svg {spaces} width="{width}pt" height="{height}pt" \1', svg
    )
    drawn = drawn.replace("</title>", f"</title>{style}", 1)
    drawn = re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], drawn)
    return _address("image/svg+xml", f'<?xml version="1.0" encoding="utf-8"?>\n{drawn}\n')


def file_name(*parts: str) -> str:
    """The parts as a file's name without an ending: letters, digits and dashes."""
    words = (re.sub(r"[^A-Za-z0-9]+", "-", part).strip("-").lower() for part in parts)
    return "-".join(filter(None, words))[:100] or "redsm5"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text))


def _address(kind: str, content: str) -> str:
    return f"data:{kind};base64,{b64encode(content.encode(errors='replace')).decode()}"
