"""How the HTML pages are rendered, and how they write names and figures."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from redsm5.engine.tables import SHORT_NAMES, duration_text
from redsm5.evaluation.downloads import file_name, svg_address


def render(template: str, **context: Any) -> str:
    """Render a template of this package."""
    return _templates().get_template(template).render(context)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["file_name"] = file_name
    environment.filters |= {"svg_file": svg_address}
    environment.filters |= {"figure": figure, "percent": _percent, "duration": duration_text, "time": _time}
    return environment


def figure(value: float | None) -> str:
    """A score for display."""
    return "–" if value is None else f"{value:.3f}" if math.isfinite(value) else "not finite"


def _percent(value: float) -> str:
    """A share as a CSS length, clamped to 0 to 100 %."""
    return f"{100 * min(max(value, 0.0), 1.0):.1f}" if math.isfinite(value) else "0"


def _time(value: str) -> str:
    return value[:16].replace("T", " ")


def words(name: str) -> str:
    """A name from the data or the code as words: DEPRESSED_MOOD, pr_auc."""
    text = name.replace("_", " ")
    return text.capitalize() if text.isupper() else text.replace("pr auc", "PR AUC").replace("f1", "F1")


def value_text(value: Any) -> str:
    """A setting for display."""
    if value is None or value == []:
        return "–"
    if value == "":
        return "none"
    if isinstance(value, list):
        return ", ".join(map(value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """What columns and axes call these dotted keys: a short name or the last part, or the key where two share that."""
    last = {key: key.rpartition(".")[2] for key in keys}
    names = {key: SHORT_NAMES.get(name, name) for key, name in last.items()}
    for known in (last, {key: key for key in keys}):
        taken = list(names.values())
        names = {key: known[key] if taken.count(name) > 1 else name for key, name in names.items()}
    return names
