"""The benchmarks' page holds what was measured, and a benchmark alone prints it and keeps it."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


def run(name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), *words], cwd=cwd, capture_output=True, text=True, check=True
    )


def test_a_benchmark_alone_prints_its_table_and_keeps_every_figure(tmp_path: Path) -> None:
    printed = run("journal", "--rounds", "1", "--json", "kept.json", cwd=tmp_path).stdout
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert [row[""] for row in kept["rows"]] == ["redsm5", "MLflow, log_metric", "MLflow, log_batch"]
    assert all(row[""] in printed for row in kept["rows"])
    assert {name: len(epochs[0]) for name, epochs in kept["measured"].items()} == dict.fromkeys(kept["measured"], 201)
    slower = sum(kept["measured"]["MLflow, log_metric"][0]) / sum(kept["measured"]["redsm5"][0])
    assert abs(kept["times_ours"]["logging a metric"]["MLflow, log_metric"] - slower) < 1e-9


def test_the_page_has_a_plot_and_the_table_of_each_benchmark_whose_figures_are_kept(tmp_path: Path) -> None:
    kept = {
        "title": "What logging costs",
        "rows": [{"": "redsm5", "ms": "2"}, {"": "a peer", "ms": "6"}],
        "times_ours": {"logging": {"a peer": 3.0}},
        "measured": [],
    }
    folder = tmp_path / "bench" / "performance"
    folder.mkdir(parents=True)
    (folder / "journal.json").write_text(json.dumps(kept))
    (folder / "journal.svg").write_text("<svg/>")
    run("page", "--only", cwd=tmp_path)
    page = (tmp_path / "bench" / "performance.md").read_text()
    assert "## What logging costs" in page
    assert "| a peer | 6 |" in page
    assert "(performance/ratios.png)" in page
    assert "(performance/journal.svg)" in page
    assert (folder / "ratios.png").read_bytes().startswith(b"\x89PNG")
    assert page.count("## ") == 1


def test_the_files_are_generated_once_and_measured_again_and_again(tmp_path: Path) -> None:
    words = ("--trials", "12", "--rounds", "1", "--keep", "kept", "--json", "figures.json")
    for _ in range(2):  # the second finds the folders of the first
        printed = run("serialization", *words, cwd=tmp_path).stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    names = [row[""] for row in figures["rows"]]
    assert names[:4] == ["open", "first count", "poll", "trial records"]
    assert {"journal, an epoch", "index of 12", "index of 12, without fsync", "just studies"} <= {*names}
    assert all(name in printed for name in names)
    assert all(row["CPU, ms"] != "0" for row in figures["rows"])
    assert len(list((tmp_path / "kept").glob("*/trial_*"))) == 24
