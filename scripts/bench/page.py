"""Run the benchmarks and write a page with the results: `just bench [--only checkpoint between] [--page FILE]`.

Each benchmark runs its contenders in turn, in one process tree. The page has a plot of all ratios and every table; the
figures are next to it as JSON, one file per benchmark. A benchmark that is not run keeps its last figures; `live` runs
only where Ray is installed.
"""

import argparse
import ast
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from matplotlib.figure import Figure

from redsm5.engine.documents import now
from redsm5.engine.errors import exit_with_message
from redsm5.engine.receipts import environment
from redsm5.engine.terminal import Parser, show

HERE = Path(__file__).parent
BENCHES = (
    *("sample", "between", "checkpoint", "storage", "throughput"),
    *("posts", "predict", "journal", "shipping", "resume", "search", "live", "luck", "terminal"),
)
# Run only on request: the first takes up to an hour, the others have no contender.
APART = ("soak", "serialization", "minilm")
INCH_A_BAR = 0.26


def run(names: list[str], folder: Path) -> list[str]:
    """Run these benchmarks one after the other; return the names of those that failed."""
    failed = []
    for name in names:
        show(f"— {name}", error=True)
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(folder / f"{name}.json")]
        if subprocess.run(command).returncode:
            failed.append(name)
    return failed


def all_benches() -> list[str]:
    """The benchmarks that run here."""
    if find_spec("ray"):
        return list(BENCHES)
    show("live is left out, since Ray is not installed: `just bench live --help` says how to install it", error=True)
    return [name for name in BENCHES if name != "live"]


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """A PNG with all ratios as bars from 1, which is redsm5, on a logarithmic axis."""
    bars = [
        (f"{what}: {peer}", ratio)
        for result in found.values()
        for what, peers in result["times_ours"].items()
        for peer, ratio in peers.items()
        if peer != "redsm5"
    ][::-1]
    figure = Figure(figsize=(9, 1 + INCH_A_BAR * len(bars)), layout="constrained")
    axes = figure.add_subplot()
    ratios = [ratio for _, ratio in bars]
    colours = ["#1f5fae" if ratio >= 1 else "#b04a00" for ratio in ratios]
    axes.barh(range(len(bars)), [ratio - 1 for ratio in ratios], left=1, color=colours, height=0.7)
    axes.set_xscale("log")
    axes.axvline(1, color="#1b1f24", linewidth=1)
    axes.set_xlim(min([0.5, *ratios]) / 1.5, max([2.0, *ratios]) * 3)
    for place, ratio in enumerate(ratios):
        axes.annotate(
            f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}",
            (ratio, place),
            (4 if ratio >= 1 else -4, 0),
            textcoords="offset points",
            va="center",
            ha="left" if ratio >= 1 else "right",
            fontsize=8,
        )
    axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=8)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xlabel("ratio to redsm5 (time or bytes); above 1 redsm5 is better")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def page(found: dict[str, dict[str, Any]], folder: Path) -> str:
    """The page, in Markdown; a benchmark may have left a plot of its own, NAME.svg, in the folder of figures."""
    lines = ["# Performance", "", f"Made by `just bench` on {now()[:10]}: {machine()}.", ""]
    lines += [f"![Ratio of the others to redsm5]({folder.name}/ratios.png)", ""]
    for name, result in found.items():
        doc = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""
        columns = list(result["rows"][0])
        lines += [f"## {result['title']}", "", doc, "", markdown(columns)]
        lines.append(markdown(["---"] + ["---:"] * (len(columns) - 1)))
        lines += [markdown([row[column] for column in columns]) for row in result["rows"]]
        if (folder / f"{name}.svg").exists():
            lines += ["", f"![{result['title']}]({folder.name}/{name}.svg)"]
        lines.append("")
    return "\n".join(lines)


def markdown(cells: list[Any]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def machine() -> str:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = environment(device)
    memory = math.ceil(psutil.virtual_memory().total / 2**30)
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {facts['python']}, torch {facts['torch']}, transformers {facts['transformers']}"
    return f"{facts['device']}, {cores} cores, {memory} GiB of memory, {facts['system']}, {versions}"


def main() -> int:
    parser = Parser(prog="just bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*BENCHES, *APART], help="none: draw the page again")
    parser.add_argument("--page", type=Path, default=Path("bench/performance.md"))
    arguments = parser.parse_args()
    folder = arguments.page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    failed = run(all_benches() if arguments.only is None else arguments.only, folder)
    kept = {name: folder / f"{name}.json" for name in (*BENCHES, *APART)}
    found = {name: json.loads(path.read_text()) for name, path in kept.items() if path.exists()}
    if found:
        plot(found, folder / "ratios.png")
        arguments.page.write_text(page(found, folder))
        show(f"the page: {arguments.page}", error=True)
    if failed:
        show(f"error: these failed, see above: {', '.join(failed)}", error=True)
    return int(bool(failed))


if __name__ == "__main__":
    exit_with_message(main)
