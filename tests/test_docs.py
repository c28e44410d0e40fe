"""What README.md, CONTRIBUTING.md and docs/ say of settings, commands and files is true of the repository."""

import re
import shlex
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from redsm5.cli import COMMANDS
from redsm5.engine.compose import compose
from redsm5.engine.installed import APP
from redsm5.engine.study.workers import asked_for
from redsm5.task import task_of

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOL = SETTINGS["tool"]
FEWEST_COMMANDS = 20
PASSED_ON = ("container-build", "apptainer-build", "test", "test-long", "mlflow")  # flags are another program's
LONGEST_README = 200  # lines, for a newcomer: the rest is in docs/

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def figures(pattern: str, *names: str) -> set[str]:
    """What the pattern's group is in these files; each must have it."""
    found = [re.findall(pattern, (ROOT / name).read_text()) for name in names]
    assert all(found), f"{pattern} is missing in {names}"
    return {figure for per_file in found for figure in per_file}


def recipes() -> dict[str, str]:
    """The body of each recipe of the justfile, by name."""
    found = re.findall(r"^([a-z][a-z-]*)(?: [^:\n]*)?:(?!=).*\n((?: .*\n|\n)*)", (ROOT / "justfile").read_text(), re.M)
    return dict(found)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The language and the text of a page's fenced blocks."""
    return ((found[1], found[2]) for found in re.finditer(r"(?ms)^```(\w*)\n(.*?)^```$", page.read_text()))


def commands(page: Path) -> Iterator[list[str]]:
    """The commands that a page's blocks show, as words: all of a shell block, of another one those after `$ `."""
    for language, block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "sh" or line.startswith("$ "):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                while "&&" in words:
                    yield words[: (end := words.index("&&"))]
                    words = words[end + 1 :]
                if words:
                    yield words


def ours(words: list[str]) -> list[str]:
    """The recipe and the arguments of a command that is ours, in an image or in a job file as well; else none."""
    if words[0] == "just":
        return words[1:]
    if words[:2] in (["apptainer", "run"], ["docker", "run"]):
        return words[next(i for i, word in enumerate(words) if word in ("redsm5", "redsm5.sif")) + 1 :]
    if words[0] == "sbatch":
        at = next(i for i, word in enumerate(words) if word.endswith(".sbatch"))
        assert (ROOT / words[at]).exists(), words[at]
        return ["hpo", *words[at + 1 :]]
    return []


# ---------------------------------------------------------------------------------------------------------------------
# settings


def test_the_figures_of_contributing_are_those_of_the_settings() -> None:
    assert figures(r"at\s+least (\d+) %\s+coverage", "CONTRIBUTING.md") == {
        str(TOOL["coverage"]["report"]["fail_under"])
    }
    assert figures(r"at most (\d+)\s+characters", "CONTRIBUTING.md") == {str(TOOL["ruff"]["line-length"])}
    assert figures(r"A test may take (\d+) seconds", "CONTRIBUTING.md") == {
        str(TOOL["pytest"]["ini_options"]["timeout"])
    }
    assert TOOL["black"]["line-length"] == TOOL["ruff"]["line-length"]


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = SETTINGS["project"]["requires-python"].removeprefix(">=").split(",")[0]
    assert figures(r"Python (3\.\d+) or newer", "README.md", "CONTRIBUTING.md", "justfile") == {oldest}
    short = "py" + oldest.replace(".", "")
    assert (TOOL["ruff"]["target-version"], TOOL["black"]["target-version"]) == (short, [short])
    assert TOOL["mypy"]["python_version"] == oldest


@every_page
def test_every_key_that_is_named_is_one_of_the_configuration(page: Path) -> None:
    known = re.findall(r"(?m)^\| `([\w.]+)` \|", (ROOT / "docs/reference.md").read_text())
    sections = "|".join({key.split(".")[0] for key in known if "." in key})
    named = re.findall(rf"[`\s]((?:{sections})(?:\.(?!(?:jsonl?|delta|safetensors)`)\w+)+)(?=[`=])", page.read_text())
    assert [key for key in named if not any(f"{key}.".startswith(f"{name}.") for name in known)] == []


# ---------------------------------------------------------------------------------------------------------------------
# commands


def test_every_command_that_is_named_is_a_recipe() -> None:
    sources = [*PAGES, *(path for folder in ("redsm5", "tui", "scripts") for path in (ROOT / folder).rglob("*.py"))]
    named = {
        (word, path.name) for path in sources for word in re.findall(r"[`\"]just ([a-z][a-z-]*)", path.read_text())
    }
    assert len({word for word, _ in named}) >= FEWEST_COMMANDS
    assert {(word, where) for word, where in named if word not in recipes()} == set()


def test_the_readme_has_every_recipe_in_its_table_of_commands() -> None:
    table = (ROOT / "README.md").read_text().split("| command | does |")[1].split("\n\n")[0]
    named = set(
        re.findall(r"[`\s]([a-z][a-z-]+)(?=[`\s])", " ".join(row.split(" | ")[0] for row in table.splitlines()))
    )
    assert set(recipes()) - named - {"default", "help", "setup", "lock"} == set()


def inline(page: Path) -> Iterator[list[str]]:
    """The commands that a page's text names with arguments, but for those with a placeholder for an override."""
    for found in re.findall(r"(?s)`(just [a-z-]+ [^`]*)`", page.read_text()):
        words = [word.strip("[]") for word in shlex.split(found.replace("|", " "))]
        if not any(re.search(r"=.*[A-Z]{2}|=N$|KEY=|^overrides", word) for word in words):
            yield words


@every_page
def test_every_command_of_a_block_or_in_the_text_runs_with_its_arguments(page: Path) -> None:
    for words in filter(None, map(ours, [*commands(page), *inline(page)])):
        recipe, *arguments = words
        assert recipe in recipes(), words
        if recipe in ("hpo", "train", "baseline"):
            arguments = asked_for(arguments)[1]  # of the command, not of the study
            task, words = task_of([word.replace("<uuid>", str(uuid.uuid4())) for word in arguments])
            compose(task.spec, words)
        flags = [word for word in arguments if word.startswith("--")]
        if flags and recipe not in PASSED_ON:
            script = COMMANDS[recipe][0] if recipe in COMMANDS else f"{recipe}.py"
            if recipe == "bench":
                script = f"bench/{arguments[0]}.py"
            path = ROOT / ("tui/__main__.py" if script == APP else f"scripts/{script}")
            assert [flag for flag in flags if f'"{flag}"' not in path.read_text()] == [], words


def test_the_blocks_of_readme_and_docs_show_commands() -> None:
    shown = {words[0] for page in PAGES for words in map(ours, commands(page)) if words}
    assert {"hpo", "test", "doctor", "checkpoints"} <= shown


def test_a_newcomer_sets_up_with_two_commands_and_runs_a_study_and_the_tests_with_one_each() -> None:
    readme = (ROOT / "README.md").read_text()
    first = next(block for language, block in blocks(ROOT / "README.md") if language == "sh")
    shown = [line.split("#")[0].strip() for line in first.splitlines()]
    assert shown == ["pip install rust-just", "just setup", "just hpo", "just test"]
    assert readme.count("\n") < LONGEST_README


# ---------------------------------------------------------------------------------------------------------------------
# links and files


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    assert [link for link, _ in links if not (page.parent / link).exists()] == []
    astray = [(link, to) for link, to in links if to and to not in anchors(page.parent / link if link else page)]
    assert astray == []


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    folders = "redsm5|tui|scripts|tests|docs|containers|accelerate_configs"
    named = re.findall(rf"[`\s]((?:{folders})/[\w./-]*\w/?)", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_links_to_every_page() -> None:
    links = set(re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in PAGES if page.parent != ROOT} - links == set()
