"""The links at the top of a trial's page: its study, the trials before and after it, and the baseline.

A trial's page is drawn as the trial ends, when its neighbours may not exist. So it then links to what is there, and
`just summary` writes the links of all pages of the study anew, without drawing them again. All links are relative: an
experiments folder may be moved or copied.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from markupsafe import Markup

from redsm5.engine import files, paths
from redsm5.engine.documents import load
from redsm5.engine.errors import InputError
from redsm5.reports import StudySummary

Link = tuple[str, str]
"""A text, and an address relative to the page's folder."""

_BLOCK = re.compile(r"<!-- links -->.*?<!-- /links -->\n?", re.DOTALL)
_LINK = re.compile(r'<a href="([^"]*)">')
HEAD = 65_536  # bytes; the links stand before them


def block(links: Sequence[Link]) -> Markup:
    """The part of a page that has these links."""
    told = Markup(" · ").join(Markup('<a href="{}">{}</a>').format(address, text) for text, address in links)
    shown = Markup('<nav aria-label="Pages of the study">{}</nav>\n').format(told) if links else Markup("")
    return Markup("<!-- links -->\n{}<!-- /links -->\n").format(shown)


def with_links_of(html: str, page: Path) -> str:
    """The html with the links of the page that it replaces, but for dead ones."""
    try:
        old = _BLOCK.search(page.read_text(errors="replace"))
    except FileNotFoundError:
        return html
    if old is None or any(not (page.parent / Markup(a).unescape()).exists() for a in _LINK.findall(old[0])):
        return html
    return _placed(html, old[0])


def link_pages(experiments: Path, study: StudySummary) -> None:
    """Write the links of a study's pages: those of its trials and its repeats, and that of the baseline.

    A page that is in use, or cannot be written, keeps the links that it has.
    """
    home = (f"Study {study.name}", _address(paths.study_dir(experiments, study.study_id) / paths.SUMMARY_PAGE))
    baseline = (experiments / study.baseline.report).with_name(paths.REPORT_PAGE) if study.baseline else None
    beside = [("Baseline", _address(baseline))] if baseline and baseline.exists() else []
    trials = sorted((row.number, row.trial_id) for row in study.trials if row.number is not None)
    chains = [[(f"Trial {number}", trial_id) for number, trial_id in trials]]
    chains += [[(f"Trial {row.trial_id[:8]}", row.trial_id)] for row in study.trials if row.number is None]
    confirmed = study.confirmation.configurations if study.confirmation else []
    chains += [[(f"Repeat {each.repeat}", each.trial_id) for each in row.trials] for row in confirmed]
    for chain in chains:
        drawn = [(text, page) for text, trial_id in chain if (page := _page(experiments, trial_id)).exists()]
        for place, (_, page) in enumerate(drawn):
            before = [(f"← {text}", _address(other)) for text, other in drawn[:place][-1:]]
            after = [(f"{text} →", _address(other)) for text, other in drawn[place + 1 :][:1]]
            _write(page, [home, *before, *after, *beside])
    if baseline and baseline.exists():
        _write(baseline, _studies_beside(experiments, baseline))


def _studies_beside(experiments: Path, baseline: Path) -> list[Link]:
    """The pages of the studies whose summary names this baseline, by name."""
    found = []
    for folder in experiments.glob("study_*"):
        with suppress(InputError, OSError):
            summary = load(folder / paths.SUMMARY, StudySummary)
            page = folder / paths.SUMMARY_PAGE
            named = summary and summary.baseline and (experiments / summary.baseline.report).parent == baseline.parent
            if summary and named and page.exists():
                found.append((f"Study {summary.name}", _address(page)))
    return sorted(found)


def _page(experiments: Path, trial_id: str) -> Path:
    return paths.trial_dir(experiments, trial_id) / paths.REPORT_PAGE


def _address(page: Path) -> str:
    """The address of a page from another folder of the same experiments."""
    return f"../{page.parent.name}/{page.name}"


def _write(page: Path, links: Sequence[Link]) -> None:
    """Give a page these links, if nobody else writes it."""
    wanted = str(block(links))
    with suppress(OSError), files.try_lock(page.parent / paths.LOCK) as held:
        if not held:
            return
        with page.open("rb") as file:
            if wanted.encode() in file.read(HEAD):
                return
        files.write_atomic(page, _placed(page.read_text(errors="replace"), wanted).encode(errors="replace"))


def _placed(html: str, links: str) -> str:
    """The page with this block of links; after <body> in a page of an older version."""
    if _BLOCK.search(html):
        return _BLOCK.sub(lambda _: links, html, count=1)
    return html.replace("<body>\n", f"<body>\n{links}", 1)
