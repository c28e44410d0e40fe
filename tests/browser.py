"""Measures a page in a real browser: headless Chromium."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is on this machine's PATH")

PAPER = 717  # CSS pixels of an A4 page's width, without the margins of 0.4 inches that Chromium prints with
SCREENS = (1280, 768, 400)

# What does not fit: boxes with more in them than they show, text outside of the page, and text outside of its figure.
SCRIPT = """
function outside(d) {
  const wide = d.documentElement.clientWidth, found = [];
  const near = (a, b) => a.left < b.left - 1 || a.right > b.right + 1;
  if (d.documentElement.scrollWidth > wide) found.push(`the page: ${d.documentElement.scrollWidth} of ${wide}`);
  for (const e of d.querySelectorAll('body *')) {
    if (!e.getClientRects().length || e.closest('svg') || !e.clientWidth) continue;
    if (e.scrollWidth > e.clientWidth + 1) found.push(`${e.tagName} ${e.className}: ${e.textContent.slice(0, 60)}`);
  }
  const walk = d.createTreeWalker(d.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const range = d.createRange(), text = walk.currentNode.data.trim();
    range.selectNodeContents(walk.currentNode);
    const box = range.getBoundingClientRect(), svg = walk.currentNode.parentElement.closest('svg');
    if (!text || !box.width || walk.currentNode.parentElement.closest('title')) continue;
    if (near(box, {left: 0, right: wide})) found.push(`text: ${text.slice(0, 60)}`);
    if (svg && near(box, svg.getBoundingClientRect())) found.push(`text of ${svg.id || 'a figure'}: ${text}`);
  }
  return found;
}
"""


def run_in(page: Path, script: str, folder: Path, *, widths: tuple[int, ...] = SCREENS, dark: bool = False) -> Any:
    """What a script says of a page, by width, and under "print" as it is laid out on paper.

    Args:
        script: the body of a function of `d`, the page's document.
        folder: an empty one, for what the browser needs.
    """
    assert CHROMIUM
    html = page.read_text()
    # The rules for paper are taken for the screen; a frame cannot be printed.
    printed = page.with_name("printed.html")
    printed.write_text(re.sub("@media screen", "@media print", html.replace("@media print", "@media all")))
    frames = {str(width): (page, width) for width in widths} | {"print": (printed, PAPER)}
    body = "".join(
        f'<iframe id="f{name}" src="{file.as_uri()}" style="border:0;width:{width}px;height:2000px"></iframe>'
        for name, (file, width) in frames.items()
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(f"""<meta charset="utf-8"><body>{body}<script>{SCRIPT}
onload = () => {{
  const said = {{}}, ask = d => {{ {script} }};
  for (const frame of document.querySelectorAll('iframe')) said[frame.id.slice(1)] = ask(frame.contentDocument);
  document.body.innerHTML = '<pre></pre>';
  document.querySelector('pre').textContent = JSON.stringify(said);
}};</script>""")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--hide-scrollbars", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command += ["--window-size=1400,1000", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    printed.unlink()
    found = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def cut(page: Path, folder: Path, *, dark: bool = False) -> dict[str, list[str]]:
    """What of a page does not fit, by width and on paper."""
    said: dict[str, list[str]] = run_in(page, "return outside(d);", folder, dark=dark)
    return said
